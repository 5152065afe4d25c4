"""Laws of the data sets: shapes, classes, pixels; and what is refused."""

import functools
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import official_files as official
from samscale import data
from samscale.data import cifar, fetch, readers

# n_train, n_test, shape, and how many examples each class has in train and in test
FACTS = {
    "mnist": (
        (60_000, 10_000, (28, 28, 1)),
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "fashion_mnist": ((60_000, 10_000, (28, 28, 1)), [6000] * 10, [1000] * 10),
    "cifar10": ((50_000, 10_000, (32, 32, 3)), [5000] * 10, [1000] * 10),
    "cifar100": ((50_000, 10_000, (32, 32, 3)), [500] * 100, [100] * 100),
    "digits": (
        (1438, 359, (8, 8, 1)),
        [142, 146, 142, 146, 145, 146, 145, 143, 139, 144],
        [36, 36, 35, 37, 36, 36, 36, 36, 35, 36],
    ),
}
COMPLETE = {
    "mnist": readers.has_idx,
    "fashion_mnist": readers.has_idx,
    "cifar10": lambda folder: cifar.has_cifar(folder, 10),
    "cifar100": lambda folder: cifar.has_cifar(folder, 100),
}


def load_real(name):
    """All of it for training, in its official order. Never downloads."""
    if name in COMPLETE and not any(map(COMPLETE[name], fetch.folders(name))):
        pytest.skip(f"needs the files of {name} in $SAMSCALE_DATA/{name}: set SAMSCALE_DATA")
    return _loaded(name)


@functools.cache
def _loaded(name):
    return data.load(name, validation_fraction=0)


UNREAD = {"imagenet", "teacher_student"}  # test_data_synthetic.py has the laws of the latter
every = pytest.mark.parametrize("name", sorted(set(data.DATASETS) - UNREAD))


@every
def test_shapes_dtypes_and_classes_are_the_published_ones(name):
    d = load_real(name)
    (n_train, n_test, shape), *balance = FACTS[name]
    assert d.num_outputs == len(balance[0])
    for split, n, counts in zip((d.train, d.test), (n_train, n_test), balance, strict=True):
        assert split.keys() == {"x", "y"}
        assert (split["x"].shape, split["x"].dtype) == ((n, *shape), np.uint8)
        assert (split["y"].shape, split["y"].dtype) == ((n,), np.int32)
        assert np.bincount(split["y"]).tolist() == counts
    assert d.validation["x"].shape == (0, *shape)


@every
def test_normalized_images_are_float32_of_unit_scale_on_numpy_and_when_compiled(name):
    d = load_real(name)
    x = d.train["x"][:512]
    y = d.normalize(x)
    assert (y.shape, y.dtype) == (x.shape, np.float32)
    assert 0.2 < y.std() < 1.3
    assert np.abs(y).max() < 3
    np.testing.assert_allclose(jax.jit(d.normalize)(x), y, atol=1e-6)
    np.testing.assert_allclose(d.normalize(x[0]), y[0], atol=1e-6)  # one example alone


@every
def test_two_loads_share_one_normalize_so_that_compiled_programs_are_found_again(name):
    assert load_real(name).normalize is data.load(name).normalize


def test_mnist_begins_with_the_labels_that_everybody_knows():
    d = load_real("mnist")
    assert d.train["y"][:5].tolist() == [5, 0, 4, 1, 9]
    assert d.test["y"][:5].tolist() == [7, 2, 1, 0, 4]


def test_digits_use_all_sixteen_grey_levels_and_share_no_image_between_splits():
    d = data.load("digits", validation_fraction=0.25)
    assert {int(split["x"].max()) for split in (d.train, d.validation, d.test)} == {16}
    rows = [image.tobytes() for split in d[:3] for image in split["x"]]
    assert len(set(rows)) == len(rows) == 1797


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar_is_loaded_from_official_files(tmp_path, monkeypatch, num_classes, form):
    name = f"cifar{num_classes}"
    monkeypatch.setenv("SAMSCALE_DATA", str(tmp_path))
    blobs, x, y, test_x, test_y = official.cifar_batches(num_classes, form)
    official.put_cifar(tmp_path / name, num_classes, form, blobs, "archive")
    d = data.load(name, validation_fraction=0)
    assert d.num_outputs == num_classes
    for array, expected in zip(
        (d.train["x"], d.train["y"], d.test["x"], d.test["y"]), (x, y, test_x, test_y), strict=True
    ):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_channels_are_standardized_each_by_its_own_constants(tmp_path, monkeypatch, name):
    num_classes = int(name.removeprefix("cifar"))
    monkeypatch.setenv("SAMSCALE_DATA", str(tmp_path))
    blobs, *_ = official.cifar_batches(num_classes, "binary")
    official.put_cifar(tmp_path / name, num_classes, "binary", blobs, "folder")
    normalize = data.load(name).normalize
    black, white = normalize(np.uint8([[[0, 0, 0]], [[255, 255, 255]]]))[:, 0]
    std = 1 / (white - black)
    means = {"cifar10": [0.4914, 0.4822, 0.4465], "cifar100": [0.5071, 0.4865, 0.4409]}
    np.testing.assert_allclose(-black * std, means[name], rtol=1e-5)
    assert ((std > 0.24) & (std < 0.28)).all()


def test_imagenet_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^dataset='imagenet': its data pipeline is not part"):
        data.load("imagenet")


@pytest.mark.parametrize(
    "choices, words",
    [
        ({"name": "mnits"}, "dataset='mnits': choose one of cifar10, cifar100, digits, "),
        ({"noise_kind": "pink"}, "noise_kind='pink': choose one of pairwise, symmetric, uniform"),
        ({"label_noise": 1.1}, "label_noise=1.1: must be between 0 and 1"),
        ({"label_noise": float("nan")}, "label_noise=nan: must be between 0 and 1"),
        ({"validation_fraction": 1}, "validation_fraction=1: must be at least 0 and less than 1"),
        ({"validation_fraction": -0.1}, "validation_fraction=-0.1: must be at least 0"),
        ({"split_seed": -1}, "split_seed=-1: must be at least 0"),
        ({"noise_seed": -1}, "noise_seed=-1: must be at least 0"),
    ],
)
def test_a_wrong_choice_is_refused_with_its_name_and_the_law(choices, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        data.load(**{"name": "digits"} | choices)


def test_a_wrong_noise_kind_is_refused_before_any_file_is_looked_for():
    with pytest.raises(ValueError, match="noise_kind"):
        data.load("imagenet", noise_kind="pink")


IMPORT = """
import sys, types
sys.modules["samscale"] = types.ModuleType("samscale")  # without what its __init__ imports
sys.modules["samscale"].__path__ = ["samscale"]
import samscale.data
print(*sorted({"jax", "rich", "urllib.request"} & sys.modules.keys()))
"""


def test_importing_data_brings_neither_jax_nor_rich_nor_a_network_client():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
