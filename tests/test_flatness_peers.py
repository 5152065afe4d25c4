r"""Beside matfree and curvlinops: one network's curvature, found by other people's code.

matfree is given our products and our probes, so that its estimators and its Lanczos, always
orthogonalized twice, are compared with ours; curvlinops differentiates the same network in torch.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from samscale.flatness import estimates, krylov, lanczos, operators
from samscale.losses import exact_cross_entropy as criterion
from samscale.sharpness import draws

pytest.importorskip("matfree", reason="needs matfree: pip install 'matfree>=0.6.3,<0.7'")

from matfree import decomp, eig, funm, stochtrace

pytestmark = pytest.mark.usefixtures("in_float64")

KEY, PROBES, N = jax.random.key(3), 100, 50
ESTIMATES = {  # of theirs, and what it is called here
    "trace": (stochtrace.monte_carlo_trace, lambda found: found.trace),
    "frobenius": (stochtrace.monte_carlo_frobeniusnorm_squared, lambda f: f.frobenius_squared),
    "diagonal": (
        stochtrace.monte_carlo_diagonal,
        lambda found: estimates.Estimate(found.diagonal, found.diagonal_error, PROBES),
    ),
}
FUNCTIONS = {"x^3": lambda x: x**3, "x^4": lambda x: x**4, "rational": lambda x: 1 / (1 + x**2)}
FIRST = {"largest": np.negative, "smallest": np.positive, "magnitude": lambda v: -np.abs(v)}
OPERATORS = {
    "HessianLinearOperator": lambda *at: operators.hessian(losses, *at),
    "GGNLinearOperator": lambda *at: operators.gauss_newton(curved.outputs, criterion, *at),
    "EFLinearOperator": lambda *at: operators.fisher(losses, *at),
}
each_estimate = pytest.mark.parametrize("name", ESTIMATES)


def losses(params, batch):
    return criterion(curved.outputs(params, batch), batch)


def point(dtype=jnp.float64):
    """315 parameters and 50 examples of four classes."""
    k = jax.random.split(jax.random.key(0), 5)
    draw = lambda key, *shape: jax.random.normal(key, shape, dtype)
    params = {"w": draw(k[0], 16, 15), "b": draw(k[1], 15), "v": draw(k[2], 15, 4)}
    return params, {"x": draw(k[3], N, 16), "y": jax.random.randint(k[4], (N,), 0, 4)}


@pytest.fixture(scope="module")
def h(in_float64):
    return operators.hessian(losses, *point())


def probes_of(op, n):
    """The probes that ours draws from ``KEY``."""
    one = lambda i: draws.signs(jax.random.fold_in(KEY, i), (op.size,), op.dtype)
    return jax.vmap(one)(jnp.arange(n))


def estimated(integrand, op, sampler):
    """Their mean and its standard error, of a sample's deviation from its mean as ours is."""
    theirs = stochtrace.estimator_monte_carlo_mean_and_sem(integrand, sampler)
    n = len(jax.eval_shape(sampler, KEY))
    mean, error = jax.jit(theirs)(op, jax.random.key(11))
    return mean, error * np.sqrt(n / (n - 1))


def near(a, b, rtol):
    np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@each_estimate
def test_of_the_same_probes_estimates_and_their_errors_are_those_of_matfree(h, name):
    integrand, ours = ESTIMATES[name]
    mean, error = estimated(integrand(), h, lambda key: probes_of(h, PROBES))
    found = ours(estimates.probed(h, KEY, PROBES))
    near(found.value, mean, 1e-12)
    near(found.error, error, 1e-12)


@each_estimate
def test_of_other_probes_they_are_within_the_errors_stated(h, name):
    integrand, ours = ESTIMATES[name]
    mean, error = estimated(integrand(), h, stochtrace.sampler_signs(jnp.ones(h.size), num=PROBES))
    found = ours(estimates.probed(h, KEY, PROBES))
    away = (found.value - mean) / np.hypot(found.error, error)
    assert np.abs(away).max() < 5
    assert np.size(away) == 1 or np.std(away) == pytest.approx(1, abs=0.15)


