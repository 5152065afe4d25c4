"""What every method makes of what callers give: dtypes, frozen or empty trees, plain numbers, other
containers, JAX's strict modes, and axes with a name."""

import contextlib
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict

import family
from samscale import optimizers, sharpness
from samscale.sharpness import perturbations

every = pytest.mark.parametrize("name", family.NAMES)
KEY = jax.random.key(0)
DTYPES = [  # of the parameters, and of the gradients in turn
    (jnp.bfloat16, [jnp.float32]),
    (jnp.float32, [jnp.bfloat16]),
    (jnp.float16, [jnp.float32]),
    (jnp.float32, [jnp.float64]),
    (jnp.bfloat16, [jnp.float32, jnp.bfloat16]),
]


def like(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def in_turn(tree, dtypes):
    turn = itertools.cycle(dtypes)
    return jax.tree.map(lambda x: x.astype(next(turn)), tree)


@every
@pytest.mark.parametrize("of, to", DTYPES, ids=str)
def test_what_it_returns_has_the_dtypes_of_the_gradient_and_what_it_carries_its_own(name, of, to):
    def value_and_grad(params, batch):
        value, grads = jax.value_and_grad(family.network)(params, batch)
        return value, in_turn(grads, to)

    with jax.enable_x64(True):
        params, batch = family.network_at(dtype=of)
        gradient, base = family.make(name, value_and_grad), family.optimizer(name)
        state, opt_state = gradient.init(params), base.init(params)

        def step(state, opt_state):
            return gradient.value_and_grad(params, state, batch, opt_state=opt_state)

        (_, grads), new, _ = jax.eval_shape(step, state, opt_state)
        assert like(grads) == like(in_turn(params, to))
        assert like(new) == like(state)


@pytest.mark.parametrize("name", ["bsam", "sassha"])
@pytest.mark.parametrize("of, to", DTYPES, ids=str)
def test_so_does_an_optimizer_of_its_own(name, of, to):
    own = {"bsam": sharpness.scale_by_bsam(), "sassha": sharpness.scale_by_sassha()}[name]
    word = {"bsam": "magnitude", "sassha": "curvature"}[name]
    with jax.enable_x64(True):
        params, _ = family.network_at(dtype=of)
        grads, state = in_turn(params, to), own.init(params)
        updates, new = jax.eval_shape(lambda g, s: own.update(g, s, **{word: g}), grads, state)
    assert like(updates) == like(grads)
    assert like(new) == like(state)


def test_an_ascent_is_no_coarser_than_the_gradient_or_the_weights():
    g = jnp.array([1.0, 1e-3])
    for of, to in ((jnp.bfloat16, jnp.float32), (jnp.float32, jnp.bfloat16)):
        gradient = sharpness.sam(lambda w, g=g, to=to: (0.0, g.astype(to)), 0.3)
        w = jnp.ones(2, of)
        _, _, info = gradient.value_and_grad(w, gradient.init(w))
        exact = np.asarray(g.astype(to), np.float64)
        np.testing.assert_allclose(info.ascent, 0.3 * exact / np.linalg.norm(exact), rtol=1e-6)


RADII = [
    np.float64(0.0625),
    np.float16(0.0625),
    np.array(0.0625),
    jnp.array(0.0625, jnp.bfloat16),
    jnp.array(0.0625, jnp.float16),
    np.asarray(0.0625, jnp.bfloat16),
]


@pytest.mark.parametrize("rho", RADII, ids=repr)
@pytest.mark.parametrize("name", ["sam", "usam", "layer_sam", "fisher_sam", "multistep_sam"])
def test_a_radius_is_the_same_number_whatever_holds_it(name, rho):
    vg, w = jax.value_and_grad(lambda w: ((w - 1) ** 2).sum()), jnp.array([2.0, 3.0, 0.5])
    at = lambda rho: sharpness.PRESETS[name](vg, rho)
    found, wanted = (g.value_and_grad(w, g.init(w))[0][1] for g in (at(rho), at(0.0625)))
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == jnp.float32


def test_a_whole_number_is_a_radius_and_a_truth_value_is_none():
    vg, w = jax.value_and_grad(lambda w: (w**2).sum()), jnp.array([3.0, 4.0])
    for rho in (1, np.int64(1), np.uint8(1), jnp.array(1)):
        gradient = sharpness.sam(vg, rho)
        np.testing.assert_allclose(
            gradient.value_and_grad(w, gradient.init(w))[2].ascent, [0.6, 0.8], rtol=1e-6
        )
    for rho in (True, jnp.bfloat16(-0.01), jnp.float16(jnp.nan), 1j, np.array("0.1"), KEY):
        gradient = sharpness.sam(vg, rho)
        with pytest.raises(ValueError, match=r"must be finite and at least 0"):
            gradient.value_and_grad(w, gradient.init(w))


def test_a_radius_of_another_shape_is_refused_and_does_not_broadcast():
    vg, w = jax.value_and_grad(lambda w: (w**2).sum()), jnp.ones(())
    for name in ("sam", "usam", "random_sam"):
        gradient = family.make(name, vg, rho=jnp.ones(3))
        with pytest.raises(ValueError, match=r"must be a number or shaped as .* \(\), not \(3,\)"):
            gradient.value_and_grad(w, gradient.init(w))


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_numbers_may_be_injected_hyperparameters_of_any_precision(dtype, jit):
    def make(rho, gamma):
        combine = sharpness.combine.wsam(gamma)
        return sharpness.as_optax(optax.sgd(0.1), perturbations.to_ball(rho), combine)

    params = {"w": jnp.full(3, 2.0, dtype)}
    slope = jax.grad(lambda p: ((p["w"] - 1) ** 2).sum())
    optimizer = optax.inject_hyperparams(make)(rho=0.05, gamma=0.5)
    step = jit(
        lambda state: optimizer.update(slope(params), state, params, grad_fn=lambda w, i: slope(w))
    )
    updates, _ = step(optimizer.init(params))
    wanted = -0.2 * (1 + 0.05 / 3**0.5)
    np.testing.assert_allclose(np.float32(updates["w"]), np.full(3, wanted), rtol=2e-2)


EMPTY = {
    "frozen": {"frozen": None},
    "nothing": {},
    "without entries": {"a": {"kernel": jnp.zeros((0, 3)), "scale": jnp.zeros(0)}},
    "one of them": {"a": {"kernel": jnp.ones((2, 3)), "scale": jnp.zeros(0)}},
}


@every
@pytest.mark.parametrize("params", EMPTY.values(), ids=EMPTY)
def test_where_there_is_nothing_to_train_nothing_climbs(name, params):
    def losses(params, batch):
        return sum(((x - 1) ** 2).sum() for x in jax.tree.leaves(params)) + batch

    vg = jax.value_and_grad(lambda params, batch: losses(params, batch).mean())
    choices = {"losses": losses} if name == "esam" else {}
    gradient, base = family.make(name, vg, **choices), family.optimizer(name)
    state, opt_state = gradient.init(params), base.init(params)
    (out, grads), new, info = gradient.value_and_grad(
        params, state, jnp.ones(8), opt_state=opt_state
    )
    updates, _ = base.update(grads, opt_state, params, **info.extra)
    assert like(updates) == like(info.ascent) == like(params)
    assert like(new) == like(state)
    assert np.isfinite(out)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((grads, updates, info.ascent)))


