"""A task of one's own: which of three shapes has this noisy waveform? See docs/own_task.md."""

import flax.linen as nn
import numpy as np

from samscale import tasks

SHAPES = {  # of a phase in [0, 1)
    "sine": lambda phase: np.sin(2 * np.pi * phase),
    "triangle": lambda phase: 4 * np.abs(phase - 0.5) - 1,
    "square": lambda phase: np.sign(0.5 - phase),
}
NUM_EXAMPLES, NUM_TEST = 1_500, 500
LENGTH, WINDOW, FULL_SCALE = 64, 16, 1_000


class GatedWindows(nn.Module):
    """A gated layer looks at each window of a waveform; a linear head at their mean."""

    num_filters: int

    @nn.compact
    def __call__(self, x, train=False):  # (batch, LENGTH) -> (batch, shapes)
        del train  # samscale says it to every network; this one has no dropout, no batch norm
        x = x.reshape(len(x), -1, WINDOW)
        x = nn.Dense(self.num_filters)(x) * nn.sigmoid(nn.Dense(self.num_filters)(x))
        return nn.Dense(len(SHAPES))(x.mean(axis=1))


def recordings():
    """Whole numbers, as a recorder writes them, and classes: the same arrays in every run."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(NUM_EXAMPLES) % len(SHAPES)).astype(np.int32)
    start, periods = rng.random((NUM_EXAMPLES, 1)), rng.uniform(2, 5, (NUM_EXAMPLES, 1))
    phase = (start + periods * np.linspace(0, 1, LENGTH)) % 1
    clean = np.stack([shape(phase) for shape in SHAPES.values()])[y, np.arange(NUM_EXAMPLES)]
    noise = rng.normal(0, 0.5, clean.shape)
    return (FULL_SCALE * (clean + noise)).astype(np.int16), y


def get_task(config):
    x, y = recordings()
    # The test set never moves. What else is held out follows two knobs, and not the run's seed.
    test, rest = np.split(np.arange(NUM_EXAMPLES), [NUM_TEST])
    rest = np.random.default_rng(config.split_seed).permutation(rest)
    validation, train = np.split(rest, [round(config.validation_fraction * len(rest))])
    split = lambda rows: {"x": x[rows], "y": y[rows]}
    init, loss = tasks.supervised(
        GatedWindows(config.num_filters),
        tasks.cross_entropy,
        example=split(train[:1]),  # shows the shapes
        normalize=lambda x: x.astype("float32") / FULL_SCALE,  # inside: stored data stay small
    )
    return tasks.Task(split(train), split(validation), split(test), init, loss)
