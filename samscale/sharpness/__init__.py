"""Sharpness-aware gradients for any network in JAX: pure functions before any optax optimizer."""

from samscale.sharpness.core import (
    Gradient,
    Info,
    State,
    at_perturbed,
    grouped,
    norm,
    plain,
    sharpness_aware,
)
from samscale.sharpness.perturbations import times, to_sphere
from samscale.sharpness.presets import PRESETS, sam, usam

__all__ = [
    "PRESETS",
    "Gradient",
    "Info",
    "State",
    "at_perturbed",
    "grouped",
    "norm",
    "plain",
    "sam",
    "sharpness_aware",
    "times",
    "to_sphere",
    "usam",
]
