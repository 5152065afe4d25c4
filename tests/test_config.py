"""Every knob of a run: what is legal, what defines a run, and what one program serves."""

import dataclasses
import json
import pathlib
import re

import pytest
from ml_collections import ConfigDict

from samscale import cli, data, models, optimizers, pruning, sharpness, tasks
from samscale.config import Config, choose, from_mapping, unknown_knob
from samscale.data.augment import AUGMENTATIONS
from samscale.knobs import OWN, own
from samscale.laws import ANY, Law
from samscale.training.step import Knobs
from samscale.training.track import TRACKERS

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
BASE = Config(pruner="random", sparsity=0.5)  # beside which every knob may be turned alone
CANDIDATES = {
    bool: (True, False),
    int: (2, 4),
    float: (0.25, 0.75),
    str: ("another", "coupled", "kernels", "global", "constant", "inf"),
    tuple: ((7,), ("Dense_0",)),
}
TABLES = {
    "dataset": data.DATASETS,
    "model": models.MODELS,
    "loss": tasks.LOSSES,
    "augmentation": AUGMENTATIONS,
    "noise_kind": data.NOISE,
    "optimizer": {**optimizers.BASES, **sharpness.PRESETS},
    "base_optimizer": optimizers.BASES,
    "lr_scheduler": optimizers.SCHEDULES,
    "pruner": pruning.PRUNERS,
    "track": TRACKERS,
}
CONFIGS = sorted(pathlib.Path("configs").glob("*.py"))

every = pytest.mark.parametrize("name", FIELDS)


def is_legal(config):
    try:
        config.validate()
    except ValueError:
        return False
    return True


def turned(name):
    """``BASE`` with another legal value of one knob."""
    value = getattr(BASE, name)
    others = [v for v in CANDIDATES[type(value)] if v != value]
    return next(
        config for v in others if is_legal(config := dataclasses.replace(BASE, **{name: v}))
    )


def message(**knobs):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message is what is tested
        Config(**knobs).validate()
    return str(error.value)


@every
def test_a_knob_has_a_meaning_a_law_and_a_legal_default(name):
    field = FIELDS[name]
    assert set(field.metadata) == {"meaning", "law", "identity", "swept"}
    assert field.metadata["meaning"]
    assert isinstance(field.metadata["law"], Law)
    assert field.metadata["law"].words
    assert field.metadata["law"].holds(field.default)


def test_a_settled_config_is_legal_and_validate_returns_it():
    config = Config().settled()
    assert config.validate() is config


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("optimizer", [*sharpness.PRESETS, "sgd"])
def test_minus_one_is_the_methods_own_value_and_the_same_run(name, optimizer):
    config = Config(optimizer=optimizer, **{name: -1})
    settled = config.validate()
    assert getattr(settled, name) == own(name, optimizer)
    assert config.run_id == settled.run_id
    assert config.program_id == settled.program_id
    assert dataclasses.replace(config, **{name: own(name, optimizer)}).run_id == config.run_id


def test_a_method_named_late_still_brings_its_own_values():
    assert dataclasses.replace(Config(), optimizer="asam").validate().rho == 0.5


@pytest.mark.parametrize("name, table", TABLES.items(), ids=TABLES)
def test_the_default_of_a_choice_is_in_its_table(name, table):
    assert FIELDS[name].default in table


WRONG_TYPES = {
    bool: (1, None, "yes"),
    int: (1.0, True, None, "1"),
    float: (True, None, "0.1", float("nan"), float("inf"), -float("inf")),
    str: (1, None, ("sam",)),
    tuple: (1, None, "abc", (1.5,), (None,), (True,), ((7,),)),
}


@every
def test_a_value_of_a_wrong_type_is_answered_with_field_value_and_what_is_legal(name):
    for value in WRONG_TYPES[type(FIELDS[name].default)]:
        answer = message(**{name: value})
        assert answer.startswith(f"{name}={value!r}: must be ")
        assert "\n" not in answer


def test_the_answer_to_a_wrong_type_names_the_right_one():
    assert message(seed=1.5) == "seed=1.5: must be a whole number"
    assert message(rho="big") == "rho='big': must be a finite number"
    assert message(nesterov=1) == "nesterov=1: must be True or False"
    assert message(model=18) == "model=18: must be text"
    assert message(num_neurons=300) == "num_neurons=300: must be whole numbers, as in (300, 100)"
    assert message(prune_exempt=(1,)).startswith("prune_exempt=(1,): must be names, as in ")


def test_a_tuple_holds_items_of_its_own_kind():
    assert message(num_blocks=("2",)).startswith("num_blocks=('2',): must be whole numbers")
    assert message(num_neurons=(300, 0.5)).startswith("num_neurons=(300, 0.5): must be whole")


