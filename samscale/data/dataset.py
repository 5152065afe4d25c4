"""What a data set is for everything above this folder, and how its random choices are addressed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

PURPOSES = {
    "split": 0,
    "noise": 1,
    "teacher": 2,
}  # part of every address: renumbering changes all results


class Dataset(NamedTuple):
    """Three splits: images and classes, ``{"x": (n, H, W, C) uint8, "y": (n,) int32}``, or vectors
    and numbers, ``{"x": (n, d) float32, "y": (n, num_outputs) float32}``.

    ``validation`` may have length 0. ``normalize`` maps raw ``x`` to float32 and works on numpy
    and JAX arrays and on tracers, so images stay bytes until they are inside the compiled step.
    """

    train: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    num_outputs: int  # the classes, or the numbers to predict
    normalize: Callable


def generator(seed, purpose) -> np.random.Generator:
    """Streams of different purposes are independent, also where their seeds are equal."""
    if seed < 0:
        raise ValueError(f"{purpose}_seed={seed}: must be at least 0")
    address = np.random.SeedSequence(seed, spawn_key=(PURPOSES[purpose],))
    return np.random.Generator(np.random.PCG64(address))


def take(split, indices):
    return {name: array[indices] for name, array in split.items()}
