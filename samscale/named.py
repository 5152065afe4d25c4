"""Functions of a user's own, by name: tasks, pictures."""

import importlib
import os
import sys
from collections.abc import Callable


def look_beside(file: str) -> None:
    """Modules beside a file of the user's, and in the current folder, can be imported from now on,
    here and in processes that this one starts.

    As for a script that Python runs, those beside it come first. The names are added once, however
    often a file is read.
    """
    beside = os.path.dirname(os.path.abspath(file))
    for place in ("", beside):
        if place in sys.path:
            sys.path.remove(place)
        sys.path.insert(0, place)
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if beside not in inherited:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [beside, *inherited]))


def function(law: str, text: str) -> Callable:
    """The function that ``module:function`` names, as seen from where the command is run.

    Raises ``ValueError``, which begins with ``law``, where there is none.
    """
    module, _, name = text.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # of the user's code: whatever it is
        raise ValueError(f"{law} ({error})") from error
    if not callable(found):
        raise ValueError(f"{law}, not {type(found).__name__}")
    return found
