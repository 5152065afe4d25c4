"""What float32 and int32 can hold: any value of any knob or option is legal or one sentence."""

import dataclasses
import fractions
import re
import typing

import jax.numpy as jnp
import numpy as np
import pytest

from samscale import cli, laws
from samscale.cli import words
from samscale.config import Config
from samscale.training import compiled, program
from turned import BASE, FIELDS

BIG = [2**31 - 1, 2**31, 2**32, 2**63, 10**22, 10**400, -(2**31), -1, 0]
SMALL = [1e-50, 1e-40, 1e-38, 5e-324, -1e-50, 0.99999999, 1 - 1e-12, 1e39, 3.5e38, 1e308]
STRANGE = [float("nan"), float("inf"), -float("inf"), True, None, "", "1", "None", b"1", 1j]
CONTAINERS = [{}, {1: 2}, {3, 4}, [], [[1]], (None,), (True,), (2**63,), range(3), object(), int]


def is_held(value):
    """Whether single precision or int32 (uint32, for a seed) holds it."""
    if isinstance(value, tuple):
        return all(map(is_held, value))
    if type(value) is float:
        return np.isfinite(np.float32(value)) and (value == 0 or abs(value) >= laws.SMALLEST)
    return type(value) in (bool, str) or (type(value) is int and abs(value) < 2**32)


@pytest.mark.parametrize("name", FIELDS)
def test_any_value_of_a_knob_is_legal_and_held_or_answered_in_one_sentence(name):
    for value in [*BIG, *SMALL, *STRANGE, *CONTAINERS]:
        config = dataclasses.replace(BASE, **{name: value})
        found, error = validated(config, name)
        if error:
            assert re.match(rf"{name}=|sam_groups=|micro_batches=", error), (value, error)
            assert "must " in error
            assert "\n" not in error
            assert len(error) < 400
        else:
            assert is_held(found), value


def validated(config, name):
    """The value of a knob, or the sentence that refuses it."""
    try:
        return getattr(config.validate(), name), ""
    except ValueError as error:
        return None, str(error)


SWITCHED = [name for name, field in FIELDS.items() if field.metadata["law"] is laws.FRACTION]


@pytest.mark.parametrize("name", SWITCHED)
def test_a_fraction_is_below_one_in_single_precision_too(name):
    nearest = float(np.nextafter(np.float32(1), np.float32(0)))
    base = dataclasses.replace(BASE, pruner="random")
    assert getattr(dataclasses.replace(base, **{name: nearest}).validate(), name) == nearest
    with pytest.raises(ValueError, match=f"{name}=0.99999999: must be at least 0 and less than 1"):
        dataclasses.replace(base, **{name: 0.99999999}).validate()


def test_what_single_precision_takes_for_zero_is_told_from_zero():
    with pytest.raises(ValueError, match=r"^rho=1e-50: must be 0, or at least 1\.2e-38 in size: "):
        Config(rho=1e-50).validate()
    assert Config(rho=laws.SMALLEST).validate().rho == laws.SMALLEST
    assert Config(rho=0.0).validate().rho == 0


def test_a_length_in_epochs_is_counted_in_int32_steps():
    task = compiled.compiled(Config(num_epochs=1)).task
    most = (2**31 - 1) // (len(task.train["y"]) // 128)
    assert program.build(Config(num_epochs=most), task).num_steps <= 2**31 - 1
    with pytest.raises(ValueError, match=f"^num_epochs={most + 1}: must be at most {most}: an"):
        program.build(Config(num_epochs=most + 1), task)
    longest = Config(num_train_steps=2**31 - 1, optimizer="gsam")  # whose radius knows the last
    assert program.build(longest, task).num_steps == 2**31 - 1


