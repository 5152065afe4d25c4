"""Convolutions whose gradients are fast on CPUs.

XLA:CPU convolves forward at a good rate but takes the gradient of a kernel several times slower.
Here the derivative is written so that its transpose is matrix products over windows.

Not yet tuned against other libraries: ``benchmarks/resnet.py`` measures.

Paths, on CPUs; elsewhere all is ``lax.conv_general_dilated``:

* 1x1 kernels without padding: one matrix product, and so are its gradients;
* values: XLA's convolution, but window products where there are fewer than 8 input channels;
* gradients of kernels: window products;
* gradients of inputs: XLA's convolution, but window products where strides exceed 1.

Windows are gathered for a part of the batch at a time, small enough to stay in cache, and again
in the backward pass. All of it is made of differentiable operations, so any order of derivatives,
forward over reverse too, and ``vmap`` work (``jax.custom_vjp`` would forbid the former).
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")
_WINDOW_BYTES = 4 << 20
_FEW_CHANNELS = 8


def conv(x, kernel, strides=(1, 1), padding="SAME"):
    """``x`` (N, H, W, C) convolved with ``kernel`` (h, w, C, F), to (N, H', W', F).

    ``padding``: "SAME", "VALID" or ((top, bottom), (left, right)).
    """
    if jax.default_backend() != "cpu":
        return _xla(x, kernel, strides, padding)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return jnp.tensordot(x[:, :: strides[0], :: strides[1]], kernel[0, 0], 1)
    return _conv(x, kernel, tuple(strides), padding)


def _xla(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    convolve = _by_windows if x.shape[-1] < _FEW_CHANNELS else _xla
    return convolve(x, kernel, strides, padding)


@_conv.defjvp
def _conv_jvp(strides, padding, primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    y = _conv(x, kernel, strides, padding)
    along_x = (_by_windows if max(strides) > 1 else _conv)(dx, kernel, strides, padding)
    return y, along_x + _by_windows(x, dkernel, strides, padding)


def _by_windows(x, kernel, strides, padding):
    """The convolution as matrix products over windows of a part of the batch at a time.

    At least in float32, so that the kernel's gradient, a sum over parts, is rounded once.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    n = x.shape[0]
    size = math.prod(_output_shape(x, kernel, strides, padding)) * math.prod(kernel.shape[:3])
    parts = _power_of_two(size * dtype.itemsize / _WINDOW_BYTES)
    part = -(-n // parts)
    spare = (0, part * parts - n, 0)
    padded = lax.pad(x, x.dtype.type(0), (spare, *((*p, 0) for p in padding), (0, 0, 0)))
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype(dtype)

    @partial(jax.checkpoint, prevent_cse=False)  # else all windows would be kept for the gradient
    def product(x):
        return jnp.tensordot(_windows(x, kernel.shape, strides).astype(dtype), matrix, 1)

    y = lax.map(product, padded.reshape(parts, part, *padded.shape[1:]))
    return y.reshape(parts * part, *y.shape[2:])[:n].astype(x.dtype)


def _windows(x, kernel_shape, strides):
    """(N, H, W, C) to (N, H', W', h * w * C)."""
    (h, w), (s, t) = kernel_shape[:2], strides
    rows, columns = x.shape[1] - h + 1, x.shape[2] - w + 1
    return jnp.concatenate(
        [x[:, i : i + rows : s, j : j + columns : t] for i in range(h) for j in range(w)], -1
    )


def _output_shape(x, kernel, strides, padding):
    """(N, H', W')."""
    sides = zip(x.shape[1:3], kernel.shape[:2], strides, padding, strict=True)
    return x.shape[0], *((size + sum(pad) - k) // s + 1 for size, k, s, pad in sides)


def _power_of_two(least):
    return 1 << (max(math.ceil(least), 1) - 1).bit_length()


def _conv_general_dilated(x, kernel, strides, padding, **_):
    return conv(x, kernel, strides, padding)


Conv = partial(nn.Conv, use_bias=False, conv_general_dilated=_conv_general_dilated)
