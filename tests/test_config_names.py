"""What defines a run and its folder, what one program serves, and which files say it."""

import dataclasses
import json
import pathlib
import re

import pytest
from ml_collections import ConfigDict

from samscale import cli
from samscale.config import Config, choose, from_mapping, unknown_knob
from samscale.training.step import Knobs
from turned import BASE, FIELDS, TABLES, turned

CONFIGS = sorted(pathlib.Path("configs").glob("*.py"))
every = pytest.mark.parametrize("name", FIELDS)


def test_how_a_value_was_written_leaves_no_trace_in_the_name_of_the_run():
    assert Config(num_neurons=[3], rho=1).run_id == Config(num_neurons=(3,), rho=1.0).run_id


@every
def test_a_run_has_another_name_exactly_where_it_is_another_run(name):
    assert (turned(name).run_id != BASE.run_id) == FIELDS[name].metadata["identity"]


def test_a_plain_gradient_is_one_run_whatever_the_radius():
    plain = [dataclasses.replace(BASE, optimizer="sgd", rho=rho) for rho in (-1.0, 0.0, 0.2)]
    assert len({config.run_id for config in plain}) == 1
    assert len({dataclasses.replace(c, optimizer="sam").run_id for c in plain}) == 3


def test_what_carries_a_run_out_is_no_part_of_its_name():
    free = {name for name, field in FIELDS.items() if not field.metadata["identity"]}
    assert free == {
        "cache",
        "log_every_steps",
        "restore_checkpoint",
        "checkpoint_seconds",
        "track",
        "flatness_every",
        "flatness_measures",
        "flatness_examples",
        "flatness_rho",
        "snapshot_every",
    }


def test_all_runs_that_differ_in_one_knob_have_names_of_their_own():
    names = [turned(name).run_id for name, field in FIELDS.items() if field.metadata["identity"]]
    assert len({BASE.run_id, *names}) == 1 + len(names)


@every
def test_the_name_of_a_run_is_a_plain_file_name(name):
    for config in (turned(name), dataclasses.replace(turned(name), task="my.tasks:spirals")):
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*-[0-9a-f]{10}", config.run_id)


def test_the_name_of_a_run_can_be_read():
    hashed = lambda config: config.run_id.rpartition("-")[0]
    assert hashed(Config(seed=3)) == "digits-MLP-300x100-sam-rho0.05-seed3"
    assert hashed(Config(optimizer="sgd")) == "digits-MLP-300x100-sgd-seed0"
    wide = Config(dataset="cifar10", model="ResNet18", num_filters=256, rho=0.2)
    assert hashed(wide) == "cifar10-ResNet18-256-sam-rho0.2-seed0"
    assert hashed(Config(task="my.tasks:spirals")) == "my.tasks.spirals-sam-rho0.05-seed0"


def test_what_may_be_swept_is_what_the_program_takes_as_an_argument():
    swept = {name for name, field in FIELDS.items() if field.metadata["swept"]}
    assert swept == set(Knobs._fields)


@every
def test_a_program_serves_other_values_of_the_swept_knobs_and_of_no_others(name):
    assert (turned(name).program_id == BASE.program_id) == FIELDS[name].metadata["swept"]


RELEASED = {
    "lr_scheduler": "step",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "batch_size": 128,
    "weight_decay": 0.0005,
    "num_epochs": 200,
    "log_every_steps": 100,
    "cache": False,
    "half_precision": False,
    "optimizer": "sam",
    "rho": 0.05,
    "seed": 1,
    "pruner": "random",
    "sparsity": 0.0,
    "restore_checkpoint": False,
    "num_train_steps": -1,
    "steps_per_eval": -1,
}


