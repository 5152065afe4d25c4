r"""The linearized dynamics of SGD and SAM at a minimum: how fast the mean square really grows.

A step maps the distance x to the minimum to $(I - \eta K_B) x$, with $K_B = H_B + \rho H_B^2$ for
batches B drawn without replacement, anew in each step. ``stability`` has conditions that need no
dense matrix; here is what they are held against.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from samscale.flatness.examples import count, pure
from samscale.flatness.operators import hessian

LARGEST, MOST = 64, 100_000  # parameters and batches of the exact growth


def exact_growth(hessians, learning_rate, rho=0.0, batch_size: int = 1) -> float:
    r"""The growth of $\log_{10} E\|x\|^2$ a step, in the long run; at most 0: it stays bounded.

    That of $E[x x^\top] \mapsto E[A\, x x^\top A]$, $A = I - \eta K_B$: the logarithm of the
    spectral radius of $E[A \otimes A]$, of which condition (5) is a bound from above. -infinity
    where one step ends all. ``hessians``: (n, P, P), of the examples. Dense, in float64:
    $\binom n B P^4$ operations, memory for $P^4$ numbers and $P^6$ for the eigenvalues. Raises
    ``ValueError`` beyond 64 parameters or 100,000 batches, or for a batch size that is none.
    """
    h = np.asarray(hessians, np.float64)
    n, size = h.shape[:2]
    if size > LARGEST:
        raise ValueError(f"hessians: must be of at most {LARGEST} parameters, not {size}")
    _check_batch(batch_size, n)
    if math.comb(n, batch_size) > MOST:
        raise ValueError(f"batch_size={batch_size}: must give at most {MOST:,} batches of {n}")
    total, batches = 0.0, itertools.combinations(range(n), batch_size)
    for batch in batches:
        b = h[list(batch)].mean(0)
        a = np.eye(size) - learning_rate * (b + rho * b @ b)
        total = total + np.kron(a, a)
    radius = np.abs(np.linalg.eigvalsh(total / math.comb(n, batch_size))).max()
    return math.log10(radius) if radius > 0 else -math.inf


def simulated(
    losses, params, data, key, learning_rate, rho=0.0, batch_size=1, steps=1000, walks=256
):
    r"""The growth of $\log_{10} E\|x\|^2$ a step, as many random walks of the dynamics have it.

    ``walks`` times $x \leftarrow x - \eta (H_B + \rho H_B^2) x$, from random unit vectors. After
    each step walks are drawn anew in proportion to $\|x\|^2$ and scaled to length one, so that the
    few that make the mean square grow are not lost. An estimate, biased low where rare examples
    matter: steps times walks must see each often. 0 where some direction never moves, -infinity
    where a step ends every walk. Costs a product with a batch's Hessian (two for SAM) a step
    and walk: for small problems. Raises ``ValueError`` for a batch size that is none.
    """
    _check_batch(batch_size, count(data))
    at = pure(losses), params, data, key, float(learning_rate), float(rho)
    return float(_walk(*at, batch_size, steps, walks)) / steps


def _check_batch(batch_size, n):
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size={batch_size}: must be between 1 and {n}")


@functools.partial(jax.jit, static_argnames=("batch_size", "steps", "walks"))
def _walk(losses, params, data, key, learning_rate, rho, batch_size, steps, walks):
    op = hessian(losses, params, data)
    draw = lambda key: jax.random.choice(key, count(data), (batch_size,), replace=False)

    def product(rows, x):
        return hessian(losses, params, jax.tree.map(lambda a: a[rows], data))(x)

    def step(carry, key):
        x, total = carry
        which, drawn = jax.random.split(key)
        rows = jax.vmap(draw)(jax.random.split(which, walks))
        bent = jax.vmap(product)(rows, x)
        x = x - learning_rate * (bent + rho * jax.vmap(product)(rows, bent))
        squares = (x**2).sum(1)
        kept = jax.random.categorical(drawn, jnp.log(squares), shape=(walks,))
        x = x[kept] / jnp.sqrt(jnp.where(squares > 0, squares, 1)[kept])[:, None]
        return (x, total + jnp.log10(squares.mean())), None

    first, rest = jax.random.split(key)
    x = jax.random.normal(first, (walks, op.size), op.dtype)
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    start = x, jnp.zeros((), op.dtype)
    return jax.lax.scan(step, start, jax.random.split(rest, steps))[0][1]
