"""No damage of a file that is read back passes unseen, and one damaged run stops no other."""

import dataclasses
import os
import re
import shutil

import pytest

from damage import inflict, inflicted, kinds
from runs import TINY, VIEW, killed_after_saving, same
from samscale import cli
from samscale.errors import Damaged
from samscale.study import conduct, execute, load, repeated, results, status, store
from samscale.training import checkpoint, files, folder, lease, measured, record, run, snapshots
from tiny_study import BASE, tiny

STUDY = dataclasses.replace(
    tiny(seed=repeated("seed", [0])), base=dataclasses.replace(BASE, snapshot_every=1)
)
OF_A_RUN = [folder.CONFIG, folder.ENVIRONMENT, record.NAME, record.DONE, checkpoint.NAME]
OPTIONAL = [record.DONE, folder.FAILED, "flatness.json"]  # whose absence is none's loss


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A work folder with a study, and two of its runs: one that is done, and one that failed."""
    workdir = tmp_path_factory.mktemp("studied")
    conduct.conduct(STUDY, "s", workdir, execute.here())
    done, failed, *_ = sorted(workdir.glob("digits-*"))
    row = {"step": record.last(done)["step"], "examples": 9, "seed": 0, "rho": 0.05, "trace": 7.0}
    files.write_json(done / "flatness.json", row)
    (failed / record.DONE).unlink()
    folder.fail(failed, "a reason")
    return workdir, done, failed


def rows(table):
    """By run, as text, without what is absent."""
    number = lambda v: float(v) if isinstance(v, int | float) else v
    return {
        row["run_id"]: repr({k: number(v) for k, v in row.items() if v == v and k != "damaged"})
        for row in table.to_dict("records")
    }


def answers(workdir):
    """What the reading commands answer, or the sentence of their error."""

    def of_the_study():
        table = results.cells(store.load(workdir, "s")[0], workdir)
        done = table[table["status"] == "done"]
        assert len(results.curves(done, workdir)) == len(done) * BASE.num_epochs
        return rows(table), results.damages(table)

    def of_all_runs():
        table = load(workdir)
        return rows(table), results.damages(table)

    def of_the_screen():
        return list(status.lines(workdir)), []

    found = {}
    for ask in (of_the_study, of_all_runs, of_the_screen):
        try:
            found[ask.__name__] = ask()
        except OSError as error:
            found[ask.__name__] = {}, [str(error)]
    return found


def named(path):
    """How a sentence about it begins."""
    return f"{path}: {'damaged' if path.exists() else 'missing'}; "


def check(now, before, path, run_id):
    """Each answer is the one before, or names the file and still has all other runs."""
    for name, (answer, sentences) in now.items():
        wanted = before[name][0]
        if answer == wanted or (path.name in OPTIONAL and not path.exists()):
            continue
        if isinstance(answer, dict):
            rest = lambda found: {k: v for k, v in found.items() if k != run_id}
            assert rest(answer) == rest(wanted)
        said = [*sentences, *(answer if isinstance(answer, list) else ())]
        assert [named(path) in words for words in said].count(True) == 1


@pytest.mark.parametrize("name", [*OF_A_RUN, "flatness.json", "snapshots/epoch-000001.msgpack"])
def test_a_damaged_file_of_a_finished_run_is_named_and_hides_no_other_run(studied, name):
    workdir, done, _ = studied
    before = answers(workdir)
    for _, content in kinds(done / name):
        with inflicted(done / name, content):
            check(answers(workdir), before, done / name, done.name)
    assert answers(workdir) == before


def test_a_damaged_reason_of_a_failure_is_named(studied):
    workdir, _, failed = studied
    before = answers(workdir)
    for _, content in kinds(failed / folder.FAILED):
        with inflicted(failed / folder.FAILED, content):
            check(answers(workdir), before, failed / folder.FAILED, failed.name)


def test_a_damaged_study_is_named_and_hides_no_other(studied, capsys):
    workdir, *_ = studied
    path = store.save(workdir, "t", STUDY, ["another"]) / "study.json"
    store.note(path.parent, {"run_id": "a", "status": "done"})
    for _, content in kinds(path):
        with inflicted(path, content):
            assert cli.main(["samscale", "status", str(workdir)]) == 1
            shown = capsys.readouterr()
            assert "s: 5 done, 1 failed" in shown.out
            assert shown.err.startswith(f"error: {named(path)}")
            assert shown.err.count("\n") == 1
            assert cli.main(["samscale", "report", str(workdir), "--study=t"]) == 1
            assert capsys.readouterr().err == shown.err
    shutil.rmtree(path.parent)


def test_a_damaged_line_of_a_study_is_written_again(studied):
    """The folders of the runs say what is done, so no cell is lost or trained twice."""
    workdir, *_ = studied
    path = conduct.conduct(STUDY, "s", workdir, execute.here()) / "study.jsonl"
    wanted = store.noted(path.parent)
    assert len(wanted) == 6
    for _, content in kinds(path):
        with inflicted(path, content):
            store._SEEN.clear()  # as in a process that begins
            if content == {}:
                with pytest.raises(OSError, match="Is a directory"):
                    conduct.conduct(STUDY, "s", workdir, execute.here())
                continue
            conduct.conduct(STUDY, "s", workdir, execute.here())
            assert store.noted(path.parent) == wanted


@pytest.mark.parametrize("name", [folder.CONFIG, checkpoint.NAME, record.DONE])
def test_a_damaged_run_is_not_measured(studied, name):
    _, done, _ = studied
    for _, content in kinds(done / name):
        with inflicted(done / name, content):
            if name == record.DONE and content is None:  # as if it was stopped at its end
                measured.load(done)
                continue
            with pytest.raises(Damaged, match=named(done / name)):
                measured.load(done)


def test_a_damaged_snapshot_is_no_place_on_the_way(studied):
    _, done, _ = studied
    like = measured.load(done)[2].params
    path = done / "snapshots" / "epoch-000001.msgpack"
    for _, content in kinds(path):
        with inflicted(path, content):
            if content is None:
                assert snapshots.load(done, 1, like) is None
                continue
            with pytest.raises(Damaged, match=named(path)):
                snapshots.load(done, 1, like)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that was killed in its second epoch, and that of one that was not."""
    config = dataclasses.replace(TINY, log_every_steps=5, snapshot_every=1)
    workdir = tmp_path_factory.mktemp("stopped")
    run.train(config, workdir / "whole", VIEW())
    with pytest.MonkeyPatch.context() as patch, killed_after_saving(3, patch):
        run.train(config, workdir, VIEW())
    assert checkpoint.step(workdir / config.run_id) > 0
    return config, workdir / config.run_id, workdir / "whole" / config.run_id


