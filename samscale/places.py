"""Folders of the user that this package writes to, where there are any."""

import os
import pathlib


def home(path) -> pathlib.Path | None:
    """``path`` with ``~`` replaced; None where it asks for a home folder and there is none, as for
    a user id in a container that no file of users lists."""
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        return None


def cache() -> pathlib.Path | None:
    """The cache folder of this package, which need not exist; None where there is no home folder
    and ``XDG_CACHE_HOME`` names no other place."""
    root = home(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return root and root / "samscale"
