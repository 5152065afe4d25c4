"""``run_cells(configs, workdir)``: idempotent, and the same wherever they are executed.

A cell has one owner, by the lease of its run folder. An executor
maps chunks of cells to outcomes; how it reaches its workers is its own business.
"""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from samscale.config import Config
from samscale.errors import Damaged, Diverged
from samscale.study import results
from samscale.training import checkpoint, compiled, folder, lease, progress, run

DONE, FAILED, BUSY = "done", "failed", "busy"
ATTEMPTS = 2  # a cell that the system ended so many processes at, for want of memory, has failed
TRIED = ".tried"  # in a run folder: kills for memory on this machine before each process there


class Outcome(NamedTuple):
    """What became of a cell. ``busy``: another process is at it, so ask again later."""

    run_id: str
    status: str
    reason: str = ""


Executor = Callable[[Iterable[list[Config]], pathlib.Path], Iterator[Outcome]]


def run_cells(configs: Sequence[Config], workdir, replicas: int = 0) -> Iterator[Outcome]:
    """Train cells of one program, or find out what became of them before.

    At most so many ``replicas`` side by side (0: as many as ``Compiled.lanes``), which changes no
    number. Says failures instead of raising them. Raises ``Interrupted`` (a signal), and
    ``OSError`` where the disk refuses: no cell's fault.
    """
    left = []
    for config in configs:
        if outcome := known(config, workdir) or _deadly(config, workdir):
            yield outcome
        else:
            left.append(config)
    left.sort(key=lambda config: -_deaths(config, workdir))
    while left:
        # one that a process died at runs alone: whether it is that one must be clear
        alone = len(left) == 1 or _deaths(left[0], workdir)
        size = 1 if alone else _replicas(left[0], replicas)
        with _tried(left[:size], workdir):
            yield from _run(left[:size], workdir)
        left = left[size:]


def known(config: Config, workdir) -> Outcome | None:
    """What the run folder tells of a cell; None while it is neither done nor failed."""
    found = results.outcome(pathlib.Path(workdir) / config.run_id)
    if found["status"] == results.UNFINISHED:
        return None
    return Outcome(config.run_id, found["status"], found["reason"])


def _deaths(config, workdir) -> int:
    """Processes that died at a cell while the system ended some for want of memory.

    Any other kill tells nothing against the cell.
    """
    path = pathlib.Path(workdir) / config.run_id
    try:
        before = list(map(int, (path / TRIED).read_text().split()))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return 0
    if lease.state(path) == lease.ALIVE:
        return 0
    return sum(later > earlier for earlier, later in itertools.pairwise([*before, kills()]))


def kills() -> int:
    """How many processes this machine has ended for want of memory; 0 where it does not tell."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _deadly(config, workdir):
    """The failure of a cell that processes die at again and again."""
    if _deaths(config, workdir) < ATTEMPTS:
        return None
    path = pathlib.Path(workdir) / config.run_id
    reason = f"out of memory: the system ended {ATTEMPTS} processes at step {checkpoint.step(path)}"
    (path / TRIED).unlink(missing_ok=True)
    folder.fail(path, reason)
    return Outcome(config.run_id, FAILED, reason)


@contextlib.contextmanager
def _tried(configs, workdir):
    """A mark in each folder that only a process which dies inside leaves there."""
    marks = []
    for config in configs:
        path = pathlib.Path(workdir) / config.run_id
        if lease.state(path) != lease.ALIVE:  # else it is another process's
            path.mkdir(parents=True, exist_ok=True)
            marks.append(path / TRIED)
            with marks[-1].open("a") as mark:
                mark.write(f"{kills()}\n")
    try:
        yield
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def _replicas(config, wanted):
    try:
        room = compiled.compiled(config).lanes
    except ValueError:  # whatever is wrong with it is said by its run
        return 1
    return min(wanted or room, room)


def _run(configs, workdir):
    """Outcomes as they come."""
    try:
        found = run.train_together(configs, workdir, progress.Silent())
    except Exception as error:  # a cell's failure, whatever it is, is not the study's
        if isinstance(error, OSError) and not isinstance(error, Damaged):
            raise  # the disk refuses: no cell's fault
        if len(configs) > 1:  # nor its neighbours'
            for config in configs:
                yield from _run([config], workdir)
            return
        found = [error]
    for config, of_it in zip(configs, found, strict=True):
        yield _outcome(config, of_it, workdir)


def _outcome(config, found, workdir):
    if isinstance(found, BlockingIOError):
        return Outcome(config.run_id, BUSY)
    if isinstance(found, Exception):
        words = " ".join(str(found).split())
        ours = isinstance(found, Diverged | Damaged)
        reason = words if ours else f"{type(found).__name__}: {words}"
        folder.fail(pathlib.Path(workdir) / config.run_id, reason[:500])
        return Outcome(config.run_id, FAILED, reason[:500])
    return Outcome(config.run_id, DONE)


def here(replicas: int = 0) -> Executor:
    """One program after another, in this process."""

    def execute(chunks, workdir):
        for chunk in chunks:
            yield from run_cells(chunk, workdir, replicas)

    return execute
