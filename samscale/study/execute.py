"""``run_cell(config, workdir) -> Outcome``: idempotent, and the same wherever it is executed.

A cell has one owner: the run folder's lock, which the system takes from a dead process. An executor
maps chunks of cells to outcomes; how it reaches its workers is its own business.
"""

import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from samscale.config import Config
from samscale.errors import Diverged, Interrupted
from samscale.training import folder, progress, run

DONE, FAILED, BUSY = "done", "failed", "busy"


class Outcome(NamedTuple):
    """What became of a cell. ``busy``: another process is at it, so ask again later."""

    run_id: str
    status: str
    reason: str = ""
    seconds: float = 0.0


Executor = Callable[[Iterable[list[Config]], pathlib.Path], Iterator[Outcome]]


def run_cell(config: Config, workdir) -> Outcome:
    """Train a cell, or find out what became of it before. Says failures instead of raising them.

    Raises ``Interrupted`` (a signal), and ``OSError`` where the disk refuses: no cell's fault.
    """
    path = pathlib.Path(workdir) / config.run_id
    if folder.is_done(path):
        return Outcome(config.run_id, DONE)
    if reason := folder.failure(path):
        return Outcome(config.run_id, FAILED, reason)
    try:
        row = run.train(config, workdir, progress.Silent())
    except BlockingIOError:
        return Outcome(config.run_id, BUSY)
    except (Interrupted, OSError):
        raise
    except Exception as error:  # a cell's failure, whatever it is, is not the study's
        words = " ".join(str(error).split())
        reason = words if isinstance(error, Diverged) else f"{type(error).__name__}: {words}"
        reason = reason[:500]
        folder.fail(path, reason)
        return Outcome(config.run_id, FAILED, reason)
    return Outcome(config.run_id, DONE, seconds=row["seconds"])


def here(chunks, workdir) -> Iterator[Outcome]:
    """One cell after another, in this process."""
    for chunk in chunks:
        for config in chunk:
            yield run_cell(config, workdir)
