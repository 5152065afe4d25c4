"""How fast training losses fall, from the records of runs."""

import json

import pandas as pd
import pytest

from samscale.study import convergence, pictures
from samscale.study.analysis import Design
from samscale.study.report import frames


def runs(tmp_path, losses, **about):
    """A folder for each list of losses, and the rows of a study that has them."""
    rows = []
    for i, values in enumerate(losses):
        name = f"run-{i}"
        (tmp_path / name).mkdir()
        lines = [
            {"kind": "epoch", "step": k, "epoch": k + 1, "train_loss": v}
            for k, v in enumerate(values)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "metrics.jsonl").write_text(text)
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


@pytest.mark.parametrize(
    "split, words",
    [("test", "Test loss"), ("train", "Training loss"), ("validation", "Validation loss")],
)
def test_a_report_says_which_split_a_loss_is_of(split, words):
    assert frames.unit(Design(nuisance=(), metric="loss", split=split)).value == words
