"""Functions of a user's own, by name: tasks, pictures."""

import importlib
import sys
from collections.abc import Callable


def function(law: str, text: str) -> Callable:
    """The function that ``module:function`` names, as seen from where the command is run.

    Raises ``ValueError``, which begins with ``law``, where there is none.
    """
    module, _, name = text.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
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
