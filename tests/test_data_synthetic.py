"""Laws of data that are drawn: the teacher's signal, the noise floor, and who may use them."""

import jax
import numpy as np
import pytest

from samscale import data, tasks
from samscale.config import Config
from samscale.data import synthetic
from samscale.training import program
from samscale.training.step import Knobs

KEY = jax.random.key(0)
SIGNAL = (1 - 1 / np.pi) / 2  # variance of relu(z), z ~ N(0, 1)
REGRESSION = Config(dataset="teacher_student", loss="squared", num_neurons=(8,))


def load(**knobs):
    return data.load("teacher_student", validation_fraction=0, **knobs)


def test_sizes_are_the_published_ones():
    d = load()
    assert (d.train["x"].shape, d.train["y"].shape) == ((20_400, 100), (20_400, 1))
    assert (d.test["x"].shape, d.test["y"].shape) == ((5_100, 100), (5_100, 1))
    assert {a.dtype for split in d[:3] for a in split.values()} == {np.dtype(np.float32)}


def test_inputs_are_standard_normal_and_no_two_splits_share_one():
    d = load()
    assert abs(d.train["x"].mean()) < 0.005
    assert abs(d.train["x"].std() - 1) < 0.005
    rows = [row.tobytes() for split in d[:3] for row in split["x"]]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_signal_has_the_variance_that_its_formula_says_and_noise_has_one(scale):
    """Over teachers, the output's variance is scale^2 Var(relu): 20 teachers come within 10 %."""
    one = lambda seed, scale: load(teacher_seed=seed, teacher_scale=scale).train["y"]
    signals = [(one(seed, 2 * scale) - one(seed, scale)) for seed in range(20)]
    assert np.mean([s.var() for s in signals]) == pytest.approx(scale**2 * SIGNAL, rel=0.1)
    noise = 2 * one(0, scale) - one(0, 2 * scale)  # what does not scale with the teacher
    assert noise.var() == pytest.approx(1, rel=0.03)
    assert abs(noise.mean()) < 0.03


def test_a_linear_fit_cannot_reach_the_noise_floor_and_the_teacher_does():
    d, s = load(teacher_scale=3.0), load(teacher_scale=6.0)
    noise = 2 * d.test["y"] - s.test["y"]
    x = lambda split: np.c_[split["x"], np.ones(len(split["x"]))]
    w, *_ = np.linalg.lstsq(x(d.train), d.train["y"], rcond=None)
    linear = float(((x(d.test) @ w - d.test["y"]) ** 2).mean())
    floor = float((noise**2).mean())
    assert floor == pytest.approx(1, rel=0.05)
    assert linear > floor + 0.3


def test_data_are_fixed_by_their_own_seed():
    assert np.array_equal(load().train["y"], load().train["y"])
    assert not np.array_equal(load().train["y"], load(teacher_seed=1).train["y"])


def test_the_held_out_are_a_random_part_although_there_are_no_classes():
    d = data.load("teacher_student", validation_fraction=0.25)
    assert (len(d.train["y"]), len(d.validation["y"])) == (15_300, 5_100)
    assert abs(d.validation["y"].mean() - d.train["y"].mean()) < 0.05


def test_an_unwritten_network_predicts_zero_and_pays_the_mean_square():
    task = tasks.build(REGRESSION)
    params, stats = task.init(KEY)
    zero = {name: {k: 0 * w for k, w in layer.items()} for name, layer in params.items()}
    sums, _ = task.loss(zero, stats, task.test, KEY, False)
    assert float(sums["loss"]) == pytest.approx(float((task.test["y"] ** 2).sum()), rel=1e-5)
    assert (task.monitor, task.maximize) == ("loss", False)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"loss": "cross_entropy"}, "loss='cross_entropy': must be 'squared' for dataset="),
        ({"model": "ResNet18"}, "model='ResNet18': must be 'MLP' for dataset="),
        ({"augmentation": "crop_flip"}, "augmentation='crop_flip': must be 'none' for dataset="),
        ({"label_noise": 0.5}, "label_noise=0.5: must be 0 for dataset="),
    ],
)
def test_what_numbers_and_vectors_cannot_have_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        tasks.build(Config(**{**vars(REGRESSION), **changes}))


def test_the_teacher_is_as_large_as_the_training_set():
    assert synthetic.NUM_TRAIN == synthetic.NUM_INPUTS * 200 + 200 + 200


def test_init_scale_multiplies_kernels_and_nothing_else():
    def params(**knobs):
        config = Config(num_neurons=(4,), **knobs)
        task = tasks.build(config)
        p, numbers = program.build(config, task), Knobs.of(config)
        return p.init(numbers, task.train, p.order(numbers, 0)).params

    one, half = params(), params(init_scale=0.5)
    for name, layer in one.items():
        np.testing.assert_array_equal(half[name]["kernel"], 0.5 * layer["kernel"])
        np.testing.assert_array_equal(half[name]["bias"], layer["bias"])
