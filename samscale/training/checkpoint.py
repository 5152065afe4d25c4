"""One file a run, ``checkpoint.msgpack``: its state after some step, replaced atomically.

No random state of ours is stored, for none exists (see ``keys``). Runs of one process only; a
sharded run would need another format behind the same two functions.
"""

import pathlib
from typing import Any

from samscale.training import leaves
from samscale.training.files import write_atomically

NAME = "checkpoint.msgpack"
STATE, STEP = "['state']", "['state'].step"  # paths of leaves, as ``leaves`` writes them


def save(folder, tree: Any) -> None:
    """Raises ``OSError`` where the disk does, leaving the last checkpoint as it was."""
    write_atomically(pathlib.Path(folder) / NAME, leaves.to_bytes(tree))


def restore(folder, like: Any) -> Any:
    """The saved tree, shaped ``like`` the given one; ``like`` itself where nothing was saved yet.

    Raises ``OSError`` where the file does not hold such a tree.
    """
    path = pathlib.Path(folder) / NAME
    if not path.exists():
        return like
    try:
        return leaves.fill(leaves.read(path.read_bytes()), like)
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(
            f"{path}: damaged, or of another version; move it away to begin the run again ({error})"
        ) from error


def restore_state(folder, like: Any) -> Any:
    """Only the saved ``state``, shaped ``like`` the given one, whose leaves may be abstract."""
    path = pathlib.Path(folder) / NAME
    try:
        saved = leaves.read(path.read_bytes())
        ours = {name: leaf for name, leaf in saved.items() if name.startswith(STATE)}
        return leaves.fill(ours, {"state": like})["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{path}: damaged, or of another version ({error})") from error


def step(folder) -> int:
    """The step that the saved state stands at; 0 where nothing, or nothing whole, was saved."""
    path = pathlib.Path(folder) / NAME
    if not path.exists():
        return 0
    try:
        return int(leaves.read(path.read_bytes())[STEP])
    except (ValueError, KeyError, TypeError):
        return 0  # ``restore`` says what is wrong