@pytest.mark.parametrize(
    "released, now",
    [
        (
            {"model": "MLP", "dataset": "mnist", "num_neurons": [300, 100]},
            {"model": "MLP", "dataset": "mnist", "num_neurons": (300, 100)},
        ),
        (
            {"model": "ResNet18", "dataset": "cifar10", "num_filters": 64},
            {"model": "ResNet18", "dataset": "cifar10", "num_filters": 64},
        ),
        (
            {
                "model": "ResNet50_ImageNet",
                "dataset": "imagenet2012",
                "lr_scheduler": "imagenet_cosine",
                "warmup_steps": 5000,
            },
            {
                "model": "ResNet50",
                "dataset": "imagenet",
                "lr_scheduler": "cosine",
                "warmup_steps": 5000,
            },
        ),
    ],
)
def test_config_files_of_the_released_program_are_understood(released, now):
    old = ConfigDict({**RELEASED, **released})
    config = from_mapping(old.to_dict()).validate()
    assert config == Config(**{**RELEASED, **now}).settled()
    assert config.run_id == Config(**{**RELEASED, **now}).run_id
    for name, table in TABLES.items():
        assert choose(name, getattr(config, name), table) is table[getattr(config, name)]


def test_an_old_name_is_one_only_in_its_own_field():
    config = Config(task="imagenet2012", dataset="imagenet_cosine", loss="ResNet50_ImageNet")
    assert config.task == "imagenet2012"
    assert config.dataset == "imagenet_cosine"
    assert config.loss == "ResNet50_ImageNet"


@pytest.mark.parametrize(
    "wrong, near",
    [("rhoo", "rho"), ("learning_rates", "learning_rate"), ("num_filter", "num_filters")],
)
def test_an_unknown_knob_is_answered_with_the_nearest(wrong, near):
    answer = f"{wrong}: no such knob; did you mean {near}?"
    assert unknown_knob(wrong) == answer
    with pytest.raises(ValueError, match=f"^{re.escape(answer)}$"):
        from_mapping({"rho": 0.1, wrong: 1})


def test_an_unknown_knob_like_no_other_gets_no_advice():
    assert unknown_knob("qqqq") == "qqqq: no such knob"


def test_an_unknown_choice_is_answered_with_all_in_order():
    with pytest.raises(ValueError, match=r"^fruit='fig': choose one of apple, pear$"):
        choose("fruit", "fig", {"pear": 1, "apple": 2})


@every
def test_what_config_json_says_is_the_config(name):
    config = turned(name)
    read = from_mapping(json.loads(json.dumps(dataclasses.asdict(config))))
    assert read.validate() == config.settled()
    assert read.run_id == config.run_id


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_file_holds_a_legal_config_with_choices_that_exist(path):
    config = cli.load_config(str(path)).validate()
    assert isinstance(config, Config)
    for name, table in TABLES.items():
        assert getattr(config, name) in table


@pytest.mark.parametrize(
    "file, expected",
    [
        ("mnist_mlp", ("mnist", "MLP", 100, 0.1, "step", 0, 1e-4, 128)),
        ("cifar10_resnet18", ("cifar10", "ResNet18", 200, 0.1, "step", 0, 5e-4, 128)),
        ("imagenet_resnet50", ("imagenet", "ResNet50", 90, 0.1, "cosine", 5000, 1e-4, 512)),
    ],
)
def test_the_config_files_of_the_paper_are_its_table_2(file, expected):
    c = cli.load_config(f"configs/{file}.py")
    assert (c.optimizer, c.base_optimizer, c.momentum, c.nesterov) == ("sam", "sgd", 0.9, False)
    assert expected == (
        c.dataset,
        c.model,
        c.num_epochs,
        c.learning_rate,
        c.lr_scheduler,
        c.warmup_steps,
        c.weight_decay,
        c.batch_size,
    )


def test_the_folder_of_a_deep_network_has_a_name_that_fits():
    deep = Config(num_neurons=(100,) * 200)
    assert len(deep.run_id) < 200
    assert "-100x100x100x" in deep.run_id
    assert deep.run_id != Config(num_neurons=(*(100,) * 199, 101)).run_id
