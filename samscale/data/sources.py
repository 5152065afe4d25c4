"""The data sets by name.

Every entry of ``DATASETS`` is a function of the knobs it knows that returns ``(train, test,
num_outputs, normalize)`` as ``Dataset`` describes them, before any split or noise.
"""

from functools import partial
from pathlib import Path

import numpy as np

from samscale.data import cifar, fetch, readers
from samscale.data.dataset import take
from samscale.data.split import stratified_split
from samscale.data.synthetic import teacher_student


def _divided(x, by):
    return x.astype("float32") / by


def _standardized(x, mean, std):
    """Bytes -> values of mean 0 and standard deviation 1 a channel over the training set."""
    of_rank = lambda values: np.reshape(np.float32(values), (1,) * (x.ndim - 1) + (-1,))
    return (x.astype("float32") / 255 - of_rank(mean)) / of_rank(std)


# One object each, so that what was compiled with it is found again after a second load.
SIXTEENTHS = partial(_divided, by=16)
BYTES = partial(_divided, by=255)
CIFAR10 = partial(_standardized, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
CIFAR100 = partial(_standardized, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))


def digits(**_):
    """Handwritten digits, 1,797 grey images of 8 x 8 with values 0 to 16; needs no download.

    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (its test part), UCI
    Machine Learning Repository, 1998, CC BY 4.0. The 80/20 split is ours and always the same.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as stored:
        every = {"x": stored["x"], "y": stored["y"].astype(np.int32)}
    train, test = stratified_split(every["y"], 0.2, split_seed=0)
    return take(every, train), take(every, test), 10, SIXTEENTHS


def mnist(**_):
    return *_idx("mnist"), 10, BYTES


def fashion_mnist(**_):
    return *_idx("fashion_mnist"), 10, BYTES


def _idx(name):
    return readers.read_idx_folder(fetch.folder(name, COMPLETE[name]), num_classes=10)


def cifar10(**_):
    return *_cifar("cifar10", 10), 10, CIFAR10


def cifar100(**_):
    return *_cifar("cifar100", 100), 100, CIFAR100


def _cifar(name, num_classes):
    place = fetch.folder(name, COMPLETE[name])
    return cifar.read_cifar_folder(place, num_classes)


def imagenet(**_):
    raise ValueError("dataset='imagenet': its data pipeline is not part of this version")


COMPLETE = {  # data sets that are files -> whether a folder holds all of them
    "mnist": readers.has_idx,
    "fashion_mnist": readers.has_idx,
    "cifar10": partial(cifar.has_cifar, num_classes=10),
    "cifar100": partial(cifar.has_cifar, num_classes=100),
}
DATASETS = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet": imagenet,
    "teacher_student": teacher_student,
}
