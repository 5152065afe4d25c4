import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from samscale import optimizers

N = 100
PARAMS = {
    "Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.3, -0.7])},
    "bn": {"scale": jnp.array([1.0, 2.0]), "bias": jnp.array([0.1, 0.2])},
}
FORMULAS = {
    "constant": lambda t, n: 1.0,
    "step": lambda t, n: 0.1 ** ((t >= 0.5 * n) + (t >= 0.75 * n)),
    "step_mnist": lambda t, n: 0.1 ** ((t >= 0.25 * n) + (t >= 0.5 * n) + (t >= 0.75 * n)),
    "cosine": lambda t, n: (1 + np.cos(np.pi * t / n)) / 2,
    "linear": lambda t, n: 1 - t / n,
    "inverse_sqrt": lambda t, n: 1 / np.sqrt(max(t, 1)),
}
BEGIN_AFTER_WARMUP = ("constant", "cosine", "linear")

every_schedule = pytest.mark.parametrize("name", sorted(optimizers.SCHEDULES))
every_base = pytest.mark.parametrize("base", sorted(optimizers.BASES))


def build(base="sgd", learning_rate=0.1, weight_decay=0.0, shape=None, **kw):
    shape = shape or optimizers.schedule("constant", N)
    return optimizers.build(base, learning_rate, shape, weight_decay=weight_decay, **kw)


def gradients(count=4, scale=1.0):
    """Different at every step, as a batch's are."""
    draw = np.random.default_rng(0).normal
    return [jax.tree.map(lambda w: scale * draw(size=w.shape), PARAMS) for _ in range(count)]


def after(optimizer, grads, params=PARAMS):
    """The parameters after one step a gradient."""
    grads = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads)
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


def close(received, expected, rtol=1e-6):
    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)
    jax.tree.map(compare, received, expected)


def same(received, expected):
    jax.tree.map(np.testing.assert_array_equal, received, expected)


@every_schedule
@pytest.mark.parametrize("t", [0, 1, 24, 25, 26, 49, 50, 51, 74, 75, 76, 99, 100])
def test_a_schedule_is_its_formula(name, t):
    value = optimizers.schedule(name, N)(t)
    np.testing.assert_allclose(value, FORMULAS[name](t, N), rtol=1e-5, atol=1e-7)


@every_schedule
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 100])
def test_a_schedule_begins_at_the_learning_rate_however_few_the_steps(name, num_steps):
    assert optimizers.schedule(name, num_steps)(0) == 1


@every_schedule
@pytest.mark.parametrize("warmup", [1, 20, 60])
def test_warmup_rises_linearly_from_zero_to_where_the_schedule_goes_on(name, warmup):
    shape = optimizers.schedule(name, N, warmup)
    rise = np.arange(warmup + 1) / warmup
    assert shape(0) == 0
    np.testing.assert_allclose(
        jax.vmap(shape)(np.arange(warmup + 1)), shape(warmup) * rise, atol=1e-7
    )
    late = name in BEGIN_AFTER_WARMUP
    for t in (warmup, warmup + 1, 61, 74, 75, 99, 100):
        expected = FORMULAS[name](t - warmup, N - warmup) if late else FORMULAS[name](t, N)
        np.testing.assert_allclose(shape(t), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 20])
def test_what_decays_to_zero_is_there_at_the_last_step_and_stays(name, warmup):
    shape = optimizers.schedule(name, N, warmup)
    assert shape(N - 1) > 0
    assert shape(N) == shape(N + 10) == 0


def test_inverse_sqrt_is_the_papers_and_peaks_at_the_end_of_its_warmup():
    t = np.arange(75_000)
    rate = 0.05 * jax.vmap(optimizers.schedule("inverse_sqrt", 75_000, 8000))(t)
    expected = 0.05 * np.minimum(1, t / 8000) / np.sqrt(np.maximum(t, 8000))
    np.testing.assert_allclose(rate, expected, rtol=1e-6)
    assert rate.argmax() == 8000
    np.testing.assert_allclose(rate.max(), 5.6e-4, rtol=2e-3)


