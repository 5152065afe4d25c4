"""What a run's numbers depend on besides its config is written down, and does not change unseen."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import pytest

import samscale
from runs import TINY, VIEW, killed_after_saving, rows, same
from samscale import cached, cli
from samscale.data import fetch
from samscale.study import Study, conduct, methods, repeated, scientific
from samscale.training import compiled, environment, folder, run

OTHER = {
    "jax_default_prng_impl": lambda: jax.default_prng_impl("rbg"),
    "jax_threefry_partitionable": lambda: jax.threefry_partitionable(False),
    "jax_enable_x64": lambda: jax.enable_x64(True),
    "jax_default_matmul_precision": lambda: jax.default_matmul_precision("bfloat16"),
}
STUDY = Study(
    "?",
    TINY,
    (
        scientific("num_neurons", [(8,), (4,)]),
        methods(TINY, "sam"),
        repeated("seed", [0, 1]),
    ),
)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A work folder with a run that stopped after its first epoch."""
    with killed_after_saving(2, monkeypatch):
        run.train(TINY, tmp_path, VIEW())
    return tmp_path


def written(workdir):
    return json.loads((workdir / TINY.run_id / environment.NAME).read_text())


def files(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_the_settings_and_the_devices_that_are_used_are_written_down(whole):
    found = json.loads((whole / environment.NAME).read_text())
    assert set(OTHER) <= set(found["settings"])
    assert found["settings"]["jax_default_prng_impl"] == jax.config.jax_default_prng_impl
    assert found["flags"] == os.environ.get("XLA_FLAGS", "")
    assert found["devices"] == ["cpu: cpu"]
    assert environment.EARLIER not in found


def test_of_several_devices_the_one_that_is_used_is_written_down():
    flags = "--xla_force_host_platform_device_count=4"
    code = (
        "import jax; from samscale.training import environment; "
        "print(len(jax.devices()), len(environment.devices()))"
    )
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "4 1\n"


@pytest.mark.parametrize("name", OTHER)
def test_a_run_does_not_go_on_under_settings_that_change_its_numbers(stopped, name, capsys):
    before = files(stopped)
    words = [f"--config.{k}={getattr(TINY, k)}" for k in ("num_neurons", "num_epochs")]
    words += ["--config.batch_size=100", f"--workdir={stopped}", "--config=tests/tiny.py"]
    with OTHER[name]():
        with pytest.raises(ValueError, match=f"{name}=.*: must be .*{TINY.run_id}"):
            run.train(TINY, stopped, VIEW())
        assert cli.main(["samscale", "train", *words]) == 2
        with pytest.raises(ValueError, match=name):
            conduct.check_environments(STUDY, stopped)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"error: {name}=" in said
    assert name.upper() in said
    assert "--config.restore_checkpoint=False" in said
    changed = {path for path, content in files(stopped).items() if before.get(path) != content}
    assert {path.name for path in changed} <= {".clock"}


def test_of_replicas_only_the_one_that_was_begun_otherwise_is_refused(stopped):
    configs = [dataclasses.replace(TINY, seed=seed) for seed in (0, 1)]
    with OTHER["jax_default_prng_impl"]():
        from samscale.study.execute import run_cells

        found = {o.run_id: o for o in run_cells(configs, stopped, replicas=2)}
    assert found[configs[1].run_id].status == "done"
    assert "jax_default_prng_impl='rbg': must be" in found[configs[0].run_id].reason


def test_a_run_begun_again_may_have_any_settings(stopped):
    again = dataclasses.replace(TINY, restore_checkpoint=False)
    with OTHER["jax_default_prng_impl"]():
        run.train(again, stopped, VIEW())
    assert written(stopped)["settings"]["jax_default_prng_impl"] == "rbg"
    assert environment.EARLIER not in written(stopped)


def test_a_run_that_goes_on_elsewhere_says_so_and_keeps_both_environments(
    stopped, whole, monkeypatch
):
    said = []

    class Heard(VIEW):
        def say(self, text):
            said.append(text)

    elsewhere = {**environment.versions(), "jax": "9.9"}
    monkeypatch.setattr(environment, "versions", lambda: elsewhere)
    run.train(TINY, stopped, Heard())
    (sentence,) = [text for text in said if "another environment" in text]
    assert f"jax was {jax.__version__}, is 9.9" in sentence
    assert sentence.count("\n") == 0
    found = written(stopped)
    assert found["versions"]["jax"] == "9.9"
    assert [e["versions"]["jax"] for e in found[environment.EARLIER]] == [jax.__version__]
    same(stopped / TINY.run_id, whole)


def test_a_study_says_which_of_its_cells_were_finished_otherwise(whole):
    with OTHER["jax_default_matmul_precision"]():
        (sentence,) = conduct.check_environments(STUDY, whole.parent)
    assert sentence.startswith("1 finished cells were trained with other random bits")
    assert conduct.check_environments(STUDY, whole.parent) == []


def test_a_process_compiles_anew_under_other_settings():
    first = compiled.compiled(TINY.validate())
    assert compiled.compiled(TINY.validate()) is first
    with OTHER["jax_default_prng_impl"]():
        assert compiled.compiled(TINY.validate()) is not first


def test_numbers_under_other_random_bits_differ_in_one_process(whole, tmp_path):
    with OTHER["jax_default_prng_impl"]():
        run.train(TINY, tmp_path, VIEW())
    assert rows(tmp_path / TINY.run_id) != rows(whole)


@contextlib.contextmanager
def package_in(path, monkeypatch):
    """As if samscale lay in a folder; nothing is imported from there."""
    path.mkdir()
    (path / "__init__.py").touch()
    with monkeypatch.context() as patch:
        patch.setattr(samscale, "__file__", str(path / "__init__.py"))
        environment.commit.cache_clear()
        yield
    environment.commit.cache_clear()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commit_is_that_of_a_repository_that_tracks_this_package(tmp_path, monkeypatch):
    def git(*words, at=tmp_path):
        who = ["-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run(["git", "-C", at, *who, *words], check=True, capture_output=True)

    other = tmp_path / "other"
    other.mkdir()
    (other / "__init__.py").touch()
    git("init", at=other)
    git("add", "__init__.py", at=other)
    git("commit", "-m", "other", at=other)
    git("init")
    git("commit", "--allow-empty", "-m", "mine")
    git("tag", "-a", "mine-v1", "-m", "mine")
    with package_in(tmp_path / "samscale", monkeypatch):
        assert environment.commit() is None
        monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as within a hook
        environment.commit.cache_clear()
        assert environment.commit() is None
        monkeypatch.delenv("GIT_DIR")
        git("add", "samscale")
        environment.commit.cache_clear()
        assert environment.commit() == "mine-v1-dirty"


NOBODY = {"HOME": None, "XDG_CACHE_HOME": None, "SAMSCALE_DATA": None}


@pytest.fixture
def homeless(monkeypatch):
    """A user id that no file of users lists, without HOME."""
    for name in NOBODY:
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)


def test_without_a_home_folder_a_private_temporary_folder_is_the_cache(homeless, monkeypatch):
    root = pathlib.Path(tempfile.gettempdir()) / f"cache-{os.getuid()}" / "samscale"
    assert cached.root() == root
    assert fetch.folders("mnist") == [root / "data" / "mnist"]
    monkeypatch.setenv("SAMSCALE_DATA", "~/data")
    assert str(fetch.folders("mnist")[0]) == "~/data/mnist"


def test_doctor_says_what_works_and_what_to_do(homeless, capsys, monkeypatch, tmp_path):
    assert cli.main(["samscale", "doctor"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["samscale"] == samscale.__version__
    assert lines["cache"] == f"{cached.root()}: ok"
    assert "the first run that asks downloads it" in lines["data mnist"]
    assert lines["devices"] == "cpu: cpu"
    assert {"commit", "jax_enable_x64", "extra ray", "extra track", "Slurm"} <= set(lines)
    place = tmp_path / "mnist"
    place.mkdir()
    monkeypatch.setenv("SAMSCALE_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in fetch.MD5["mnist"]:
        (place / name).touch()
    assert cli.main(["samscale", "doctor"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["data mnist"] == f"ok, in {place}"
    assert lines["cache"] == f"{tmp_path / 'cache' / 'samscale'}: ok"
    assert lines["extra ray"] == "lacks ray: pip install 'samscale[ray]'"


def test_the_folder_module_tells_nothing_of_a_run_that_saved_nothing(tmp_path):
    assert folder.check_environment(TINY, tmp_path) == ""
