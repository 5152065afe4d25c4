"""Laws of the data sets: their shapes, how they are split, corrupted and augmented."""

import functools
import re
import subprocess
import sys

import jax
import numpy as np
import official_files as official
import pytest

from samscale import data
from samscale.data import augment, cifar, fetch, readers
from samscale.data.dataset import PURPOSES, generator

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


every = pytest.mark.parametrize("name", sorted(set(data.DATASETS) - {"imagenet"}))


@every
def test_shapes_dtypes_and_classes_are_the_published_ones(name):
    d = load_real(name)
    (n_train, n_test, shape), *balance = FACTS[name]
    assert d.num_classes == len(balance[0])
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
    assert d.num_classes == num_classes
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


# Splits

LABELS = np.repeat(np.arange(7, dtype=np.int32), [1, 2, 3, 50, 100, 333, 511])[::-1]
fractions = pytest.mark.parametrize("fraction", [0, 0.0017, 0.1, 0.29, 0.5, 0.99])


@fractions
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_a_split_is_disjoint_complete_sorted_and_of_the_exact_size(fraction, seed):
    kept, held = data.stratified_split(LABELS, fraction, seed)
    assert len(held) == round(fraction * len(LABELS))
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(LABELS)))
    np.testing.assert_array_equal(kept, np.sort(kept))
    np.testing.assert_array_equal(held, np.sort(held))


@fractions
def test_every_class_gives_its_share_up_to_one_example(fraction):
    _, held = data.stratified_split(LABELS, fraction, 0)
    given = np.bincount(LABELS[held], minlength=7)
    assert (np.abs(given - fraction * np.bincount(LABELS)) < 1).all()


def test_a_split_is_fixed_by_its_own_seed():
    held = [data.stratified_split(LABELS, 0.3, seed)[1].tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_the_held_out_are_drawn_at_random_within_a_class():
    chosen = np.zeros(40)
    for seed in range(400):
        chosen[data.stratified_split(np.zeros(40, int), 0.25, seed)[1]] += 1
    # each 100 times on average, with a standard deviation below 9
    assert (np.abs(chosen - 100) < 45).all()


def test_streams_of_different_purposes_differ_at_the_same_seed():
    draws = [tuple(generator(5, purpose).integers(0, 1000, 8)) for purpose in PURPOSES]
    assert len(set(draws)) == len(PURPOSES)


# Label noise

Y = np.random.default_rng(0).integers(0, 10, 20_000).astype(np.int32)
kinds = pytest.mark.parametrize("kind", sorted(data.NOISE))


def wrong(kind, fraction, seed=0):
    return data.corrupt(Y, fraction, kind, 10, seed) != Y


@kinds
@pytest.mark.parametrize("fraction", [0.0, 0.2, 1.0])
def test_noisy_labels_are_a_copy_of_legal_classes(kind, fraction):
    before = Y.copy()
    noisy = data.corrupt(Y, fraction, kind, 10, 0)
    assert noisy is not Y
    assert noisy.dtype == np.int32
    assert set(noisy.tolist()) == set(range(10))
    np.testing.assert_array_equal(Y, before)


@kinds
def test_no_noise_changes_nothing(kind):
    assert not wrong(kind, 0.0).any()


@pytest.mark.parametrize("kind", ["symmetric", "pairwise"])
@pytest.mark.parametrize("fraction", [0.00003, 0.2, 0.33333, 0.6, 1.0])
def test_exactly_the_given_share_of_labels_is_wrong(kind, fraction):
    assert wrong(kind, fraction).sum() == round(fraction * len(Y))


def test_symmetric_noise_favours_no_other_class():
    noisy = data.corrupt(Y, 1.0, "symmetric", 10, 0)
    counts = np.bincount((noisy - Y) % 10, minlength=10)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - len(Y) / 9) < 5 * np.sqrt(len(Y) / 9)).all()


@pytest.mark.parametrize("fraction", [0.4, 1.0])
def test_uniform_noise_redraws_a_label_right_once_in_ten_times(fraction):
    expected = 0.9 * fraction * len(Y)
    assert abs(wrong("uniform", fraction).sum() - expected) < 5 * np.sqrt(0.1 * expected)


def test_pairwise_noise_gives_the_next_class():
    noisy = data.corrupt(Y, 0.5, "pairwise", 10, 0)
    hit = noisy != Y
    np.testing.assert_array_equal(noisy[hit], (Y[hit] + 1) % 10)


@kinds
def test_a_larger_fraction_corrupts_a_superset_with_the_same_wrong_labels(kind):
    less, more = (data.corrupt(Y, fraction, kind, 10, 3) for fraction in (0.2, 0.6))
    np.testing.assert_array_equal(more[less != Y], less[less != Y])
    assert (more != Y).sum() > 2.5 * (less != Y).sum()


