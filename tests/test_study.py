"""A study: its cells, what survives, what two studies share, and what a person reads."""

import dataclasses
import math
import pathlib

import pytest

from samscale import cli, data
from samscale.study import (
    cells,
    execute,
    grid,
    nuisance,
    publish,
    repeated,
    results,
    scientific,
    store,
)
from samscale.study import conduct as conductor
from samscale.study.analysis import Design, analyse
from samscale.study.axes import METHOD, NUISANCE
from samscale.training import environment, folder, record, run
from tiny_study import BASE, FILE, tiny

DIGITS = pathlib.Path("studies/digits_width.py").resolve()


def test_a_study_is_read_back_as_it_was_written(tmp_path):
    store.save(tmp_path, "s", tiny(), ["samscale"])
    again, _ = store.load(tmp_path, "s")
    assert [c.config.run_id for c in cells(again)] == [c.config.run_id for c in cells(tiny())]
    assert METHOD in [axis.name for axis in again.axes]


def test_a_cell_of_a_study_is_the_run_alone(tmp_path):
    conductor.conduct(tiny(), "s", tmp_path / "study", execute.here(replicas=1))
    config = cells(tiny())[-1].config
    run.train(config, tmp_path / "alone")
    read = lambda place: [
        {k: v for k, v in row.items() if k not in run.TIMED}
        for row in record.read(tmp_path / place / config.run_id)
    ]
    assert read("study") == read("alone")


def test_what_is_done_is_kept_and_shared_between_studies(tmp_path, monkeypatch):
    conductor.conduct(tiny(), "first", tmp_path, execute.here())
    trained = []
    train = run.train_together
    monkeypatch.setattr(run, "train_together", lambda c, *a: trained.extend(c) or train(c, *a))
    wider = tiny(size=scientific("num_neurons", [(4,), (8,), (12,)]))
    conductor.conduct(wider, "second", tmp_path, execute.here())
    assert {c.num_neurons for c in trained} == {(12,)}
    lines = (tmp_path / "study-second" / "study.jsonl").read_text().splitlines()
    assert len(lines) == len(cells(wider))


def test_a_failed_cell_is_noted_and_stops_no_other(tmp_path):
    study = dataclasses.replace(
        tiny(),
        base=dataclasses.replace(BASE, loss="squared"),
        axes=tiny(rate=nuisance("learning_rate", [0.1, 1e9], only=["sgd"])).axes,
    )
    conductor.conduct(study, "s", tmp_path, execute.here())
    table = results.cells(study, tmp_path)
    failed = table[table["status"] == "failed"]
    assert (failed["learning_rate"] == 1e9).all()
    assert len(failed) == 4
    assert failed["reason"].str.contains("not finite at step").all()
    assert (table["status"] == "done").sum() == len(table) - 4


def test_labels_of_one_config_are_cells_of_one_run(tmp_path):
    same = {"dense": {}, "not pruned": {"pruner": "none"}}
    study = tiny(pruned=scientific("pruned", same), seed=repeated("seed", [0]))
    conductor.conduct(study, "s", tmp_path, execute.here())
    table = results.cells(study, tmp_path)
    assert len(table) == 2 * len(cells(tiny(seed=repeated("seed", [0]))))
    assert set(table["panel"]) == {"pruned=dense", "pruned=not pruned"}
    assert table["run_id"].nunique() == len(table) / 2
    assert set(table["status"]) == {"done"}
    lines = (tmp_path / "study-s" / "study.jsonl").read_text().splitlines()
    assert len(lines) == len(table) / 2


def test_the_table_of_cells_is_the_last_line_of_each_record(tmp_path):
    study = tiny(seed=repeated("seed", [0]))
    conductor.conduct(study, "s", tmp_path, execute.here())
    for row in results.cells(study, tmp_path).itertuples():
        final = record.read(tmp_path / row.run_id)[-1]
        assert final["validation_accuracy"] != final["test_accuracy"]
        assert (row.select, row.value) == (final["validation_accuracy"], final["test_accuracy"])
        assert row.gradients == final["step"] * (2 if row.method == "sam" else 1)
        assert (row.num_params, row.x) == (final["num_params"], final["num_params"])


