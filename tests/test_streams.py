"""Commands print on any screen, and to readers that leave."""

import contextlib
import io
import os
import shutil
import subprocess
import sys

import pytest

from samscale import cli
from samscale.cli import streams

ASCII = {
    "1.5 ±0.2": "1.5 +-0.2",
    "a — b": "a - b",
    "größe": "gro\\xdfe",
    "ﬁne ²": "fine 2",
    "数": r"\u6570",
    "\udcff": r"\udcff",
    "plain": "plain",
}


@pytest.mark.parametrize("text", ASCII)
def test_a_letter_that_the_screen_lacks_becomes_the_nearest_one_or_its_number(text):
    assert streams.plain(text, "ascii") == ASCII[text]
    assert streams.plain("1.5 ±0.2", "latin-1") == "1.5 ±0.2"
    assert streams.plain("a — b", "latin-1") == "a - b"


@contextlib.contextmanager
def screen(monkeypatch, encoding):
    """Of one encoding, in the place of both streams; gives what was written to it."""
    written = io.BytesIO()
    shown = {name: io.TextIOWrapper(written, encoding) for name in ("stdout", "stderr")}
    with monkeypatch.context() as patch:
        for name, stream in shown.items():
            patch.setattr(sys, name, stream)
        yield written
    for stream in shown.values():
        stream.detach()  # else what was written would be closed with it


COMMANDS = {
    "help": (["--help"], 0),
    "help of one": (["study", "--help"], 0),
    "no command": (["größe"], 2),
    "no folder": (["status", "größe/±"], 2),
    "no file": (["study", "±.py", "--workdir=größe"], 2),
    "no config": (["train", "--config=±.py"], 2),
    "where": (["results", "RUNS", "--where=größe > 1"], 2),
    "results": (["results", "RUNS", "--csv"], 0),
    "flatness": (["flatness", "RUN", "--measure=curvature", "--examples=20"], 0),
}


def code_of(words):
    try:
        return cli.main(["samscale", *words])
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_on_a_screen_of_few_letters(
    command, encoding, whole, tmp_path, monkeypatch
):
    run = tmp_path / "größe ±" / whole.name
    shutil.copytree(whole, run)
    words, code = COMMANDS[command]
    words = [w.replace("RUNS", str(run.parent)).replace("RUN", str(run)) for w in words]
    with screen(monkeypatch, encoding) as written:
        assert code_of(words) == code
    text = written.getvalue().decode(encoding)
    assert text
    if command == "flatness":
        assert ("+-" in text) == (encoding == "ascii")


@contextlib.contextmanager
def nobody_reads(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield
    stream.close()


@pytest.mark.parametrize("command", ["help", "help of one", "results", "flatness"])
def test_a_reader_that_has_left_is_no_error(command, whole, tmp_path, monkeypatch, capfd):
    shutil.copytree(whole, tmp_path / "runs" / whole.name)
    words, code = COMMANDS[command]
    words = [w.replace("RUNS", str(tmp_path / "runs")) for w in words]
    words = [w.replace("RUN", str(tmp_path / "runs" / whole.name)) for w in words]
    with nobody_reads(monkeypatch):
        assert code_of(words) == code
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("words", [["-m", "samscale", "--help"], ["main.py", "--help"]])
def test_help_may_be_read_by_head(words):
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, *words], stdout=pipe, stderr=pipe)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"", 0)
    process.stderr.close()


WITHOUT_DOCSTRINGS = """
import sys
from samscale import cli
from samscale.flatness.measures import MEASURES
for name, command in cli.COMMANDS.items():
    command.__doc__ or sys.exit(name)
for name, measure in MEASURES.items():
    measure.__doc__ or sys.exit(name)
import samscale.study, altair
sys.exit(cli.main(["samscale", "--help"]) or cli.main(["samscale", "flatness", "--list"]))
"""


def test_help_is_there_without_docstrings():
    command = [sys.executable, "-OO", "-c", WITHOUT_DOCSTRINGS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "All flatness numbers of a run" in done.stdout
    assert "Ends of the Hessian's spectrum" in done.stdout
