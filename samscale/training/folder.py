"""A run folder: ``config.json``, ``environment.json``, the record, a checkpoint, and ``done``.

Its name is a function of the config (``Config.run_id``), so two different runs never share one.
Nothing here deletes anything.
"""

import contextlib
import dataclasses
import json
import pathlib

from samscale.config import Config
from samscale.training import checkpoint, environment, lease
from samscale.training.files import read_json, write_atomically

DONE, FAILED = "done", "failed.json"


@contextlib.contextmanager
def opened(config: Config, workdir, say=lambda sentence: None):
    """The folder of a run, made where needed, and the lease that keeps other processes out.

    ``say`` is given a sentence where the run goes on in another environment.

    A finished run is only looked at, perhaps on a disk that cannot be written: without a lease.
    Raises ``OSError`` where the disk refuses, ``BlockingIOError`` where another process is at it,
    ``ValueError`` where ``check_environment`` does, before anything is written.
    """
    if sentence := check_environment(config, workdir):
        say(sentence)
    folder = pathlib.Path(workdir) / config.run_id
    if config.restore_checkpoint and is_done(folder):
        yield folder, None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with lease.held(folder) as ours:
        if not config.restore_checkpoint:
            _move_aside(folder)
        if not is_done(folder):
            _write_json(folder / "config.json", dataclasses.asdict(config))
            _write_environment(folder)
        yield folder, ours


def is_done(folder) -> bool:
    return (pathlib.Path(folder) / DONE).exists()


def finish(folder) -> None:
    """The last act of a run: whoever reads folders trusts only those with this file."""
    write_atomically(pathlib.Path(folder) / DONE, b"")


def fail(folder, reason: str) -> None:
    """Remember why a run cannot be finished, so that a study does not try it again and again."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / FAILED, {"reason": reason})


def failure(folder) -> str | None:
    """The reason that ``fail`` left; None where there is none, or the run was finished since."""
    path = pathlib.Path(folder) / FAILED
    if not path.exists() or is_done(folder):
        return None
    return read_json(path)["reason"]


def forgive(folder) -> None:
    """Let a failed run be tried again; the reason stays beside it."""
    path = pathlib.Path(folder) / FAILED
    if path.exists():
        path.rename(path.with_name(f"earlier-{FAILED}"))


def check_environment(config: Config, workdir, now=None) -> str:
    """A sentence where a run would go on in another environment than it was begun in; often empty.

    Raises ``ValueError`` where that changes random bits or precision (``environment.check``).
    """
    folder = pathlib.Path(workdir) / config.run_id
    begun = config.restore_checkpoint and (folder / checkpoint.NAME).exists()
    if not begun or is_done(folder) or not (folder / environment.NAME).exists():
        return ""
    before = read_json(folder / environment.NAME)
    return environment.check(folder, before, now or environment.environment())


def was_bound_otherwise(config: Config, workdir, now) -> bool:
    """Whether a run was finished with other random bits or precision than ``now`` would give."""
    folder = pathlib.Path(workdir) / config.run_id
    path = folder / environment.NAME
    if not is_done(folder) or not path.exists():
        return False
    return environment.binding(read_json(path), now) is not None


def _write_environment(folder):
    path, before = folder / environment.NAME, None
    if path.exists() and (folder / checkpoint.NAME).exists():  # else nothing was trained in it
        before = read_json(path)
    _write_json(path, environment.merged(before, environment.environment()))


def _move_aside(folder):
    """Puts what an earlier run left into ``earlier-N`` inside the folder."""
    content = [path for path in folder.iterdir() if not path.name.startswith((".", "earlier-"))]
    if content:
        aside = folder / f"earlier-{1 + sum(1 for _ in folder.glob('earlier-*'))}"
        aside.mkdir()
        for path in sorted(content, key=lambda path: path.name != DONE):  # first it is not done
            path.rename(aside / path.name)


def _write_json(path, content):
    write_atomically(path, json.dumps(content, indent=2).encode())