# The edges of what is legal, and what lies just beyond; a knob without a law does not appear.
POSITIVE = ((1, 10**6), (0, -1))
ALL_OR_POSITIVE = ((-1, 1), (0, -2))
FROM_ZERO = ((0, 10**6), (-1,))
REAL = ((0.0, 1e6), (-1e-9,))
FRACTION = ((0.0, 0.999), (1.0, -0.001))
SHARE = ((0.001, 1.0), (0.0, 1.001))
EDGES = {
    "num_neurons": (((), (1,), (3000, 1000)), ((0,), (300, -1), (300, 0))),
    "num_filters": POSITIVE,
    "num_blocks": (((), (1, 2)), ((0,), (2, -2))),
    "dropout": FRACTION,
    "validation_fraction": FRACTION,
    "split_seed": FROM_ZERO,
    "label_noise": ((0.0, 1.0), (-0.001, 1.001)),
    "noise_seed": FROM_ZERO,
    "batch_size": POSITIVE,
    "num_epochs": POSITIVE,
    "num_train_steps": ALL_OR_POSITIVE,
    "steps_per_eval": ALL_OR_POSITIVE,
    "seed": ((0, 2**32 - 1), (-1, 2**32)),
    "rho": ((-1.0, 0.0, 1e6), (-0.5,)),
    "rho_min": REAL,
    "rho_scheduler": (("default", "constant", "learning_rate"), ("", "cosine")),
    "sam_groups": ((1, 2, 128), (0, -2)),
    "sam_every": ((1, 100), (0, -2)),
    "sam_steps": ((1, 100), (0, -2)),
    "sam_norm": (("1", "2", "1.5", "inf"), ("0.5", "-inf", "max", "nan", "")),
    "asam_eta": REAL,
    "looksam_alpha": REAL,
    "wsam_gamma": FRACTION,
    "friendly_decay": FRACTION,
    "vasso_theta": SHARE,
    "fisher_eta": REAL,
    "ssam_sparsity": FRACTION,
    "ssam_refresh": ALL_OR_POSITIVE,
    "ssam_samples": POSITIVE,
    "ssam_drop_rate": ((0.0, 1.0), (-0.001, 1.001)),
    "esam_beta": SHARE,
    "esam_gamma": SHARE,
    "bsam_damping": REAL,
    "sassha_epsilon": ((1e-12, 1.0), (0.0, -1e-8)),
    "label_smoothing": FRACTION,
    "micro_batches": ((1, 2, 128), (0, -1)),
    "clip_norm": REAL,
    "learning_rate": REAL,
    "warmup_steps": FROM_ZERO,
    "momentum": FRACTION,
    "beta1": FRACTION,
    "beta2": FRACTION,
    "adam_epsilon": ((1e-12, 1.0), (0.0, -1e-8)),
    "weight_decay": REAL,
    "decay_mode": (("default", "coupled", "decoupled"), ("", "both")),
    "decay_on": (("all", "kernels"), ("", "biases")),
    "init_scale": ((1e-6, 10.0), (0.0, -1.0)),
    "teacher_neurons": POSITIVE,
    "teacher_scale": ((1e-6, 10.0), (0.0, -1.0)),
    "teacher_seed": FROM_ZERO,
    "sparsity": FRACTION,
    "prune_scope": (("default", "layer", "global"), ("", "local")),
    "snip_batches": POSITIVE,
    "log_every_steps": ALL_OR_POSITIVE,
    "checkpoint_seconds": REAL,
}


def test_every_law_has_its_edges_tested():
    assert set(EDGES) == {n for n, f in FIELDS.items() if f.metadata["law"] is not ANY}


@pytest.mark.parametrize("name", EDGES)
def test_up_to_its_edges_a_value_is_legal_and_beyond_it_is_answered(name):
    legal, wrong = EDGES[name]
    for value in legal:
        config = dataclasses.replace(BASE, **{name: value})
        expected = own(name, BASE.optimizer) if name in OWN and value == -1 else value
        assert getattr(config.validate(), name) == expected
    for value in wrong:
        answer = message(**{name: value})
        assert answer == f"{name}={value!r}: must be {FIELDS[name].metadata['law'].words}"


def test_groups_divide_the_batch():
    assert message(sam_groups=3) == "sam_groups=3: must divide batch_size=128"
    assert Config(sam_groups=3, batch_size=99).validate().sam_groups == 3


def test_micro_batches_divide_what_ascends_together():
    answer = "micro_batches=3: must divide 32, the examples that ascend together"
    assert message(micro_batches=3, sam_groups=4) == answer
    assert Config(micro_batches=4, sam_groups=4).validate().micro_batches == 4


def test_label_smoothing_is_of_the_cross_entropy():
    answer = message(label_smoothing=0.1, loss="squared")
    assert answer == "label_smoothing=0.1: must be 0 where loss='squared'"


def test_sparsity_needs_a_pruner():
    assert message(sparsity=0.5) == "sparsity=0.5: must be 0 where pruner='none'"
    assert Config(sparsity=0.5, pruner="snip").validate().sparsity == 0.5


def test_lists_become_tuples_and_whole_numbers_floats():
    config = Config(num_neurons=[3, 2], prune_exempt=["Dense_0"], rho=1, momentum=0).validate()
    expected = Config(num_neurons=(3, 2), prune_exempt=("Dense_0",), rho=1.0, momentum=0.0)
    assert config == expected.settled()
    assert [type(v) for v in (config.num_neurons, config.prune_exempt)] == [tuple, tuple]
    assert [type(v) for v in (config.rho, config.momentum)] == [float, float]


def test_how_a_value_was_written_leaves_no_trace_in_the_name_of_the_run():
    assert Config(num_neurons=[3], rho=1).run_id == Config(num_neurons=(3,), rho=1.0).run_id


@every
def test_a_run_has_another_name_exactly_where_it_is_another_run(name):
    assert (turned(name).run_id != BASE.run_id) == FIELDS[name].metadata["identity"]


def test_what_carries_a_run_out_is_no_part_of_its_name():
    free = {name for name, field in FIELDS.items() if not field.metadata["identity"]}
    assert free == {
        "cache",
        "log_every_steps",
        "restore_checkpoint",
        "checkpoint_seconds",
        "track",
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
