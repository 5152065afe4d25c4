"""The code of the README runs, and its commands name what exists."""

import pathlib
import re

README = pathlib.Path("README.md").read_text()


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
