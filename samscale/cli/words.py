"""Exit codes, and one sentence for whatever may go wrong.

0 done, 1 failed (diverged, disk, a cell of a study), 2 wrong input, 130 / 143 stopped by a signal.
"""

import argparse
import functools
import math
import os
import pathlib
import re
import sys

from samscale import named
from samscale.config import Config
from samscale.errors import Diverged, Hopeless, Interrupted
from samscale.laws import COUNT, KINDS, MOST, Law, misfit, said
from samscale.training.progress import wrapped

FINITE = Law(lambda value: 0 < value < math.inf, "finite and greater than 0")  # single precision
EXAMPLES = Law(lambda value: 0 <= value <= MOST, f"at least 0 (all) and at most {MOST}")


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


def reading(command):
    """A decorator: a command that looks at results, which may be somebody else's.

    It imports nothing that they name, nor from the current folder, unless ``--trust`` is said.
    """

    @functools.wraps(command)
    def careful(argv):
        with named.only_ours("--trust" not in argv):
            return command(argv)

    careful.reads = True
    return careful


def parser_of(command) -> argparse.ArgumentParser:
    """With the command's own sentence, and ``--trust`` where it is one of ``reading``."""
    parser = Parser(prog=f"samscale {command.__name__}", description=command.__doc__)
    if hasattr(command, "reads"):
        words = "run code that the results name: tasks, pictures"
        parser.add_argument("--trust", action="store_true", help=words)
    return parser


class Parser(argparse.ArgumentParser):
    """Names the closest option where one is not known, and says where a config's options go."""

    def error(self, message):
        unknown = re.search(r"unrecognized arguments: (--?[\w.-]+)", message)
        if unknown:
            option = unknown[1]
            message += named.meant(option, self._option_string_actions)
            if option.lstrip("-").replace("-", "_") in Config.__dataclass_fields__:
                message += "; options of a run stand in the config or study file"
        super().error(message)


def expanded(text: str) -> str:
    """A path as an option gives it: a shell does not replace the ``~`` of ``--out=~/x``."""
    return os.path.expanduser(text)


class Number(argparse.Action):
    """An option that holds one number, checked as soon as it is read.

    Raises ``ValueError``, which ``argparse`` lets pass: in our words, so that every command says
    the option, its value and what is legal in one sentence.
    """

    def __init__(self, option_strings, dest, kind=int, law=COUNT, **how):
        super().__init__(option_strings, dest, metavar=how.pop("metavar", "N"), **how)
        self.kind, self.law = kind, law

    def __call__(self, parser, namespace, text, option_string=None):
        try:
            value = self.kind(text)
        except ValueError:
            raise ValueError(f"{self.dest}={said(text)}: must be {KINDS[self.kind]}") from None
        words = "" if self.law.holds(value) else self.law.words
        if words := words or misfit(value, self.kind):
            raise ValueError(f"{self.dest}={said(value)}: must be {words}")
        setattr(namespace, self.dest, value)


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
    print(wrapped(f"error: {error}", sys.stderr), file=sys.stderr)
    return code
