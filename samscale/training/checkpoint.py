"""One file a run, ``checkpoint.msgpack``: its state after some step, replaced atomically.

No random state of ours is stored, for none exists (see ``keys``). Runs of one process only; a
sharded run would need another format behind the same two functions.
"""

import pathlib
from typing import Any

from samscale.errors import Damaged
from samscale.training import files, leaves
from samscale.training import folder as run_folder

NAME = run_folder.CHECKPOINT
REMEDY = "move it away to begin the run again"
STATE, STEP = "['state']", "['state'].step"  # paths of leaves, as ``leaves`` writes them


def save(folder, tree: Any) -> None:
    """Raises ``OSError`` where the disk does, leaving the last checkpoint as it was."""
    files.write_atomically(pathlib.Path(folder) / NAME, files.sealed(leaves.to_bytes(tree)))


def restore(folder, like: Any) -> Any:
    """The saved tree, shaped ``like`` the given one; ``like`` itself where nothing was saved yet.

    Raises ``Damaged`` where the file is not such a tree.
    """
    path = pathlib.Path(folder) / NAME
    if not path.exists():
        return like
    try:
        return leaves.fill(leaves.read(files.read_sealed(path, REMEDY)), like)
    except (ValueError, KeyError, TypeError) as error:
        raise files.damaged(path, f"of another version: {error}", REMEDY) from error


def restore_state(folder, like: Any) -> Any:
    """Only the saved ``state``, shaped ``like`` the given one, whose leaves may be abstract.

    Raises ``Damaged`` where the file holds none.
    """
    path = pathlib.Path(folder) / NAME
    try:
        saved = leaves.read(files.read_sealed(path, REMEDY))
        ours = {name: leaf for name, leaf in saved.items() if name.startswith(STATE)}
        return leaves.fill(ours, {"state": like})["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise files.damaged(path, f"of another version: {error}", REMEDY) from error


def step(folder) -> int:
    """The step that the saved state stands at; 0 where nothing, or nothing whole, was saved."""
    path = pathlib.Path(folder) / NAME
    if not path.exists():
        return 0
    try:
        return int(leaves.read(files.read_sealed(path))[STEP])
    except (Damaged, ValueError, KeyError, TypeError):
        return 0  # ``restore`` says what is wrong
