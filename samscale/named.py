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
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        raise ValueError(f"{law} ({error})") from error
    if not callable(found):
        raise ValueError(f"{law}, not {type(found).__name__}")
    return found
