"""What holds for every method of the family, because it is listed."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

import family
from samscale import sharpness
from samscale.knobs import OWN, own
from samscale.training import method

every = pytest.mark.parametrize("name", family.NAMES)


@every
def test_its_docstring_tells_formula_cost_and_source(name):
    words = inspect.getdoc(sharpness.PRESETS[name])
    assert "$" in words
    assert "Cost" in words or "gradient evaluations" in words
    assert any(str(year) in words for year in range(2020, 2027))


@every
def test_each_of_its_choices_is_a_knob_with_the_same_default(name):
    choices = family.defaults(name)
    context = {"split", "weight", "merge", "take", "losses_of", "where", "mask", "momentum"}
    knobs = {"rho": "rho"} | method.SHARED | method.CHOICES.get(name, {})
    for word in set(choices) - context - {"refresh", "total", "axis_name"}:
        knob = knobs[word]
        value = own(knob, name) if knob in OWN else getattr(method.Config(), knob)
        assert choices[word] == (float(value) if knob == "sam_norm" else value), word


@every
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_structure_and_dtypes_are_those_of_the_parameters(name, dtype):
    params, batch = family.network_at(dtype=dtype)
    begin, step = family.stepper(name)
    state = begin(params)
    new, (_, grads, info) = jax.eval_shape(step, state, batch)
    like = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert like(grads) == like(info.ascent) == like(params)
    assert like(new) == like(state)


@every
def test_fifty_steps_are_one_program_and_what_they_were_given_may_be_donated(name):
    params, batch = family.network_at()
    begin, step = family.stepper(name)
    step = family.jit(step, donate_argnums=0)
    state = jax.tree.map(jnp.array, begin(params))
    for _ in range(50):
        state, (out, grads, _) = step(state, batch)
    assert step._cache_size() == 1
    assert np.isfinite(out)
    assert int(state[1].count) == 50
    assert np.isfinite(sharpness.norm(grads))


@every
def test_compiled_it_is_what_it_is_uncompiled(name):
    with jax.enable_x64(True):  # wsam multiplies a difference, and its rounding, by nine
        params, batch = family.network_at(dtype=jnp.float64)
        begin, step = family.stepper(name)
        a = b = begin(params)
        compiled = family.jit(step)
        for _ in range(2):  # a full step and, where there are any, a cheap one
            (a, _), (b, _) = compiled(a, batch), step(b, batch)
            family.close(a, b, rtol=1e-9, atol=1e-12)


@every
def test_a_new_radius_is_the_same_program(name):
    params, batch = family.network_at()
    base = family.optimizer(name)

    @family.jit
    def call(rho):
        gradient = family.make(name, rho=rho)
        return gradient.value_and_grad(
            params, gradient.init(params), batch, opt_state=base.init(params)
        )[0]

    for rho in (0.0, 0.1, 0.2):
        call(rho)
    assert call._cache_size() == 1


@every
def test_a_stop_in_mid_period_leaves_no_trace(name):
    params, batch = family.network_at()
    begin, step = family.stepper(name)
    step = family.jit(step)
    straight = halted = begin(params)
    for i in range(14):
        straight, _ = step(straight, batch)
        halted, _ = step(halted, batch)
        if i == 6:  # not a multiple of any period
            saved = serialization.to_bytes(halted)
            halted = serialization.from_bytes(begin(params), saved)
    family.equal(straight, halted)


@pytest.mark.parametrize("name", sorted({*family.NAMES} - {*family.ONE_PASS}))
def test_what_is_reported_is_the_clean_pass(name):
    params, batch = family.network_at()
    begin, step = family.stepper(name)
    _, (out, _, info) = step(begin(params), batch)
    np.testing.assert_allclose(out, family.network(params, batch), rtol=1e-6)
    assert not np.allclose(info.out, out)


@pytest.mark.parametrize("name", family.ONE_PASS)
def test_where_no_pass_is_at_w_the_first_is_reported(name):
    params, batch = family.network_at()
    begin, step = family.stepper(name)
    state, _ = step(begin(params), batch)  # from here on there is momentum
    _, (out, _, info) = step(state, batch)
    assert not np.allclose(out, family.network(state[0], batch), rtol=1e-5)
    above = jax.tree.map(jnp.add, state[0], info.ascent)
    np.testing.assert_allclose(info.out, family.network(above, batch), rtol=1e-5)
    assert (out == info.out) == (name != "bsam")  # which has two


@every
def test_it_costs_what_is_documented(name):
    """Evaluations of ``value_and_grad_fn``, weighed by the examples they see."""
    params, batch = family.network_at(n=8)
    seen = []

    def counted(params, batch):
        jax.debug.callback(lambda: seen.append(len(batch[1]) / 8))
        return jax.value_and_grad(family.network)(params, batch)

    choices = {"refresh": 1000, "samples": 8} if name == "ssam_fisher" else {}
    begin, step = family.stepper(name, family.make(name, counted, **choices))
    step, state = family.jit(step), begin(params)
    for _ in range(20):
        state, _ = step(state, batch)
    jax.effects_barrier()
    asked = {k: v for k, v in family.defaults(name).items() if k in ("every", "steps", "gamma")}
    asked = asked if name == "esam" else {k: v for k, v in asked.items() if k != "gamma"}
    documented = sharpness.gradients(name, 20, **asked)
    unseen = {  # by a counter of evaluations; operations are counted below
        "exact_sam": 2 * 20,  # the product with the Hessian pulls back through the first pass
        "sassha": 2 * 2,  # the product goes forward through the second, in two of 20 steps
        "esam": 20 / 3,  # a forward pass
        "ssam_fisher": -1,  # one renewal, of 8 single examples
    }
    assert sum(seen) == pytest.approx(documented - unseen.get(name, 0))


WIDE = 192


def residuals_of_products(params, batch):
    """A network all of whose operations are matrix products, to a few percent."""
    h = batch[0] * params["norm"]["scale"][None]
    for layer in params["layers"]:
        h = jnp.tanh(h @ layer["kernel"])
    return h @ params["v"] - batch[1]


@every
def test_a_full_step_has_as_many_operations_as_gradients_are_documented(name):
    losses = lambda params, batch: residuals_of_products(params, batch) ** 2
    value_and_grad = jax.value_and_grad(lambda params, batch: losses(params, batch).mean())
    shape = lambda *of: jax.ShapeDtypeStruct(of, jnp.float32)
    params = {"layers": [{"kernel": shape(WIDE, WIDE)}] * 3, "v": shape(WIDE)}
    params |= {"norm": {"scale": shape(WIDE)}}
    batch = shape(WIDE, WIDE), shape(WIDE)

    def operations(name, gradient):
        count = 1 if name == "ssam_fisher" else 0  # beside a renewal, which costs more

        def step(params, state, opt_state, batch):
            state = state._replace(count=jnp.full((), count, jnp.int32))  # no branch is left
            (_, grads), _, info = gradient.value_and_grad(params, state, batch, opt_state=opt_state)
            return grads, info.extra

        own = (gradient.init, family.optimizer(name).init)
        states = (jax.eval_shape(init, params) for init in own)
        return jax.jit(step).lower(params, *states, batch).compile().cost_analysis()["flops"]

    choices = {"esam": {"losses": losses}, "m_sam": {"groups": 1}}.get(name, {})
    ratio = operations(name, family.make(name, value_and_grad, **choices))
    ratio /= operations("sgd", sharpness.plain(value_and_grad))
    asked = {k: v for k, v in family.defaults(name).items() if k in ("steps", "gamma")}
    asked = asked if name == "esam" else {k: v for k, v in asked.items() if k == "steps"}
    # of the first pass SAM-ON needs no gradient of a kernel: of nine products six are left
    expected = 5 / 3 if name == "sam_on" else sharpness.gradients(name, 1, **asked)
    assert ratio == pytest.approx(expected, rel=0.1)


@every
def test_seeds_mapped_over_are_runs_one_by_one(name):
    def begin(seed):
        params, _ = family.network_at(dtype=jnp.float64)
        shift = 0.1 * jax.random.normal(jax.random.key(seed), (4,))
        return family.stepper(name)[0]({**params, "v": params["v"] + shift})

    def step(seed, state, batch):
        return family.stepper(name, family.make(name, seed=seed))[1](state, batch)[0]

    with jax.enable_x64(True):
        seeds, one = jnp.arange(3), family.jit(step)
        alone = [begin(seed) for seed in seeds]
        stack = lambda states: jax.tree.map(lambda *x: jnp.stack(x), *states)
        mapped, together = family.jit(jax.vmap(step, (0, 0, None))), stack(alone)
        for i in range(4):
            batch = family.network_at(i, dtype=jnp.float64)[1]
            together = mapped(seeds, together, batch)
            alone = [one(seed, state, batch) for seed, state in zip(seeds, alone, strict=True)]
        family.close(together, stack(alone), rtol=1e-9, atol=1e-12)


@every
def test_frozen_parameters_neither_climb_nor_move(name):
    params, batch = family.network_at()

    def loss(params, batch):
        return family.network({**params, "b": jax.lax.stop_gradient(params["b"])}, batch)

    tree = jax.tree.map(lambda w: True, params)
    choices = {"mask": {**tree, "b": False}} if name == "random_sam" else {}
    begin, step = family.stepper(name, family.make(name, jax.value_and_grad(loss), **choices))
    state = begin(params)
    for _ in range(3):
        state, (_, grads, info) = step(state, batch)
        assert not grads["b"].any()
        assert not info.ascent["b"].any()
    np.testing.assert_array_equal(state[0]["b"], params["b"])
    assert (state[0]["w"] != params["w"]).all()


@every
def test_it_stands_inside_apply_if_finite(name):
    params, batch = family.network_at()
    bad = (batch[0].at[0, 0].set(jnp.nan), batch[1])
    gradient, base = family.make(name), family.optimizer(name)
    guarded = optax.apply_if_finite(base, 5)
    opt_state = guarded.init(params)
    (_, grads), _, info = gradient.value_and_grad(
        params, gradient.init(params), bad, opt_state=opt_state
    )
    assert not np.isfinite(sharpness.norm(grads))
    updates, _ = guarded.update(grads, opt_state, params, **info.extra)
    family.equal(updates, jax.tree.map(jnp.zeros_like, params))
