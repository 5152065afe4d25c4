"""To look at somebody's results is not to run what they wrote."""

import dataclasses
import os
import subprocess
import sys

import pandas as pd
import pytest

import tiny_study
from samscale import cli, named
from samscale.config import Config
from samscale.study import pictures, store
from samscale.training import checkpoint, files

LOOKING = ("status", "results", "report", "figure", "flatness", "landscape")
TRAPS = ("json", "numpy", "pandas", "jax", "rich", "altair", "absl", "theirs")


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A folder of somebody's results, whose code leaves a mark when it is imported."""
    mark = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    (tmp_path / "theirs.py").write_text(mark + "def get_task(config): raise ValueError('ran')\n")
    config = Config(task="theirs:get_task")
    (tmp_path / config.run_id).mkdir()
    files.write_json(tmp_path / config.run_id / "config.json", dataclasses.asdict(config))
    (tmp_path / config.run_id / checkpoint.NAME).touch()
    study = dataclasses.replace(tiny_study.tiny(), pictures=("theirs:draw",))
    store.save(tmp_path, "s", study, [])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("theirs", None)


def run_folder(folder):
    return Config(task="theirs:get_task").run_id


@pytest.mark.parametrize("command", LOOKING[-2:])
def test_a_task_of_theirs_is_imported_only_where_trust_is_said(theirs, command, capsys):
    words = ["samscale", command, run_folder(theirs)]
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "task='theirs:get_task'" in err
    assert "--trust" in err
    assert not (theirs / "ran").exists()
    assert cli.main([*words, "--trust"]) == 2
    assert "ValueError: ran" in capsys.readouterr().err
    assert (theirs / "ran").exists()


@pytest.mark.parametrize("command", LOOKING[:4])
def test_what_imports_nothing_needs_no_trust_but_may_be_told(theirs, command, capsys):
    out = ["--kind=gain", "--out=x.svg"] if command == "figure" else []
    for trust in ([], ["--trust"]):
        assert cli.main(["samscale", command, ".", *out, *trust]) == 0
        err = capsys.readouterr().err
        left_out = "left out: theirs:draw, code outside of samscale; say --trust" in err
        assert left_out == (command == "report" and not trust)
    assert not (theirs / "ran").exists()  # without runs there is nothing to draw


def test_pictures_of_theirs_are_left_out_with_a_warning(theirs):
    study = dataclasses.replace(tiny_study.tiny(), pictures=("theirs:draw", "os:system"))
    runs = pd.DataFrame({"run_id": ["r"]})
    with named.only_ours():
        assert pictures.left_out(study) == ["theirs:draw", "os:system"]
        drawn, warnings = pictures.drawn(study, runs, theirs)
    assert drawn == []
    assert ["was left out" in warning for warning in warnings] == [True, True]
    assert not (theirs / "ran").exists()
    assert pictures.left_out(study) == []


def test_functions_of_the_package_need_no_trust(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # beside the package itself, the current folder may be looked at
    path = list(sys.path)
    with named.only_ours():
        assert named.function("pictures=?", "samscale.study.convergence:falling")
        assert "" not in sys.path
    assert sys.path == path


@pytest.mark.parametrize("text", ["samscale_evil:f", "samscale.study.results:pathlib.Path", "x:y"])
def test_no_other_name_passes_for_one_of_the_package(text):
    with named.only_ours(), pytest.raises(ValueError, match=text.split(":")[0]):
        named.function(f"task={text!r}: must be", text)


@pytest.mark.parametrize("safe_path", ["", "1"])
def test_modules_of_the_current_folder_are_not_imported_by_who_looks(theirs, safe_path):
    for name in TRAPS:
        (theirs / f"{name}.py").write_text(f"open({name!r} + '.ran', 'w')\nraise SystemExit(7)\n")
    command = [sys.executable, "-m", "samscale", "report", "."]
    environment = {**os.environ, "PYTHONSAFEPATH": safe_path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "left out: theirs:draw" in done.stderr
    assert list(theirs.glob("*.ran")) == []
