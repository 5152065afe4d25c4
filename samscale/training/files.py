"""Files that are whole or absent, whatever is killed when, and that say when they are damaged.

Whatever is read back carries a digest of its content: a binary file in a header (``sealed``), a
JSON file as its field "digest" (``write_json``), a line of a JSON Lines file as its last field
"check" (``checked_line``). A file whose digest does not match is refused with ``Damaged``, so what
is read has the shape in which it was written, and nobody need look whether it has.
"""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import tempfile
import uuid
import zlib
from collections.abc import Collection
from typing import Any

from samscale.errors import Damaged

LEFT_SECONDS = 3600.0  # no write takes longer: what a killed one left behind may go
MEND = "move it away, or mend it"
NOT_OURS = "its content does not match its digest, or it is of another version"
HEADER, DIGITS = b"samscale sha256 ", 64  # what a sealed file begins with; then its digest


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
    _remove(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"), before=written - LEFT_SECONDS)
    _sync_folder(path.parent)


def damaged(path, reason, remedy: str = MEND) -> Damaged:
    """The sentence for a damaged file. ``remedy``: what its reader may do."""
    return Damaged(f"{path}: damaged; {remedy} ({reason})")


def read(path, remedy: str = MEND) -> bytes:
    """The content of a file that must be there. Raises ``Damaged`` if it is absent or no file."""
    try:
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise Damaged(f"{path}: missing; put it back, or move its folder away") from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise damaged(path, error.strerror, remedy) from error


def sealed(content: bytes) -> bytes:
    """The content of a binary file, after a header with its digest."""
    return HEADER + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def read_sealed(path, remedy: str = MEND) -> bytes:
    """What was ``sealed`` in the file. Raises ``Damaged``."""
    found, start = read(path, remedy), len(HEADER) + DIGITS + 1
    content = found[start:]
    if sealed(content)[:start] != found[:start]:
        raise damaged(path, NOT_OURS, remedy)
    return content


def write_json(path, content: dict[str, Any]) -> None:
    """Writes an object of JSON for people to read, and for ``read_json`` to check."""
    content = json.loads(json.dumps(content))
    write_atomically(path, json.dumps({**content, "digest": _digest(content)}, indent=2).encode())


def read_json(path, remedy: str = MEND) -> dict[str, Any]:
    """What ``write_json`` wrote. Raises ``Damaged``."""
    text = read(path, remedy)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON: {error}", remedy) from error
    if not isinstance(content, dict) or content.pop("digest", None) != _digest(content):
        raise damaged(path, NOT_OURS, remedy)
    return content


def checked_line(row: dict[str, Any], before: int = 0) -> tuple[bytes, int]:
    """A line of JSON Lines, and its check: the CRC-32 of the rows up to it.

    ``before``: the check of the line before it, if lines that are lost or moved are to be noticed.
    """
    body = json.dumps(row).encode()
    check = zlib.crc32(body, before)
    return body[:-1] + b', "check": %d}\n' % check, check


def verified_line(line: bytes, before: int = 0) -> tuple[bytes, int]:
    """The row of a ``checked_line`` as JSON, and its check. Raises ``ValueError``."""
    body, _, end = line.rstrip(b"\n").rpartition(b', "check": ')
    check = zlib.crc32(body + b"}", before)
    if end != b"%d}" % check:
        raise ValueError("its content does not match its check")
    return body + b"}", check


def sweep(folder, owned: Collection[str] = ()) -> None:
    """Removes what killed writes left behind in a folder of ours.

    Temporaries of the files ``owned``, which no other process may be writing now, go at any age;
    those of other files after an hour by the file system's clock. A folder that cannot be written
    stays as it is.
    """
    folder = pathlib.Path(folder)
    left = list(folder.glob(".*.*.tmp"))
    if not left:
        return
    with contextlib.suppress(OSError):
        _remove([path for path in left if _target(path) in owned])
        with tempfile.TemporaryFile(dir=folder) as file:
            now = os.fstat(file.fileno()).st_mtime
        _remove(left, before=now - LEFT_SECONDS)


def _target(temporary):
    """The name of the file that a temporary was to become."""
    return temporary.name.removeprefix(".").removesuffix(".tmp").rpartition(".")[0]


def _remove(paths, before=float("inf")):
    """Removes files that were last written ``before`` a time of the file system."""
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()


def _digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync_folder(folder):
    """Makes a rename survive a power failure; file systems without it are none the worse."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
