"""Which labels are corrupted, and into what."""

import numpy as np
import pytest

from samscale import data

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
