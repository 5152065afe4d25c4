"""Products with a vector are those of the dense matrices, however the data come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import curved
from curved import criterion, losses, outputs, power
from samscale.flatness import dual, examples, landscape, noise, operators, output_space, path

pytestmark = pytest.mark.usefixtures("in_float64")


def dense(op):
    return jax.jit(operators.matrix)(op)


def near(a, b, rtol=1e-9):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def test_a_hessian_is_the_dense_one():
    params, data = curved.point()
    near(
        dense(operators.hessian(losses, params, data)),
        curved.hessians(losses, params, data).mean(0),
    )


def test_in_float32_to_its_rounding():
    params, data = curved.point(jnp.float32)
    op = operators.hessian(losses, params, data)
    assert op.dtype == jnp.float32
    near(dense(op), curved.hessians(losses, params, data).mean(0), 1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 12, 24, 100])
def test_streamed_it_is_what_it_is_all_at_once(batch_size):
    params, data = curved.point()
    for op in (
        lambda size: operators.hessian(losses, params, data, size),
        lambda size: operators.gauss_newton(outputs, criterion, params, data, size),
        lambda size: operators.fisher(losses, params, data, size),
    ):
        v = jax.random.normal(jax.random.key(1), (op(None).size,))
        near(jax.jit(op(batch_size))(v), jax.jit(op(None))(v), 1e-12)


def test_the_gauss_newton_matrix_is_the_dense_one():
    params, data = curved.point()
    expected = curved.gauss_newtons(params, data).mean(0)
    near(dense(operators.gauss_newton(outputs, criterion, params, data)), expected)


def test_the_fisher_matrix_is_the_second_moment_of_gradients():
    params, data = curved.point()
    flat, tree = ravel_pytree(params)
    g = jax.jacrev(lambda w: losses(tree(w), data))(flat)
    near(dense(operators.fisher(losses, params, data)), g.T @ g / curved.N)


@pytest.mark.parametrize("dtype, rtol", [(jnp.float64, 1e-9), (jnp.float32, 1e-5)])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_moments_are_means_of_powers(k, dtype, rtol):
    params, data = curved.point(dtype)
    double = lambda a: a.astype(jnp.float64) if a.dtype == dtype else a
    wide = jax.tree.map(double, (params, data))
    unit = (0.0,) * k + (1.0,)
    exact = power(curved.hessians(losses, *wide), k).mean(0)
    op = operators.moments(losses, params, data, unit, chunk=7)
    assert op.dtype == dtype
    near(dense(op), exact, rtol)
    blocks = output_space.blocks(outputs, criterion, params, data, chunk=5)
    closed = output_space.moments(outputs, params, data, blocks, unit)
    near(dense(closed), power(curved.gauss_newtons(*wide), k).mean(0), rtol)


def test_moments_of_groups_are_those_of_their_mean_losses():
    params, data = curved.point()
    h = curved.hessians(losses, params, data).reshape(6, 4, 40, 40).mean(1)
    op = operators.moments(losses, params, data, (0.5, 0.0, 2.0), group=4)
    near(dense(op), 0.5 * jnp.eye(op.size) + 2 * power(h, 2).mean(0))


def test_the_dual_route_gives_the_whole_spectrum():
    params, data = curved.point()
    found = dual.eigenvalues(outputs, criterion, params, data, chunk=5)
    exact = np.linalg.eigvalsh(curved.gauss_newtons(params, data).mean(0))[::-1]
    near(found, exact[: len(found)])
    few = jax.tree.map(lambda a: a[:6], data)  # 18 outputs, fewer than parameters
    exact = np.linalg.eigvalsh(curved.gauss_newtons(params, few).mean(0))[::-1]
    near(dual.eigenvalues(outputs, criterion, params, few), exact[:18])


def test_operators_add_scale_and_multiply_as_matrices_do():
    a, b = (jnp.array(m) for m in ([[2.0, 1.0], [1.0, 3.0]], [[0.0, -1.0], [-1.0, 1.0]]))
    d = jnp.array([3.0, 0.0])
    A, B = operators.dense(a), operators.dense(b)
    near(dense(2.0 * A - B), 2 * a - b)
    near(dense(A**3), power(a, 3))
    near(dense(operators.scaled(A + B, d)), jnp.diag(d) @ (a + b) @ jnp.diag(d))


def test_factors_may_stand_on_either_side():
    A = operators.dense(jnp.eye(2))
    near(dense(A * 2.0), dense(2.0 * A))


def test_a_layer_is_all_that_a_module_holds():
    block = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    params = {"top": jnp.ones(2), "stage": {"a": block, "b": {"scale": jnp.ones(2)}}}
    masks = operators.of_layers(params)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "top": 2,
        "stage/a": 9,
        "stage/b": 2,
    }
    np.testing.assert_array_equal(sum(masks.values()), np.ones(13))
    only_a = {"top": jnp.zeros(2), "stage": {"a": block, "b": {"scale": jnp.zeros(2)}}}
    np.testing.assert_array_equal(masks["stage/a"], ravel_pytree(only_a)[0])


def test_masks_of_layers_part_the_parameters():
    params, _ = curved.point()
    masks = operators.of_layers(params)
    assert set(masks) == {"w", "b", "v"}
    np.testing.assert_array_equal(sum(masks.values()), np.ones(40))
    np.testing.assert_array_equal(ravel_pytree(params)[0] * masks["b"], _only(params, "b"))


def _only(params, name):
    kept = {k: w if k == name else jnp.zeros_like(w) for k, w in params.items()}
    return ravel_pytree(kept)[0]


def test_new_data_and_parameters_are_the_same_program():
    call = jax.jit(lambda op, v: op(v))
    for seed in range(3):
        params, data = curved.point(seed=seed)
        op = operators.hessian(losses, params, data) + (1.0 + seed) * operators.fisher(
            losses, params, data
        )
        call(op, jnp.ones(op.size))
    assert call._cache_size() == 1


def test_arrays_that_a_loss_holds_are_arguments_too():
    params, data = curved.point()
    scaled = lambda factor, params, batch: factor * losses(params, batch)
    call = jax.jit(lambda op, v: op(v))
    one, two = (
        call(operators.hessian(jax.tree_util.Partial(scaled, f), params, data), jnp.ones(40))
        for f in (1.0, 2.0)
    )
    near(two, 2 * one)
    assert call._cache_size() == 1


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p, d: operators.moments(losses, p, d, (0, 1), group=5), "group=5: must divide"),
        (lambda p, d: operators.hessian(losses, p, {"x": d["x"], "y": d["y"][:3]}), "one length"),
        (lambda p, d: operators.hessian(losses, p, jax.tree.map(lambda a: a[:0], d)), "examples"),
        (lambda p, d: operators.moments(losses, p, d, (1,)), r"coefficients=\(1,\): must be"),
        (lambda p, d: operators.hessian(losses, p, d, 0), "batch_size=0: must be at least 1"),
        (lambda p, d: operators.fisher(losses, p, d, -3), "batch_size=-3: must be at least 1"),
        (lambda p, d: operators.hessian(losses, p, d) ** -1, r"A\*\*-1: the power must be a whole"),
        (lambda p, d: operators.hessian(losses, p, d) ** 0.5, r"A\*\*0.5: the power must be"),
        (lambda p, d: operators.hessian(losses, p, d) * jnp.ones(40), "c must be a number"),
        (
            lambda p, d: operators.hessian(losses, p, d) - operators.dense(jnp.eye(3)),
            "must be of one size, not 40 and 3",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(*curved.point())


mean = lambda params, batch: losses(params, batch).mean()
ONE = r"losses: must give \(n,\), one number an example, not \(\)"


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p, d: operators.hessian(mean, p, d), ONE),
        (lambda p, d: operators.fisher(mean, p, d, 5), ONE),
        (lambda p, d: operators.moments(mean, p, d, (0, 1)), ONE),
        (lambda p, d: operators.hessian(outputs, p, d), r"one number an example, not \(24, 3\)"),
        (lambda p, d: operators.hessian(lambda *a: (losses(*a), 0), p, d), "example, not tuple"),
        (
            lambda p, d: operators.gauss_newton(losses, criterion, p, d),
            r"outputs: must give \(n, C\), a row an example, not \(24,\)",
        ),
        (
            lambda p, d: operators.gauss_newton(outputs, lambda z, b: z.sum(), p, d),
            r"criterion: must give \(n,\), one number an example, not \(\)",
        ),
        (lambda p, d: output_space.blocks(losses, criterion, p, d), "outputs: must give"),
        (lambda p, d: noise.batch_sharpness(mean, p, d, jax.random.key(0), 2), ONE),
        (lambda p, d: path.along(mean, p, p, d), ONE),
        (lambda p, d: landscape.mean_loss(mean, p, d), ONE),
    ],
)
def test_a_loss_that_is_a_mean_already_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(*curved.point())


def test_as_many_examples_as_memory_holds_are_taken(monkeypatch):
    params, data = curved.point()
    assert examples.at_a_time(losses, params, data) is None
    assert examples.at_a_time(losses, params, data, 7) == 7
    assert examples.at_a_time(losses, params, data, 24) is None
    wide = {**params, "w": jnp.ones((4, 500)), "b": jnp.ones(500), "v": jnp.ones((500, 3))}
    one = examples.footprint(losses, wide, data)
    assert 3 * 500 * 8 <= one <= 10 * 500 * 8  # x w, + b, tanh
    monkeypatch.setattr(examples, "BUDGET", 5 * one)
    assert examples.at_a_time(losses, wide, data) == 5


def test_what_loops_and_calls_hold_inside_counts():
    step = jax.jit(lambda x, _: (jnp.tanh(x), None))
    deep = lambda w, batch: jax.lax.scan(step, batch * w, None, length=9)[0].sum(1)
    x = jnp.ones((6, 10))
    assert examples.footprint(deep, jnp.ones(()), x) >= 10 * 10 * 8
