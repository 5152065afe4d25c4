"""Every knob of a config, each turned alone."""

import dataclasses

from samscale import data, models, optimizers, pruning, sharpness, tasks
from samscale.config import Config
from samscale.data.augment import AUGMENTATIONS
from samscale.training.track import TRACKERS

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
BASE = Config(pruner="random", sparsity=0.5)  # beside which every knob may be turned alone
CANDIDATES = {
    bool: (True, False),
    int: (2, 4),
    float: (0.25, 0.75),
    str: ("another", "coupled", "kernels", "global", "constant", "inf"),
    tuple: ((7,), ("Dense_0",)),
}
TABLES = {
    "dataset": data.DATASETS,
    "model": models.MODELS,
    "loss": tasks.LOSSES,
    "augmentation": AUGMENTATIONS,
    "noise_kind": data.NOISE,
    "optimizer": {**optimizers.BASES, **sharpness.PRESETS},
    "base_optimizer": optimizers.BASES,
    "lr_scheduler": optimizers.SCHEDULES,
    "pruner": pruning.PRUNERS,
    "track": TRACKERS,
}


def is_legal(config):
    try:
        config.validate()
    except ValueError:
        return False
    return True


def turned(name):
    """``BASE`` with another legal value of one knob."""
    value = getattr(BASE, name)
    others = [v for v in CANDIDATES[type(value)] if v != value]
    return next(
        config for v in others if is_legal(config := dataclasses.replace(BASE, **{name: v}))
    )
