"""Residual networks whose ``num_filters`` is the knob of the CIFAR and ImageNet experiments.

Names and shapes of parameters are those of the released program, which had them from Flax.
Sown: ``units``, what ReLUs are given, and ``features``, what the head is.
"""

from functools import partial
from typing import Any

import flax.linen as nn

from samscale.models.conv import Conv
from samscale.models.norm import BatchNorm


class ResNetBlock(nn.Module):
    """Two 3x3 convolutions (He et al., 2016)."""

    filters: int
    strides: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x):
        conv = partial(self.conv, padding=((1, 1), (1, 1)))
        y = conv(self.filters, (3, 3), self.strides)(x)
        y = _relu(self, self.norm()(y))
        y = conv(self.filters, (3, 3))(y)
        y = self.norm()(y)
        return _relu(self, _shortcut(self, x, y) + y)


class BottleneckResNetBlock(nn.Module):
    """1x1, 3x3 (which strides), 1x1 to four times as many filters; begins as the identity."""

    filters: int
    strides: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x):
        y = _relu(self, self.norm()(self.conv(self.filters, (1, 1))(x)))
        y = _relu(self, self.norm()(self.conv(self.filters, (3, 3), self.strides)(y)))
        y = self.conv(4 * self.filters, (1, 1))(y)
        y = self.norm(scale_init=nn.initializers.zeros_init())(y)
        return _relu(self, _shortcut(self, x, y) + y)


def _relu(module, x):
    module.sow("intermediates", "units", x)
    return nn.relu(x)


def _shortcut(block, x, y):
    """The block's input, projected where its shape has changed."""
    if x.shape == y.shape:
        return x
    x = block.conv(y.shape[-1], (1, 1), block.strides, name="conv_proj")(x)
    return block.norm(name="norm_proj")(x)


class ResNet(nn.Module):
    """Stages of residual blocks; every stage but the first halves the map and doubles the filters.

    ``small_images``: a 3x3 stem without pooling, for 28x28 and 32x32 pixels; else ImageNet's 7x7
    stem with stride 2 and max pooling. Batch statistics: collection ``batch_stats``, momentum 0.9,
    over the batch that a pass sees, whatever the number of devices.
    """

    num_filters: int
    num_outputs: int
    num_blocks: tuple[int, ...]
    block: Any
    small_images: bool
    dtype: Any = None  # of the computation; parameters stay float32

    @nn.compact
    def __call__(self, x, train: bool = False):  # (batch, H, W, C) -> (batch, num_outputs)
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(
            BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        kernel, strides, pad = ((3, 3), 1, (1, 1)) if self.small_images else ((7, 7), 2, (3, 3))
        x = conv(self.num_filters, kernel, strides, padding=(pad, pad), name="conv_init")(x)
        x = _relu(self, norm(name="bn_init")(x))
        if not self.small_images:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for stage, blocks in enumerate(self.num_blocks):
            for i in range(blocks):
                strides = 2 if stage > 0 and i == 0 else 1
                x = self.block(self.num_filters * 2**stage, strides, conv, norm)(x)
        x = x.mean((1, 2))
        self.sow("intermediates", "features", x)
        return nn.Dense(self.num_outputs, dtype=self.dtype)(x)


ResNet18 = partial(ResNet, num_blocks=(2, 2, 2, 2), block=ResNetBlock, small_images=True)
ResNet50 = partial(ResNet, num_blocks=(3, 4, 6, 3), block=BottleneckResNetBlock, small_images=False)