@pytest.mark.parametrize(
    "name", [folder.CONFIG, record.NAME, checkpoint.NAME, f"{lease.LEASE}1", ".tried", ".lease-x"]
)
def test_a_run_goes_on_over_damage_to_the_same_bits_or_refuses(stopped, tmp_path, name):
    config, source, whole = stopped
    ends, example = [], tmp_path / "example"
    shutil.copy(source / name if (source / name).exists() else source / folder.CONFIG, example)
    for i, (_, content) in enumerate(kinds(example)):
        path = tmp_path / str(i) / source.name
        shutil.copytree(source, path)
        (path / name).touch()
        inflict(path / name, content)
        try:
            (outcome,) = execute.run_cells([config], path.parent)
        except IsADirectoryError as error:
            assert error.filename == str(path / name)  # noqa: PT017
            assert content == {}
            continue
        ends.append(outcome.status)
        if outcome.status == "done":
            same(path, whole)
        elif outcome.status == "failed":
            assert outcome.reason.startswith(str(path / name))
        else:
            assert name.startswith(lease.LEASE)  # it may be alive, as long as it is young
    assert ("failed" in ends) == (name in (record.NAME, checkpoint.NAME))


@pytest.mark.parametrize("name", [checkpoint.NAME, record.NAME, folder.CONFIG, record.DONE])
def test_a_run_that_is_done_is_not_trained_again_over_damage(studied, name):
    workdir, done, _ = studied
    config = folder.config(done)
    before = checkpoint.step(done)
    for _, content in kinds(done / name):
        with inflicted(done / name, content):
            (outcome,) = execute.run_cells([config], workdir)
            assert outcome.status in ("done", "failed")
            if outcome.status == "failed":
                assert outcome.reason.startswith(named(done / name))
    assert checkpoint.step(done) == before
    assert not (done / folder.FAILED).exists()


