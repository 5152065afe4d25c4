"""The multilayer perceptron whose widths are the knob of the MNIST experiments."""

from typing import Any

import flax.linen as nn


class MLP(nn.Module):
    """Dense-ReLU(-dropout) layers of the given widths, then a linear head.

    Parameters: ``Dense_0 ... Dense_k`` with ``kernel`` and ``bias``. Sown: ``units``, what its
    ReLUs are given, and ``features``, what its head is.
    """

    num_neurons: tuple[int, ...]
    num_outputs: int
    dropout: float = 0.0
    dtype: Any = None  # of the computation; parameters stay float32

    @nn.compact
    def __call__(self, x, train: bool = False):  # (batch, *shape) -> (batch, num_outputs)
        x = x.reshape(x.shape[0], -1)
        for width in self.num_neurons:
            x = nn.Dense(width, dtype=self.dtype)(x)
            self.sow("intermediates", "units", x)
            x = nn.relu(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        self.sow("intermediates", "features", x)
        return nn.Dense(self.num_outputs, dtype=self.dtype)(x)
