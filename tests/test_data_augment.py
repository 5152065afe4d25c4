"""Augmentation is a pure function of a key."""

import functools

import jax
import numpy as np
import pytest

import official_files as official
from samscale.data import augment

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
    assert abs(sum(counts[9:]) - 1800) < 4 * 30  # the mirrored half, with a deviation of 30
