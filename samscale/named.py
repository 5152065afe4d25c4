"""Functions of a user's own, by name: tasks, pictures."""

import importlib
import os
import sys
from collections.abc import Callable

BESIDE = "SAMSCALE_BESIDE"  # the folder of the file that was read; workers inherit it


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

    Raises ``ValueError``, which begins with ``law``, where there is none.
    """
    module, _, name = text.partition(":")
    _extend_path()
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # of the user's code: whatever it is
        raise ValueError(f"{law} ({error})") from error
    if not callable(found):
        raise ValueError(f"{law}, not {type(found).__name__}")
    return found
