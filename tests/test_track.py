import importlib.util

import pytest

from samscale.config import Config
from samscale.training import progress, record, run, track

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


@pytest.mark.parametrize("name", sorted(track.PACKAGES))
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=f"track='{name}': needs .*pip install"):
        run.train(Config(track=name), tmp_path, progress.Silent())
    assert list(tmp_path.iterdir()) == []


def test_every_tracker_names_its_package():
    assert set(track.PACKAGES) == set(track.TRACKERS) - {"none"}
