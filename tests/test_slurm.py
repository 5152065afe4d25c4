"""What Slurm is asked, and what is refused before it is; its programs are played by scripts."""

import os
import pathlib
import pickle
import sys
import types

import pytest

pytest.importorskip("submitit")

from samscale import cli
from samscale.study import slurm
from samscale.study.remote import ENDED, QUEUED, RUNNING, State
from slurm_study import FILE, words


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "seeds.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs of Slurm that note what they are asked: ``programs("squeue", "echo 1 RUNNING")``."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    def program(name, does):
        path = place / name
        path.write_text(f'#!/bin/sh\necho "$@" >> {place / name}.asked\n{does}\n')
        path.chmod(0o755)
        return place / f"{name}.asked"

    return program


def job(name, path, trace=None):
    result = path / f"{name}.pkl"
    if trace:
        result.write_bytes(pickle.dumps(("error", trace)))
    paths = types.SimpleNamespace(result_pickle=result)
    return types.SimpleNamespace(
        job_id=name, paths=paths, stderr=lambda: "before\nkilled: memory\n"
    )


def test_the_queue_is_asked_once_for_all_jobs_and_not_too_often(tmp_path, programs, monkeypatch):
    asked = programs(
        "squeue",
        "echo 1_0 PENDING Resources; echo 1_1 RUNNING None; echo 1_2 COMPLETING None\n"
        "echo 1_3 SUSPENDED None; echo 1_4 PENDING launch failed requeued held",
    )
    jobs = [job(f"1_{i}", tmp_path) for i in range(6)]
    jobs.append(job("1_6", tmp_path, "Traceback\n  deep\nValueError: no data\n\n"))
    engine = slurm._Slurm(8, 0, None)
    ended = State(ENDED, "killed: memory")
    names = [QUEUED, RUNNING, RUNNING, QUEUED]
    expected = [*map(State, names), ended, ended, State(ENDED, "ValueError: no data")]
    assert engine.states(jobs) == expected
    assert engine.states([*jobs, job("2", tmp_path)]) == [*expected, State(QUEUED)]
    assert len(asked.read_text().splitlines()) == 1
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.0)
    programs("squeue", "exit 1")  # no answer: what was known is still the best guess
    assert engine.states(jobs) == expected
    programs("squeue", "")
    assert {state.name for state in engine.states(jobs)} == {ENDED}


def test_unwanted_jobs_are_withdrawn_together(tmp_path, programs):
    asked = programs("scancel", "exit 1")
    engine = slurm._Slurm(8, 0, None)
    for name in ("1_0", "2"):
        engine.cancel(job(name, tmp_path))
    engine.close()
    engine.close()
    assert asked.read_text() == "1_0 2\n"


def test_all_chunks_are_one_array_and_what_sbatch_refuses_is_one_sentence(
    tmp_path, programs, file, capfd, monkeypatch
):
    script = tmp_path / "script"
    programs("srun", "")
    programs(
        "sbatch", f'cp "$1" {script}; env > {script}.env; echo "bad\nsbatch: no luck" >&2; exit 1'
    )
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_CONF": "c", "SBATCH_ACCOUNT": "a"}.items():
        monkeypatch.setenv(name, value)
    options = ["chunk=1", "slurm_partition=gpu", "gpus_per_node=1", 'slurm_setup=["module load x"]']
    options = ["--workers=1", *(f"--option={text}" for text in options)]
    assert cli.main(["samscale", *words(file, tmp_path / "w", *options)]) == 1
    assert capfd.readouterr().err == "error: sbatch: no luck\n"
    lines = script.read_text().splitlines()
    wanted = ["array=0-1%1", "partition=gpu", "gpus-per-node=1", "time=60", "requeue"]
    assert {f"#SBATCH --{text}" for text in [*wanted, "signal=USR2@90"]} < set(lines)
    assert "module load x" in lines
    set_there = pathlib.Path(f"{script}.env").read_text().splitlines()
    told = {line for line in set_there if line.startswith(("SLURM_", "SBATCH_"))}
    assert told == {"SLURM_CONF=c", "SBATCH_ACCOUNT=a"}  # not of the job that the driver is in


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["cluster=lokal"], "cluster='lokal': choose one of local, slurm"),
        (["cluster=local", "chunk=0"], "chunk='0': must be a whole number, 1 or more"),
        (
            ["cluster=local", "partition=gpu"],
            "option='partition=gpu': submitit says: Setting 'partition' is",
        ),
        (["cluster=local", "slurm_gpu=1"], "option='slurm_gpu=1': submitit says: Unknown argument"),
        (["cluster=local", "timeout_min=1h"], "option='timeout_min=1h': submitit says: Parameter"),
        ([], "executor='slurm': found no sbatch"),
        (None, "executor='slurm': needs the package submitit: pip install 'samscale[slurm]'"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path, monkeypatch, capsys, file, options, sentence):
    if options is None:
        monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    options = [f"--option={text}" for text in options or []]
    assert cli.main(["samscale", *words(file, tmp_path / "w", *options)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence}")
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
