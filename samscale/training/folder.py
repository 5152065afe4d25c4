"""A run folder: ``config.json``, ``environment.json``, the record, a checkpoint, and ``done``.

Its name is a function of the config (``Config.run_id``), so two different runs never share one.
Nothing here deletes anything.
"""

import contextlib
import dataclasses
import datetime
import functools
import json
import pathlib
import platform
import subprocess
import sys
from importlib import metadata

from samscale.config import Config
from samscale.training import lease
from samscale.training.files import read_json, write_atomically

DONE, FAILED = "done", "failed.json"


@contextlib.contextmanager
def opened(config: Config, workdir):
    """The folder of a run, made where needed, and the lease that keeps other processes out.

    A finished run is only looked at, perhaps on a disk that cannot be written: without a lease.
    Raises ``OSError`` where the disk refuses, ``BlockingIOError`` where another process is at it.
    """
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
            _write_json(folder / "environment.json", environment())
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


def environment() -> dict:
    """What a number may depend on besides the config."""
    import jax  # here: whoever only reads folders does without

    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "versions": versions(),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Of this package and of the libraries that make its numbers."""
    return {name: metadata.version(name) for name in _PACKAGES}


_PACKAGES = ["samscale", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "pandas", "altair"]


@functools.cache  # a study asks for every run
def _commit():
    """Of the source tree this package is run from; None where it is not one."""
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    return None


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
