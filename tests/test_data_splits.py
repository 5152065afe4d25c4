"""Who is held out: exact, stratified, fixed by a seed of its own."""

import numpy as np
import pytest

from samscale import data
from samscale.data.dataset import PURPOSES, generator

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
