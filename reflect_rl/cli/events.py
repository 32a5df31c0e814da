"""Snakemake with its events as lines of JSON: `python -m reflect_rl.cli.events ARGUMENTS-OF-SNAKEMAKE`.

They go to the file descriptor that `$REFLECT_RL_EVENTS` names; what Snakemake prints for people stays as it is.
"""

import json
import os
import sys
from contextlib import suppress
from logging import LogRecord

from snakemake import cli
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

DESCRIPTOR = "REFLECT_RL_EVENTS"


class LogHandler(LogHandlerBase):
    """A logger plugin for Snakemake: jobs that are planned or start, end, or fail."""

    writes_to_stream = False
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            message = {"name": record.rule_msg or record.rule_name, "rule": record.rule_name, "log": list(record.log)}
            message |= {"job": record.jobid, "wildcards": dict(record.wildcards)}
        elif event == LogEvent.JOB_FINISHED:
            message = {"job": record.job_id}
        elif event == LogEvent.JOB_ERROR:
            message = {"job": record.jobid}
        else:
            return
        line = json.dumps({"event": str(event), "time": record.created} | message) + "\n"
        with suppress(BrokenPipeError):  # who listened was killed
            os.write(int(os.environ[DESCRIPTOR]), line.encode())


if __name__ == "__main__":
    LoggerPluginRegistry().register_plugin("snakemake_logger_plugin_reflect_rl", sys.modules[__name__])
    cli.main([*sys.argv[1:], "--logger", "reflect-rl"])