def test_the_trace_is_within_its_error_of_xtrace(h):
    sampler = stochtrace.sampler_normal(jnp.ones(h.size), num=PROBES)
    theirs = stochtrace.estimator_leave_one_out_mean_and_sem(
        stochtrace.leave_one_out_xtrace(), sampler
    )
    with jax.numpy_rank_promotion("allow"):
        mean, error = jax.jit(theirs)(h, KEY)
    found = estimates.probed(h, KEY, PROBES).trace
    assert 0 < error < found.error
    assert abs(found.value - mean) < 4 * np.hypot(found.error, error)


@pytest.mark.parametrize("steps", [20, 120])
def test_lanczos_makes_the_tridiagonal_matrix_of_matfree_orthogonalizing_seldom(h, steps):
    v = jax.random.normal(KEY, (h.size,))
    theirs = jax.jit(lambda op, v: decomp.tridiag_sym(steps, reortho="full")(op, v).J_small)(h, v)
    ours = lanczos.tridiagonal(h, v, steps)
    near(np.diag(ours), np.diag(theirs), 1e-12)
    near(np.diag(ours, 1), np.diag(theirs, 1), 1e-12)
    near(ours, theirs, 1e-7)  # beside the diagonals: what was lost before it was restored
    near(np.linalg.eigvalsh(ours), np.linalg.eigvalsh(theirs), 1e-12)


@pytest.mark.parametrize("which", FIRST)
def test_eigenpairs_are_those_of_matfree(h, which):
    eigh = eig.eigh_partial(decomp.tridiag_sym(120))
    values, vectors = jax.jit(lambda op, v: eigh(op, v))(h, jnp.ones(h.size))
    order = np.argsort(FIRST[which](values))[:4]
    found = krylov.eigenpairs(h, KEY, 4, which, tolerance=1e-9)
    near(found.values, values[order], 1e-12)
    near(np.abs(np.sum(found.vectors * vectors[order], axis=1)), np.ones(4), 1e-9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_the_same_probes_lanczos_quadrature_is_that_of_matfree(h, name):
    f, steps, probes = FUNCTIONS[name], 40, 5
    dense = funm.dense_funm_sym_eigh(f)
    integrand = funm.monte_carlo_funm_sym(dense, decomp.tridiag_sym(steps))
    mean, error = estimated(integrand, h, lambda key: probes_of(h, probes))
    found = estimates.spectrum(h, KEY, steps, probes).trace_of(f)
    near(found.value, mean, 1e-11)
    near(found.error, error, 1e-11)


@pytest.fixture
def torch_peers():
    """``Network`` is the formula of ``curved.outputs``."""
    peers = importlib.import_module("torch_peers")
    threads = peers.torch.get_num_threads()
    peers.torch.set_num_threads(1)
    yield peers
    peers.torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype, rtol", [(jnp.float32, 1e-5), (jnp.float64, 1e-12)])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own use
def test_products_are_those_of_curvlinops(torch_peers, name, dtype, rtol):
    curvlinops = pytest.importorskip("curvlinops", reason="needs curvlinops-for-pytorch==3.0.1")
    torch, (params, data) = torch_peers.torch, jax.device_get(point(dtype))
    net = torch_peers.Network(params)
    x, y = torch.tensor(data["x"]), torch.tensor(data["y"]).long()
    theirs = getattr(curvlinops, name)(
        net,
        torch.nn.CrossEntropyLoss(),
        [getattr(net, weights) for weights in sorted(params)],  # as in ravel_pytree
        list(zip(x.split(20), y.split(20), strict=True)),  # 50 examples: ragged, as are ours
        check_deterministic=False,
    )
    ours = OPERATORS[name](params, data, 16)
    assert ours.dtype == dtype
    v = np.asarray(jax.random.normal(KEY, (ours.size,), dtype))
    near(jax.jit(lambda op, v: op(v))(ours, v), (theirs @ torch.tensor(v)).detach().numpy(), rtol)
