import dataclasses
import importlib.util

import pytest

from samscale.config import Config
from samscale.training import folder, progress, record, run, track

TINY = Config(num_neurons=(4,), num_epochs=2)


def test_tensorboard_mirrors_the_record(tmp_path):
    pytest.importorskip("tensorboardX")

    config = Config(num_neurons=(4,), num_epochs=2, track="tensorboard")
    run.train(config, tmp_path, progress.Silent())
    assert config.run_id == TINY.run_id
    (events,) = (tmp_path / config.run_id / "tensorboard").iterdir()
    content = events.read_bytes()
    for name in record.read(tmp_path / config.run_id)[0]:
        assert name in ("kind", "step") or name.encode() in content


def test_wandb_mirrors_a_run_without_an_account(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = dataclasses.replace(TINY, track="wandb")
    run.train(config, tmp_path, progress.Silent())
    (mirror,) = (tmp_path / config.run_id / "wandb").glob("offline-run-*/run-*.wandb")
    for name in ("test_accuracy", "train_loss", "gap"):
        assert name.encode() in mirror.read_bytes()


@pytest.mark.filterwarnings("default")  # of packages that MLflow brings
def test_mlflow_goes_on_in_the_run_that_it_began(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = track.mlflow(tmp_path / "run", TINY)
    tracker.log(1, {"test_accuracy": 0.5})
    tracker.close()
    tracker = track.mlflow(tmp_path / "run", TINY)
    tracker.log(2, {"test_accuracy": 0.75})
    tracker.close()
    (found,) = mlflow.search_runs(experiment_names=["samscale"], output_format="list")
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "test_accuracy")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.75)]
    assert found.data.params["num_neurons"] == "(4,)"


@pytest.mark.parametrize("name", sorted(track.PACKAGES))
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=f"track='{name}': needs .*pip install"):
        run.train(Config(track=name), tmp_path, progress.Silent())
    assert list(tmp_path.iterdir()) == []


def broken(folder, config):
    def log(step, values):
        raise RuntimeError("the server is\naway")

    return track.Tracker(log, log)


def test_a_dashboard_that_fails_stops_no_run_and_is_said_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setitem(track.TRACKERS, "tensorboard", broken)
    monkeypatch.setattr(progress.Silent, "say", lambda self, text: said.append(text))
    final = run.train(dataclasses.replace(TINY, track="tensorboard"), tmp_path, progress.Silent())
    assert final["epoch"] == 2
    words = (
        "track='tensorboard': nothing is mirrored from here on (RuntimeError: the server is away)"
    )
    assert said.count(words) == 1
    assert folder.is_done(tmp_path / TINY.run_id)


def test_a_dashboard_that_cannot_begin_is_a_sentence(tmp_path, monkeypatch):
    def closed(folder, config):
        raise ValueError("no key")

    monkeypatch.setitem(track.TRACKERS, "tensorboard", closed)
    with pytest.raises(OSError, match=r"^track='tensorboard': ValueError: no key$"):
        run.train(dataclasses.replace(TINY, track="tensorboard"), tmp_path, progress.Silent())


def test_every_tracker_names_its_package():
    assert set(track.PACKAGES) == set(track.TRACKERS) - {"none"}


def test_what_tensorboard_saw_after_the_last_checkpoint_is_taken_back(tmp_path, monkeypatch):
    event = pytest.importorskip("tensorboardX.proto.event_pb2")
    monkeypatch.setattr(track.checkpoint, "step", lambda folder: 4)
    for steps in ((2, 4, 6), (6, 8)):  # killed at 6, saved at 4
        tracker = track.tensorboard(tmp_path, TINY)
        for step in steps:
            tracker.log(step, {"test_accuracy": step / 10})
        tracker.close()
        for path in (tmp_path / "tensorboard").glob("events*"):  # they are named by the second
            path.rename(path.with_name(f"{steps[0]}"))
    found = []
    for content in (path.read_bytes() for path in sorted((tmp_path / "tensorboard").iterdir())):
        while content:  # length, checksum, an event, checksum
            size = int.from_bytes(content[:8], "little")
            found.append(event.Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    starts = [e.step for e in found if e.session_log.status == event.SessionLog.START]
    assert starts == [5]  # readers forget what came before it with this step or a later one
    assert [e.step for e in found if e.HasField("summary")] == [2, 4, 6, 6, 8]