@pytest.mark.parametrize("name", optimizers.SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 40, 99])
def test_a_schedule_peaks_where_its_warmup_ends(name, warmup):  # as the radius of gsam relies on
    shape = optimizers.schedule(name, 100, warmup)
    rates = np.broadcast_to(shape(np.arange(100)), 100)
    assert rates.max() == np.broadcast_to(shape(np.array([warmup, 100])), 2)[0]


def test_the_learning_rate_follows_the_schedule_from_step_zero():
    params = {"w": jnp.zeros(())}
    optimizer = build(learning_rate=0.5, shape=optimizers.schedule("linear", 4), momentum=0.0)
    walked = [after(optimizer, [{"w": -1.0}] * k, params)["w"] for k in range(6)]
    np.testing.assert_allclose(np.diff(walked), [0.5, 0.375, 0.25, 0.125, 0.0], rtol=1e-6)


@every_base
@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
def test_traced_numbers_do_what_static_ones_do(base, mode):
    def trained(learning_rate, weight_decay):
        return after(build(base, learning_rate, weight_decay, mode=mode), gradients())

    close(jax.jit(trained)(0.1, 0.01), trained(0.1, 0.01))


def test_learning_rates_and_decays_can_be_mapped_over():
    def trained(learning_rate, weight_decay):
        return after(build("sgd", learning_rate, weight_decay), gradients())

    rates, decays = jnp.array([0.1, 0.2]), jnp.array([0.0, 0.5])
    both = jax.vmap(trained)(rates, decays)
    for i in range(2):
        alone = trained(float(rates[i]), float(decays[i]))
        close(jax.tree.map(lambda x, i=i: x[i], both), alone)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_coupled_decay_is_part_of_the_gradient_that_momentum_sees(momentum, nesterov):
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    grads = [np.array([0.5, -1.0]), np.array([2.0, 0.1]), np.array([-1.0, 1.0])]
    for g in grads:
        d = g + 0.3 * w
        v = momentum * v + d
        w = w - 0.1 * (momentum * v + d if nesterov else v)
    optimizer = build("sgd", 0.1, 0.3, mode="coupled", momentum=momentum, nesterov=nesterov)
    received = after(optimizer, [{"w": g} for g in grads], {"w": jnp.array([1.0, -2.0])})
    np.testing.assert_allclose(received["w"], w, rtol=1e-6)


def test_coupled_decay_is_part_of_the_gradient_that_adam_sees():
    w, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    grads = [np.array([0.5, -1.0]), np.array([2.0, 0.1]), np.array([-1.0, 1.0])]
    for t, g in enumerate(grads, start=1):
        d = g + 0.3 * w
        m, v = 0.8 * m + 0.2 * d, 0.95 * v + 0.05 * d**2
        w = w - 0.1 * m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
    optimizer = build("adam", 0.1, 0.3, beta1=0.8, beta2=0.95, adam_epsilon=1e-3)
    received = after(optimizer, [{"w": g} for g in grads], {"w": jnp.array([1.0, -2.0])})
    np.testing.assert_allclose(received["w"], w, rtol=1e-5)


@every_base
def test_decoupled_decay_shrinks_by_learning_rate_times_decay_each_step(base):
    nothing = [jax.tree.map(jnp.zeros_like, PARAMS)] * 3
    received = after(build(base, 0.1, 0.5, mode="decoupled"), nothing)
    close(received, jax.tree.map(lambda w: w * (1 - 0.1 * 0.5) ** 3, PARAMS))


@every_base
def test_decoupled_decay_follows_the_schedule(base):
    nothing = [jax.tree.map(jnp.zeros_like, PARAMS)] * 2
    shape = optimizers.schedule("linear", 2)
    received = after(build(base, 0.1, 0.5, shape, mode="decoupled"), nothing)
    close(received, jax.tree.map(lambda w: w * (1 - 0.1 * 0.5) * (1 - 0.05 * 0.5), PARAMS))


@pytest.mark.parametrize(
    "base, mode", [("sgd", "coupled"), ("adam", "coupled"), ("adamw", "decoupled")]
)
def test_the_default_decay_is_the_custom_of_the_base(base, mode):
    default, chosen = (after(build(base, 0.1, 0.5, mode=m), gradients()) for m in ("default", mode))
    same(default, chosen)