@pytest.mark.parametrize(
    "value, kind, expected",
    [
        (np.float32(0.1), float, 0.1),
        (jnp.float32(0.1), float, 0.1),
        (np.float16(0.1), float, 0.1),
        (np.array(0.1), float, 0.1),
        (np.float64(1 / 3), float, 1 / 3),
        (np.longdouble("0.25"), float, 0.25),
        (fractions.Fraction(1, 4), float, 0.25),
        (np.int64(3), float, 3.0),
        (np.uint8(3), int, 3),
        (jnp.arange(4)[3], int, 3),
        (np.bool_(True), bool, True),
        (np.str_("sam"), str, "sam"),
        (np.array([4, 8]), tuple[int, ...], (4, 8)),
        ([np.int32(4), 8], tuple[int, ...], (4, 8)),
        (np.array(["a", "b"]), tuple[str, ...], ("a", "b")),
    ],
)
def test_numbers_of_other_libraries_become_pythons_own(value, kind, expected):
    found = laws.plain(value, kind)
    assert found == expected
    assert type(found) is (typing.get_origin(kind) or kind)
    assert laws.fits(found, kind)


@pytest.mark.parametrize("x", np.float32([0.1, 1 / 3, 1e-30, 3e38, 16777217, 0.05]))
def test_a_number_of_single_precision_is_its_shortest_decimal(x):
    assert np.float32(laws.bare(x)) == x
    assert len(repr(laws.bare(x))) <= len(repr(float(x)))


def test_what_is_bare_has_bare_insides():
    found = laws.bare({np.str_("a"): [np.int8(1), (jnp.ones(2),)], "b": None})
    assert found == {"a": (1, ((1.0, 1.0),)), "b": None}
    assert type(next(iter(found))) is str


# Every option of a command that is a number, with the command's other words
COMMANDS = {
    "study": ["studies/digits_width.py", "--workdir=w"],
    "flatness": ["nowhere"],
    "landscape": ["nowhere"],
}
OPTIONS = [
    *[("study", name) for name in ("epochs", "seeds", "workers", "replicas", "effect")],
    *[("flatness", name) for name in ("examples", "seed", "rho")],
    *[("landscape", name) for name in ("examples", "cells", "reach", "seed")],
]
LARGE = ["4294967296", "99999999999999999999"]  # of whole numbers; those of RADII are legal there
RADII = ("rho", "reach", "effect")
TEXTS = ["-1", "1e39", "1e-50", "nan", "inf", "True", "None"]
TEXTS += ["", "abc", "0x10", "1,2", "{1: 2}", "[]", "9" * 5000]


def test_every_option_that_is_a_number_is_listed(monkeypatch):
    made = []
    begin = words.Number.__init__

    def noting(self, option_strings, dest, **how):
        made.append(dest)
        begin(self, option_strings, dest, **how)

    monkeypatch.setattr(words.Number, "__init__", noting)
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            cli.main(["samscale", name, "--help"])
    assert made == [option for _, option in OPTIONS]


@pytest.mark.parametrize("command, option", OPTIONS)
def test_any_text_that_is_no_legal_number_is_answered_in_one_sentence(command, option, capsys):
    for text in TEXTS + ([] if option in RADII else LARGE):
        line = ["samscale", command, *COMMANDS[command], f"--{option}={text}"]
        assert cli.main(line) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {option}=")
        assert ": must be " in error
        assert error.count("\n") == 1
        assert len(error) < 400


KNOBS = ["num_neurons={1:2}", "num_neurons={3,4}", "num_neurons='(4,)'", "num_neurons=(4.0,)"]
KNOBS += ["num_epochs=10000000000000000000000", "rho=1e-50", "sam_every=2147483648", "seed=1e3"]
KNOBS += ["num_neurons=" + "(" * 300, "nesterov=2", "nesterov=", "num_blocks=(99999,)", "rho=1e39"]


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("joint", ["=", " "])
def test_a_knob_of_the_command_line_obeys_the_same_laws(knob, joint, tmp_path, capsys):
    name, _, text = knob.partition("=")
    if joint == " " and name == "nesterov":
        return  # a switch takes no next word
    flag = [f"--config.{knob}"] if joint == "=" else [f"--config.{name}", text]
    words = ["main.py", "--config=tests/tiny.py", f"--workdir={tmp_path / 'w'}", *flag]
    assert cli.train(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}=")
    assert ": must be " in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()
