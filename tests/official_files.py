"""Writes tiny data sets in the exact official file formats, for the tests of their readers."""

import gzip
import io
import struct
import tarfile

import numpy as np


def images(n, height=32, width=32, channels=3, seed=0):
    shape = (n, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(n, num_classes):
    return np.arange(n, dtype=np.uint8) % num_classes


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_idx(folder, n_train=60, n_test=20, packed=True):
    """``(train x, train y, test x, test y)`` as they are written, x without channel."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for part, n in (("train", n_train), ("t10k", n_test)):
        pair = images(n, 28, 28, 1, seed=n)[..., 0], labels(n, 10)
        for array, kind in zip(pair, ("images-idx3", "labels-idx1"), strict=True):
            blob = gzip.compress(idx(array)) if packed else idx(array)
            (folder / f"{part}-{kind}-ubyte{'.gz' if packed else ''}").write_bytes(blob)
        arrays += pair
    return arrays


def planes(x):
    """(n, 32, 32, 3) -> (n, 3072): all red bytes of an image, then green, then blue."""
    return np.concatenate([x[..., c].reshape(len(x), 1024) for c in range(3)], axis=1)


def cifar_binary(x, y, num_classes):
    columns = [y] if num_classes == 10 else [y // 5, y]
    return np.column_stack([*columns, planes(x)]).astype(np.uint8).tobytes()


def cifar_python(x, y, num_classes):
    entry = {"batch_label": "training batch 1 of 5", "data": planes(x)}
    if num_classes == 10:
        entry["labels"] = y.tolist()
    else:
        entry |= {"fine_labels": y.tolist(), "coarse_labels": (y // 5).tolist()}
    return python2_pickle(entry | {"filenames": ["dromedary_s_000001.png"] * len(y)})


def python2_pickle(value):
    """Protocol 2 with byte strings, as cPickle of Python 2 and numpy 1 wrote it."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value):
    match value:
        case dict():
            pairs = b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items())
            return b"}(" + pairs + b"u"
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case int():
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"U" + bytes([len(value)]) + value.encode()
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case np.ndarray():
            return _array_opcodes(value)
    raise TypeError(value)


def _array_opcodes(array):
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    shape = b"(" + b"".join(map(_opcodes, array.shape)) + b"t"
    code = _opcodes(array.dtype.str[1:])
    order = b"U\x01" + array.dtype.str[:1].encode()
    rest = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\n" + code + b"K\x00K\x01\x87R(K\x03" + order + rest
    return start + b"(K\x01" + shape + dtype + b"\x89" + _opcodes(array.tobytes()) + b"tb"


FOLDERS = {
    (10, "python"): "cifar-10-batches-py",
    (10, "binary"): "cifar-10-batches-bin",
    (100, "python"): "cifar-100-python",
    (100, "binary"): "cifar-100-binary",
}


def cifar_batches(num_classes, form, n_test=20):
    """``({file name: bytes}, train x, train y, test x, test y)``, the official names.

    As in the official files, five times as many images for training as for test.
    """
    names = ["train"] if num_classes == 100 else [f"data_batch_{i}" for i in range(1, 6)]
    write = cifar_python if form == "python" else cifar_binary
    suffix = "" if form == "python" else ".bin"
    x, y = images(5 * n_test, seed=1), labels(5 * n_test, num_classes)
    test_x, test_y = images(n_test, seed=2), labels(n_test, num_classes)[::-1]
    n_batch = 5 * n_test // len(names)
    parts = {name: np.s_[i * n_batch : (i + 1) * n_batch] for i, name in enumerate(names)}
    blobs = {f"{name}{suffix}": write(x[s], y[s], num_classes) for name, s in parts.items()}
    test = "test" if num_classes == 100 else "test_batch"
    blobs[f"{test}{suffix}"] = write(test_x, test_y, num_classes)
    return blobs, x, y, test_x, test_y


def put_cifar(folder, num_classes, form, blobs, packing):
    """As a ``folder`` in its place, ``flat`` without it, or the packed ``archive``."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = FOLDERS[num_classes, form]
    if packing == "archive":
        archive = folder / f"cifar-{num_classes}-{form}.tar.gz"
        archive.write_bytes(tar_gz({f"{inner}/{name}": blob for name, blob in blobs.items()}))
        return archive
    place = folder / inner if packing == "folder" else folder
    place.mkdir(exist_ok=True)
    for name, blob in blobs.items():
        (place / name).write_bytes(blob)
    return place


def tar_gz(files):
    return gzip.compress(tar(files), compresslevel=1)


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, blob in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    return out.getvalue()
