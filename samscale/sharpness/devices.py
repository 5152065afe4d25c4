"""What a mapped axis over devices (``shard_map``, ``pmap``; in tests ``vmap``) asks for."""

import jax
import jax.numpy as jnp


def over(axis_name):
    """``(varying, mean)``, both the identity where there is no axis.

    ``varying(tree)`` tells replicated arrays apart between devices: the gradient of replicated
    weights would be summed over them. ``mean(tree)``: the same on all devices.
    """
    if not axis_name:
        return (lambda tree: tree), (lambda tree: tree)
    return (lambda tree: _varying(tree, axis_name)), (lambda tree: _reduced(tree, axis_name))


def part_of(group, axis_name):
    """The number of this device's part of a group, where each device's is a group of its own."""
    for axis in _axes(axis_name):
        group = group * jax.lax.axis_size(axis) + jax.lax.axis_index(axis)
    return group


def _varying(tree, axis_name):
    # types tell devices apart, not the elements of a ``vmap`` with a name for its axis
    devices = jax.sharding.get_abstract_mesh().manual_axes

    def cast(w):
        known = jax.typeof(w).mat.varying
        missing = tuple(a for a in _axes(axis_name) if a in devices and a not in known)
        return jax.lax.pcast(w, missing, to="varying") if missing else w

    return jax.tree.map(cast, tree)


def _reduced(tree, axis_name):
    """The same on all devices: the mean of numbers, the union of masks, the largest count."""
    real = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    for axis in _axes(axis_name):  # together they would have to be of one kind
        one = lambda x, a=axis: jax.lax.pmean(x, a) if real(x) else jax.lax.pmax(x, a)
        tree = jax.tree.map(one, tree)
    return tree


def _axes(axis_name):
    return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
