"""Parameters along the way: ``snapshots/epoch-000012.msgpack``, one file an epoch that is kept.

Epoch 0 is the initialization. A resumed run writes the same bits again.
"""

import pathlib
import re
from typing import Any

from samscale.config import Config
from samscale.training import files, leaves
from samscale.training import folder as run_folder

FOLDER = run_folder.SNAPSHOTS


def due(config: Config, epoch: int, last: int) -> bool:
    """Whether the parameters at the end of this epoch are kept: for a path, or the next measure."""
    every = config.snapshot_every
    if every and (epoch % every == 0 or epoch == last):
        return True
    after = epoch + 1
    wanted = "path" in config.flatness_measures and config.flatness_every
    return bool(wanted) and after <= last and (after % wanted == 0 or after == last)


def save(folder, epoch: int, params: Any) -> None:
    """Raises ``OSError`` where the disk does."""
    path = _path(folder, epoch)
    path.parent.mkdir(exist_ok=True)
    files.write_atomically(path, files.sealed(leaves.to_bytes(params)))


def epochs(folder) -> list[int]:
    """Those that were kept, in order."""
    found = (pathlib.Path(folder) / FOLDER).glob("epoch-*.msgpack")
    numbers = [path.stem.removeprefix("epoch-") for path in found]
    return sorted(int(number) for number in numbers if re.fullmatch("[0-9]{6,}", number))


def load(folder, epoch: int, like: Any) -> Any:
    """Parameters shaped as ``like``; None where they were not kept. Raises ``Damaged``."""
    path = _path(folder, epoch)
    if not path.exists():
        return None
    try:
        return leaves.fill(leaves.read(files.read_sealed(path)), like)
    except (ValueError, KeyError, TypeError) as error:
        raise files.damaged(path, f"of another version: {error}") from error


def _path(folder, epoch):
    return pathlib.Path(folder) / FOLDER / f"epoch-{epoch:06d}.msgpack"
