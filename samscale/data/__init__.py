"""Data sets as arrays in memory: read, split, corrupted. Augmentation (with JAX) is ``augment``."""

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
) -> Dataset:
    """A data set of which only the remaining training labels are corrupted.

    Downloads what is not found (``fetch``). Nothing here depends on the seed of a run, so seeds
    of a study share their data unless the study says otherwise.
    """
    _check(name, validation_fraction, label_noise, noise_kind)
    _check_seeds(split_seed=split_seed, noise_seed=noise_seed)
    train, test, num_classes, normalize = DATASETS[name]()
    kept, held = stratified_split(train["y"], validation_fraction, split_seed)
    train, validation = take(train, kept), take(train, held)
    train["y"] = corrupt(train["y"], label_noise, noise_kind, num_classes, noise_seed)
    return Dataset(train, validation, test, num_classes, normalize)


def _check(name, validation_fraction, label_noise, noise_kind):
    if name not in DATASETS:
        raise ValueError(f"dataset={name!r}: choose one of {sorted(DATASETS)}")
    if not 0 <= validation_fraction < 1:
        raise ValueError(
            f"validation_fraction={validation_fraction}: must be at least 0 and below 1"
        )
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise={label_noise}: must be between 0 and 1")
    if noise_kind not in NOISE:
        raise ValueError(f"noise_kind={noise_kind!r}: choose one of {sorted(NOISE)}")


def _check_seeds(**seeds):
    for field, seed in seeds.items():
        if seed < 0:
            raise ValueError(f"{field}={seed}: must be at least 0")
