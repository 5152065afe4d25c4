r"""Convolutions whose gradients are fast on CPUs; on other devices, exactly ``lax``'s.

XLA computes the kernel's gradient on a CPU as a convolution whose window is the whole map, and
often on one core: 220 ms for 32 channels of 128 32x32 maps, where its forward pass takes 31 and
this module's gradient 25 (two cores, 3x3). Here

- the kernel's gradient is always a sum of matrix products, one for each row of the window: what
  the row sees is gathered (an im2col of one axis) for a chunk of the batch that stays in cache;
- the output takes that way too where XLA would use one core: from 24 filters on, with
  16 channels or more, as long as window times channels stay below 1152; otherwise it is XLA's;
- the input's gradient is the output for the flipped kernel; with strides beyond 1, it is XLA's.

Output, input's gradient and kernel's gradient are the derivatives of one trilinear form
$\langle g, x * k \rangle$, hence bilinear, and the gradients of each are the other two. They are
primitives with these rules (a ``custom_vjp`` would forbid Hessian-vector products by
``jax.jvp(jax.grad(f))``, a ``linear_call`` also ``vmap``).
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

CHUNK = 2**19  # bytes of the input that are gathered at a time
_NHWC = ("NHWC", "HWIO", "NHWC")


class Window(NamedTuple):
    """What shapes do not say: static, a pair for the two axes of an image each."""

    image: tuple
    kernel: tuple
    strides: tuple
    padding: tuple  # of pairs (before, after)


def conv(x, kernel, strides=(1, 1), padding="SAME"):
    """``x`` (n, H, W, c) with ``kernel`` (h, w, c, f), of one dtype; ``padding`` as in ``lax``."""
    if jax.default_backend() != "cpu":
        return _plain(x, kernel, strides, padding)
    image, size = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image, size, strides, padding)
    window = Window(image, size, tuple(strides), tuple(map(tuple, padding)))
    return _output.bind(x, kernel, window=window)


def _plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


def _compute_output(x, kernel, *, window):
    h, w, c, f = kernel.shape
    if w == 1 or c < 16 or f < 24 or h * w * c >= 1152:
        return _plain(x, kernel, window.strides, window.padding)
    taps = kernel.reshape(h, w * c, f)

    def some(x):
        return sum(map(partial(_product, axes=((3,), (0,))), _rows(x, window), taps)).astype(
            x.dtype
        )

    y = lax.map(some, _chunks(x, _count(x)))
    return y.reshape(-1, *y.shape[2:])[: x.shape[0]]


def _compute_input_gradient(g, kernel, *, window):
    if window.strides == (1, 1):
        before = (k - 1 - low for k, (low, _) in zip(window.kernel, window.padding, strict=True))
        # so much padding behind that the map has the size of the image
        spare = (
            n - m + k - 1 for n, m, k in zip(window.image, g.shape[1:3], window.kernel, strict=True)
        )
        padding = tuple((b, s - b) for b, s in zip(before, spare, strict=True))
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        return _compute_output(
            g, flipped, window=Window(g.shape[1:3], window.kernel, (1, 1), padding)
        )
    x = jax.ShapeDtypeStruct((g.shape[0], *window.image, kernel.shape[2]), g.dtype)
    output = partial(_plain, kernel=kernel, strides=window.strides, padding=window.padding)
    return jax.linear_transpose(output, x)(g)[0]


def _compute_kernel_gradient(x, g, *, window):
    (h, w), c, f = window.kernel, x.shape[3], g.shape[3]

    def add(total, chunk):
        x, g = chunk
        products = [_product(g, row, ((0, 1, 2), (0, 1, 2))) for row in _rows(x, window)]
        return total + jnp.stack(products), None

    start = jnp.zeros((h, f, w * c), jnp.promote_types(x.dtype, jnp.float32))
    total, _ = lax.scan(add, start, (_chunks(x, _count(x)), _chunks(g, _count(x))))
    return total.swapaxes(1, 2).reshape(h, w, c, f).astype(x.dtype)


def _product(a, b, axes):
    dtype = jnp.promote_types(a.dtype, jnp.float32)  # as lax accumulates
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=dtype)


def _rows(x, window):
    """For each row of the window what it sees: (n, H', W', w c)."""
    (h, w), (s, t) = window.kernel, window.strides
    x = lax.pad(x, x.dtype.type(0), ((0, 0, 0), *((*p, 0) for p in window.padding), (0, 0, 0)))
    height, width = x.shape[1] - h + 1, x.shape[2] - w + 1
    return [
        jnp.concatenate([x[:, i : i + height : s, j : j + width : t] for j in range(w)], axis=3)
        for i in range(h)
    ]


def _count(x):
    return min(x.shape[0], max(1, x.size * x.dtype.itemsize // CHUNK))


def _chunks(x, count):
    """(n, ...) -> (count, n / count, ...), with zeros where count does not divide n."""
    size = -(-x.shape[0] // count)
    x = lax.pad(x, x.dtype.type(0), ((0, size * count - x.shape[0], 0), *[(0, 0, 0)] * 3))
    return x.reshape(count, size, *x.shape[1:])


def _bilinear(name, compute, shape):
    def abstract(a, b, *, window):
        return jax.core.ShapedArray(shape(a, b, window), a.dtype)

    primitive = Primitive(name)
    primitive.def_impl(jax.jit(compute, static_argnames="window"))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[primitive] = partial(_batch, primitive)
    return primitive


def _batch(primitive, args, axes, *, window):
    """One kernel for all: one large batch. Many: one after the other, each on all cores."""
    args = [a if i is None else jnp.moveaxis(a, i, 0) for a, i in zip(args, axes, strict=True)]
    if primitive is not _kernel_gradient and axes[1] is None:
        a, kernel = args
        out = primitive.bind(a.reshape(-1, *a.shape[2:]), kernel, window=window)
        return out.reshape(*a.shape[:2], *out.shape[1:]), 0

    def one(mapped):
        mapped = iter(mapped)
        return primitive.bind(
            *(a if i is None else next(mapped) for a, i in zip(args, axes, strict=True)),
            window=window,
        )

    return lax.map(one, [a for a, i in zip(args, axes, strict=True) if i is not None]), 0


def _output_shape(x, kernel, window):
    plain = partial(_plain, strides=window.strides, padding=window.padding)
    return jax.eval_shape(
        plain, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, kernel))
    ).shape


_output = _bilinear("conv", _compute_output, _output_shape)
_input_gradient = _bilinear(
    "conv_input_gradient",
    _compute_input_gradient,
    lambda g, kernel, window: (g.shape[0], *window.image, kernel.shape[2]),
)
_kernel_gradient = _bilinear(
    "conv_kernel_gradient",
    _compute_kernel_gradient,
    lambda x, g, window: (*window.kernel, x.shape[3], g.shape[3]),
)
# each rule gets the cotangent and both arguments, of which the one that it is for is unknown
ad.defbilinear(
    _output,
    lambda g, _, kernel, **window: _input_gradient.bind(g, kernel, **window),
    lambda g, x, _, **window: _kernel_gradient.bind(x, g, **window),
)
ad.defbilinear(
    _input_gradient,
    lambda x, _, kernel, **window: _output.bind(x, kernel, **window),
    lambda x, g, _, **window: _kernel_gradient.bind(x, g, **window),
)
ad.defbilinear(
    _kernel_gradient,
    lambda kernel, _, g, **window: _input_gradient.bind(g, kernel, **window),
    lambda kernel, x, _, **window: _output.bind(x, kernel, **window),
)


def _for_flax():
    def general(x, kernel, strides, padding, lhs_dilation, rhs_dilation, **rest):
        if {*lhs_dilation, *rhs_dilation, rest["feature_group_count"]} == {1}:
            return conv(x, kernel, strides, padding)
        return lax.conv_general_dilated(
            x, kernel, strides, padding, lhs_dilation, rhs_dilation, **rest
        )

    return general


Conv = partial(nn.Conv, use_bias=False, conv_general_dilated_cls=_for_flax)