@pytest.mark.parametrize("params", [EMPTY["frozen"], EMPTY["without entries"]], ids=str)
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("ord", [1, 2, np.inf])
def test_nor_does_it_in_another_norm_or_several_steps_or_as_an_optimizer(params, ord, steps):
    slope = jax.grad(lambda p: sum((x.sum() for x in jax.tree.leaves(p)), jnp.zeros(())))
    project = perturbations.onto_ball(0.1, ord)
    optimizer = sharpness.as_optax(
        optax.sgd(0.1, 0.9), perturbations.to_ball(0.1, ord), steps=steps, project=project
    )
    updates, _ = optimizer.update(
        slope(params), optimizer.init(params), params, grad_fn=lambda w, i: slope(w)
    )
    assert like(updates) == like(params)


def test_a_mask_that_selects_nothing_is_no_ascent():
    params, batch = family.network_at()
    nothing = lambda params: jax.tree.map(lambda w: False, params)
    for name, choices in (
        ("sam_on", {"where": nothing}),
        ("random_sam", {"mask": nothing(params)}),
        ("ssam_dynamic", {"sparsity": 0.999}),
    ):
        gradient = family.make(name, **choices)
        (_, grads), _, info = gradient.value_and_grad(params, gradient.init(params), batch)
        assert not any(e.any() for e in jax.tree.leaves(info.ascent)), name
        family.close(grads, jax.grad(family.network)(params, batch))


