"""Where flatness is measured, and how much of it at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from samscale.flatness import examples, operators


class Point(NamedTuple):
    """A loss where it is measured, and how."""

    losses: Callable  # (params, batch) -> (n,); arrays it holds are arguments where a Partial
    params: Any
    data: Any  # a pytree of arrays, examples along the leading axis
    outputs: Callable | None = None  # (params, batch) -> (n, C)
    criterion: Callable | None = None  # (outputs, batch) -> (n,): losses = criterion of outputs
    mask: Any = None  # like params or of scalars: 0 where weights are pruned, 1 elsewhere
    activations: Callable | None = None  # (params, batch) -> (units, features); see ``features``
    start: Callable | None = None  # batch -> the same at initialization
    before: Any = None  # parameters an epoch ago
    rho: float = 0.05  # of the ascents that are measured, in the unit of weights
    batch_size: int = 1  # of training
    learning_rate: float = 0.0  # of training, before its schedule; 0: not known
    train_rho: float = 0.0  # of training's ascents; 0: there are none
    unlike: str = ""  # the method of training, where it is neither SGD nor unnormalized SAM
    aside: tuple[str, ...] = ()  # what training has that linear stability knows nothing of
    chunk: int = 0  # examples in memory together; 0: as many as ``examples.BUDGET`` bytes hold

    def together(self) -> int | None:
        """How many examples a pass takes at a time; None: all."""
        return examples.at_a_time(self.losses, self.params, self.data, self.chunk)

    def hessian(self) -> operators.Operator:
        """Of the mean loss, streamed where examples are too many."""
        return operators.hessian(self.losses, self.params, self.data, self.together())

    def in_float64(self) -> "Point":
        """The same with every real array in float64; to be measured under ``jax.enable_x64``."""

        def wide(x):
            real = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
            return jnp.asarray(x, jnp.float64) if real else x

        with jax.enable_x64(True):
            return jax.tree.map(wide, self)
