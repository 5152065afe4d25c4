"""Readers give back what the official formats hold, or say in one sentence what is wrong."""

import contextlib
import gzip
import io
import pickle
import re
import struct
import tarfile
import tracemalloc
import warnings

import numpy as np
import pytest

import official_files as official
from samscale.data import cifar, readers, unpickle

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"


def assert_split(split, x, y):
    assert split["x"].dtype == np.uint8
    assert split["y"].dtype == np.int32
    np.testing.assert_array_equal(split["x"], x)
    np.testing.assert_array_equal(split["y"], y)


def refuses(read, *words):
    """One sentence that holds the words in this order."""
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))) as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_as_written(tmp_path, packed):
    x, y, test_x, test_y = official.write_idx(tmp_path, packed=packed)
    assert readers.has_idx(tmp_path)
    train, test = readers.read_idx_folder(tmp_path, 10)
    assert_split(train, x[..., None], y)
    assert_split(test, test_x[..., None], test_y)
    train["x"][0] = 0  # writable


def test_an_unpacked_file_that_kept_its_gz_name_is_read(tmp_path):
    x, *_ = official.write_idx(tmp_path)
    (tmp_path / TRAIN_IMAGES).write_bytes(official.idx(x))
    np.testing.assert_array_equal(readers.read_idx_folder(tmp_path, 10)[0]["x"][..., 0], x)


def test_a_missing_idx_file_means_that_the_data_set_is_not_there(tmp_path):
    official.write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert not readers.has_idx(tmp_path)


GOOD = official.idx(official.images(60, 28, 28, 1)[..., 0])
DAMAGED_IDX = {
    "empty": (b"", "truncated inside its header, 0 of 16 bytes"),
    "header cut": (GOOD[:9], "truncated inside its header, 9 of 16 bytes"),
    "pixels cut": (GOOD[:-1], "truncated, 47039 bytes for 60 x 28 x 28 values"),
    "one byte too many": (GOOD + b"\0", "oversize, more than 47040 bytes for 60 x 28 x 28 values"),
    "count too large": (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "truncated"),
    "labels in place of images": (official.idx(np.zeros(60)), "0x00000801 instead of 0x00000803"),
    "a page of HTML": (b"<html>404</html>....", "begins with 0x3c68746d"),
    "gzip cut": (gzip.compress(GOOD)[:-9], "damaged gzip file"),
    "gzip checksum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "damaged gzip file"),
    "gzip body": (gzip.compress(GOOD)[:40] + b"\xff" * 40, "damaged gzip file"),
    # 7: the last block, of the kind that deflate does not have
    "gzip block": (gzip.compress(GOOD)[:10] + b"\x07" + b"\0" * 99, "damaged gzip file"),
    "one image less": (official.idx(np.zeros((59, 28, 28))), "59 images but 60 labels"),
    "no images": (official.idx(np.zeros((0, 28, 28))), "holds nothing, 0 x 28 x 28 values"),
    "other size than test": (official.idx(np.zeros((60, 9, 7))), "are (9, 7) pixels"),
    "images without pixels": (
        official.idx(np.zeros((60, 0, 28))),
        "holds nothing, 60 x 0 x 28 values",
    ),
    "sizes that no array has": (GOOD[:4] + b"\0\0\0\0" + b"\xff" * 8, "holds nothing, 0 x"),
}


@pytest.mark.parametrize("case", DAMAGED_IDX)
def test_damaged_idx_images_are_refused_by_name(tmp_path, case):
    official.write_idx(tmp_path)
    blob, words = DAMAGED_IDX[case]
    (tmp_path / TRAIN_IMAGES).write_bytes(blob)
    where = tmp_path if case == "other size than test" else tmp_path / TRAIN_IMAGES
    refuses(lambda: readers.read_idx_folder(tmp_path, 10), str(where), words)


def header(*sizes):
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


def zeros(size):
    """Gzipped in megabytes, joined: as small as a bomb is."""
    block = gzip.compress(bytes(1 << 20), 9)
    return block * (size >> 20)


BOMBS = {
    "all zeros": (zeros(1 << 28), "begins with 0x00000000 instead of 0x00000803"),
    "more than the header says": (
        gzip.compress(header(60, 28, 28)) + zeros(1 << 28),
        "oversize, more than 47040 bytes for 60 x 28 x 28 values",
    ),
    "more images than labels": (
        gzip.compress(header(1 << 18, 32, 32)) + zeros(1 << 28),
        "262144 images but 60 labels",
    ),
    "a header of gigabytes": (
        gzip.compress(header(60, 1 << 13, 1 << 13)) + zeros(1 << 32),
        "60 x 8192 x 8192 values are more than the 1073741824 admitted",
    ),
}