@every
def test_plain_numbers_are_parameters_as_arrays_are(name):
    plain = {"kernel": 2.0, "scale": np.float32(1.5), "v": np.array([0.5, -1.0])}
    arrays = jax.tree.map(lambda x: jnp.array(x, jnp.float32), plain)

    def losses(params, batch):
        return (params["kernel"] - 1) ** 2 + (params["scale"] * params["v"]).sum() ** 2 + batch

    def after(params):
        vg = jax.value_and_grad(lambda params, batch: losses(params, batch).mean())
        choices = {"losses": losses} if name == "esam" else {}
        gradient, base = family.make(name, vg, **choices), family.optimizer(name)
        opt_state = base.init(params)
        (_, grads), state, _ = gradient.value_and_grad(
            params, gradient.init(params), jnp.ones(8), opt_state=opt_state
        )
        return grads, state

    family.close(after(plain), after(arrays), rtol=1e-6)


@pytest.mark.parametrize(
    "leaf, what",
    [
        (3, "int32"),
        (np.arange(3), "int64"),
        (jnp.array(True), "bool"),
        ("tanh", "str"),
        (jnp.tanh, "the function tanh"),
        (KEY, "key<fry>"),
        (np.array(["a"]), "<U1"),
    ],
)
@pytest.mark.parametrize("name", ["sam", "sgd", "bsam", "sassha", "m_sam"])
def test_what_cannot_be_trained_is_named_by_its_path(name, leaf, what):
    vg = lambda params, *args: (0.0, params)
    gradient = sharpness.plain(vg) if name == "sgd" else family.make(name, vg)
    params = {"a": [jnp.ones(2), leaf]}
    law = rf"params\['a'\]\[1\]: must be an array of floating-point numbers, not {what};"
    for call in (gradient.init, lambda p: gradient.value_and_grad(p, None, jnp.ones(8))):
        with pytest.raises(ValueError, match=law):
            call(params)


@pytest.mark.parametrize(
    "found, words",
    [
        (1.0, r"value_and_grad_fn: must return \(out, grads\), .* not float"),
        ({"a": jnp.ones(2)}, r"value_and_grad_fn: must return \(out, grads\), .* not dict"),
        ((0.0, {"a": jnp.ones(())}), r"grads\['a'\]: .* shaped as params, \[2\], not float32\[\]"),
        ((0.0, {"a": None}), r"grads: must be a tree like params, and they differ at \['a'\]"),
        ((0.0, {"b": jnp.ones(2)}), r"grads: must be a tree like params, and they differ at"),
        ((0.0, [jnp.ones(2)]), r"grads: must be a tree like params, and they differ at"),
    ],
)
@pytest.mark.parametrize("name", ["sam", "sgd", "bsam", "sassha", "m_sam"])
def test_a_gradient_that_is_none_is_one_sentence(name, found, words):
    vg = lambda params, *args: found
    gradient = sharpness.plain(vg) if name == "sgd" else family.make(name, vg)
    params = {"a": jnp.ones(2)}
    opt_state = family.optimizer(name).init(params)
    with pytest.raises(ValueError, match=words) as raised:
        gradient.value_and_grad(params, gradient.init(params), jnp.ones(8), opt_state=opt_state)
    assert "\n" not in str(raised.value)


def test_an_ascent_of_another_shape_is_refused():
    wrong = perturbations.stateless(lambda g, params, **_: jnp.ones(3))
    gradient = sharpness.sharpness_aware(jax.value_and_grad(lambda w: w**2), wrong)
    w = jnp.ones(())
    with pytest.raises(ValueError, match=r"perturbation: its result: must be shaped as params"):
        gradient.value_and_grad(w, gradient.init(w))


