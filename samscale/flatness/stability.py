r"""Linear stability of a minimum under stochastic SAM and SGD, from moments of Hessians.

Near an interpolating minimum a step on batch B maps the distance x to it to $(I - \eta K_B) x$,
with $K_B = H_B + \rho H_B^2$ for unnormalized SAM and $H_B$ for SGD. The mean square cannot grow if

$$\lambda_{\max}(E[(I - \eta K_B)^2]) \le 1,$$

condition (5) of theorem 6.3 of Shin et al., 2025 (arXiv:2311.17539), written compactly. It is
sufficient, not necessary. $0 \le \eta \lambda(E[K_B]) \le 2$ for all eigenvalues is necessary: else
the mean grows.
Moments are $M_k = E[H_i^k]$, over single examples.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from samscale.flatness import krylov
from samscale.flatness.operators import Operator, count, hessian, moments, pure

ROUNDING = 1e-5  # of E[K^2], below which a growth is none: most directions neither grow nor shrink


class NonUniformity(NamedTuple):
    r"""$s_k$ and both ends of the spectrum of $M_k - H^k$, with the residual of the larger one."""

    value: float  # s_k = largest^(1/k), in the unit of an eigenvalue
    largest: float
    smallest: float | None  # for odd k, where the matrix need not be positive
    residual: float
    products: int


class Verdict(NamedTuple):
    """Whether iterates stay near the minimum at a learning rate, a radius and a batch size."""

    stable: bool | None  # None: neither condition decides
    excess: float  # lambda_max of the mean square of the step's map, less 1
    mean_rate: float  # eta lambda_max(E[K]): the mean grows beyond 2
    words: str


def non_uniformity(losses, params, data, key, k: int = 2, tolerance=1e-2, chunk: int = 0):
    r"""$s_k = \lambda_{\max}(M_k - H^k)^{1/k}$, the non-uniformity of order k over single examples.

    k = 2 is that of Wu, Ma and E, 2018; k = 3, 4 of Shin et al., 2025. Zero where all examples bend
    the loss alike. For odd k the matrix may be indefinite, so its smallest eigenvalue is given too.
    A Lanczos step costs k products of Hessians of all examples, one direction each. Raises
    ``ValueError`` for k < 2.
    """
    if k < 2:
        raise ValueError(f"k={k}: must be at least 2")
    unit = (0,) * k + (1,)
    op = moments(losses, params, data, unit, chunk=chunk) - hessian(losses, params, data) ** k
    return spread(op, key, k, tolerance)


def spread(op: Operator, key, k: int, tolerance=1e-2) -> NonUniformity:
    """The same of an operator that is already $M_k - H^k$."""
    top = krylov.eigenpairs(op, key, tolerance=tolerance, max_products=200)
    low = krylov.eigenpairs(op, key, 1, "smallest", tolerance, max_products=200) if k % 2 else None
    largest = float(top.values[0])
    return NonUniformity(
        max(largest, 0.0) ** (1 / k),
        largest,
        float(low.values[0]) if low else None,
        float(top.residuals[0]),
        top.products + (low.products if low else 0),
    )


def growth(losses, params, data, learning_rate, rho=0.0, batch_size: int = 1, key=None, chunk=0):
    r"""The operator $E[(I - \eta K_B)^2] - I$; negative semi-definite: linearly stable.

    $= -2\eta E[K] + \eta^2 E[K^2]$. Exact for single examples, and for SGD with any batch size
    drawn without replacement, where $E[H_B^2] = H^2 + \frac{n - B}{B(n - 1)}(M_2 - H^2)$. For SAM
    with batches the mean is over n / B batches, shuffled by ``key``. Raises ``ValueError`` for a
    batch size that does not divide n, or a shuffle without a key.
    """
    eta = learning_rate
    mean, square = map_moments(losses, params, data, rho, batch_size, key, chunk)
    return (-2.0 * eta) * mean + eta**2 * square


def map_moments(losses, params, data, rho=0.0, batch_size=1, key=None, chunk=0):
    """The operators $E[K_B]$ and $E[K_B^2]$."""
    n = count(data)
    plain = isinstance(rho, float | int) and rho == 0
    if not 1 <= batch_size <= n or (n % batch_size and not plain):
        law = f"be between 1 and {n}" if plain else f"divide the {n} examples, for SAM"
        raise ValueError(f"batch_size={batch_size}: must {law}")
    each = lambda data, group, *c: moments(losses, params, data, c, group, chunk)
    if plain:
        h, share = hessian(losses, params, data), (n - batch_size) / (batch_size * max(n - 1, 1))
        if share == 0:
            return h, h**2
        return h, (1 - share) * h**2 + share * each(data, 1, 0, 0, 1)
    if batch_size > 1:
        if key is None:
            raise ValueError("key=None: must be a random key where batches of SAM are drawn")
        order = jax.random.permutation(key, n)
        data = jax.tree.map(lambda a: a[order], data)
    return each(data, batch_size, 0, 1, rho), each(data, batch_size, 0, 0, 1, 2 * rho, rho**2)


def verdict(losses, params, data, key, learning_rate, rho=0.0, batch_size=1, chunk=0) -> Verdict:
    """Stable by the sufficient condition, unstable in the mean, or undecided between the two.

    About 20 products with the fourth moment. Negative curvature of single examples counts as what
    it is: away from interpolation the verdict is on the quadratic model, not on training.
    """
    first, second = jax.random.split(key)
    mean, square = map_moments(losses, params, data, rho, batch_size, second, chunk)
    eta = learning_rate
    look = lambda op: krylov.eigenpairs(op, first, tolerance=1e-2, max_products=100)
    excess = float(look((-2.0 * eta) * mean + eta**2 * square).values[0])
    slack = ROUNDING * eta**2 * float(look(square).values[0])
    mean_rate = eta * float(look(mean).values[0])
    name = f"eta = {eta:g}, rho = {rho:g}, batches of {batch_size}"
    low = eta * float(krylov.eigenpairs(mean, first, 1, "smallest", 1e-2, 64, 100).values[0])
    if mean_rate > 2 or low < -ROUNDING * mean_rate:
        return Verdict(False, excess, mean_rate, f"unstable at {name}: the mean grows")
    if excess <= slack:
        return Verdict(True, excess, mean_rate, f"linearly stable at {name}")
    return Verdict(None, excess, mean_rate, f"undecided at {name}: the mean square may grow")


def largest_stable_rate(mean: Operator, square: Operator, key, tolerance=1e-3, rounds: int = 20):
    r"""The largest $\eta$ at which $-2\eta E[K] + \eta^2 E[K^2]$ has no positive eigenvalue.

    $= 2 \min_v \frac{v^\top E[K] v}{v^\top E[K^2] v}$, by Dinkelbach's iteration: each round takes
    the growing direction at the present rate, and the rate at which it would stand still; from
    above, quadratically. 0 where a direction of negative mean curvature grows at any rate,
    infinity where nothing bends. ``mean`` and ``square``: of ``map_moments``.
    """
    v = krylov.eigenpairs(square, key, tolerance=tolerance, max_products=200).vectors[0]
    rate = math.inf
    for _ in range(rounds):
        up, down = map(float, _forms(mean, square, v))
        if down <= 0:
            return rate
        before, rate = rate, max(2 * up / down, 0.0)
        if rate == 0 or before - rate <= tolerance * rate:
            return min(before, rate)
        op = (-2.0 * rate) * mean + rate**2 * square
        floor = 0.1 * tolerance * rate**2 * down  # of the rate's accuracy, for the eigenvalue is 0
        v = krylov.eigenpairs(op, key, max_products=200, floor=floor).vectors[0]
    return rate


@jax.jit
def _forms(mean, square, v):
    return v @ mean(v), v @ square(v)


def bounds(learning_rate: float, rho: float = 0.0) -> dict[str, float]:
    r"""What (5) implies for a = lambda_max(H) and $s_k$ of positive semi-definite $H_i$, at most.

    ``a``: $a(1 + \rho a) \le 2/\eta$, for every radius. ``s2``, ``s3``, ``s4``: (6) of theorem
    6.3, $\frac{1}{\eta(\eta - 2\rho)}$, $\frac{1}{2\eta^2\rho}$, $\frac{1}{\eta^2\rho^2}$ to the
    powers 1/2, 1/3, 1/4. For a unit vector v with moments $m_k$ and mean h of the spectral measures
    of the $H_i$, (5) gives $\eta(\eta - 2\rho)(m_2 - h^2) + 2\eta^2\rho(m_3 - h^3) +
    \eta^2\rho^2(m_4 - h^4) \le 1$, where no term is negative for $\rho < \eta/2$, and
    $v^\top(M_k - H^k)v \le m_k - h^k$. Beyond, the first bound has a negative right side, which
    every stable minimum violates: all three are left infinite. ``s2_any`` holds for
    every radius and batches of one: $H + \rho M_2 \le 2/\eta$, which is necessary, gives
    $s_2^2 \le \lambda_{\max}(M_2) \le 2/(\eta\rho)$.
    """
    eta = learning_rate
    a = 2 / eta if rho == 0 else 4 / (eta * (1 + math.sqrt(1 + 8 * rho / eta)))
    inside = rho < eta / 2
    both = inside and rho > 0
    return {
        "a": a,
        "s2": (eta * (eta - 2 * rho)) ** (-1 / 2) if inside else math.inf,
        "s3": (2 * eta**2 * rho) ** (-1 / 3) if both else math.inf,
        "s4": (eta * rho) ** (-1 / 2) if both else math.inf,
        "s2_any": (eta * rho / 2) ** (-1 / 2) if rho else math.inf,
    }


def simulated(losses, params, data, key, learning_rate, rho=0.0, steps=1000, walks=256):
    r"""The growth of $\log_{10} E\|x\|^2$ a step, in the linearized dynamics of batches of one.

    ``walks`` times $x \leftarrow x - \eta (H_i + \rho H_i^2) x$, from random unit vectors. After
    each step walks are drawn anew in proportion to $\|x\|^2$ and scaled to length one, so that the
    few that make the mean square grow are not lost. An estimate, biased low where rare examples
    matter: steps times walks must see each often. 0 where some direction never moves, -infinity
    where a step ends every walk. Costs a product with an example's Hessian (two for SAM) a step
    and walk: for small problems.
    """
    walk = _walk(pure(losses), params, data, key, learning_rate, rho, steps, walks)
    return float(walk) / steps


@functools.partial(jax.jit, static_argnames=("steps", "walks"))
def _walk(losses, params, data, key, learning_rate, rho, steps, walks):
    def product(i, x):
        batch = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, i, 1), data)
        return hessian(losses, params, batch)(x)

    def step(carry, key):
        x, total = carry
        which, drawn = jax.random.split(key)
        i = jax.random.randint(which, (walks,), 0, count(data))
        bent = jax.vmap(product)(i, x)
        x = x - learning_rate * (bent + rho * jax.vmap(product)(i, bent))
        squares = (x**2).sum(1)
        kept = jax.random.categorical(drawn, jnp.log(squares), shape=(walks,))
        x = x[kept] / jnp.sqrt(jnp.where(squares > 0, squares, 1)[kept])[:, None]
        return (x, total + jnp.log10(squares.mean())), None

    first, rest = jax.random.split(key)
    size = hessian(losses, params, data).size
    x = jax.random.normal(first, (walks, size))
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    return jax.lax.scan(step, (x, jnp.zeros(())), jax.random.split(rest, steps))[0][1]
