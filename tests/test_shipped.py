"""What comes with samscale is found by name from any folder, and a file of the user's wins."""

import pathlib
import tomllib

import pytest

from samscale import cli, named, shipped
from samscale.cli.studies import load_study

FILES = [(field, file) for field in shipped.FOLDERS for file in shipped.names(field)]


@pytest.mark.parametrize("field, name", FILES)
def test_a_name_means_the_file_that_comes_with_samscale(field, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = shipped.folder(field) / f"{name}.py"
    folder = shipped.FOLDERS[field]
    for text in (name, f"{name}.py", f"{folder}/{name}.py"):
        assert shipped.find(field, text) == ours
    assert shipped.names(field)[name]  # says in a line what it is
    own = tmp_path / f"{name}.py"
    own.write_text("")
    assert shipped.find(field, name).resolve() == own
    assert shipped.find(field, str(ours)) == ours


@pytest.mark.parametrize("text", ["digit_width", "", ".", "..", "studies", "a/digits_width"])
def test_what_is_not_there_is_one_sentence(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^study=.*no such file") as caught:
        shipped.find("study", text)
    assert ("did you mean digits_width?" in str(caught.value)) == ("digit" in text)


def test_the_wheel_holds_them_inside_of_the_package():
    build = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["tool"]["hatch"]["build"]
    inside = {folder: f"samscale/{folder}" for folder in shipped.FOLDERS.values()}
    assert build["targets"]["wheel"]["force-include"] == inside


def test_lists_name_every_file_within_80_columns(capsys):
    for command, field in (("studies", "study"), ("configs", "config")):
        assert cli.main(["samscale", command]) == 0
        lines = capsys.readouterr().out.splitlines()
        named = [line.split()[0] for line in lines if line and "--workdir" not in line][:-1]
        assert named == list(shipped.names(field))
        assert all(len(line) < 80 for line in lines[:-1])


def test_new_files_run_as_they_are_and_replace_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["samscale", "new", "study", "question.py"]) == 0
    study = load_study("question.py").validate()
    assert len(study.size.values) >= 3  # enough for a trend
    assert "question.py" in pathlib.Path("question.py").read_text()
    pathlib.Path("question.py").write_text("mine")
    assert cli.main(["samscale", "new", "study", "question.py"]) == 2
    assert pathlib.Path("question.py").read_text() == "mine"
    assert cli.main(["samscale", "new", "config", "mine.py"]) == 0
    assert cli.load_config("mine.py").validate().optimizer == "sam"
    assert cli.main(["samscale", "new", "config", "mine.txt"]) == 2
    assert cli.main(["samscale", "new", "config", "nowhere/mine.py"]) == 1
    assert "error: " in capsys.readouterr().err


def test_tasks_and_pictures_of_shipped_studies_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in shipped.names("study"):
        study = load_study(name)
        for text in filter(None, (study.base.task, *study.pictures)):
            assert text.startswith("samscale.")
            assert callable(named.function(text, text))
