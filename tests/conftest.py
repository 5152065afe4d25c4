import os
import pathlib
import sys

import jax
import pytest

import soon

os.environ.setdefault("XLA_FLAGS", soon.FLAGS)  # read when the first program is compiled

# (3,) + (3, 1) is a bug until proven otherwise
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def _compiled_programs_are_kept_between_sessions():
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(".pytest_cache/compiled").resolve())
    )
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(autouse=True)
def _folders_of_files_that_were_read_are_forgotten(monkeypatch):
    """A config or study file makes modules beside it importable, here and in workers."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SAMSCALE_BESIDE", "")


@pytest.fixture(autouse=True)
def _programs_of_other_tests_are_forgotten(monkeypatch):
    from samscale import tasks
    from samscale.training import compiled, kept

    compiled._COMPILED.clear()
    tasks._loaded.cache_clear()
    # a test may replace a part of the package, which the name of a kept program does not say
    monkeypatch.setattr(kept, "place", lambda: None)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_other_files_are_let_go():
    """Each holds memory mappings, of which a process may have some 65,000: then it crashes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def in_float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of ``TINY``."""
    from runs import TINY, VIEW
    from samscale.training import run

    workdir = tmp_path_factory.mktemp("whole")
    run.train(TINY, workdir, VIEW())
    return workdir / TINY.run_id


@pytest.fixture
def file(tmp_path):
    """A study file of a dozen small runs."""
    import tiny_study

    path = tmp_path / "tiny_width.py"
    path.write_text(tiny_study.FILE)
    return str(path)
