"""Lanczos finds what is there, and nothing else, also where the space is exhausted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import curved
from samscale.flatness import estimates, krylov, lanczos, operators

KEY = jax.random.key(7)


def spectrum_of(values, size, dtype=jnp.float32, seed=0):
    """A dense operator with these eigenvalues, and zeros."""
    q = jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (size, len(values)), dtype))[0]
    return operators.dense((q * jnp.array(values, dtype)[None]) @ q.T)


def ritz(op, steps):
    values, inside = np.linalg.eigh(lanczos.tridiagonal(op, jnp.ones(op.size, op.dtype), steps))
    return values, inside[0] ** 2


@pytest.mark.parametrize("rank", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("steps", [20, 50])
def test_a_matrix_of_low_rank_has_no_other_eigenvalues(steps, rank):
    exact = np.arange(1.0, rank + 1)
    op = spectrum_of(exact[::-1], 400)
    values, weights = ritz(op, steps)
    assert weights.sum() == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(values[-rank:], exact, rtol=1e-5)
    np.testing.assert_allclose(values[:-rank], 0, atol=1e-5)
    basis = lanczos.extend(lanczos.start(op, jnp.ones(400), steps), op, KEY, 0, steps)
    rows = np.asarray(basis.rows[:steps])
    assert np.abs(rows @ rows.T - np.eye(steps)).max() < 1e-3


def test_fewer_steps_than_the_rank_stay_inside_the_spectrum():
    values, _ = ritz(spectrum_of([5, 4, 3, 2, 1], 400), 5)
    assert values.max() <= 5 + 1e-4
    assert values.min() >= -1e-5


@pytest.mark.parametrize("size", [6, 9, 12, 40])
def test_all_of_a_small_space_is_spanned(size):
    op = spectrum_of([3, 2, 1], size)
    basis = lanczos.extend(lanczos.start(op, jnp.ones(size), size), op, KEY, 0, size)
    rows = np.asarray(basis.rows[:size])
    assert np.abs(rows @ rows.T - np.eye(size)).max() < 1e-3
    values = np.linalg.eigvalsh(lanczos.matrix(basis.projected, size))
    np.testing.assert_allclose(values, [0] * (size - 3) + [1, 2, 3], atol=1e-5)


def test_an_eigenvector_to_start_from_leaves_nothing_to_normalize():
    matrix = lanczos.tridiagonal(operators.dense(jnp.eye(6)), jnp.eye(6)[2], 4)
    np.testing.assert_allclose(matrix, np.eye(4), atol=1e-6)


def test_orthogonality_is_restored_in_pairs_and_seldom():
    op = spectrum_of([3, *np.linspace(0, 1, 299)], 300)
    matrix = lanczos.tridiagonal(op, jnp.ones(300), 80)
    mended = [np.abs(matrix[: max(j - 1, 0), j]).max(initial=0) > 0 for j in range(80)]
    assert 0 < sum(mended) <= 30
    runs = "".join("x" if m else " " for m in mended).rstrip("x").split()  # the end may cut a pair
    assert set(map(len, runs)) == {2}


def test_asked_for_more_eigenpairs_than_there_are_it_gives_zeros():
    found = krylov.eigenpairs(spectrum_of([5, 4, 3, 2, 1], 400), KEY, k=7)
    np.testing.assert_allclose(found.values, [5, 4, 3, 2, 1, 0, 0], rtol=1e-5, atol=1e-5)
    assert found.converged
    assert found.products < 20
    gram = found.vectors @ found.vectors.T
    np.testing.assert_allclose(gram, np.eye(7), atol=3.5e-4)  # the root of rounding


def test_clusters_have_no_ghosts():
    tail = np.linspace(0, 1, 297)
    values, _ = ritz(spectrum_of([100, 50, 25, *tail], 300), 80)
    np.testing.assert_allclose(values[-3:], [25, 50, 100], rtol=1e-5)
    assert (values > 1.001).sum() == 3


@pytest.mark.parametrize("steps", [20, 80])
def test_the_basis_stays_orthogonal_to_the_root_of_rounding(steps):
    op = spectrum_of([100, 50, 25, *np.linspace(0, 1, 297)], 300)
    basis = lanczos.extend(lanczos.start(op, jnp.ones(300), steps), op, KEY, 0, steps)
    rows = np.asarray(basis.rows[:steps])
    assert np.abs(rows @ rows.T - np.eye(steps)).max() < 2e-3


@pytest.mark.parametrize("which", sorted(krylov.ENDS))
def test_eigenpairs_of_a_network_are_those_of_the_dense_hessian(which):
    with jax.enable_x64(True):
        params, data = curved.point()
        dense = curved.hessians(curved.losses, params, data).mean(0)
        op = operators.hessian(curved.losses, params, data)
        found = krylov.eigenpairs(op, KEY, 4, which, tolerance=1e-8)
        exact = np.linalg.eigvalsh(dense)
        exact = exact[krylov.ENDS[which](exact, 4)[:4]]
        np.testing.assert_allclose(found.values, exact, rtol=1e-9, atol=1e-9)
        off = found.vectors @ dense - found.values[:, None] * found.vectors
        assert (np.linalg.norm(off, axis=1) <= 1e-7).all()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_both_ends_come_from_one_basis_for_less(k):
    values = [*np.linspace(8, 10, 3), *np.linspace(-3, 6, 296), -4]
    asked = [1e-4] * (k - 1) + [1e-3]
    with jax.enable_x64(True):
        op = spectrum_of(values, 300, jnp.float64)
        find = lambda *how: krylov.eigenpairs(op, KEY, *how, max_basis=16)
        found, alone = find(k, "both", asked), [find(1, "smallest", 1e-3)]
        if k > 1:
            alone.append(find(k - 1, "largest", 1e-4))
    # errors are squares of residuals over gaps of 1: at most (1e-3 x 4)^2, of 4
    np.testing.assert_allclose(found.values, [*[10, 9, 8][: k - 1], -4], rtol=4e-6)
    assert found.converged
    assert (found.residuals <= asked * np.abs(found.values) * (1 + 1e-3)).all()
    assert [10, 9, 8, 6][k - 1] * 0.99 <= found.next <= [10, 9, 8, 6][k - 1] * 1.1
    assert k == 1 or found.products < sum(pairs.products for pairs in alone)


@pytest.mark.parametrize("size", range(1, 9))
def test_in_the_order_of_both_ends_everything_comes_once(size):
    for k in range(1, size + 1):
        order = krylov.ENDS["both"](np.arange(size, 0, -1.0), k)
        assert sorted(order) == list(range(size))
        assert list(order[:k]) == [*range(k - 1), size - 1]


def test_every_value_lies_within_its_residual_of_a_true_one():
    op = spectrum_of([9, 8.9, 5, *np.linspace(-1, 1, 97)], 100)
    found = krylov.eigenpairs(op, KEY, 5, tolerance=5e-2)
    exact = np.linalg.eigvalsh(operators.matrix(op))
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert np.abs(exact - value).min() <= residual + 1e-4


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 0.0])
def test_residuals_are_those_of_the_vectors_that_are_given(tolerance):
    op = spectrum_of([100, 50, 25, *np.linspace(0, 1, 297)], 300)
    exact = np.asarray(operators.matrix(op), np.float64)
    found = krylov.eigenpairs(op, KEY, 3, tolerance=tolerance, max_products=50)
    vectors = np.asarray(found.vectors, np.float64)
    off = vectors @ exact - found.values[:, None] * vectors
    rounding = 10 * 100 * np.finfo(np.float32).eps
    np.testing.assert_allclose(
        np.linalg.norm(off, axis=1), found.residuals, rtol=1e-2, atol=rounding
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_every_product_is_counted():
    seen = []
    matrix = np.diag([3.0, 2.0, *np.linspace(0, 1, 28)]).astype(np.float32)

    def product(v):
        jax.debug.callback(lambda: seen.append(1))
        return matrix @ v

    op = operators.Operator(jax.tree_util.Partial(product), 30, jnp.dtype("float32"))
    found = krylov.eigenpairs(op, KEY, 2)
    jax.effects_barrier()
    assert len(seen) == found.products


def test_restarts_reach_what_a_small_basis_cannot():
    op = spectrum_of(np.linspace(1, 2, 200), 200)
    found = krylov.eigenpairs(op, KEY, 2, tolerance=1e-3, max_basis=14)
    assert found.converged
    assert found.products > 14
    np.testing.assert_allclose(found.values, [2, 2 - 1 / 199], rtol=1e-4)


def test_it_stops_where_it_must_and_says_so():
    op = spectrum_of(np.linspace(1, 2, 200), 200)
    found = krylov.eigenpairs(op, KEY, 2, tolerance=1e-6, max_basis=14, max_products=20)
    assert not found.converged
    assert found.products == 20


@pytest.mark.parametrize(
    "matrix", [np.eye(6), np.zeros((6, 6)), 3 * np.eye(1)], ids=["1", "0", "3"]
)
def test_multiples_of_the_identity(matrix):
    op = operators.dense(jnp.array(matrix, jnp.float32))
    k = min(4, len(matrix))
    found = krylov.eigenpairs(op, KEY, k)
    np.testing.assert_allclose(found.values, matrix[0, 0] * np.ones(k), rtol=1e-6)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(k), atol=1e-5)
    assert found.converged


def test_a_loss_scaled_down_scales_every_number():
    with jax.enable_x64(False):
        op = spectrum_of([5, 4, 3, 2, 1], 50)
        small = operators.dense(1e-8 * op.apply.args[0])
        one, other = krylov.eigenpairs(op, KEY, 3), krylov.eigenpairs(small, KEY, 3)
        np.testing.assert_allclose(1e8 * other.values, one.values, rtol=1e-4)
        a, b = (estimates.spectrum(o, KEY, 20, 2).nodes for o in (op, small))
        np.testing.assert_allclose(1e8 * b, a, rtol=1e-4, atol=1e-4)


def test_lanczos_needs_fewer_products_than_powers_of_the_matrix():
    values = [3, 2.7, 2.4, *np.linspace(0, 2, 197)]
    op = spectrum_of(values, 200)
    found = krylov.eigenpairs(op, KEY, tolerance=1e-2)
    v, products, error = jax.random.normal(KEY, (200,)), 0, np.inf
    while error > abs(found.values[0] - 3):
        v = op(v / jnp.linalg.norm(v))
        products, error = products + 1, abs(float(jnp.linalg.norm(v)) - 3)
    assert found.products <= 0.7 * products


@pytest.mark.parametrize(
    "choice, words",
    [
        ({"which": "top"}, "which='top': must be one of"),
        ({"k": 0}, "k=0: must be between 1 and 5"),
        ({"k": 2, "tolerance": [0.1, 0.1, 0.1]}, "must be one number, or 2, one of each"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(choice, words):
    with pytest.raises(ValueError, match=words):
        krylov.eigenpairs(spectrum_of([1.0], 5), KEY, **choice)


@pytest.mark.parametrize("which, sign", [("largest", 1), ("smallest", -1), ("magnitude", 1)])
def test_no_eigenvalue_that_is_left_out_comes_before_the_next(which, sign):
    exact = sign * np.array([9.0, 7.0, 6.5, 1.0])
    found = krylov.eigenpairs(spectrum_of(exact, 50), KEY, 2, which)
    assert sign * found.next == pytest.approx(6.5, rel=1e-2)
    assert sign * found.next >= 6.5 * (1 - 1e-6)
    assert np.isnan(krylov.eigenpairs(operators.dense(jnp.eye(2)), KEY, 2, which).next)


def diagonal(*values):
    return operators.dense(jnp.diag(jnp.array(values)))


def test_a_vector_is_the_answer_where_little_is_above_it():
    v = jnp.array([1.0, 0.05, 0.0]) / jnp.hypot(1.0, 0.05)
    op = diagonal(4.0, 3.0, -1.0)
    theta = (4 + 3 * 0.05**2) / (1 + 0.05**2)
    found = krylov.bracketed(op, KEY, v, 1e-2, most=4.01)
    assert found.products == 1
    assert found.values[0] == pytest.approx(theta, rel=1e-6)
    assert found.values[0] <= 4 <= found.values[0] + found.residuals[0]
    np.testing.assert_array_equal(found.vectors[0], v)
    assert krylov.bracketed(op, KEY, v, 1e-2, most=4.5).products > 1


def test_the_other_eigenvalues_may_tell_that_little_is_above_it():
    v = jnp.array([1.0, 0.05, 0.0]) / jnp.hypot(1.0, 0.05)
    found = krylov.bracketed(diagonal(4.0, 3.0, -1.0), KEY, v, 1e-2, most=9.0, others=3.5)
    assert found.products == 1
    assert found.values[0] <= 4 <= found.values[0] + found.residuals[0]


def test_a_vector_between_two_that_are_near_each_other_is_no_answer():
    v = jnp.array([1.0, 1.0, 0.0]) / jnp.sqrt(2.0)
    op = diagonal(4.0, 3.9, -1.0)
    found = krylov.bracketed(op, KEY, v, 1e-2, most=9.0, others=3.94, tolerance=1e-6)
    assert found.values[0] == pytest.approx(4, rel=1e-6)


def test_an_eigenvector_that_is_not_the_largest_ones_is_no_answer():
    """Of diag(10, 9, 1), less 5 of the first: what was largest is no more."""
    found = krylov.bracketed(
        diagonal(5.0, 9.0, 1.0), KEY, jnp.eye(3)[0], 1e-2, most=10.0, others=9.0, tolerance=1e-6
    )
    assert found.values[0] == pytest.approx(9, rel=1e-6)
