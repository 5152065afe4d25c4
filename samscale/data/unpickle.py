"""Reads the pickles of CIFAR's official Python archives without running anything in them.

A pickle is a program that may call whatever it names. Here it may name only what the official
files need, and even these names lead to the inert stand-ins below, never into numpy: a hostile
file cannot run code, and old ones do not depend on numpy's private modules (numpy >= 2.4 warns
about the dtypes that Python 2 wrote). Nor can a small file ask for much memory.
"""

import io
import pickle
import pickletools

import numpy as np


class _Dtype:
    def __init__(self, code, align=False, copy=False):
        self.code = code

    def __setstate__(self, state):
        """Byte order and padding mean nothing for bytes."""


class _Array:
    value = None

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, raw = state
        if dtype.code != "u1":
            raise pickle.UnpicklingError(f"an array of dtype {dtype.code!r} instead of bytes")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        order = "F" if is_fortran else "C"
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order=order)


def _admitted(most):
    """Made anew for every file, so that no file can tamper with what the next one sees.

    ``most``: bytes that the texts of the file may be turned into, all together.
    """
    array, left = type("Array", (_Array,), {}), [most]

    def encode(text, codec):
        left[0] -= len(text)
        if left[0] < 0:
            raise pickle.UnpicklingError("it turns the same text into bytes again and again")
        return text.encode("latin1")

    reconstruct = lambda subtype, shape, typecode: array()
    return {
        ("numpy", "ndarray"): array,
        ("numpy", "dtype"): type("Dtype", (_Dtype,), {}),
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,  # written by numpy >= 2
        # how Python 3 writes bytes in the protocols of Python 2
        ("_codecs", "encode"): encode,
    }


class _Unpickler(pickle.Unpickler):
    def __init__(self, blob):
        super().__init__(io.BytesIO(blob), encoding="latin1")
        self.admitted = _admitted(len(blob))

    def find_class(self, module, name):
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not admitted")
        return self.admitted[module, name]


def _check_memo(blob):
    """The unpickler makes room for every number up to the largest that something is put under."""
    for operation, number, _ in pickletools.genops(blob):
        if operation.name.endswith("PUT") and number > len(blob):
            raise pickle.UnpicklingError(f"it puts something under the number {number}")


def loads(blob, path):
    """The dict in a pickle, byte arrays as numpy arrays; anything else is a ``ValueError``."""
    try:
        _check_memo(blob)
        content = _Unpickler(blob).load()
    except Exception as error:  # what a damaged pickle raises is anything at all
        words = " ".join(str(error).split())  # some come on two lines
        raise ValueError(f"{path}: not a readable CIFAR pickle: {words}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__} instead of a dict")
    return {k: v.value if isinstance(v, _Array) else v for k, v in content.items()}