def test_all_kinds_hit_the_same_examples_at_one_seed():
    hit = wrong("symmetric", 0.3)
    np.testing.assert_array_equal(wrong("pairwise", 0.3), hit)
    assert not (wrong("uniform", 0.3) & ~hit).any()


@kinds
def test_noise_is_fixed_by_its_own_seed(kind):
    a, b, c = (data.corrupt(Y, 0.3, kind, 10, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@kinds
def test_noise_touches_training_labels_and_nothing_else(kind):
    clean = data.load("digits", validation_fraction=0.2)
    noisy = data.load("digits", validation_fraction=0.2, label_noise=0.5, noise_kind=kind)
    for a, b in zip(clean[1:3], noisy[1:3], strict=True):
        np.testing.assert_array_equal(a["y"], b["y"])
        np.testing.assert_array_equal(a["x"], b["x"])
    np.testing.assert_array_equal(clean.train["x"], noisy.train["x"])
    n, changed = len(clean.train["y"]), (clean.train["y"] != noisy.train["y"]).sum()
    assert changed == round(0.5 * n) if kind != "uniform" else 0.4 * n < changed < 0.5 * n


def test_the_three_seeds_are_independent_of_each_other():
    """Another noise seed keeps the split, and another split seed the test set."""
    a = data.load("digits", label_noise=0.2)
    b = data.load("digits", label_noise=0.2, noise_seed=1)
    c = data.load("digits", label_noise=0.2, split_seed=1)
    np.testing.assert_array_equal(a.train["x"], b.train["x"])
    assert (a.train["y"] != b.train["y"]).any()
    assert (a.train["x"] != c.train["x"]).any()
    np.testing.assert_array_equal(a.test["x"], c.test["x"])


# Augmentation

KEY = jax.random.key(7)
IMAGES = official.images(6, 6, 5)
COMPILED = {name: jax.jit(f) for name, f in augment.AUGMENTATIONS.items()}
each = pytest.mark.parametrize("name", sorted(COMPILED))


@each
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_augmentation_keeps_shape_and_dtype(name, dtype):
    x = IMAGES.astype(dtype)
    y = jax.eval_shape(augment.AUGMENTATIONS[name], KEY, x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@each
def test_the_same_key_augments_the_same_way_compiled_or_not(name):
    first = COMPILED[name](KEY, IMAGES)
    np.testing.assert_array_equal(COMPILED[name](KEY, IMAGES), first)
    np.testing.assert_array_equal(augment.AUGMENTATIONS[name](KEY, IMAGES), first)


@each
def test_augmentation_maps_over_keys_as_a_loop_does(name):
    f, keys = COMPILED[name], jax.random.split(KEY, 3)
    mapped = jax.jit(jax.vmap(f, in_axes=(0, None)))(keys, IMAGES)
    np.testing.assert_array_equal(mapped, np.stack([f(key, IMAGES) for key in keys]))


@each
def test_what_becomes_of_an_example_does_not_depend_on_the_others(name):
    f, others = COMPILED[name], IMAGES.copy()
    others[[0, 1, 2, 4, 5]] = 0
    np.testing.assert_array_equal(f(KEY, IMAGES)[3], f(KEY, others)[3])


def test_no_augmentation_is_the_identity():
    np.testing.assert_array_equal(augment.none(KEY, IMAGES), IMAGES)


def test_another_key_augments_in_another_way():
    a, b = (COMPILED["crop_flip"](jax.random.key(seed), IMAGES) for seed in (0, 1))
    assert (a != b).any()


def crops(image, pad):
    """Every window of the size of ``image`` in it or in its mirror, with zeros around."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return [
        whole[i : i + height, j : j + width]
        for whole in (padded, padded[:, ::-1])
        for i in range(2 * pad + 1)
        for j in range(2 * pad + 1)
    ]


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_every_output_is_a_crop_of_the_zero_padded_image_or_of_its_mirror(pad):
    outputs = jax.jit(functools.partial(augment.crop_flip, pad=pad))(KEY, IMAGES)
    for before, after in zip(IMAGES, outputs, strict=True):
        assert any(np.array_equal(after, crop) for crop in crops(before, pad))


def test_all_crops_and_both_mirrors_are_equally_likely():
    image = np.arange(1, 31, dtype=np.uint8).reshape(6, 5, 1)
    crop_flip = jax.jit(functools.partial(augment.crop_flip, pad=1))
    out = np.asarray(crop_flip(KEY, np.repeat(image[None], 3600, axis=0)))
    counts = [(out == crop).all((1, 2, 3)).sum() for crop in crops(image, 1)]
    assert sum(counts) == 3600  # hence all different
    # each 200 times on average, with a standard deviation below 14
    assert (np.abs(np.array(counts) - 200) < 70).all()
