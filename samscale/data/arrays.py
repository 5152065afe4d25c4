"""What the splits of a task may hold: arrays of numbers that a device can take, of one length."""

import numbers
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

SPLITS = ("train", "validation", "test")


def checked(splits: Mapping) -> dict:
    """The splits with arrays for lists and for columns of pandas.

    Raises ``ValueError``, naming split, array and what is wrong, for what is no array of numbers,
    for arrays of several lengths, and for splits whose examples differ in shape or kind of number.
    """
    found = {name: _split(name, split) for name, split in splits.items()}
    if not len(next(iter(found["train"].values()))):
        raise ValueError("train: must hold examples, and is empty")
    for name in found:
        _like_train(name, found[name], found["train"])
    return found


def _split(name, split):
    if not isinstance(split, Mapping) or not split:
        what = type(split).__name__ if not isinstance(split, Mapping) else "an empty one"
        raise ValueError(f"{name}: must be a dict of arrays, not {what}")
    arrays = {key: _array(f"{name}[{key!r}]", value) for key, value in split.items()}
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"the arrays of {name} must have one length, not {lengths}")
    if "weight" in arrays:
        _weights(f"{name}['weight']", np.asarray(arrays["weight"]))
    return arrays


def _array(where, value):
    """``value`` as an array of numbers with examples along its first axis."""
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{where}: must be a plain array, not a masked one; fill what is masked")
    if not isinstance(value, jax.Array):
        try:
            value = np.asarray(value)
        except Exception as error:  # of whatever it is: lists of several lengths, GPU tensors
            words = " ".join(str(error).split())
            raise ValueError(f"{where}: must be an array of numbers ({words})") from error
    if not _is_of_numbers(value.dtype):
        raise ValueError(f"{where}: must be an array of numbers, not of {_kind(value)}")
    if not value.ndim:
        raise ValueError(f"{where}: must have examples along its first axis, not be one number")
    _fits_on_a_device(where, value)
    return value


def _is_of_numbers(dtype):
    """Whether it is of numbers or booleans, and JAX has arrays of it."""
    if not isinstance(dtype, np.dtype):
        return False
    try:
        jnp.zeros(0, jax.dtypes.canonicalize_dtype(dtype))
    except TypeError:
        return False
    return True


def _kind(value):
    """What an array holds, in words: of objects the type of the first that is no number."""
    if value.dtype != object:
        return str(value.dtype)
    odd = (v for v in value.flat if not isinstance(v, numbers.Number))
    return f"objects ({type(next(odd, None)).__name__} among them)"


def _fits_on_a_device(where, value):
    """Raises ``ValueError`` for numbers of 64 bits that would become others in 32 bits."""
    narrow = jax.dtypes.canonicalize_dtype(value.dtype)
    if narrow == value.dtype or not value.size:
        return
    if jnp.issubdtype(narrow, jnp.integer):
        limits = np.iinfo(narrow)
        odd = (value < limits.min) | (value > limits.max)
    else:
        odd = np.isfinite(value) & (np.abs(value) > np.finfo(narrow).max)
    if odd.any():
        raise ValueError(f"{where}: must fit in {narrow}, and holds {value[odd][0]}")


def _weights(where, weight):
    if weight.ndim != 1 or not np.all(np.isfinite(weight) & (weight >= 0)):
        raise ValueError(f"{where}: must be one finite number of at least 0 for each example")


def _like_train(name, split, train):
    for key, array in split.items():
        if key not in train or not len(array):
            continue
        shape, wanted = array.shape[1:], train[key].shape[1:]
        if shape != wanted:
            raise ValueError(
                f"{name}[{key!r}]: its examples must be shaped as those of train, {wanted}, not "
                f"{shape}"
            )
        if _is_real(array) != _is_real(train[key]):
            raise ValueError(
                f"{name}[{key!r}]: must hold numbers of the kind of train, {train[key].dtype}, not "
                f"{array.dtype}"
            )


def _is_real(array):
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))