REAL = {  # of complex numbers they would be something else
    "bsam": {},
    "sassha": {},
    "fisher_sam": {},
    "multistep_sam": {"ord": np.inf},
}


@pytest.mark.parametrize("name, choices", REAL.items())
def test_methods_of_real_numbers_name_the_complex_ones(name, choices):
    params = {"a": jnp.ones(2), "b": jnp.ones(2, complex)}
    vg = jax.value_and_grad(lambda p: (jnp.abs(p["b"]) ** 2).sum() + p["a"].sum())
    gradient, opt_state = family.make(name, vg, **choices), family.optimizer(name).init(params)
    with pytest.raises(ValueError, match=r"params\['b'\]: must be real for .*, not complex64"):
        gradient.value_and_grad(params, gradient.init(params), opt_state=opt_state)


@pytest.mark.parametrize(
    "name, choices",
    [("sam", {}), ("gsam", {}), ("looksam", {}), ("exact_sam", {}), ("multistep_sam", {})],
)
def test_the_others_take_them_for_pairs_of_real_ones(name, choices):
    key = jax.random.split(KEY, 3)
    w, a, b = (jax.random.normal(k, (3,), complex) for k in key)
    of_pairs = lambda p: (jnp.abs(a * (p[0] + 1j * p[1]) - b) ** 2).sum()
    of_complex = lambda w: (jnp.abs(a * w - b) ** 2).sum()

    def grads_of(loss, at):
        gradient = family.make(name, jax.value_and_grad(loss), **choices)
        state = gradient.init(at)
        for _ in range(2):
            (_, grads), state, _ = gradient.value_and_grad(at, state)
        return grads

    real, imaginary = grads_of(of_pairs, (w.real, w.imag))
    np.testing.assert_allclose(grads_of(of_complex, w), real - 1j * imaginary, rtol=1e-4)


def test_modules_of_equinox_ask_to_be_partitioned():
    model = eqx.nn.MLP(3, 1, 4, 1, key=KEY)
    loss = lambda model, x: jnp.mean(jax.vmap(model)(x) ** 2)
    gradient = sharpness.sam(eqx.filter_value_and_grad(loss))
    with pytest.raises(ValueError, match=r"params\.activation: .* function relu; .*eqx\.partition"):
        gradient.init(model)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    gradient = sharpness.sam(jax.value_and_grad(lambda p, x: loss(eqx.combine(p, static), x)))
    (_, grads), _, _ = gradient.value_and_grad(params, gradient.init(params), jnp.ones((8, 3)))
    assert jax.tree.structure(grads) == jax.tree.structure(params)


def test_modules_of_nnx_ask_to_be_split():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(3, 1, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

    model = Net(nnx.Rngs(0))
    gradient = sharpness.sam(nnx.value_and_grad(lambda m, x: (m.layer(x) ** 2).mean()))
    with pytest.raises(ValueError, match=r"params.*drop.*: must be .*nnx\.split"):
        gradient.init(model)


def test_a_frozen_dict_is_a_tree_as_a_dict_is():
    params, batch = family.network_at()
    for name in ("sam", "asam", "sam_on", "look_layer_sam"):
        gradient = family.make(name)
        found = [
            gradient.value_and_grad(p, gradient.init(p), batch)[0][1]
            for p in (params, FrozenDict(params))
        ]
        assert isinstance(found[1], FrozenDict)
        family.equal(found[0], found[1].unfreeze())


MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "leaks": jax.checking_leaks,
    "guard": lambda: jax.transfer_guard("disallow"),
}


@every
def test_it_stands_in_the_modes_that_look_for_mistakes(name):
    params, batch = family.network_at()
    gradient = family.make(name, rho=jnp.float32(0.1))
    begin, step = family.stepper(name, gradient)
    state = begin(params)
    with contextlib.ExitStack() as stack:
        for mode in MODES.values():
            stack.enter_context(mode())
        state, (_, grads, _) = family.jit(step)(state, batch)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@every
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_stands_under_strict_promotion_of_dtypes(name, dtype):
    params, batch = family.network_at(dtype=dtype)
    begin, step = family.stepper(name, family.make(name, rho=jnp.float32(0.1)))
    with jax.numpy_dtype_promotion("strict"):
        state = begin(params)
        step = step if name not in ("bsam", "sassha", "wsam") else family.stepper(name)[1]
        new, _ = jax.eval_shape(step, state, batch)
    assert like(new) == like(state)


