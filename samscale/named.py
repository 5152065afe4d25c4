"""Functions by name: tasks and pictures of a user's own, whose code may be imported, and what help
says of ours."""

import contextlib
import difflib
import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterable

HERE = pathlib.Path(__file__).resolve().parent
BESIDE = "SAMSCALE_BESIDE"  # the folder of the file that was read; workers inherit it
_only_ours = False


class Untrusted(ValueError):
    """Results name code from outside of this package, and are only looked at."""


@contextlib.contextmanager
def only_ours(yes: bool = True):
    """Within, nothing is imported from outside of this package by ``function``, nor from the
    current folder by anybody: to look at results is not to run what their maker wrote."""
    global _only_ours
    before, path = _only_ours, list(sys.path)
    _only_ours = yes
    if yes and pathlib.Path.cwd() != HERE.parent:
        sys.path[:] = [p for p in path if p not in ("", os.curdir, os.getcwd())]
    try:
        yield
    finally:
        _only_ours, sys.path[:] = before, path


def is_refused(text: str) -> bool:
    """Whether ``function`` would not import what is named so."""
    return _only_ours and text.split(":")[0].split(".")[0] != HERE.name


def look_beside(file: str) -> None:
    """Modules beside a file of the user's, and in the current folder, can be imported from now on:
    here, as for a script that Python runs, and for ``function`` in processes that execute cells.
    """
    os.environ[BESIDE] = os.path.dirname(os.path.abspath(file))
    _extend_path()


def _extend_path():
    for place in ("", os.environ.get(BESIDE) or ""):
        if place not in sys.path:
            sys.path.insert(0, place)


def function(law: str, text: str) -> Callable:
    """The function that ``module:function`` names, as seen from where the command is run.

    Raises ``ValueError``, which begins with ``law``, where there is none; ``Untrusted`` within
    ``only_ours`` for what is not of this package.
    """
    module, _, name = text.partition(":")
    if is_refused(text):
        field = law.partition("=")[0]
        raise Untrusted(
            f"{field}={text!r}: code outside of samscale, which is not run when results are only "
            "looked at; say --trust to run it"
        )
    if not _only_ours:
        _extend_path()
    try:
        found = getattr(importlib.import_module(module), name)
    except OSError:  # a file that the module reads: a sentence of its own
        raise
    except (Exception, SystemExit) as error:  # of the user's module, whatever it raises
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{law} ({said})") from error
    if not callable(found):
        raise ValueError(f"{law}, not {type(found).__name__}")
    return found


def meant(word: str, names: Iterable[str]) -> str:
    """ "; did you mean NAME?" of the closest of ``names``, to end a sentence with; else nothing."""
    close = difflib.get_close_matches(word, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def says(sentence: str) -> Callable:
    """A decorator: the docstring of what users are told of, which ``python -OO`` would drop."""

    def describe(thing):
        thing.__doc__ = sentence
        return thing

    return describe
