"""How fast training losses fall, from the records of runs."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import studies.convergence as study
from runs import VIEW, written
from samscale.flatness import rates
from samscale.study import convergence, pictures
from samscale.study.analysis import Design
from samscale.study.report import frames
from samscale.training import measured, run
from studies.convergence import BASE


def runs(tmp_path, losses, **about):
    """A folder for each list of losses, and the rows of a study that has them."""
    rows = []
    for i, values in enumerate(losses):
        name = f"run-{i}"
        lines = [
            {"kind": "epoch", "step": k, "epoch": k + 1, "train_loss": v}
            for k, v in enumerate(values)
        ]
        written(tmp_path / name, lines)
        rows.append(
            {
                "run_id": name,
                "size": "[4]",
                "x": 4.0,
                "method": "sgd",
                "seed": i,
                "panel": "",
                **about,
            }
        )
    return pd.DataFrame(rows)


def test_a_geometric_fall_has_its_factor_whatever_the_first_quarter(tmp_path):
    losses = [100.0, 7.0] + [0.9**k for k in range(6)]
    found = convergence.fitted(runs(tmp_path, [losses]), tmp_path)
    assert found["factor"].item() == pytest.approx(0.9)
    assert found["fit"].item() == pytest.approx(1)


def test_a_run_that_was_too_short_or_is_at_zero_is_left_out(tmp_path):
    table = runs(tmp_path, [[1.0, 0.5], [1.0, 0.5, 0.2, 0.0], [1.0, 0.5, 0.25, 0.125]])
    assert list(convergence.fitted(table, tmp_path)["seed"]) == [2]


def test_the_picture_has_an_interval_over_seeds(tmp_path):
    table = runs(tmp_path, [[0.9**k for k in range(8)], [0.8**k for k in range(8)]])
    found = convergence.falling(table, tmp_path)
    assert isinstance(found, pictures.Picture)
    (rate,) = [d for d in found.chart.to_dict()["datasets"].values() if "factor" in d[0]]
    assert rate[0]["factor"] == pytest.approx(0.85)
    assert rate[0]["high"] - 0.85 == pytest.approx(12.706 * 0.05, rel=1e-3)  # Student's t, n = 2
    assert convergence.falling(table[:0], tmp_path) is None


@pytest.fixture(scope="module")
def factorised(tmp_path_factory):
    """Runs of SGD, and of SAM at a radius within the theorem's and beyond, and their table."""
    workdir, rows = tmp_path_factory.mktemp("factorised"), []
    for i, (name, rho) in enumerate([("sgd", 0.0), ("usam", 1e-4), ("usam", 1e-2)]):
        short = {"num_epochs": 8, "learning_rate": 5e-3, "optimizer": name}
        config = dataclasses.replace(BASE, rho=rho, **short)
        run.train(config, workdir, VIEW())
        about = {"size": "(10,)", "x": 160.0, "method": f"{name}-{rho}", "seed": i, "panel": ""}
        rows.append({"run_id": config.run_id, **about})
    return pd.DataFrame(rows), workdir


def test_the_promised_rate_is_kept_where_the_theorem_promises_one(factorised):
    table, workdir = factorised
    measured = convergence.fitted(table, workdir)["factor"].to_numpy()
    found = [convergence.promised(workdir / name) for name in table["run_id"]]
    factors, limits = np.array(found).T
    assert (limits > 1e-4).all()
    assert (limits < 1e-2).all()
    assert (measured[:2] < factors[:2]).all()
    assert (factors[:2] < 1).all()
    assert factors[0] < factors[1]  # a radius costs some of the promise
    assert np.isnan(factors[2])


def test_the_promise_is_that_of_the_dense_matrices(factorised):
    table, workdir = factorised
    config, task, state = measured.load(workdir / table["run_id"][0])
    layers = [state.params[f"Dense_{i}"]["kernel"] for i in (1, 0)]  # Flax counts from outside
    w1, w2 = (np.asarray(w, np.float64) for w in layers)
    jacobians = np.stack(  # of W2 W1 x in (W1, W2), of each example
        [
            np.hstack([np.kron(x, w2.T), np.kron(x @ w1, np.eye(10))])
            for x in np.asarray(task.train["x"], np.float64)
        ]
    )
    each = 2 * jacobians.mT @ jacobians
    values = np.linalg.eigvalsh(each.mean(0))
    beta = np.linalg.eigvalsh(each).max()
    alpha = 2 * values[-60]
    step = rates.bound(beta, values[-1], alpha, 0.0, config.learning_rate, 8)
    factor, limit = convergence.promised(workdir / table["run_id"][0])
    assert factor == pytest.approx(step ** (len(each) // 8), rel=1e-3)
    assert limit == pytest.approx(1 / ((beta / alpha + 0.5) * beta), rel=1e-2)


def test_the_picture_has_the_promise_beside_the_measured_rate(factorised):
    found = study.kept(*factorised)
    (rows,) = found.chart.to_dict()["datasets"].values()
    assert [row["promised"] is None for row in rows] == [False, False, True]
    assert "promises nothing to radii above" in found.note
    table, workdir = factorised
    assert study.kept(table.assign(x=64.0), workdir) is None


@pytest.mark.parametrize(
    "split, words",
    [("test", "Test loss"), ("train", "Training loss"), ("validation", "Validation loss")],
)
def test_a_report_says_which_split_a_loss_is_of(split, words):
    assert frames.unit(Design(nuisance=(), metric="loss", split=split)).value == words
