r"""A sharpness-aware gradient = perturbation x combination x when, around any ``value_and_grad``.

Conventions, the same for every method (papers and code bases differ here):

- what is reported (loss, metrics, batch statistics) belongs to the *clean* pass, at $w$;
- both passes see the same arguments: the same batch and the same dropout key;
- one norm over all leaves of one run, computed in at least float32;
- what is returned has the dtypes of the gradient, what is carried those of the parameters;
- a zero gradient gives a zero ascent, while NaN and infinity pass through, and are not remembered;
- weight decay is the optimizer's business and never bends the ascent.
"""

import jax
import jax.numpy as jnp
import optax

from samscale.sharpness import devices, inputs, trees
from samscale.sharpness.gradient import Gradient, Info, State, checked, key_of


def at_perturbed(clean_grads, perturbed_grads):
    r"""SAM's combination: the gradient at $w + e$ alone."""
    del clean_grads
    return perturbed_grads


def sharpness_aware(
    value_and_grad_fn,
    perturbation,
    combine=at_perturbed,
    *,
    steps: int = 1,
    project=None,
    every: int = 1,
    reuse=None,
    needs_gradient: bool = True,
    through: bool = False,
    ascent_args=None,
    descent_args=None,
    extra=None,
    key=None,
    axis_name=None,
    per_device: bool = False,
) -> Gradient:
    r"""``combine``$(\nabla L(w), \nabla L(w + e))$, where $e$ = ``perturbation``$(\nabla L(w))$.

    Args:
      value_and_grad_fn: ``(params, *args) -> (out, grads)``, as ``jax.value_and_grad`` returns it;
        ``out`` is never looked into (a pytree of arrays where ``every`` > 1: branches give it).
      perturbation: an optax transformation whose output is *added* to the parameters, so that
        ``optax.chain`` and masks apply to it as to any other. Its ``update`` is offered, as extra
        arguments, ``count``, ``every``, ``key``, ``opt_state``, ``value_and_grad_fn``, ``args``.
      combine: ``(clean_grads, perturbed_grads) -> grads``.
      steps: gradients that climb, one after another from where the last one led; ``e`` is the sum.
        All of them start from the same state of the perturbation, which advances once a step.
      project: ``(e, params, count) -> e`` after each of them.
      every: the second gradient is evaluated in steps 0, ``every``, 2 ``every`` ... only. Elsewhere
        it costs nothing, except under ``vmap``, which evaluates both branches.
      reuse: ``(remember, recall)``: ``remember(clean, perturbed) -> memo`` in full steps,
        ``recall(clean, memo) -> grads`` in the others. Without it these return the clean gradient.
      needs_gradient: False for perturbations that need none: the first pass is left out, and
        ``out`` is that of the only one.
      through: differentiate through the perturbation, as the definition of SAM asks for and its
        authors leave out: $(I + \partial e / \partial w)^T \nabla L(w + e)$.
      ascent_args: ``args -> args`` of the passes that climb; another batch, for example.
      descent_args: ``(args, out, above, params) -> args`` of the last pass, at ``above``.
      extra: ``(clean_grads, perturbed_grads) -> dict`` for the update of the method's optimizer.
      key: of the random numbers; step and group (``per_device``: each device's part is one) are
        folded in.
      axis_name: a mapped axis over whose devices the batch is spread (``shard_map``). The ascent is
        that of the whole batch, or, ``per_device``, of each device's part: m-SAM.

    Costs ``steps + 1`` gradient evaluations where nothing above says otherwise, and one copy of the
    parameters. Raises ``ValueError`` where the choices do not fit each other, and, in a step, for
    an ascent of other shapes than the parameters.
    """
    if per_device and axis_name is None:
        raise ValueError("per_device=True: needs an axis_name")
    steps, every = inputs.whole("steps", steps), inputs.whole("every", every)
    if not hasattr(perturbation, "update"):
        raise ValueError(f"perturbation={perturbation!r}: must be an optax transformation")
    if not needs_gradient and (every > 1 or through):
        raise ValueError("needs_gradient=False: every must be 1 and through False")
    perturbation = optax.with_extra_args_support(perturbation)
    value_and_grad_fn = inputs.gradient_of(value_and_grad_fn)
    comparable = needs_gradient and not ascent_args and not descent_args
    ascent_args = ascent_args or (lambda args: args)
    descent_args = descent_args or (lambda args, *found: args)
    extra = extra or (lambda clean, perturbed: {})
    varying, mean = devices.over(axis_name)
    mean_now = (lambda tree: tree) if per_device else mean

    def init(params):
        memo = trees.zeros(params) if reuse else None
        return State(jnp.zeros((), jnp.int32), perturbation.init(params), memo)

    def value_and_grad(params, state, *args, known=None, opt_state=None, group=0):
        given, params = params, varying(params)
        context = {
            "count": state.count,
            "every": every,
            "opt_state": opt_state,
            "value_and_grad_fn": value_and_grad_fn,
            "args": args,
        }
        if key is not None:
            part = devices.part_of(group, axis_name) if per_device else group
            context["key"] = key_of(key, state.count, part)

        def first(params):
            out, clean = known or value_and_grad_fn(params, *ascent_args(args))
            return out, mean_now(clean)

        def climb(params):
            """The parameters of the last pass, and what was found on the way."""
            out, clean = first(params) if needs_gradient else (None, trees.zeros(params))
            grads, ascent, inner = clean, None, None
            for i in range(steps):
                up = uphill(grads, params)
                # of the weights as given: an ascent that is the same on all devices says so
                at = params if through else given
                e, advanced = perturbation.update(up, state.perturbation, at, **context)
                inputs.same_shapes("perturbation: its result", e, params)
                e = inputs.in_dtypes_of(up, e)
                advanced = inputs.in_dtypes_of(state.perturbation, advanced)
                ascent, inner = (e, advanced) if i == 0 else (trees.add(ascent, e), inner)
                if project is not None:
                    ascent = project(ascent, at, state.count)
                    inputs.same_shapes("project: its result", ascent, params)
                above = trees.add(params, ascent)
                if i < steps - 1:
                    grads = mean_now(value_and_grad_fn(above, *ascent_args(args))[1])
            return above, (out, clean, ascent, inner)

        def full():
            if through:
                above, pull, found = jax.vjp(climb, params, has_aux=True)
            else:
                above, found = climb(params)
            out, clean, ascent, inner = found
            perturbed_out, grads = value_and_grad_fn(above, *descent_args(args, out, above, params))
            if through:
                (pulled,) = pull(inputs.in_dtypes_of(above, grads))
                grads = inputs.in_dtypes_of(grads, pulled)
            perturbed = mean_now(grads)
            memo = None
            if reuse:
                memo = inputs.in_dtypes_of(state.memo, reuse[0](clean, perturbed))
                memo = jax.tree.map(trees.finite_or, memo, state.memo)
            out = out if needs_gradient else perturbed_out
            info = Info(perturbed_out, clean, ascent, extra(clean, perturbed))
            return (out, combine(clean, perturbed)), (inner, memo), info

        def cheap():
            out, clean = first(params)
            grads = reuse[1](clean, state.memo) if reuse else clean
            still = trees.zeros(uphill(clean, params))
            info = Info(out, clean, still, extra(clean, clean))
            return (out, grads), (state.perturbation, state.memo), info

        on_devices = (lambda f: lambda: varying(f())) if per_device else (lambda f: f)
        branches = on_devices(full), on_devices(cheap)
        if every == 1:
            (out, grads), carried, info = branches[0]()
        else:
            (out, grads), carried, info = jax.lax.cond(state.count % every == 0, *branches)
        info = info._replace(compared=(state.count % every == 0) & comparable)
        if per_device:
            grads, info = mean(grads), info._replace(extra=mean(info.extra))
            carried = mean(carried)
        return (out, grads), State(state.count + 1, *carried), info

    return checked(init, value_and_grad)


def uphill(grads, params):
    """The direction of steepest ascent, in the wider dtype of gradient and parameter: added to the
    parameters it must lose nothing that either of them holds.

    JAX's gradient of complex parameters is the conjugate of the steepest way up.
    """

    def one(g, w):
        g = g.astype(jnp.promote_types(g.dtype, w.dtype))
        return jnp.conj(g) if jnp.iscomplexobj(g) else g

    return jax.tree.map(one, grads, params)
