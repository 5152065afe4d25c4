"""Data sets as arrays in memory: read, split, corrupted. Augmentation (with JAX) is ``augment``."""

import numpy as np

from samscale.config import choose
from samscale.data.dataset import Dataset, take
from samscale.data.noise import NOISE, corrupt
from samscale.data.sources import DATASETS
from samscale.data.split import stratified_split

__all__ = ["DATASETS", "NOISE", "Dataset", "corrupt", "load", "stratified_split"]


def load(
    name,
    *,
    validation_fraction=0.1,
    split_seed=0,
    label_noise=0.0,
    noise_kind="symmetric",
    noise_seed=0,
    **knobs,
) -> Dataset:
    """A data set of which only the remaining training labels are corrupted.

    Downloads what is not found (``fetch``). Nothing here depends on the seed of a run, so seeds
    of a study share their data unless the study says otherwise. ``knobs``: of data that are
    drawn, not read (``synthetic``); each data set takes those it knows.
    """
    read = choose("dataset", name, DATASETS)
    choose("noise_kind", noise_kind, NOISE)  # not only after a download
    train, test, num_outputs, normalize = read(**knobs)
    classes = np.issubdtype(train["y"].dtype, np.integer)
    if label_noise and not classes:
        raise ValueError(
            f"label_noise={label_noise}: must be 0 for dataset={name!r}, which has no classes"
        )
    strata = train["y"] if classes else np.zeros(len(train["y"]), np.int32)
    kept, held = stratified_split(strata, validation_fraction, split_seed)
    train, validation = take(train, kept), take(train, held)
    if classes:
        train["y"] = corrupt(train["y"], label_noise, noise_kind, num_outputs, noise_seed)
    return Dataset(train, validation, test, num_outputs, normalize)
