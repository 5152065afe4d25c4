"""The files of a study beside its runs: ``WORKDIR/study-NAME/``.

``study.json`` (what it is made of), ``study.jsonl`` (a line a cell, appended in one write so that
several processes may), and what ``report`` writes.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from typing import Any

from samscale.config import from_mapping
from samscale.study.grid import Axis, Study
from samscale.training import environment
from samscale.training.files import read_json, write_atomically

PREFIX = "study-"


def place(workdir, name: str) -> pathlib.Path:
    return pathlib.Path(workdir) / f"{PREFIX}{name}"


def save(workdir, name: str, study: Study, command: list[str]) -> pathlib.Path:
    """Raises ``OSError`` where the disk does."""
    path = place(workdir, name)
    path.mkdir(parents=True, exist_ok=True)
    content = dataclasses.asdict(study)
    content["axes"] = [axis._asdict() for axis in study.axes]
    content["starts"] = _starts(path / "study.json", command)
    write_atomically(path / "study.json", json.dumps(content, indent=2).encode())
    return path


def _starts(path, command) -> list[dict[str, Any]]:
    """Every command and environment that the study was run with, those that repeat once."""
    before = _remembered(read_json(path)) if path.is_file() else []
    new = {"command": command, "environment": environment.environment()}
    numbers = lambda start: {**start["environment"], "time": "", "command": ""}
    plain = lambda start: (start["command"], numbers(start))
    return before if plain(new) in map(plain, before) else [*before, new]


def _remembered(content) -> list[dict[str, Any]]:
    """Takes the starts out of what was saved; studies once remembered only their last one."""
    last = {key: content.pop(key) for key in ("command", "environment") if key in content}
    return content.pop("starts", [last])


def load(workdir, name: str) -> tuple[Study, list[dict[str, Any]]]:
    """The study as it was saved, and its starts: each a ``command`` and an ``environment``.

    Raises ``ValueError`` where none was, ``OSError`` where it is damaged.
    """
    if not pathlib.Path(workdir).is_dir():
        raise ValueError(f"workdir={str(workdir)!r}: no such folder")
    path = place(workdir, name) / "study.json"
    if not path.is_file():
        choices = ", ".join(names(workdir)) or "none yet"
        raise ValueError(f"study={name!r}: choose one of those in {workdir} ({choices})")
    content = read_json(path)
    starts = _remembered(content)
    content["base"] = from_mapping(content["base"])
    content["axes"] = tuple(
        Axis(**axis)._replace(only=tuple(axis["only"])) for axis in content["axes"]
    )
    content["pictures"] = tuple(content.get("pictures", ()))
    return Study(**content), starts


def names(workdir) -> list[str]:
    """Of the studies in a work folder, the newest first."""
    found = pathlib.Path(workdir).glob(f"{PREFIX}*/study.json")
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name.removeprefix(PREFIX) for path in newest]


def mend(path: pathlib.Path) -> None:
    """Ends a line of ``study.jsonl`` within which a process was killed."""
    file = path / "study.jsonl"
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        with file.open("a") as end:
            end.write("\n")


_SEEN: dict[pathlib.Path, tuple[int, dict[str, str]]] = {}  # file -> bytes read, what they say


def noted(path: pathlib.Path) -> dict[str, str]:
    """run_id -> the status that was written down last, by whichever process; only new lines are
    read again."""
    file = (path / "study.jsonl").resolve()
    if not file.exists():
        return {}
    start, found = _SEEN.get(file, (0, {}))
    with file.open("rb") as lines:
        if lines.seek(0, os.SEEK_END) < start:  # another file of that name
            start, found = 0, {}
        lines.seek(start)
        whole = lines.read().rpartition(b"\n")[0]
    for text in whole.split(b"\n"):
        with contextlib.suppress(ValueError, KeyError):
            row = json.loads(text)
            found[row["run_id"]] = row["status"]
    _SEEN[file] = start + (len(whole) + 1 if whole else 0), found
    return found


def note(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Append a line to ``study.jsonl``."""
    text = json.dumps({"time": round(time.time(), 3), **line}) + "\n"
    handle = os.open(path / "study.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
