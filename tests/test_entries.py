"""Of few weights numbers are exact; of more, they come with what is known of their errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from curved import criterion, losses, outputs
from samscale.flatness import Point, eigenpairs, entries, measured, operators
from samscale.flatness.entries import SMALL

KEY = jax.random.key(4)


def bent(hidden=12, dtype=jnp.float32):
    """A trained point of 144 weights, whose Hessian has an eigenvalue far above the others."""
    k = jax.random.split(jax.random.key(3), 5)
    draw = lambda key, *shape: jax.random.normal(key, shape, dtype)
    params = {"w": draw(k[0], 8, hidden) / 3, "b": draw(k[1], hidden), "v": draw(k[2], hidden, 3)}
    data = {"x": 2 + draw(k[3], 40, 8), "y": jax.random.randint(k[4], (40,), 0, 3)}
    slope = jax.grad(lambda params: losses(params, data).mean())
    down = lambda _, params: jax.tree.map(lambda w, g: w - 0.1 * g, params, slope(params))
    params = jax.lax.fori_loop(0, 100, down, params)
    h = np.asarray(curved.hessians(losses, params, data), np.float64).mean(0)
    return Point(losses, params, data, outputs, criterion, batch_size=8), np.linalg.eigvalsh(h)


def test_of_more_weights_probes_tell_their_error():
    here, values = bent()
    of = measured(here, KEY, ["curvature"])
    assert 0 < abs(of["trace"] - values.sum()) < 4 * of["trace_se"]
    assert 0 < abs(of["frobenius"] - np.linalg.norm(values)) < 4 * of["frobenius_se"]


def test_moments_of_all_eigenvalues_are_known_as_well_as_they_say():
    here, values = bent()
    assert len(values) > SMALL
    assert values[-1] > 2 * values[-3]
    seen = [measured(here, jax.random.key(i), ["density"]) for i in range(8)]
    for name, k in (("trace_cubed", 3), ("trace_fourth", 4)):
        exact = (values**k).sum()
        errors = [abs(of[name] - exact) / of[f"{name}_se"] for of in seen]
        assert np.mean(np.array(errors) < 2.5) > 0.7  # of ten draws; and of rounding
        assert all(of[f"{name}_se"] < 1e-3 * exact for of in seen)
        assert all(of[name] == pytest.approx(exact, rel=2e-3) for of in seen)
    share = (values < -1e-2 * values[-1]).mean()
    assert np.mean([of["negative_share"] for of in seen]) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_smallest_of_few_eigenvalues_is_not_above_the_others(size):
    x = jax.random.normal(KEY, (20, size))
    data = {"x": x, "y": x @ jnp.ones(size)}
    values = np.linalg.eigvalsh(np.asarray(x.T @ x / 20, np.float64))[::-1]
    for i in range(4):
        here = Point(curved.least_squares, jnp.ones(size), data)
        of = measured(here, jax.random.key(i), ["curvature"])
        top = [of[f"lambda_{i + 1}"] for i in range(min(3, size))]
        np.testing.assert_allclose(top, values[:3], rtol=1e-5)  # rounding, of float32
        assert of["lambda_min"] <= min(top)
        assert of["lambda_min"] == pytest.approx(values[-1], rel=1e-5)


def test_blocks_of_few_weights_are_exact():
    here, _ = bent()
    h = np.asarray(curved.hessians(losses, here.params, here.data), np.float64).mean(0)
    exact = np.linalg.eigvalsh(h[:12, :12])[-1]  # the bias comes first
    for i in range(8):
        of = measured(here, jax.random.key(i), ["layers"])
        assert of["lambda_1/b"] == pytest.approx(exact, rel=1e-5)


def test_what_did_not_converge_is_marked():
    flat = operators.dense(jnp.diag(jnp.linspace(1, 2, 200)))
    for most, marked in ((12, True), (1000, False)):
        pairs = eigenpairs(flat, KEY, 2, max_products=most)
        of = entries.eigenvalues(pairs, "one", "two", asked=1e-3)
        assert ("two_converged" in of) is marked
    assert not [name for name in of if name.endswith("_converged")]