@pytest.mark.parametrize(
    "axes",
    [
        {"seed": repeated("split_seed", range(3))},
        {"seed": repeated("seed", range(2)), "split_seed": repeated("split_seed", range(3))},
    ],
    ids=["not seeds", "two axes"],
)
def test_pairs_are_of_the_same_replicate_whatever_repeats(tmp_path, axes):
    study = tiny(**axes)
    table = results.cells(study, tmp_path)
    number = math.prod(len(axis.values) for axis in axes.values())
    by = ["size", "method", *(a.name for a in study.role(NUISANCE))]
    assert (table.groupby(by, dropna=False)["seed"].nunique() == number).all()
    assert not table.duplicated([*by, "seed"]).any()
    done = table.assign(status="done", value=0.9, select=0.9, x=1.0, reason="")
    gains = analyse(done, Design(("rho",))).gains
    assert set(gains["n"]) == {number}


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"metric": "acuracy"}, "metric='acuracy': must be 'accuracy' or 'loss'"),
        ({"value": "test_acuracy"}, "value='test_acuracy': must be one of train_accuracy, "),
        ({"select": "validation_los"}, "select='validation_los': must be one of "),
        ({"x": "num_neurons"}, "x='num_neurons': must be 'num_params', or a knob that is one"),
        ({"x": "widht"}, "x='widht': must be 'num_params', or a knob that is one number"),
    ],
)
def test_a_number_that_no_run_has_is_refused_before_anything_runs(tmp_path, wrong, words, capsys):
    changes = ", ".join(f"{k}={v!r}" for k, v in wrong.items())
    path = tmp_path / "wrong.py"
    path.write_text(FILE.replace("base=BASE,", f"base=BASE, {changes},", 1))
    assert cli.main(["samscale", "study", str(path), f"--workdir={tmp_path / 'w'}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "axis, words",
    [
        ('scientific("batch_size", [100, 5000])', "batch_size=5000: must be at most 1294"),
        (
            'scientific("network", {"MLP": {}, "?": {"dataset": "teacher_student", '
            '"loss": "squared", "model": "ResNet18"}})',
            "model='ResNet18': must be 'MLP' for dataset='teacher_student'",
        ),
        ('scientific("base_optimizer", ["sgd", "sdg"])', "base_optimizer='sdg': choose one of "),
        ('scientific("warmup_steps", [0, 9999])', "warmup_steps=9999: must be less than the 24"),
        ('scientific("dataset", ["digits", "teacher_student"])', "loss='cross_entropy': must be "),
        ('scientific("task", ["", "no_such:task"])', "task='no_such:task': must be module:fun"),
        ('scientific("track", ["none", "nowhere"])', "track='nowhere': choose one of"),
        (
            'scientific("problem", {"digits": {}, "?": {"dataset": "teacher_student", '
            '"loss": "squared"}})',
            "metric='accuracy': must be 'loss'",
        ),
    ],
)
def test_every_program_is_looked_at_before_anything_runs(tmp_path, capsys, axis, words):
    """What is wrong with the last cell is said before the first one runs."""
    path = tmp_path / "wrong.py"
    path.write_text(FILE.replace("repeated(", f"{axis}, repeated(", 1))
    assert cli.main(["samscale", "study", str(path), f"--workdir={tmp_path / 'w'}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "w").exists()


def test_data_are_loaded_once_for_all_programs(monkeypatch):
    loads = []

    def load(name, load=data.load, **knobs):
        loads.append(knobs["label_noise"])
        return load(name, **knobs)

    monkeypatch.setattr(data, "load", load)
    conductor.check(tiny(noise=scientific("label_noise", [0.0, 0.2])))
    assert loads == [0.0, 0.2]


def test_cells_are_counted_without_making_them():
    for study in (tiny(), tiny(size=scientific("num_neurons", [(4,)]))):
        assert grid.count(study) == len(cells(study))
    assert grid.count(tiny(seed=repeated("seed", range(10**4)))) == 2 * (1 + 2) * 10**4


def test_a_study_of_very_many_cells_says_so_and_asks(tmp_path, capsys, monkeypatch):
    path = tmp_path / "many.py"
    path.write_text(FILE.replace("range(2)", "range(9_999)"))
    command = ["samscale", "study", str(path), f"--workdir={tmp_path / 'w'}"]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error == "error: axes: make 79,992 cells; add --yes if so many are meant\n"
    assert not (tmp_path / "w").exists()
    monkeypatch.setattr(cli.studies, "MANY", 10)
    path.write_text(FILE)
    assert cli.main(command) == 2
    assert cli.main([*command, "--yes", "--dry-run"]) == 0


def test_a_study_of_which_some_cells_failed_says_so_and_exits_with_one(tmp_path, file, capsys):
    folder.fail(tmp_path / "w" / cells(cli.studies.load_study(file))[0].config.run_id, "a reason")
    assert cli.main(["samscale", "study", file, f"--workdir={tmp_path / 'w'}"]) == 1
    said, error = capsys.readouterr()
    assert "a reason" in said
    assert "report.html" in said
    expected = "1 of 16 cells failed: see the reasons above; --retry-failed tries them again"
    assert error == f"error: {expected}\n"


def test_every_start_of_a_study_is_remembered(tmp_path, monkeypatch):
    study = tiny()
    one, two = ["samscale", "study", "a b.py"], ["samscale", "study", "c.py", "--seeds=3"]
    for command in (one, two, one):
        store.save(tmp_path, "s", study, command)
    monkeypatch.setattr(environment, "versions", lambda: {"jax": "another"})
    store.save(tmp_path, "s", study, one)
    info = publish.find(tmp_path, "s").info
    assert info["commands"] == ["samscale study 'a b.py'", "samscale study c.py --seeds=3"]
    assert [start["command"] for start in store.load(tmp_path, "s")[1]] == [one, two, one]
    assert info["environment"]["jax"].endswith("; another")


def test_absent_data_are_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    def absent(config):
        raise FileNotFoundError(2, "No such file", "mnist")

    monkeypatch.setattr(run, "ready", absent)
    assert cli.main(["samscale", "study", str(DIGITS), f"--workdir={tmp_path / 'w'}"]) == 1
    assert capsys.readouterr().err == "error: mnist: No such file\n"
    assert not (tmp_path / "w").exists()


def test_the_commands_answer(tmp_path, file, capsys):
    where = str(tmp_path / "w")
    assert cli.main(["samscale", "study", file, f"--workdir={where}", "--dry-run"]) == 0
    assert "16 cells" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "w").exists()
    assert cli.main(["samscale", "study", file, f"--workdir={where}"]) == 0
    page = (tmp_path / "w" / "study-tiny_width" / "report.html").read_text()
    assert "Is &lt;b&gt;wider&lt;/b&gt; better?" in page
    assert cli.main(["samscale", "status", where]) == 0
    assert "tiny_width: 16 done" in capsys.readouterr().out
    assert (
        cli.main(["samscale", "results", where, "--csv", "--where=width > 4 and rho == 0.1"]) == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2
    assert cli.main(["samscale", "results", where, f"--parquet={tmp_path / 'all.parquet'}"]) == 0
    assert cli.main(["samscale", "report", where]) == 0
    out = tmp_path / "gain.svg"
    assert cli.main(["samscale", "figure", where, "--format=svg", f"--out={out}"]) == 0
    assert out.read_text().startswith("<svg")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["study", "nowhere.py", "--workdir=w"], "study='nowhere.py': no such file"),
        (["status", "."], "holds no study"),
        (["study", str(DIGITS), "--workdir=w", "--executor=rey"], "executor='rey': choose one of"),
        (["study", str(DIGITS), "--workdir=w", "--workers=2"], "workers=2: must be 0 for executor"),
        (["study", str(DIGITS), "--workdir=w", "--workers=-1"], "workers=-1: must be 0 or more"),
        (["study", str(DIGITS), "--workdir=w", "--option=x"], "option='x': must be NAME=VALUE"),
        (["study", str(DIGITS), "--workdir=w", "--option=x=1"], "option='x': executor='here' has"),
        (["study", str(DIGITS), "--workdir="], "workdir='': must be a folder, as in"),
        (
            ["study", str(DIGITS), "--workdir=w", "--address=a"],
            "address='a': only for executor='ray'",
        ),
        (["status", "nowhere"], "workdir='nowhere': must be a folder with runs; it is not there"),
        (["results", "nowhere"], "workdir='nowhere': must be a folder with runs; it is not there"),
        (["results", str(DIGITS)], "must be a folder with runs; it is a file"),
        (["results", ".", "--parquet="], "parquet='': must be a file in a folder that is there"),
        (["results", ".", "--parquet=a/b"], "parquet='a/b': must be a file in a folder that is"),
        (["report", "."], "workdir='.': holds no study"),
        (["figure", ".", "--format=gif"], "format='gif': must be one of pdf, png, svg"),
        (["figure", ".", "--out=a.gif"], "out='a.gif': the suffix: must be one of pdf, png, svg"),
        (
            ["figure", ".", "--out=a/b.svg"],
            "out='a/b.svg': must be a file in a folder that is there",
        ),
    ],
)
def test_wrong_words_are_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["samscale", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ['"question": 3', "raise SystemExit(3)"])
def test_a_study_file_that_is_none_is_a_sentence(tmp_path, capsys, wrong):
    path = tmp_path / "wrong.py"
    question = 'question="Is <b>wider</b> better?"'
    assert question in FILE
    path.write_text(FILE.replace(question, "question=3") if ":" in wrong else wrong)
    assert cli.main(["samscale", "study", str(path), f"--workdir={tmp_path / 'w'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        ("error: question=3: must be text", f"error: study={str(path)!r}: SystemEx")
    )
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "w").exists()


def test_what_is_damaged_is_named_and_hides_nothing_else(tmp_path, file, capsys):
    where = tmp_path / "w"
    assert cli.main(["samscale", "study", file, f"--workdir={where}"]) == 0
    first, second, *_ = sorted(where.glob("digits-*"))
    (first / "metrics.jsonl").write_text('{"kind\n')
    (second / "config.json").write_text("{")
    capsys.readouterr()
    assert cli.main(["samscale", "status", str(where)]) == 0
    said = capsys.readouterr().out
    assert f"{first / 'metrics.jsonl'}: damaged" in said
    assert "15 done, 1 failed" in said
    table = results.load(where).set_index("run_id")
    assert set(table.index[table["status"] == "failed"]) == {first.name, second.name}
    assert "config.json: damaged" in table.loc[second.name, "reason"]
    (where / "study-tiny_width" / "study.json").write_text("{")
    for command in (["study", file, f"--workdir={where}"], ["report", str(where)]):
        assert cli.main(["samscale", *command]) == 1
        error = capsys.readouterr().err
        assert "study.json: damaged; move it away, or mend it" in error
        assert len(error.splitlines()) == 1
