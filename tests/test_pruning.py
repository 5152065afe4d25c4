import jax
import jax.numpy as jnp
import numpy as np
import pytest

from masked import everything, removed, same
from samscale import keys, models, pruning

SHAPES = {
    "Conv_0": {"kernel": (3, 3, 1, 4)},
    "bn": {"scale": (4,), "bias": (4,)},
    "Dense_0": {"kernel": (7, 5), "bias": (5,)},
    "Dense_1": {"kernel": (5, 1), "bias": (1,)},
}
KERNELS = {"Conv_0": 36, "Dense_0": 35, "Dense_1": 5}
SPARSITIES = [0.0, 0.1, 0.25, 0.5, 0.9, 0.99]
SCOPES = ["layer", "global"]

every = pytest.mark.parametrize("name", sorted(set(pruning.PRUNERS) - {"none"}))


def drawn(seed):
    draw = np.random.default_rng(seed).normal
    is_shape = lambda x: isinstance(x, tuple)
    return jax.tree.map(lambda s: jnp.float32(draw(size=s)), SHAPES, is_leaf=is_shape)


PARAMS, GRADIENT = drawn(0), drawn(1)


def scores_of(name, params=PARAMS, seed=0):
    return pruning.PRUNERS[name].score(jax.random.key(seed), params, lambda: GRADIENT)


@every
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_of_each_layer_exactly_its_rounded_share_is_removed(name, sparsity):
    mask = pruning.make_mask(scores_of(name), sparsity, "layer")
    assert removed(mask) == {layer: round(sparsity * size) for layer, size in KERNELS.items()}


@every
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_of_all_layers_exactly_the_rounded_share_is_removed(name, sparsity):
    mask = pruning.make_mask(scores_of(name), sparsity, "global")
    assert sum(removed(mask).values()) == round(sparsity * 76)


@every
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_what_stays_scores_at_least_as_high_as_what_goes(name, scope, sparsity):
    scores = scores_of(name)
    mask = pruning.make_mask(scores, sparsity, scope)
    layers = [[layer] for layer in KERNELS] if scope == "layer" else [list(KERNELS)]
    for together in layers:
        s = everything({layer: scores[layer] for layer in together})
        m = everything({layer: mask[layer] for layer in together})
        assert s[m].min() >= s[~m].max(initial=-np.inf)


@pytest.mark.parametrize("scope", SCOPES)
def test_among_equal_scores_the_earlier_weight_goes_first(scope):
    equal = jax.tree.map(jnp.zeros_like, PARAMS)
    mask = pruning.make_mask(equal, 0.5, scope)
    for layer, size in KERNELS.items():
        ravelled = np.ravel(mask[layer]["kernel"])
        number = round(size / 2) if scope == "layer" else {"Conv_0": 36, "Dense_0": 2}.get(layer, 0)
        np.testing.assert_array_equal(ravelled, np.arange(size) >= number)


@pytest.mark.parametrize("scope", SCOPES)
def test_weights_that_score_zero_are_not_removed_beyond_the_share(scope):
    scores = jax.tree.map(lambda w: jnp.where(w > 0, w, 0), PARAMS)
    mask = pruning.make_mask(scores, 0.1, scope)
    share = {layer: round(0.1 * size) for layer, size in KERNELS.items()}
    assert sum(removed(mask).values()) == (8 if scope == "global" else sum(share.values()))


@every
@pytest.mark.parametrize("scope", SCOPES)
def test_only_kernels_are_removed_from(name, scope):
    masked = pruning.apply(pruning.make_mask(scores_of(name), 0.99, scope), PARAMS)
    same(masked["bn"], PARAMS["bn"])
    for layer in ("Dense_0", "Dense_1"):
        same(masked[layer]["bias"], PARAMS[layer]["bias"])


@every
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("exempt", [("Dense_0",), ("Conv_0", "Dense_1"), tuple(KERNELS)])
def test_exempt_layers_are_untouched_and_not_counted(name, scope, exempt):
    mask = pruning.make_mask(scores_of(name), 0.5, scope, exempt)
    counted = {layer: size for layer, size in KERNELS.items() if layer not in exempt}
    gone = removed(mask)
    assert set(gone) == set(counted)
    if scope == "layer":
        assert gone == {layer: round(size / 2) for layer, size in counted.items()}
    else:
        assert sum(gone.values()) == round(sum(counted.values()) / 2)
    masked = pruning.apply(mask, PARAMS)
    same({layer: masked[layer] for layer in exempt}, {layer: PARAMS[layer] for layer in exempt})


def test_magnitude_scores_the_absolute_value_and_snip_that_of_weight_times_gradient():
    same(scores_of("magnitude"), jax.tree.map(abs, PARAMS))
    same(scores_of("snip"), jax.tree.map(lambda w, g: abs(w * g), PARAMS, GRADIENT))


def test_magnitude_keeps_the_largest():
    params = {"Dense_0": {"kernel": jnp.array([[0.1, -3.0], [2.0, -0.2]])}}
    scores = pruning.PRUNERS["magnitude"].score(None, params, None)
    mask = pruning.make_mask(scores, 0.5, "layer")
    same(mask["Dense_0"]["kernel"], np.array([[False, True], [True, False]]))


def test_random_scores_know_neither_the_weights_nor_the_gradient():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    same(scores_of("random"), scores_of("random", zeros))
    one, other = (pruning.make_mask(scores_of("random", seed=s), 0.5, "layer") for s in (0, 1))
    assert (everything(one) != everything(other)).any()


@every
@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("exempt", [(), ("Dense_0",)])
def test_sparsity_is_the_removed_share_of_the_prunable_weights(name, sparsity, exempt):
    mask = pruning.make_mask(scores_of(name), sparsity, "global", exempt)
    size = 76 - 35 * len(exempt)
    np.testing.assert_allclose(
        pruning.sparsity(mask), round(sparsity * size) / size, rtol=1e-6, atol=1e-7
    )


def test_no_mask_keeps_everything():
    assert pruning.apply(None, PARAMS) is PARAMS
    assert pruning.sparsity(None) == 0


def test_under_a_mask_the_gradients_of_removed_weights_vanish_and_others_stay():
    mask = pruning.make_mask(scores_of("random"), 0.5, "layer")
    loss = lambda p: sum(jnp.sum(jnp.exp(w)) for w in jax.tree.leaves(pruning.apply(mask, p)))
    received = jax.grad(loss)(PARAMS)
    same(received, jax.tree.map(lambda m, w: jnp.where(m, jnp.exp(w), 0), mask, PARAMS))


def test_keys_of_different_purposes_and_indices_differ():
    purposes = (keys.INIT, keys.ORDER, keys.AUGMENT, keys.DROPOUT, keys.PRUNE)
    every_key = [keys.address(s, p, i) for s in range(3) for p in purposes for i in range(3)]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in every_key}) == 45


def test_residual_networks_are_pruned_in_their_kernels_alone():
    model = models.build("ResNet18", 10, num_filters=4, num_blocks=(1, 1))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    mask = jax.eval_shape(lambda s: pruning.make_mask(s, 0.5, "layer", ("conv_init",)), params)
    leaves = jax.tree.leaves_with_path(mask)
    arrays = {jax.tree_util.keystr(path) for path, m in leaves if m.ndim}
    kernels = {jax.tree_util.keystr(path) for path, _ in leaves if path[-1].key == "kernel"}
    assert kernels - arrays == {"['conv_init']['kernel']"}
    assert arrays < kernels
