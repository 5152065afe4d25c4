"""The official files of MNIST and of data sets in its form (IDX) -> arrays, or an error.

A reader returns ``{"x": (n, H, W, C) uint8, "y": (n,) int32}`` for files whose every byte is
accounted for, and raises a ``ValueError`` that names the file otherwise.
"""

import gzip
import math
import zlib

import numpy as np

GZIP_MAGIC = b"\x1f\x8b"
IDX_STEMS = tuple(
    (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")
)


def content(path):
    """The bytes of a file, unpacked where they are gzipped, whatever its name says."""
    blob = path.read_bytes()
    if not blob.startswith(GZIP_MAGIC):
        return blob
    try:
        return gzip.decompress(blob)
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
    blob = content(path)
    head = 4 + 4 * ndim
    magic = bytes([0, 0, 8, ndim])
    if not magic.startswith(blob[:4]):
        raise ValueError(f"{path}: begins with 0x{blob[:4].hex()} instead of 0x{magic.hex()}")
    if len(blob) < head:
        raise ValueError(f"{path}: truncated inside its header, {len(blob)} of {head} bytes")
    shape = [int(size) for size in np.frombuffer(blob, ">u4", ndim, offset=4)]
    if 0 in shape:
        raise ValueError(f"{path}: holds nothing, {' x '.join(map(str, shape))} values")
    if len(blob) - head != math.prod(shape):
        what = "truncated" if len(blob) - head < math.prod(shape) else "oversize"
        sizes = " x ".join(map(str, shape))
        raise ValueError(f"{path}: {what}, {len(blob) - head} bytes for {sizes} values")
    return np.frombuffer(blob, np.uint8, offset=head).reshape(shape)


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
        x, y = read_idx(images, 3), read_idx(labels, 1)
        splits.append(examples(x[..., None], y, num_classes, f"{images} and {labels}"))
    train, test = (split["x"].shape[1:3] for split in splits)
    if train != test:
        raise ValueError(f"{folder}: training images are {train} pixels but test images {test}")
    return tuple(splits)
