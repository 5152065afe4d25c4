"""Files say when they are damaged."""

import json

import pytest

from samscale.errors import Damaged
from samscale.training import files, record

CONTENT = {"rho": 0.05, "names": ["a", "é"], "big": 10**12, "none": None, "seed": 3, "x": 1e-07}


def turned(content):
    """The content with one bit turned, for every bit."""
    for place in range(len(content)):
        for bit in range(8):
            found = bytearray(content)
            found[place] ^= 1 << bit
            yield bytes(found)


def test_one_turned_bit_of_a_sealed_file_is_seen(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(files.sealed(b"content"))
    assert files.read_sealed(path) == b"content"
    for content in turned(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(Damaged, match=f"{path}: damaged; move it away"):
            files.read_sealed(path)


def test_one_turned_bit_of_json_is_seen_or_changes_no_value(tmp_path):
    path = tmp_path / "file.json"
    files.write_json(path, CONTENT)
    assert files.read_json(path) == CONTENT
    assert json.loads(path.read_text())["rho"] == 0.05  # plain JSON for everybody else
    for content in turned(path.read_bytes()):
        path.write_bytes(content)
        try:
            assert files.read_json(path) == CONTENT
        except Damaged as error:
            assert str(error).startswith(f"{path}: damaged; ")  # noqa: PT017


def test_one_turned_bit_of_a_record_is_seen_and_so_are_lines_that_are_lost_or_moved(tmp_path):
    written = record.Record(tmp_path)
    for step in range(3):
        written.write({"kind": "epoch", "step": step})
    written.close()
    record.finish(tmp_path, 2, written.check)
    path, rows = tmp_path / record.NAME, record.read(tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2]
    whole = path.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    lost = [first + second, second + third, first + third, second + first + third, b""]
    for content in [*turned(whole), *lost, first + first + second + third]:
        path.write_bytes(content)
        with pytest.raises(Damaged, match=f"{path}: damaged; put it back, or begin again"):
            record.read(tmp_path)
    path.write_bytes(whole)
    assert record.last(tmp_path) == rows[-1]


def test_a_record_goes_on_from_the_line_that_a_checkpoint_remembers(tmp_path):
    written, checks = record.Record(tmp_path), []
    for step in range(3):
        written.write({"kind": "epoch", "step": step})
        checks.append(written.sync())
    written.close()
    path = tmp_path / record.NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])  # what comes later may be torn, or whatever it is
    again = record.Record(tmp_path, checks[1])
    assert [row["step"] for row in again.rows] == [0, 1]
    again.write({"kind": "epoch", "step": 2})
    again.close()
    assert path.read_bytes() == whole
    path.write_bytes(whole.splitlines(keepends=True)[0])
    with pytest.raises(Damaged, match="lines are missing that were there when"):
        record.Record(tmp_path, checks[1])
    record.Record(tmp_path).close()
    assert path.read_bytes() == b""


def test_what_is_no_file_or_not_there_is_a_sentence(tmp_path):
    with pytest.raises(Damaged, match=f"{tmp_path / 'none'}: missing; put it back"):
        files.read_json(tmp_path / "none")
    with pytest.raises(Damaged, match=f"{tmp_path}: damaged; move it away"):
        files.read_sealed(tmp_path)
