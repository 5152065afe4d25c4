"""Every knob of a run: what is legal, and how what is not is answered."""

import dataclasses

import numpy as np
import pytest

from samscale import optimizers, sharpness
from samscale.config import PLAIN, Config
from samscale.knobs import OWN, own
from samscale.laws import ANY, Law
from turned import BASE, FIELDS, TABLES

every = pytest.mark.parametrize("name", FIELDS)


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
    assert message(rho="big") == "rho='big': must be a finite number (single precision)"
    assert message(learning_rate=1e39).startswith("learning_rate=1e+39: must be a finite number")
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
    "num_neurons": (((), (1,), (3000, 1000)), ((0,), (300, -1), (300, 0), (10**7 + 1,))),
    "num_filters": ((1, 10**7), (0, 10**7 + 1)),
    "num_blocks": (((), (1, 2)), ((0,), (2, -2))),
    "dropout": FRACTION,
    "validation_fraction": FRACTION,
    "split_seed": FROM_ZERO,
    "label_noise": ((0.0, 1.0), (-0.001, 1.001)),
    "noise_seed": FROM_ZERO,
    "batch_size": POSITIVE,
    "num_epochs": POSITIVE,
    "num_train_steps": ((-1, 1, 2**31 - 1), (0, -2, 2**31)),
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
    "warmup_steps": ((0, 2**31 - 1), (-1, 2**31)),
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
    "flatness_every": ([0, 1], [-1]),
    "snapshot_every": ([0, 1], [-1]),
    "flatness_examples": ([0, 1], [-1]),
    "flatness_rho": ((1e-6, 1.0), (0.0, -0.1)),
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


def test_the_plain_optimizers_are_the_bases():
    assert set(PLAIN) == set(optimizers.BASES)


def test_numbers_of_numpy_are_numbers():
    config = Config(rho=np.float32(0.5), seed=np.int64(3), num_neurons=(np.int32(8),)).validate()
    assert config == Config(rho=0.5, seed=3, num_neurons=(8,)).validate()
    assert config.run_id == Config(rho=0.5, seed=3, num_neurons=(8,)).run_id
    assert message(seed=np.float64(3)).startswith("seed=3.0: must be a whole number")
    assert message(rho=np.bool_(True)).startswith("rho=True: must be a finite number")
    assert message(rho=True).startswith("rho=True: must be a finite number")
