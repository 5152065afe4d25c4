"""One batch on eight devices, and the same on one (float64): only the order of sums may differ."""

import json
import os
import subprocess
import sys

import pytest

import eight_devices
import soon


@pytest.fixture(scope="module")
def found():
    flags = f"--xla_force_host_platform_device_count=8 {soon.FLAGS}"
    eight = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, eight_devices.__file__]
    done = subprocess.run(command, env=os.environ | eight, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(error):
    assert isinstance(error, float), error  # else it is what was raised
    assert error < 1e-12


@pytest.mark.parametrize("name", eight_devices.METHODS)
def test_a_batch_spread_over_devices_gives_what_one_device_gives(found, name):
    same(found["jit Auto 1"][name])


@pytest.mark.parametrize("name", eight_devices.METHODS)
@pytest.mark.parametrize("groups", [4, 8])
def test_the_size_of_a_group_does_not_depend_on_how_many_devices_there_are(found, name, groups):
    same(found[f"jit Auto {groups}"][name])


@pytest.mark.parametrize("name", eight_devices.STATEFUL)
def test_so_it_is_on_the_meshes_that_jax_makes_unless_told(found, name):
    same(found["jit Explicit 1"][name])  # groups need a mesh of automatic axes


mapped_over = pytest.mark.parametrize(  # each state is the same on all devices, or it is told
    "runner, name", [(r, name) for r, names in eight_devices.RUNNERS.items() for name in names]
)


@mapped_over
def test_inside_shard_map_and_pmap_the_ascent_is_that_of_the_whole_batch(found, runner, name):
    same(found[f"{runner} global"][name])


@mapped_over
def test_or_each_device_is_a_group_of_its_own(found, runner, name):
    same(found[f"{runner} per_device"][name])


def test_groups_on_each_device_are_groups_of_its_part(found):
    same(found["two groups on each"]["sam"])


@pytest.mark.parametrize("checked", [True, False])
def test_weights_may_differ_along_some_of_the_axes_already(found, checked):
    same(found[f"two axes {checked}"]["sam"])


def test_an_ascent_of_each_device_saves_half_of_the_communication(found):
    assert (found["all-reduces global"], found["all-reduces per_device"]) == (2, 1)


def test_devices_that_ascend_alone_draw_their_own_numbers(found):
    assert found["draws in common"] == 0


def test_curvature_of_data_spread_over_devices_is_that_of_one(found):
    same(found["flatness"])


@pytest.mark.parametrize("name", ["bsam", "sassha"])
def test_methods_with_an_own_optimizer_give_what_one_device_gives(found, name):
    same(found["own optimizers"][name])
