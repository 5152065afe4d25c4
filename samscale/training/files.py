"""Files that are whole or absent, whatever is killed when."""

import contextlib
import os
import pathlib


def write_atomically(path, content: bytes) -> None:
    """A reader, and a later run, sees the old file or the new one, never half of one.

    Raises ``OSError`` (disk full, read-only) with the old file untouched and nothing left behind.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names none
    _sync_folder(path.parent)


def _sync_folder(folder):
    """Makes a rename survive a power failure; file systems without it are none the worse."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
