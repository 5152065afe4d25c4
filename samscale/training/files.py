"""Files that are whole or absent, whatever is killed when."""

import contextlib
import glob
import json
import os
import pathlib
import uuid
from typing import Any

LEFT_SECONDS = 3600.0  # no write takes longer: what a killed one left behind may go


def write_atomically(path, content: bytes) -> None:
    """A reader, and a later run, sees the old file or the new one, never half of one.

    Processes that write the same file at once do not meet: the last one wins. Raises ``OSError``
    (disk full, read-only) with the old file untouched and nothing left behind.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        written = temporary.stat().st_mtime
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names none
    _sweep(path, before=written - LEFT_SECONDS)
    _sync_folder(path.parent)


def read_json(path) -> Any:
    """Raises ``OSError``, which names the file, where it is absent or damaged."""
    try:
        return json.loads(pathlib.Path(path).read_bytes())
    except ValueError as error:
        raise OSError(f"{path}: damaged; move it away, or mend it ({error})") from error


def _sweep(path, before):
    """Removes what killed processes left of the file; times are the file system's own."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < before:
                left.unlink()


def _sync_folder(folder):
    """Makes a rename survive a power failure; file systems without it are none the worse."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
