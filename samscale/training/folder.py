"""A run folder: ``config.json``, ``environment.json``, the record, a checkpoint, and ``done``.

Its name is a function of the config (``Config.run_id``), so two different runs never share one.
``done`` is written last and says where the run ended, so that a record or checkpoint of an earlier
moment is not taken for the last. Nothing here deletes anything but what killed writes left behind.
"""

import contextlib
import dataclasses
import pathlib
import re

from samscale.config import Config, from_mapping
from samscale.training import environment, files, lease, record
from samscale.training.record import DONE, is_done

CONFIG, ENVIRONMENT, FAILED = "config.json", "environment.json", "failed.json"
CHECKPOINT, SNAPSHOTS = "checkpoint.msgpack", "snapshots"
OWNED = (CONFIG, ENVIRONMENT, DONE, record.NAME, CHECKPOINT)  # by whoever has the lease


@contextlib.contextmanager
def opened(config: Config, workdir, say=lambda sentence: None):
    """The folder of a run, made where needed, and the lease that keeps other processes out.

    ``say`` is given a sentence where the run goes on in another environment.

    A finished run is only looked at, perhaps on a disk that cannot be written: without a lease.
    What killed processes left of their writes is removed.
    Raises ``OSError`` where the disk refuses, ``BlockingIOError`` where another process is at it,
    ``ValueError`` where ``check_environment`` does, before anything is written.
    """
    if sentence := check_environment(config, workdir):
        say(sentence)
    folder = pathlib.Path(workdir) / config.run_id
    if config.restore_checkpoint and is_done(folder):
        sweep(folder)
        yield folder, None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with lease.held(folder) as ours:
        sweep(folder, OWNED)
        if not config.restore_checkpoint:
            _move_aside(folder)
        if not is_done(folder):
            files.write_json(folder / CONFIG, dataclasses.asdict(config))
            _write_environment(folder)
        yield folder, ours


def sweep(folder, owned=()) -> None:
    """Removes what killed writes left behind, as ``files.sweep`` does, of snapshots too."""
    for place in (pathlib.Path(folder), pathlib.Path(folder) / SNAPSHOTS):
        files.sweep(place, owned)


def is_run(folder) -> bool:
    """Whether a run has begun there, even if some of its files were lost since."""
    try:
        return any((pathlib.Path(folder) / n).exists() for n in (CONFIG, record.NAME, CHECKPOINT))
    except PermissionError:
        return True  # whoever reads it says that it may not be read


def config(folder) -> Config:
    """The config of a run. Raises ``Damaged`` if it is not the one that the folder was made for.

    The folder's name holds a hash of the config. A folder that was given a name of its own is
    taken at its word, and ``earlier-N`` inside of a run folder is a run of the same config.
    """
    file, path = pathlib.Path(folder) / CONFIG, pathlib.Path(folder).resolve()
    content = files.read_json(file, record.BEGIN_AGAIN)
    try:
        found = from_mapping(content)
        own = found.run_id
    except (ValueError, TypeError, AttributeError) as error:
        raise files.damaged(file, f"of another version: {error}", record.BEGIN_AGAIN) from error
    name = path.parent.name if re.fullmatch(r"earlier-\d+", path.name) else path.name
    hashes = [words.rpartition("-")[2] for words in (own, name)]
    if hashes[0] != hashes[1] and re.fullmatch(f"[0-9a-f]{{{len(hashes[0])}}}", hashes[1]):
        raise files.damaged(
            file, f"it is the config of {own}, not of this folder", record.BEGIN_AGAIN
        )
    return found


def fail(folder, reason: str) -> None:
    """Remember why a run cannot be finished, so that a study does not try it again and again."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FAILED, {"reason": reason})


def failure(folder) -> str | None:
    """The reason that ``fail`` left; None where there is none, or the run was finished since."""
    path = pathlib.Path(folder) / FAILED
    if not path.exists() or is_done(folder):
        return None
    return files.read_json(path, "move it away, and the run is tried again")["reason"]


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
    begun = config.restore_checkpoint and (folder / CHECKPOINT).exists()
    if not begun or is_done(folder) or not (folder / ENVIRONMENT).exists():
        return ""
    before = files.read_json(folder / ENVIRONMENT)
    return environment.check(folder, before, now or environment.environment())


def was_bound_otherwise(config: Config, workdir, now) -> bool:
    """Whether a run was finished with other random bits or precision than ``now`` would give."""
    folder = pathlib.Path(workdir) / config.run_id
    path = folder / ENVIRONMENT
    if not is_done(folder) or not path.exists():
        return False
    return environment.binding(files.read_json(path), now) is not None


def _write_environment(folder):
    path, before = folder / ENVIRONMENT, None
    if path.exists() and (folder / CHECKPOINT).exists():  # else nothing was trained in it
        before = files.read_json(path)
    files.write_json(path, environment.merged(before, environment.environment()))


def _move_aside(folder):
    """Puts what an earlier run left into ``earlier-N`` inside the folder."""
    content = [path for path in folder.iterdir() if not path.name.startswith((".", "earlier-"))]
    if content:
        aside = folder / f"earlier-{1 + sum(1 for _ in folder.glob('earlier-*'))}"
        aside.mkdir()
        for path in sorted(content, key=lambda path: path.name != DONE):  # first it is not done
            path.rename(aside / path.name)
