"""Snakemake that tells of its jobs in lines of JSON: `python -m reflect_rl.cli.events ARGUMENTS-OF-SNAKEMAKE`.

The lines go to standard output; all that Snakemake and its jobs print goes to standard error.
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


class LogHandler(LogHandlerBase):
    """A logger plugin for Snakemake: jobs that are planned or start, end, or fail."""

    writes_to_stream = writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True
    output: int  # a file descriptor

    def emit(self, record: LogRecord) -> None:
        match getattr(record, "event", None):
            case LogEvent.JOB_INFO if record.log:  # a job without a log only gathers others
                job = [record.rule_name, record.rule_msg or record.rule_name, record.log[0]]
                message = {"id": record.jobid, "job": job}
            case LogEvent.JOB_FINISHED:
                message = {"id": record.job_id}
            case LogEvent.JOB_ERROR:
                message = {"id": record.jobid}
            case _:
                return
        with suppress(BrokenPipeError):  # who listened was killed
            os.write(self.output, (json.dumps({"event": record.event} | message) + "\n").encode())


if __name__ == "__main__":
    LogHandler.output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    LoggerPluginRegistry().register_plugin("snakemake_logger_plugin_reflect_rl", sys.modules[__name__])
    cli.main([*sys.argv[1:], "--logger", "reflect-rl"])
