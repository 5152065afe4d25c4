"""The code of the README runs, and its commands name what exists."""

import inspect
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from samscale import sharpness
from samscale.config import Config
from samscale.knobs import own

README = pathlib.Path("README.md").read_text()
FAMILY = pathlib.Path("docs/sharpness.md").read_text()
FLATNESS = pathlib.Path("docs/flatness.md").read_text()
ROWS = re.findall(r"^(\| `(\w+)` \|.*)$", FAMILY, re.MULTILINE)
METHODS = {
    name: [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]] for line, name in ROWS
}


def test_the_python_of_the_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert "gap" in capsys.readouterr().out


def test_the_commands_of_the_readme_name_files_targets_and_configs_that_exist():
    makefile = pathlib.Path("Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for path in re.findall(r"configs/\w+\.py|docs/[\w.]+\w", README):
        assert pathlib.Path(path).exists(), path
    for name in re.findall(r"`(\w+_(?:mlp|resnet\d+))`", README):
        assert pathlib.Path(f"configs/{name}.py").exists(), name


def test_the_mains_command_is_understood():
    from samscale import cli

    (line,) = re.findall(r"^python (main\.py .*)$", README, re.MULTILINE)
    import shlex

    config, workdir = cli.parse(shlex.split(line))
    assert (config.num_neurons, config.rho, workdir) == ((1200, 400), 0.1, "runs")


def test_the_loop_of_the_familys_page_runs():
    code = re.findall(r"```python\n(.*?)```", FAMILY, re.DOTALL)[0]
    given = {"loss": lambda w, x: jnp.sum((w * x - 1) ** 2), "params": jnp.ones(3)}
    exec(compile(code, "docs/sharpness.md", "exec"), given)
    carried = given["params"], given["state"], given["opt_state"]
    *carried, first = given["step"](*carried, jnp.array([0.5, 0.2, 0.1]))
    *_, second = given["step"](*carried, jnp.array([0.5, 0.2, 0.1]))
    assert second < first


def test_the_code_of_the_page_on_flatness_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", FLATNESS, re.DOTALL)
    exec(compile(code, "docs/flatness.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "products" in shown
    assert "Estimate(" in shown


def test_the_page_on_flatness_names_every_measure_and_number():
    from samscale.flatness.meanings import MEANING
    from samscale.flatness.measures import MEASURES

    for name in MEASURES:
        assert f"| `{name}` |" in FLATNESS
    for name in {*MEANING} - {"lambda_2", "lambda_3"}:
        stem = re.sub(r"_(1|16|128|sam)$", "", name)
        assert stem in FLATNESS, name


def test_the_familys_page_lists_every_method_once():
    assert sorted(name for _, name in ROWS) == sorted(sharpness.PRESETS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_familys_page_tells_cost_state_radius_and_knobs(name):
    _, cost, state, radius, when, knobs = METHODS[name]
    assert when
    asked = {"every": own("sam_every", name), "steps": own("sam_steps", name)}
    gamma = {"gamma": 0.5} if name == "esam" else {}
    documented = sharpness.gradients(name, 100, **asked, **gamma) / 100
    assert float(cost) == pytest.approx(documented, abs=0.005)
    assert float(radius.split(",")[0]) == own("rho", name)
    params = {"w": jnp.ones((300, 100)), "norm": {"scale": jnp.ones(100)}}
    needs = {"key": jax.random.key(0), "num_examples": 1, "losses": None}
    takes = inspect.signature(sharpness.PRESETS[name]).parameters
    given = {word: value for word, value in needs.items() if word in takes}
    carried = sharpness.PRESETS[name](None, **given).init(params)
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    copies = {"0": 0, "1": 1, "1/4": 0.25}[state.split(",")[0]]
    assert size(carried) / size(params) == pytest.approx(copies, abs=0.001)
    for knob in re.findall(r"`(\w+)`", knobs):
        assert knob in Config.__dataclass_fields__


def test_make_refuses_an_old_python_before_it_makes_anything(tmp_path):
    old = tmp_path / "python3.10"
    code = "import sys; sys.version_info = (3, 10, 12); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$2\"\n")
    old.chmod(0o755)
    command = ["make", "demo", f"PY={old}", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode != 0
    assert "is Python 3.10; samscale needs 3.11 or newer" in made.stderr
    assert not (tmp_path / "venv").exists()
