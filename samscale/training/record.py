"""``metrics.jsonl``: what a run reports, one line each. The record; all else mirrors it.

One writer. A line is written in one piece; a last line that a crash has torn is skipped by readers
and removed when the run goes on.
"""

import errno
import json
import os
import pathlib
from typing import Any

from samscale.training.files import write_atomically

NAME = "metrics.jsonl"


def read(folder) -> list[dict[str, Any]]:
    """Every whole line under ``folder``, in order; none where nothing was written yet.

    Raises ``OSError`` for a line that is none.
    """
    path = pathlib.Path(folder) / NAME
    if not path.exists():
        return []
    *lines, torn = path.read_bytes().split(b"\n")
    del torn  # what follows the last line end: nothing, or half a line
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise OSError(
                f"{path}: line {number} is damaged; mend it, or begin again with "
                "--config.restore_checkpoint=False"
            ) from error
    return rows


def last(folder) -> dict[str, Any]:
    """The last line of a run that is done. Raises ``OSError`` where there is none."""
    if not (rows := read(folder)):
        raise OSError(f"{pathlib.Path(folder) / NAME}: absent or empty, though the run is done")
    return rows[-1]


class Record:
    """Appends rows, beginning with those of an earlier process up to ``step``."""

    def __init__(self, folder, step: int):
        path = pathlib.Path(folder) / NAME
        rows = [row for row in read(folder) if row["step"] <= step]
        content = "".join(_line(row) for row in rows).encode()
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
        self.rows = rows
        self._file = path.open("ab", buffering=0)

    def write(self, row: dict[str, Any]) -> None:
        """Raises ``OSError`` where the disk does not take it whole; then it is not there at all."""
        line, begin = _line(row).encode(), self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(begin)
            raise OSError(error.errno, error.strerror, self._file.name) from error
        self.rows.append(row)

    def close(self) -> None:
        self._file.close()


def _line(row) -> str:
    return json.dumps(row) + "\n"