@contextlib.contextmanager
def little_memory(most=64 << 20):
    """No more than that may be asked for within."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", BOMBS)
def test_a_file_that_unpacks_to_more_than_its_header_says_takes_little_memory(tmp_path, case):
    official.write_idx(tmp_path)
    blob, words = BOMBS[case]
    (tmp_path / TRAIN_IMAGES).write_bytes(blob)
    with little_memory():
        refuses(lambda: readers.read_idx_folder(tmp_path, 10), TRAIN_IMAGES, words)


def test_idx_labels_out_of_range_are_refused_by_name(tmp_path):
    _, y, *_ = official.write_idx(tmp_path)
    (tmp_path / TRAIN_LABELS).write_bytes(official.idx(np.where(y == 3, 10, y)))
    read = lambda: readers.read_idx_folder(tmp_path, 10)
    refuses(read, TRAIN_LABELS, "label 10 is not one of 0 to 9")


forms = pytest.mark.parametrize("form", ["python", "binary"])
sets = pytest.mark.parametrize("num_classes", [10, 100])


@forms
@sets
@pytest.mark.parametrize("packing", ["folder", "flat", "archive"])
def test_cifar_is_read_as_written(tmp_path, num_classes, form, packing):
    blobs, x, y, test_x, test_y = official.cifar_batches(num_classes, form)
    assert not cifar.has_cifar(tmp_path, num_classes)
    official.put_cifar(tmp_path, num_classes, form, blobs, packing)
    assert cifar.has_cifar(tmp_path, num_classes)
    train, test = cifar.read_cifar_folder(tmp_path, num_classes)
    assert_split(train, x, y)
    assert_split(test, test_x, test_y)


def test_cifar_pixels_are_planes_of_red_green_and_blue():
    row = np.zeros(3072, np.uint8)
    row[[0, 1, 32, 1024, 2048]] = [1, 2, 3, 4, 5]
    x = cifar.decode_binary(b"\x07" + row.tobytes(), 10, "here")["x"][0]
    assert x[0, 0].tolist() == [1, 4, 5]
    assert (x[0, 1, 0], x[1, 0, 0]) == (2, 3)


def test_an_incomplete_cifar_folder_means_that_the_data_set_is_not_there(tmp_path):
    blobs, *_ = official.cifar_batches(10, "binary")
    del blobs["data_batch_4.bin"]
    official.put_cifar(tmp_path, 10, "binary", blobs, "folder")
    assert not cifar.has_cifar(tmp_path, 10)


def test_the_safe_unpickler_agrees_with_pickle():
    blob = official.cifar_python(official.images(4), official.labels(4, 10), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy on the dtypes of Python 2
        expected = pickle.loads(blob, encoding="latin1")
    np.testing.assert_equal(unpickle.loads(blob, "here"), expected)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_pickled_anew_by_python_3_is_read(protocol):
    x, y = official.images(4), official.labels(4, 10)
    data = np.asfortranarray(official.planes(x))
    blob = pickle.dumps({"data": data, "labels": y.tolist()}, protocol)
    assert_split(cifar.decode_python(blob, 10, "here"), x, y)


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_a_hostile_pickle_runs_nothing(tmp_path):
    blob = pickle.dumps({"data": Hostile(tmp_path / "owned"), "labels": []}, 2)
    refuses(lambda: unpickle.loads(blob, "batch"), "batch: not a readable", "open", "not admitted")
    assert not (tmp_path / "owned").exists()


def test_a_pickle_cannot_change_what_the_next_one_sees():
    name = ("numpy.core.multiarray", "_reconstruct")
    # BUILD (b) puts a dict's entries among the attributes of what it is given
    blob = b"\x80\x02c" + "\n".join(name).encode() + b"\n}U\x05ownedNsb."
    refuses(lambda: unpickle.loads(blob, "batch"), "batch: holds a function instead of a dict")
    assert not hasattr(unpickle._Unpickler(b"").find_class(*name), "owned")


X, Y = official.images(4), official.labels(4, 10)
PLANES = official.planes(X)
BATCH = official.cifar_python(X, Y, 10)
DAMAGED_PICKLES = {
    "empty": (b"", "not a readable CIFAR pickle"),
    "cut": (BATCH[:-700], "not a readable CIFAR pickle"),
    "not a pickle": (b"<html>", "not a readable CIFAR pickle"),
    "a persistent id": (b"\x80\x02Nq\x00Q.", "not a readable CIFAR pickle"),
    "not a dict": (pickle.dumps([1]), "holds a list instead of a dict"),
    "no labels": (official.python2_pickle({"data": PLANES}), "has no 'labels'"),
    "no data": (official.python2_pickle({"labels": [1]}), "has no 'data'"),
    "floats": (official.python2_pickle({"data": PLANES / 1.0, "labels": [1]}), "dtype 'f8'"),
    "width": (official.python2_pickle({"data": PLANES[:, 1:], "labels": [1]}), "n x 3072 bytes"),
    "data is a list": (official.python2_pickle({"data": [1], "labels": [1]}), "n x 3072 bytes"),
    "count": (official.cifar_python(X, Y[1:], 10), "4 images but 3 labels"),
    "float labels": (
        official.python2_pickle({"data": PLANES, "labels": [0.0, 1.0, 2.0, 3.0]}),
        "'labels' is not a list of integers",
    ),
    "range": (official.cifar_python(X, Y + 9, 10), "label 12 is not one of 0 to 9"),
    "negative": (
        official.python2_pickle({"data": PLANES, "labels": [0, 1, 2, -1]}),
        "label -1 is not one of 0 to 9",
    ),
    "shape larger than the bytes": (
        BATCH.replace(b"(J" + struct.pack("<i", 4), b"(J" + struct.pack("<i", 5)),
        "not a readable CIFAR pickle",
    ),
    "no images": (official.cifar_python(X[:0], Y[:0], 10), "holds no images"),
}


@pytest.mark.parametrize("case", DAMAGED_PICKLES)
def test_damaged_cifar_pickles_are_refused_by_name(case):
    blob, words = DAMAGED_PICKLES[case]
    refuses(lambda: cifar.decode_python(blob, 10, "data_batch_2"), "data_batch_2: ", words)


DAMAGED_RECORDS = {
    "cut": (10, lambda blob: blob[:-1], "are not whole records of 3073 bytes"),
    "oversize": (10, lambda blob: blob + b"\0", "are not whole records of 3073 bytes"),
    "range": (10, lambda blob: b"\x0a" + blob[1:], "label 10 is not one of 0 to 9"),
    "fine range": (100, lambda blob: b"\0\x64" + blob[2:], "label 100 is not one of 0 to 99"),
    "cut, fine": (100, lambda blob: blob[:-1], "are not whole records of 3074 bytes"),
    "empty": (10, lambda blob: b"", "holds no images"),
}


@pytest.mark.parametrize("case", DAMAGED_RECORDS)
def test_damaged_cifar_records_are_refused_by_name(tmp_path, case):
    num_classes, damage, words = DAMAGED_RECORDS[case]
    blobs, *_ = official.cifar_batches(num_classes, "binary")
    name = next(iter(blobs))
    blobs[name] = damage(blobs[name])
    official.put_cifar(tmp_path, num_classes, "binary", blobs, "folder")
    refuses(lambda: cifar.read_cifar_folder(tmp_path, num_classes), name, words)


@pytest.mark.parametrize(
    "num_classes, name, words",
    [
        (10, "data_batch_3.bin", "20 in data_batch_2.bin, 19 in data_batch_3.bin"),
        (10, "test_batch.bin", "20 in data_batch_5.bin, 19 in test_batch.bin"),
        (100, "train.bin", "99 in train.bin, 20 in test.bin"),
        (100, "test.bin", "100 in train.bin, 19 in test.bin"),
    ],
)
def test_a_binary_file_cut_between_two_records_is_refused(tmp_path, num_classes, name, words):
    blobs, *_ = official.cifar_batches(num_classes, "binary")
    blobs[name] = blobs[name][: -(3073 if num_classes == 10 else 3074)]
    official.put_cifar(tmp_path, num_classes, "binary", blobs, "folder")
    read = lambda: cifar.read_cifar_folder(tmp_path, num_classes)
    refuses(read, f"{tmp_path}: a file is incomplete", words)


DAMAGED_ARCHIVES = {
    "gzip cut": (lambda files: official.tar_gz(files)[:-5000], "damaged gzip file"),
    "checksum": (lambda files: official.tar_gz(files)[:-8] + b"\0" * 8, "damaged gzip file"),
    "tar cut": (
        lambda files: gzip.compress(official.tar(files)[:400_000], 1),
        "damaged tar archive: unexpected end of data",
    ),
    "not a tar": (lambda files: gzip.compress(b"<html>" * 999), "damaged tar archive"),
    "member missing": (
        lambda files: official.tar_gz({k: v for k, v in files.items() if "batch_3" not in k}),
        "does not contain cifar-10-batches-bin/data_batch_3.bin",
    ),
}


@pytest.mark.parametrize("case", DAMAGED_ARCHIVES)
def test_damaged_cifar_archives_are_refused_by_name(tmp_path, case):
    damage, words = DAMAGED_ARCHIVES[case]
    blobs, *_ = official.cifar_batches(10, "binary", n_test=30)
    archive = official.put_cifar(tmp_path, 10, "binary", blobs, "archive")
    archive.write_bytes(damage({f"cifar-10-batches-bin/{k}": v for k, v in blobs.items()}))
    refuses(lambda: cifar.read_cifar_folder(tmp_path, 10), str(archive), words)


def test_an_archive_packed_anew_with_leading_dots_and_more_files_is_read(tmp_path):
    blobs, x, y, *_ = official.cifar_batches(10, "binary")
    files = {f"./cifar-10-batches-bin/{name}": blob for name, blob in blobs.items()}
    packed = official.tar_gz({"./readme.html": b"<html>"} | files)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(packed)
    assert_split(cifar.read_cifar_folder(tmp_path, 10)[0], x, y)


def test_a_damaged_member_is_named_with_its_archive(tmp_path):
    blobs, *_ = official.cifar_batches(10, "python")
    blobs["data_batch_2"] = blobs["data_batch_2"][:-9]
    archive = official.put_cifar(tmp_path, 10, "python", blobs, "archive")
    read = lambda: cifar.read_cifar_folder(tmp_path, 10)
    refuses(read, f"{archive}: cifar-10-batches-py/data_batch_2: not a readable CIFAR pickle")


def sparse_member(name, size):
    """A tar whose member claims ``size`` bytes and holds none of them."""
    info = tarfile.TarInfo(name)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.pax_headers |= {"GNU.sparse.name": name, "GNU.sparse.realsize": str(size)}
    table = f"1\n{size}\n0\n".encode().ljust(512, b"\0")
    info.size = len(table)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(table))
    return gzip.compress(stream.getvalue())


FIRST = "cifar-10-batches-bin/data_batch_1.bin"
ARCHIVE_BOMBS = {
    "zeros": (zeros(1 << 20), "damaged tar archive|does not contain"),
    "a small limit": (zeros(1 << 26), "holds more than"),
    "a sparse member": (sparse_member(FIRST, 1 << 40), "claims to be of 1099511627776 bytes"),
}


@pytest.mark.parametrize("case", ARCHIVE_BOMBS)
def test_a_cifar_archive_unpacks_to_no_more_than_the_data_set_has(tmp_path, case, monkeypatch):
    monkeypatch.setattr(cifar, "MOST_BYTES", 1 << 25)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    blob, words = ARCHIVE_BOMBS[case]
    archive.write_bytes(blob)
    with little_memory(160 << 20), pytest.raises(ValueError, match=f"{archive}: .*({words})"):
        cifar.read_cifar_folder(tmp_path, 10)


def test_an_unpacked_cifar_file_is_no_larger_than_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MOST_BYTES", 1 << 25)
    blobs, *_ = official.cifar_batches(10, "binary")
    official.put_cifar(tmp_path, 10, "binary", blobs, "flat")
    with (tmp_path / "data_batch_2.bin").open("ab") as file:
        file.truncate(1 << 34)  # of zeros that take no place
    read = lambda: cifar.read_cifar_folder(tmp_path, 10)
    refuses(read, "data_batch_2.bin: holds more than 33554432 bytes")


PUT_FAR = b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b"."


def many_times(n):
    """Turns one long text into bytes again and again."""
    text = b"a" * 100_000
    encode = b"c_codecs\nencode\n"
    start = (
        b"\x80\x02X" + struct.pack("<I", len(text)) + text + b"q\x00X\x06\x00\x00\x00latin1q\x01"
    )
    return start + (encode + b"h\x00h\x01\x86R") * n + b"."


@pytest.mark.parametrize(
    "blob, words",
    [(PUT_FAR, "under the number 2147483647"), (many_times(50), "again and again")],
    ids=["memo", "encode"],
)
def test_a_small_pickle_cannot_ask_for_much_memory(blob, words):
    with little_memory(8 << 20):
        refuses(lambda: unpickle.loads(blob, "batch"), "batch: not a readable", words)
