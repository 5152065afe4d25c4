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
from samscale.file_names import distinct
from samscale.named import meant
from samscale.study.axes import Axis
from samscale.study.grid import Study, cells
from samscale.training import environment, files

PREFIX = "study-"


def place(workdir, name: str) -> pathlib.Path:
    """Where a study of a name lies; a name leads to no other folder than one of ``workdir``."""
    return pathlib.Path(workdir) / f"{PREFIX}{distinct(name)}"


def save(workdir, name: str, study: Study, command: list[str], file: str = "") -> pathlib.Path:
    """``file``: that the study is written in. Raises ``OSError`` where the disk does."""
    path = place(workdir, name)
    path.mkdir(parents=True, exist_ok=True)
    files.sweep(path)
    content = dataclasses.asdict(study)
    content["axes"] = [axis._asdict() for axis in study.axes]
    content["file"] = file and str(pathlib.Path(file).resolve())
    content["starts"] = _starts(path / "study.json", command)
    files.write_json(path / "study.json", content)
    return path


def check_same(workdir, name: str, study: Study, file: str) -> None:
    """Raises ``ValueError`` where another study has that name in that folder.

    Two studies are one if they stand in one file, whatever was edited there; or if nothing of the
    first gets lost, for the second has all of its cells: then the file was moved, say.
    """
    path = place(workdir, name) / "study.json"
    before = files.read_json(path).get("file") if path.exists() else ""
    if not before or before == str(pathlib.Path(file).resolve()):
        return
    there, _ = load(workdir, name)
    if _run_ids(there) <= _run_ids(study):
        return
    raise ValueError(
        f"study={file!r}: asks {study.question!r}, but study {name!r} in {workdir} is that of "
        f"{before}, which asks {there.question!r}: take another --workdir, or rename this file"
    )


def _run_ids(study):
    return {cell.config.run_id for cell in cells(study)}


def _starts(path, command) -> list[dict[str, Any]]:
    """Every command and environment that the study was run with, those that repeat once."""
    before = files.read_json(path)["starts"] if path.exists() else []
    new = {"command": command, "environment": environment.environment()}
    numbers = lambda start: {**start["environment"], "time": "", "command": ""}
    plain = lambda start: (start["command"], numbers(start))
    return before if plain(new) in map(plain, before) else [*before, new]


def load(workdir, name: str) -> tuple[Study, list[dict[str, Any]]]:
    """The study as it was saved, and its starts: each a ``command`` and an ``environment``.

    Raises ``ValueError`` where none was, ``Damaged``.
    """
    if not pathlib.Path(workdir).is_dir():
        raise ValueError(f"workdir={str(workdir)!r}: no such folder")
    path = place(workdir, name) / "study.json"
    if distinct(name) not in (known := names(workdir)):
        choices = ", ".join(known) or "none yet"
        raise ValueError(
            f"study={name!r}: choose one of those in {workdir} ({choices}){meant(name, known)}"
        )
    content = files.read_json(path)
    try:
        starts = content.pop("starts")
        return _study(content), starts
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise files.damaged(path, f"of another version: {error}") from error


def _study(content) -> Study:
    fields = {name: value for name, value in content.items() if name != "file"}
    base = from_mapping(fields["base"])
    axes = tuple(Axis(**axis)._replace(only=tuple(axis["only"])) for axis in fields["axes"])
    pictures = tuple(fields.get("pictures", ()))
    return Study(**{**fields, "base": base, "axes": axes, "pictures": pictures})


def names(workdir) -> list[str]:
    """Of the studies in a work folder, the newest first, even if their ``study.json`` was lost."""
    newest: dict[str, float] = {}
    for file in ("study.jsonl", "study.json"):
        for path in pathlib.Path(workdir).glob(f"{PREFIX}*/{file}"):
            newest[path.parent.name.removeprefix(PREFIX)] = path.stat().st_mtime
    return sorted(newest, key=newest.__getitem__, reverse=True)


def mend(path: pathlib.Path) -> None:
    """Ends a line of ``study.jsonl`` within which a process was killed."""
    file = path / "study.jsonl"
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        with file.open("a") as end:
            end.write("\n")


_SEEN: dict[pathlib.Path, tuple[int, dict[str, str]]] = {}  # file -> bytes read, what they say


def noted(path: pathlib.Path) -> dict[str, str]:
    """run_id -> the status that was written down last, by whichever process; only new lines are
    read again. A damaged line says nothing, so its cell is noted again."""
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
            row = json.loads(files.verified_line(text)[0])
            found[row["run_id"]] = row["status"]
    _SEEN[file] = start + (len(whole) + 1 if whole else 0), found
    return found


def note(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Append a line to ``study.jsonl``."""
    text, _ = files.checked_line({"time": round(time.time(), 3), **line})
    handle = os.open(path / "study.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, text)
    finally:
        os.close(handle)
