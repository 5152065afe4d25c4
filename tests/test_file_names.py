"""No name leads out of the folder of runs, or makes one that another system forbids."""

import dataclasses
import re

import pytest

import tiny_study
from samscale import cli, tasks
from samscale.config import Config
from samscale.file_names import LONGEST, component, distinct
from samscale.study import store

HOSTILE = [
    "../../x",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "a\0b",
    "a\nb",
    "\x1b[2J",
    "\x9b2J",
    "\u202egpj",
    "\ud800",
    ".hidden",
    "-rf",
    "~root",
    " a",
    "a ",
    "a.",
    "NUL",
    "con.txt",
    "com1",
    "LPT9 .x",
    'a<b>"c|d?e*',
    "é" * 300,
    "x" * 5000,
]
HARMLESS = [
    "digits-MLP-300x100-sam-rho0.05-seed0",
    "my.tasks.spirals-sam-rho1e+10-seed3",
    "my study, second try",
    "größe",
    "数字",
    "console",
    "a=b#c",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_becomes_one_plain_component(text, tmp_path):
    for name in (component(text), distinct(text)):
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f]|^[.~\- ]|[. ]$', name)
        assert name.partition(".")[0].strip().upper() not in ("", "NUL", "CON", "COM1", "LPT9")
        assert len(name.encode()) <= LONGEST
        (tmp_path / name).mkdir(exist_ok=True)
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        assert component(name) == name


@pytest.mark.parametrize("text", HARMLESS)
def test_a_name_that_is_legal_everywhere_stays_as_it_is(text):
    assert component(text) == distinct(text) == text


def test_distinct_texts_have_distinct_names():
    texts = [*HOSTILE, *HARMLESS, "a_b", "_hidden", "..\\", "a:b", "a?b"]
    assert len({distinct(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("field", ["dataset", "model", "optimizer", "task"])
@pytest.mark.parametrize("text", ["../../x", "/x", "a\\b", "NUL", ".x", "y" * 400])
def test_the_folder_of_a_run_lies_in_the_work_folder(field, text, tmp_path):
    config = dataclasses.replace(Config(), **{field: text})
    assert re.fullmatch(r"\w[\w.+-]*-[0-9a-f]{10}", config.run_id)
    (tmp_path / config.run_id).mkdir()
    assert (tmp_path / config.run_id).resolve().parent == tmp_path.resolve()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a:b", "", "."])
def test_the_folder_of_a_study_lies_in_the_work_folder(name, tmp_path):
    path = store.save(tmp_path, name, tiny_study.tiny(), [])
    assert path.resolve().parent == tmp_path.resolve()
    (listed,) = store.names(tmp_path)
    assert store.load(tmp_path, listed)[0] == store.load(tmp_path, name)[0]


WRONG = {
    "dataset": ("../../x", "dataset='../../x': choose one of cifar10"),
    "model": ("../x", "model='../x': choose one of MLP"),
    "loss": ("/x", "loss='/x': choose one of"),
    "augmentation": ("x", "augmentation='x': choose one of"),
}
EVERY = pytest.mark.parametrize("field", WRONG)


@EVERY
def test_an_unknown_name_in_the_last_cell_of_a_study_is_refused_before_anything_runs(
    field, tmp_path, capsys
):
    value, words = WRONG[field]
    lines = ("import dataclasses", "from tiny_study import tiny", "from samscale.study import *")
    file = tmp_path / "wrong.py"
    file.write_text(
        "\n".join(lines) + "\ndef get_study():\n    study = tiny()\n"
        f"    last = scientific('{field}', [study.base.{field}, {value!r}])\n"
        "    return dataclasses.replace(study, axes=(*study.axes, last))\n"
    )
    workdir = tmp_path / "deep" / "er" / "runs"
    assert cli.main(["samscale", "study", str(file), f"--workdir={workdir}"]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".pyc") == ["wrong.py"]


@EVERY
def test_an_unknown_name_is_refused_wherever_runs_begin(field, tmp_path):
    from samscale.study import conduct, execute
    from samscale.training import run

    value, words = WRONG[field]
    config = dataclasses.replace(tiny_study.tiny().base, **{field: value})
    study = dataclasses.replace(tiny_study.tiny(), base=config)
    runs = tmp_path / "runs"
    for begin in (
        lambda: tasks.build(config),
        lambda: run.train(config, runs),
        lambda: conduct.conduct(study, "x", runs, execute.here()),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            begin()
    assert list(tmp_path.iterdir()) == []
