"""Exit codes, and one sentence for whatever may go wrong.

0 done, 1 failed (diverged, disk, a cell of a study), 2 wrong input, 130 / 143 stopped by a signal.
"""

import contextlib
import os
import pathlib
import sys

from samscale.errors import Diverged, Hopeless, Interrupted
from samscale.laws import SEED


def guarded(action) -> int:
    """The exit code of an action, 0 where it gives none; what may happen to it, in a sentence."""
    try:
        return action() or 0
    except (Diverged, Hopeless) as error:
        return fail(error, 1)
    except Interrupted as error:
        return fail(error, 128 + error.signum)
    except OSError as error:
        return fail(words(error), 1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).partition("\n")[0]
        return fail(f"not enough memory: take a smaller network, batch or sample ({first})", 1)
    except KeyboardInterrupt:
        return fail("stopped before there was anything to save", 130)


@contextlib.contextmanager
def piped():
    """Whoever reads what is printed may have seen enough before the end: no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check_seed(seed: int) -> None:
    """Raises ``ValueError`` for what is no seed of a run either."""
    if not SEED.holds(seed):
        raise ValueError(f"seed={seed}: must be {SEED.words}")


def check_workdir(workdir: str) -> None:
    """Raises ``ValueError`` where runs cannot go; nothing is made."""
    path = pathlib.Path(workdir)
    if not workdir or (path.exists() and not path.is_dir()):
        raise ValueError(f"workdir={workdir!r}: must be a folder, as in --workdir=runs")


def check_there(workdir: str) -> None:
    """Raises ``ValueError`` where there is nothing to look at."""
    path = pathlib.Path(workdir)
    if not path.is_dir():
        what = "a file" if path.exists() else "not there"
        raise ValueError(f"workdir={workdir!r}: must be a folder with runs; it is {what}")


def words(error: OSError):
    return f"{error.filename}: {error.strerror}" if error.filename else (error.strerror or error)


def fail(error, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
