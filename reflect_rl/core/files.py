"""Files that are written whole or not at all, and read with errors that name the way out."""

import contextlib
import gzip
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reflect_rl.core.errors import ReflectRLError

if TYPE_CHECKING:
    import pandas as pd

RUN_MARK = "config.json"  # a folder that holds one is a run folder: its files are made together


@contextlib.contextmanager
def writing(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn a failure to write at `path` (`OSError` or one of `also`) into an error that names the way out."""
    try:
        yield
    except (OSError, *also) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReflectRLError(f"cannot write {path} ({reason}); free space, or set another REFLECT_RL_HOME") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_csv(path: Path, frame: "pd.DataFrame") -> None:
    """CSV, compressed where the name ends in .gz; equal frames give equal bytes."""
    content = frame.to_csv(index=False, lineterminator="\n").encode()
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def way_out(path: Path) -> str:
    """What to delete so that a file is made anew: of a run the folder, or its rest passes for a finished run."""
    for folder in path.parents:
        if (folder / RUN_MARK).is_file() or path == folder / RUN_MARK:
            return f"delete the run folder {folder} and run again to make it anew"
    if path.exists():
        return "delete it and run again to make it anew"
    return f"restore it, or delete {path.parent} and run again to make all of it anew"


def read_csv(path: Path, columns: Iterable[str] = ()) -> "pd.DataFrame":
    """What `write_csv` wrote, with empty cells as missing values.

    Raises ReflectRLError where it cannot be read, or lacks one of the `columns`.
    """
    try:
        import pandas as pd  # here: the processes of an engine, which read no tables, start in half the time

        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], low_memory=False)  # a column has one type
        if lacking := [name for name in columns if name not in frame]:
            raise ValueError(f"no column {lacking[0]!r} in it")
        return frame
    except (OSError, EOFError, ValueError) as error:
        raise ReflectRLError(f"{path} cannot be read ({error}); {way_out(path)}") from error


def read_json(path: Path):
    """What `write_json` wrote; raises ReflectRLError where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReflectRLError(f"{path} cannot be read ({error}); {way_out(path)}") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex; raises ReflectRLError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReflectRLError(f"{path} cannot be read ({error.strerror}); {way_out(path)}") from error