def test_so_do_groups_and_the_optimizer_around_and_the_callers_own_function_is_strict():
    params, batch = family.network_at(dtype=jnp.bfloat16)
    mixed = jax.value_and_grad(lambda w, b: family.network(w, b) * jnp.ones((), jnp.float32))
    with jax.numpy_dtype_promotion("strict"):
        for gradient in (
            sharpness.grouped(sharpness.sam(jax.value_and_grad(family.network)), 2),
            sharpness.plain(sharpness.accumulated(jax.value_and_grad(family.network), 2)),
        ):
            gradient.value_and_grad(params, gradient.init(params), batch)
        slope = lambda w, i=0: jax.grad(family.network)(w, batch)
        optimizer = sharpness.as_optax(optax.sgd(0.1), perturbations.to_ball(jnp.float32(0.1)))
        optimizer.update(slope(params), optimizer.init(params), params, grad_fn=slope)
        gradient = sharpness.sam(mixed)
        with pytest.raises(jax.dtypes.TypePromotionError) as raised:
            gradient.value_and_grad(params, gradient.init(params), batch)
    assert "strict" in str(raised.value)


@pytest.mark.parametrize("base", optimizers.BASES)
@pytest.mark.parametrize("name", optimizers.SCHEDULES)
def test_so_do_the_optimizers_and_their_schedules(name, base):
    params, _ = family.network_at(dtype=jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        shape = optimizers.schedule(name, 10, 2)
        assert np.isfinite(shape(jnp.array(3)))
        optimizer = optimizers.build(base, 0.1, shape, weight_decay=1e-4, clip_norm=1.0)
        jax.eval_shape(lambda s: optimizer.update(params, s, params), optimizer.init(params))


NAMED = ["sam", "gsam", "looksam", "friendly_sam", "exact_sam", "random_sam", "bsam", "sassha"]


@pytest.mark.parametrize("name", NAMED)
def test_a_mapped_axis_with_a_name_is_spread_as_devices_are(name):
    with jax.enable_x64(True):
        params, batch = family.network_at(dtype=jnp.float64)
        opt_state = family.optimizer(name).init(params)

        def grads(batch, **how):
            gradient = family.make(name, **how)
            state = gradient.init(params)
            return gradient.value_and_grad(params, state, batch, opt_state=opt_state)[0][1]

        def of_parts(sizes, axes):
            cut = jax.tree.map(lambda a: a.reshape(*sizes, -1, *a.shape[1:]), batch)
            run = lambda part: grads(part, axis_name=axes)
            for axis in (axes,) if isinstance(axes, str) else axes[::-1]:
                run = jax.vmap(run, axis_name=axis)
            return run(cut)

        whole = family.jit(grads)(batch)
        for sizes, axes in (((4,), "d"), ((2, 2), ("d", "e"))):
            parts = family.jit(of_parts, static_argnums=(0, 1))(sizes, axes)
            same = jax.tree.map(lambda w, s=sizes: jnp.broadcast_to(w, (*s, *w.shape)), whole)
            family.close(parts, same, rtol=1e-9, atol=1e-12)


def test_each_part_of_a_mapped_axis_may_be_a_group_of_its_own():
    params, batch = family.network_at()
    parts = jax.tree.map(lambda a: a.reshape(4, 2, *a.shape[1:]), batch)

    def own(part):
        gradient = family.make("sam", axis_name="d", per_device=True)
        return gradient.value_and_grad(params, gradient.init(params), part)[0][1]

    gradient = family.make("m_sam", groups=4)
    (_, groups), _, _ = gradient.value_and_grad(params, gradient.init(params), batch)
    found = jax.tree.map(lambda g: g[0], jax.vmap(own, axis_name="d")(parts))
    family.close(found, groups)