def test_a_config_that_was_edited_or_is_of_another_run_is_damaged(studied, tmp_path):
    _, done, failed = studied
    path = tmp_path / done.name
    path.mkdir()
    text = (done / folder.CONFIG).read_text()
    for knob in ("learning_rate", "checkpoint_seconds"):  # also one that its name says nothing of
        edited = re.sub(f'"{knob}": .*,', f'"{knob}": 0.25,', text)
        assert edited != text
        (path / folder.CONFIG).write_text(edited)
        (row,) = load(tmp_path).to_dict("records")
        assert row["damaged"].startswith(named(path / folder.CONFIG))
        assert row[knob] != row[knob]  # absent
    shutil.copy(failed / folder.CONFIG, path)
    with pytest.raises(Damaged, match=f"it is the config of {failed.name}, not of this folder"):
        folder.config(path)
    shutil.copytree(path, tmp_path / "a-name-of-its-own")
    assert folder.config(tmp_path / "a-name-of-its-own").run_id == failed.name
    (path / "earlier-1").mkdir()
    shutil.copy(done / folder.CONFIG, path / "earlier-1")
    assert folder.config(path / "earlier-1").run_id == done.name


def test_a_checkpoint_of_an_earlier_moment_is_not_taken_for_the_last(studied, stopped, tmp_path):
    _, source, whole = stopped
    path = tmp_path / whole.name
    shutil.copytree(whole, path)
    shutil.copy(source / checkpoint.NAME, path)
    with pytest.raises(Damaged, match=r"checkpoint\.msgpack: damaged; .* though the run ended at"):
        measured.load(path)


def left_behind(path, name, age=0.0):
    file = path / f".{name}.0123.tmp"
    file.touch()
    os.utime(file, (file.stat().st_mtime - age,) * 2)
    return file


def test_what_killed_writes_left_is_gone_once_the_run_goes_on_or_is_looked_at_again(
    stopped, tmp_path
):
    config, source, _ = stopped
    path = tmp_path / source.name
    shutil.copytree(source, path)
    hour = files.LEFT_SECONDS + 60
    left = [left_behind(path, checkpoint.NAME), left_behind(path / "snapshots", "x", age=hour)]
    measuring = left_behind(path, "flatness.json")  # perhaps by a process that lives
    run.train(config, tmp_path, VIEW())
    assert not [file for file in left if file.exists()]
    assert measuring.exists()
    os.utime(measuring, (1, 1))
    young, others = left_behind(path, checkpoint.NAME), left_behind(tmp_path, "others", age=hour)
    load(tmp_path)
    assert measuring.exists()  # who only reads removes nothing
    run.train(config, tmp_path, VIEW())
    assert [file.exists() for file in (measuring, young, others)] == [False, True, True]


def test_a_folder_without_runs_has_the_columns_that_every_run_has(tmp_path, studied):
    workdir, *_ = studied
    empty = load(tmp_path)
    assert len(empty) == 0
    assert list(empty) == list(load(workdir))[: len(list(empty))]
    assert {"run_id", "optimizer", "width", "status", "reason"} <= set(empty)
    assert not len(empty.query("optimizer == 'sam' and width > 3"))
