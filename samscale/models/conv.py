"""Convolutions whose gradients are fast on CPUs."""

from functools import partial

import flax.linen as nn
import jax
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")


def conv(x, kernel, strides=(1, 1), padding="SAME"):
    """``x`` (N, H, W, C) with ``kernel`` (h, w, C, F)."""
    if jax.default_backend() != "cpu":
        return _plain(x, kernel, strides, padding)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _conv(x, kernel, tuple(strides), tuple(map(tuple, padding)))


def _plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    return _plain(x, kernel, strides, padding)


@_conv.defjvp
def _conv_jvp(strides, padding, primals, tangents):
    x, kernel = primals
    dx, dkernel = tangents
    y = _conv(x, kernel, strides, padding)
    return y, _conv(dx, kernel, strides, padding) + _shifted(x, dkernel, strides, padding)


def _shifted(x, kernel, strides, padding):
    """The convolution as a sum of matrix products, one for each element of the window."""
    x = lax.pad(x, x.dtype.type(0), ((0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)))
    (h, w), (s, t) = kernel.shape[:2], strides
    rows, columns = (x.shape[1] - h) // s, (x.shape[2] - w) // t
    views = (
        (x[:, i : i + rows * s + 1 : s, j : j + columns * t + 1 : t], kernel[i, j])
        for i in range(h)
        for j in range(w)
    )
    return sum(view @ k for view, k in views)


def _general(x, kernel, strides, padding, dimension_numbers=None, **_):
    return conv(x, kernel, strides, padding)


Conv = partial(nn.Conv, use_bias=False, conv_general_dilated=_general)
