"""What a knob is, and the knobs of the sharpness-aware gradient with each method's own defaults.

A default of -1 (``rho``, ``sam_every`` ...) stands for the method's own, as its paper or its
authors' code has it.
"""

import dataclasses
from typing import Any

from samscale.laws import (
    ANY,
    COUNT,
    COUNT_OR_NONE,
    COUNT_OR_OWN,
    FRACTION,
    NORM,
    OWN_OR_DEPTH,
    OWN_OR_ZERO,
    POSITIVE,
    SHARE,
    at_least,
    one_of,
    within,
)


def knob(default, meaning, law=ANY, *, identity=True, swept=False) -> Any:
    """A field of ``Config``.

    ``identity=False``: says how a run is carried out, not what it is. ``swept``: a number that the
    compiled program takes as an argument.
    """
    metadata = {"meaning": meaning, "law": law, "identity": identity, "swept": swept}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class SharpnessKnobs:
    """How the gradient is made sharpness-aware. The names after ``optimizer`` are the methods'."""

    optimizer: str = knob(
        "sam", "a base optimizer (its plain gradient) or a key of sharpness.PRESETS"
    )
    rho: float = knob(-1.0, "radius of the ascent; -1: the method's own", OWN_OR_ZERO, swept=True)
    rho_min: float = knob(
        0.0, "radius at the end, where rho_scheduler lets it shrink", at_least(0.0)
    )
    rho_scheduler: str = knob(
        "default",
        "learning_rate: rho falls to rho_min as the rate does; default: for gsam it does",
        one_of("default", "constant", "learning_rate"),
    )
    sam_groups: int = knob(
        -1, "m-sharpness: groups of a batch that ascend alone; -1: the method's", COUNT_OR_OWN
    )
    sam_every: int = knob(-1, "second gradient every so many steps; -1: own", COUNT_OR_OWN)
    sam_steps: int = knob(-1, "projected steps of the ascent; -1: the method's", OWN_OR_DEPTH)
    sam_norm: str = knob("2", "p of the norm that bounds the ascent: a number or inf", NORM)

    asam_eta: float = knob(0.01, "added to |w| in the metric of asam", at_least(0.0))
    gsam_alpha: float = knob(0.4, "gsam: share of the orthogonal part that is taken away")
    looksam_alpha: float = knob(0.7, "looksam: weight of the remembered part", at_least(0.0))
    wsam_gamma: float = knob(0.9, "wsam: weight of sharpness; 0.5 is SAM", FRACTION)
    friendly_sigma: float = knob(1.0, "friendly_sam: share of the mean that is taken away")
    friendly_decay: float = knob(0.9, "friendly_sam: decay of that mean", FRACTION)
    vasso_theta: float = knob(0.9, "vasso: weight of the newest gradient", SHARE)
    fisher_eta: float = knob(1.0, "fisher_sam: weight of squared gradients", at_least(0.0))
    ssam_sparsity: float = knob(0.5, "ssam: share of weights that do not climb", FRACTION)
    ssam_refresh: int = knob(-1, "ssam: steps between masks; -1: an epoch", COUNT_OR_OWN)
    ssam_samples: int = knob(
        128, "ssam_fisher: examples, of those that ascend together, that choose a mask", COUNT
    )
    ssam_drop_rate: float = knob(0.5, "ssam_dynamic: share renewed at first", within(0, 1))
    esam_beta: float = knob(0.5, "esam: probability that a leaf climbs", SHARE)
    esam_gamma: float = knob(0.5, "esam: share of examples in the second pass", SHARE)
    bsam_damping: float = knob(0.1, "bsam: added to the precision's growth", at_least(0.0))
    sassha_epsilon: float = knob(1e-4, "sassha: added to the root of the curvature", POSITIVE)


OWN = {  # what -1 stands for: of the methods named; of the others, the value under ""
    "rho": {
        "": 0.05,
        "asam": 0.5,
        "asam_all": 2.0,
        "fisher_sam": 0.1,
        "momentum_sam": 0.3,
        "sam_on": 0.5,
        "ssam_fisher": 0.1,
        "ssam_dynamic": 0.1,
        "looksam": 0.1,
        "look_layer_sam": 0.1,
        "periodic_sam": 0.5,
        "bsam": 0.01,
        "sassha": 0.2,
    },
    "sam_groups": {"": 1, "m_sam": 8, "bsam": 8},
    "sam_every": {"": 1, "looksam": 5, "look_layer_sam": 5, "periodic_sam": 10, "sassha": 10},
    "sam_steps": {"": 1, "multistep_sam": 3},
}


def own(name: str, optimizer: str):
    """The value of the knob ``name`` that ``optimizer`` comes with."""
    return OWN[name].get(optimizer, OWN[name][""])


@dataclasses.dataclass
class FlatnessKnobs:
    """What is measured and kept of the loss's shape while a run trains, beside its record."""

    flatness_every: int = knob(
        0,
        "measure flatness at the end of every so many epochs; 0: never",
        COUNT_OR_NONE,
        identity=False,
    )
    flatness_measures: tuple[str, ...] = knob(
        ("curvature", "sharpness"), "keys of flatness.MEASURES", identity=False
    )
    flatness_rho: float = knob(
        0.05, "radius of the ascents that are measured, in all runs", POSITIVE, identity=False
    )
    flatness_examples: int = knob(
        1000, "training examples that it is measured on; 0: all", COUNT_OR_NONE, identity=False
    )
    snapshot_every: int = knob(
        0,
        "keep the parameters at the end of every so many epochs, for paths; 0: never",
        COUNT_OR_NONE,
        identity=False,
    )
