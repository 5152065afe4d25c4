"""The official files of MNIST and of data sets in its form (IDX) -> arrays, or an error.

A reader returns ``{"x": (n, H, W, C) uint8, "y": (n,) int32}`` for files whose every byte is
accounted for, and raises a ``ValueError`` that names the file otherwise. A gzipped file of some
megabytes may unpack to thousands of them, so no more is unpacked than its header promises.
"""

import contextlib
import gzip
import math
import zlib

import numpy as np

GZIP_MAGIC = b"\x1f\x8b"
BLOCK = 1 << 20
MOST_VALUES = 2**30  # of an IDX file: 20 times those of MNIST
MOST_UNPACKED = 1032  # bytes that one gzipped byte can stand for
IDX_STEMS = tuple(
    (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")
)


def content(path, most):
    """The bytes of a file, unpacked where they are gzipped, whatever its name says.

    Raises ``ValueError`` where they are more than ``most``, before they fill the memory.
    """
    with unpacked(path) as file:
        blob = _read(file, most + 1)
    if len(blob) > most:
        raise ValueError(f"{path}: holds more than {most} bytes, twice what the data set has")
    return bytes(blob)


def _read(file, most):
    """Up to ``most`` bytes in blocks, for memory that is only promised is not to be reserved."""
    found = bytearray()
    while block := file.read(min(BLOCK, most - len(found))):
        found += block
    return found


@contextlib.contextmanager
def unpacked(path):
    """The file, to be read from; ``ValueError`` where it is gzipped and damaged."""
    with open(path, "rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        try:
            # read to its end, it compares its checksum
            yield gzip.GzipFile(fileobj=file) if packed else file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: damaged gzip file: {error}") from error


def examples(x, y, num_classes, where):
    """The last check of every reader: images and labels belong together and have a meaning."""
    if len(x) != len(y):
        raise ValueError(f"{where}: {len(x)} images but {len(y)} labels")
    if x.size == 0:
        raise ValueError(f"{where}: holds no images")
    y = np.asarray(y)
    if y.min() < 0 or y.max() >= num_classes:
        wrong = y.min() if y.min() < 0 else y.max()
        raise ValueError(f"{where}: label {wrong} is not one of 0 to {num_classes - 1}")
    return {"x": np.array(x, np.uint8, order="C"), "y": y.astype(np.int32)}


def read_idx(path, ndim):
    """An IDX file of unsigned bytes: big-endian magic 0x0000_08_ndim, ndim sizes, the bytes."""
    with unpacked(path) as file:
        shape = _read_shape(file, path, ndim)
        values = _read(file, math.prod(shape) + 1)
    if len(values) != math.prod(shape):
        sizes = " x ".join(map(str, shape))
        what = f"truncated, {len(values)} bytes"
        if len(values) > math.prod(shape):
            what = f"oversize, more than {math.prod(shape)} bytes"
        raise ValueError(f"{path}: {what} for {sizes} values")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_shape(file, path, ndim):
    """The sizes that the header of an IDX file promises."""
    length = 4 + 4 * ndim
    head = file.read(length)
    magic = bytes([0, 0, 8, ndim])
    if not magic.startswith(head[:4]):
        raise ValueError(f"{path}: begins with 0x{head[:4].hex()} instead of 0x{magic.hex()}")
    if len(head) < length:
        raise ValueError(f"{path}: truncated inside its header, {len(head)} of {length} bytes")
    shape = [int(size) for size in np.frombuffer(head, ">u4", ndim, offset=4)]
    if 0 in shape:
        raise ValueError(f"{path}: holds nothing, {' x '.join(map(str, shape))} values")
    return shape


def _check_promises(images, labels):
    """Raises ``ValueError`` where two headers promise what cannot be, before the rest is read."""
    shapes = []
    for path, ndim in ((images, 3), (labels, 1)):
        with unpacked(path) as file:
            shape = _read_shape(file, path, ndim)
        shapes.append(shape)
        values, sizes = math.prod(shape), " x ".join(map(str, shape))
        if values > MOST_UNPACKED * (size := path.stat().st_size):
            raise ValueError(f"{path}: truncated, a file of {size} bytes for {sizes} values")
        if values > MOST_VALUES:
            raise ValueError(f"{path}: {sizes} values are more than the {MOST_VALUES} admitted")
    (n, *_), (m,) = shapes
    if n != m:
        raise ValueError(f"{images} and {labels}: {n} images but {m} labels")


def _idx_file(folder, stem):
    """The plain or the gzipped file; None where there is neither."""
    return next(filter(lambda p: p.is_file(), (folder / stem, folder / f"{stem}.gz")), None)


def has_idx(folder):
    return all(_idx_file(folder, stem) for stems in IDX_STEMS for stem in stems)


def read_idx_folder(folder, num_classes):
    """``(train, test)`` from the four files of MNIST or of a data set in its form."""
    splits = []
    for stems in IDX_STEMS:
        images, labels = (_idx_file(folder, stem) for stem in stems)
        _check_promises(images, labels)
        x, y = read_idx(images, 3), read_idx(labels, 1)
        splits.append(examples(x[..., None], y, num_classes, f"{images} and {labels}"))
    train, test = (split["x"].shape[1:3] for split in splits)
    if train != test:
        raise ValueError(f"{folder}: training images are {train} pixels but test images {test}")
    return tuple(splits)