def test_the_two_modes_of_decay_differ_under_adam():
    one, other = (
        after(build("adam", 0.1, 0.5, mode=m), gradients()) for m in ("coupled", "decoupled")
    )
    assert abs(one["Dense_0"]["kernel"] - other["Dense_0"]["kernel"]).max() > 1e-2


def test_adam_is_that_of_optax():
    ours = build("adam", 0.1, beta1=0.8, beta2=0.95, adam_epsilon=1e-6)
    close(after(ours, gradients()), after(optax.adam(0.1, 0.8, 0.95, 1e-6), gradients()))


def test_adamw_is_that_of_optax():
    shape = optimizers.schedule("cosine", 4)
    ours = build("adamw", 0.1, 0.3, shape, beta1=0.8, beta2=0.95, adam_epsilon=1e-6)
    theirs = optax.adamw(lambda t: 0.1 * shape(t), 0.8, 0.95, 1e-6, weight_decay=0.3)
    close(after(ours, gradients()), after(theirs, gradients()))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_optax(nesterov):
    ours = build("sgd", 0.1, momentum=0.8, nesterov=nesterov)
    close(
        after(ours, gradients()),
        after(optax.sgd(0.1, momentum=0.8, nesterov=nesterov), gradients()),
    )


@every_base
@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
def test_decay_on_kernels_leaves_every_other_leaf_alone(base, mode):
    nothing = [jax.tree.map(jnp.zeros_like, PARAMS)] * 3
    received = after(build(base, 0.1, 0.5, mode=mode, on="kernels"), nothing)
    everything = after(build(base, 0.1, 0.5, mode=mode), nothing)
    same(received["bn"], PARAMS["bn"])
    same(received["Dense_0"]["bias"], PARAMS["Dense_0"]["bias"])
    same(received["Dense_0"]["kernel"], everything["Dense_0"]["kernel"])
    assert (abs(everything["bn"]["bias"]) < abs(PARAMS["bn"]["bias"])).all()
    assert (abs(received["Dense_0"]["kernel"]) < abs(PARAMS["Dense_0"]["kernel"])).all()


def test_clipping_bounds_the_norm_over_all_leaves_before_the_decay_is_added():
    (g,) = gradients(1, scale=100.0)
    length = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(g)))
    received = after(build("sgd", 0.1, 0.5, clip_norm=2.0), [g])
    close(received, jax.tree.map(lambda w, g: w - 0.1 * (2 * g / length + 0.5 * w), PARAMS, g))


def test_clipping_lets_a_small_gradient_pass_unchanged():
    grads = gradients(3, scale=0.01)
    same(after(build(clip_norm=2.0), grads), after(build(clip_norm=0.0), grads))


def test_clipping_leaves_a_zero_gradient_at_zero_and_not_nan():
    nothing = [jax.tree.map(jnp.zeros_like, PARAMS)]
    same(after(build(clip_norm=2.0), nothing), PARAMS)


@every_base
@every_schedule
def test_a_learning_rate_of_zero_moves_nothing(base, name):
    shape = optimizers.schedule(name, N)
    same(after(build(base, 0.0, 0.5, shape), gradients(2)), PARAMS)


@every_base
@every_schedule
def test_a_learning_rate_above_zero_moves_every_leaf(base, name):
    received = after(build(base, 0.1, 0.0, optimizers.schedule(name, N)), gradients(2))
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), received, PARAMS)
    assert all(jax.tree.leaves(moved))


@every_base
@every_schedule
def test_a_new_learning_rate_or_decay_does_not_recompile(base, name):
    shape = optimizers.schedule(name, N, 10)
    (g,) = gradients(1)

    @jax.jit
    def update(learning_rate, weight_decay):
        optimizer = build(base, learning_rate, weight_decay, shape)
        return optimizer.update(g, optimizer.init(PARAMS), PARAMS)[0]

    for rate, decay in ((0.1, 0.0), (0.2, 0.0), (0.2, 0.5)):
        update(rate, decay)
    assert update._cache_size() == 1
