"""``metrics.jsonl``: what a run reports, one line each. The record; all else mirrors it.

One writer. A line is written in one piece; a last line that a crash has torn is skipped by readers
and removed when the run goes on. Each line ends with a check of all lines up to it, so that none is
changed, moved or lost unseen; ``done`` holds the check of the last one.
"""

import errno
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from samscale.training import files

NAME, DONE = "metrics.jsonl", "done"
BEGIN_AGAIN = "put it back, or begin again with --config.restore_checkpoint=False"


def read(folder) -> list[dict[str, Any]]:
    """Every whole line under ``folder``, in order; none where nothing was written yet.

    Raises ``Damaged`` for a line that is none, and if a run that is done has lost its last lines.
    """
    return [json.loads(body) for body in _bodies(folder)]


def last(folder) -> dict[str, Any]:
    """The last line of a run that is done, once all are checked. Raises ``Damaged``."""
    return json.loads(_bodies(folder)[-1])


def is_done(folder) -> bool:
    return (pathlib.Path(folder) / DONE).exists()


def finish(folder, step: int, check: int) -> None:
    """The last act of a run: whoever reads folders trusts only those that are done.

    ``check``: of the last line of the record. ``step``: of the last checkpoint.
    """
    files.write_json(pathlib.Path(folder) / DONE, {"step": step, "check": check})


def end(folder) -> dict[str, int]:
    """``step`` and ``check`` of a run that is done. Raises ``Damaged``."""
    remedy = "move it away, and the same command ends the run again"
    return files.read_json(pathlib.Path(folder) / DONE, remedy)


def _bodies(folder):
    """The rows of the record as JSON."""
    path, done, check = pathlib.Path(folder) / NAME, is_done(folder), 0
    if not done and not path.exists():
        return []
    bodies = []
    for _, body, check in _verified(path):  # noqa: B007
        bodies.append(body)
    if done and end(folder)["check"] != check:
        raise files.damaged(path, "its last lines are missing, though the run is done", BEGIN_AGAIN)
    return bodies


def _verified(path) -> Iterator[tuple[bytes, bytes, int]]:
    """Lines, their rows as JSON, and their checks. Raises ``Damaged`` at the first wrong one."""
    *lines, torn = files.read(path, BEGIN_AGAIN).split(b"\n")
    del torn  # what follows the last line end: nothing, or half a line
    check = 0
    for number, line in enumerate(lines, 1):
        try:
            body, check = files.verified_line(line, check)
        except ValueError as error:
            raise files.damaged(path, f"line {number}: {error}", BEGIN_AGAIN) from error
        yield line, body, check


class Record:
    """Appends rows to those that an earlier process wrote, up to the line with ``check``.

    Later lines are removed: the run writes them again. 0: all of them. Raises ``Damaged`` if lines
    up to there are missing.
    """

    def __init__(self, folder, check: int = 0):
        path = pathlib.Path(folder) / NAME
        self.rows: list[dict[str, Any]] = []
        self.check, content = 0, b""
        for line, body, self.check in _verified(path) if check else ():
            self.rows.append(json.loads(body))
            content += line + b"\n"
            if self.check == check:
                break
        if self.check != check:
            reason = "lines are missing that were there when the checkpoint was saved"
            raise files.damaged(path, reason, BEGIN_AGAIN)
        if not path.exists() or files.read(path) != content:
            files.write_atomically(path, content)
        self._file = path.open("ab", buffering=0)

    def write(self, row: dict[str, Any]) -> None:
        """Raises ``OSError`` where the disk does not take it whole; then it is not there at all."""
        (line, check), begin = files.checked_line(row, self.check), self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(begin)
            raise OSError(error.errno, error.strerror, self._file.name) from error
        self.rows.append(row)
        self.check = check

    def sync(self) -> int:
        """Puts all lines on the disk; the check of the last, for a checkpoint to remember."""
        os.fsync(self._file.fileno())
        return self.check

    def close(self) -> None:
        self._file.close()
