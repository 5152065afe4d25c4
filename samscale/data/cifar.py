"""The official archives of CIFAR-10 and CIFAR-100, packed or unpacked, -> arrays, or an error."""

import io
import tarfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from samscale.data import unpickle
from samscale.data.readers import content, examples

SIDE = 32
PIXELS = 3 * SIDE * SIDE
MOST_BYTES = 2 * 60_000 * (PIXELS + 2)  # twice an official archive: pickles may be written anew


def _images(rows):
    """(n, 3072) planes of red, green and blue -> (n, 32, 32, 3)."""
    return rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def decode_binary(blob, num_classes, where):
    """Records of the label (CIFAR-100: coarse, then fine label) and 3072 bytes of pixels."""
    length = PIXELS + (1 if num_classes == 10 else 2)
    if len(blob) % length:
        raise ValueError(f"{where}: {len(blob)} bytes are not whole records of {length} bytes")
    records = np.frombuffer(blob, np.uint8).reshape(-1, length)
    rows = records[:, -PIXELS:]
    return examples(_images(rows), records[:, -PIXELS - 1], num_classes, where)


def decode_python(blob, num_classes, where):
    """A pickled dict, written by Python 2, with ``data`` and a list of labels."""
    entry = unpickle.loads(blob, where)
    key = "labels" if num_classes == 10 else "fine_labels"
    if missing := {"data", key} - entry.keys():
        raise ValueError(f"{where}: has no {' and no '.join(map(repr, sorted(missing)))}")
    rows, labels = entry["data"], entry[key]
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != PIXELS:
        raise ValueError(f"{where}: 'data' is not an array of n x {PIXELS} bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"{where}: {key!r} is not a list of integers")
    return examples(_images(rows), labels, num_classes, where)


class Layout(NamedTuple):
    """One official archive of a CIFAR data set."""

    archive: str
    folder: str  # what it unpacks to
    train: tuple[str, ...]
    test: str
    decode: Callable


def _layouts(number, python, binary, train, test):
    names = tuple(f"{name}.bin" for name in (*train, test))
    return (
        Layout(f"cifar-{number}-python.tar.gz", python, train, test, decode_python),
        Layout(f"cifar-{number}-binary.tar.gz", binary, names[:-1], names[-1], decode_binary),
    )


BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
CIFAR = {
    10: _layouts(10, "cifar-10-batches-py", "cifar-10-batches-bin", BATCHES, "test_batch"),
    100: _layouts(100, "cifar-100-python", "cifar-100-binary", ("train",), "test"),
}


def _unpacked(folder, layout):
    """The folder that holds all files of a layout (itself or its subfolder), else None."""
    names = (*layout.train, layout.test)
    for place in (folder / layout.folder, folder):
        if all((place / name).is_file() for name in names):
            return place
    return None


def _present(folder, layout):
    return _unpacked(folder, layout) is not None or (folder / layout.archive).is_file()


def has_cifar(folder, num_classes):
    return any(_present(folder, layout) for layout in CIFAR[num_classes])


def _members(archive, layout):
    """``{name: bytes}`` of the wanted files; nothing is unpacked to the disk."""
    wanted = {f"{layout.folder}/{name}": name for name in (*layout.train, layout.test)}
    # Unpacked in memory as a whole: only at the very end does gzip compare its checksum.
    stream = io.BytesIO(content(archive, MOST_BYTES))
    found = {}
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                path = member.name.removeprefix("./")
                if path in wanted and member.isfile():
                    if member.size > MOST_BYTES:  # sparse: most of it is not in the archive
                        raise ValueError(f"{path} claims to be of {member.size} bytes")
                    found[wanted[path]] = tar.extractfile(member).read()
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(f"{archive}: damaged tar archive: {error}") from error
    if missing := [path for path, name in wanted.items() if name not in found]:
        raise ValueError(f"{archive}: does not contain {', '.join(missing)}")
    return found


def _blobs(folder, layout):
    """``{name: (bytes, where they come from)}`` of all files of a layout."""
    if place := _unpacked(folder, layout):
        names = (*layout.train, layout.test)
        return {name: (content(place / name, MOST_BYTES), place / name) for name in names}
    archive = folder / layout.archive
    return {
        name: (blob, f"{archive}: {layout.folder}/{name}")
        for name, blob in _members(archive, layout).items()
    }


def read_cifar_folder(folder, num_classes):
    """``(train, test)`` from whichever official form of CIFAR-10 or CIFAR-100 is in the folder."""
    layout = next(layout for layout in CIFAR[num_classes] if _present(folder, layout))
    decoded = {
        name: layout.decode(blob, num_classes, where)
        for name, (blob, where) in _blobs(folder, layout).items()
    }
    _check_proportions(folder, layout, {name: len(split["y"]) for name, split in decoded.items()})
    batches = [decoded[name] for name in layout.train]
    train = {key: np.concatenate([batch[key] for batch in batches]) for key in ("x", "y")}
    return train, decoded[layout.test]


def _check_proportions(folder, layout, counts):
    """A binary file that was cut between two records betrays itself only here."""
    test = counts[layout.test]
    if any(counts[name] * len(layout.train) != 5 * test for name in layout.train):
        sizes = ", ".join(f"{counts[name]} in {name}" for name in (*layout.train, layout.test))
        raise ValueError(
            f"{folder}: a file is incomplete, not 5 training images a test image: {sizes}"
        )
