"""Mirrors of the record in other people's dashboards. None is ever read back.

A tracker is a constructor ``(folder, name, config) -> Tracker``; its package is imported there, so
that only who asks for one needs it (``pip install 'samscale[track]'``).
"""

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from samscale.config import Config, choose
from samscale.training import checkpoint


class Tracker(NamedTuple):
    log: Callable[[int, dict[str, float]], Any]  # (step, values)
    close: Callable[[], Any]


def none(folder, config: Config) -> Tracker:
    return Tracker(lambda step, values: None, lambda: None)


def tensorboard(folder, config: Config) -> Tracker:
    """Event files in the run folder: ``tensorboard --logdir WORKDIR``.

    What a killed process wrote after its last checkpoint is taken back when the run goes on.
    """
    package, step = importlib.import_module("tensorboardX"), checkpoint.step(folder)
    resumed = {"purge_step": step + 1} if any(folder.glob("tensorboard/*")) else {}
    writer = package.SummaryWriter(str(folder / "tensorboard"), **resumed)

    def log(step, values):
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Tracker(log, writer.close)


def wandb(folder, config: Config) -> Tracker:
    """Weights & Biases; ``WANDB_MODE=offline`` needs no account. A resumed run keeps its id."""
    run = importlib.import_module("wandb").init(
        project="samscale",
        id=config.run_id,
        name=config.title,
        dir=str(folder),
        config=dataclasses.asdict(config),
        resume="allow",
    )
    return Tracker(lambda step, values: run.log(values, step=step), run.finish)


def mlflow(folder, config: Config) -> Tracker:
    """The server of ``MLFLOW_TRACKING_URI``; unset: a database file beside the run folder.

    A resumed run goes on in the MLflow run that it began.
    """
    package = importlib.import_module("mlflow")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        package.set_tracking_uri(f"sqlite:///{folder.parent.resolve() / 'mlflow.db'}")
    package.set_experiment("samscale")
    named = f"attributes.run_name = '{config.run_id}'"
    before = package.search_runs(filter_string=named, output_format="list", max_results=1)
    if before:
        package.start_run(run_id=before[0].info.run_id)
    else:
        package.start_run(run_name=config.run_id)
        package.log_params(dataclasses.asdict(config))
    return Tracker(lambda step, values: package.log_metrics(values, step=step), package.end_run)


TRACKERS = {"none": none, "tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def started(name: str, folder, config: Config, say) -> Tracker:
    """A tracker that stops no run: the first failure is said, and then nothing is mirrored.

    Raises ``OSError`` where it cannot begin.
    """
    try:
        tracker = TRACKERS[name](folder, config)
    except Exception as error:  # whatever another package may raise
        raise OSError(f"track={name!r}: {_words(error)}") from error
    failed = []

    def careful(action):
        def act(*args):
            try:
                if not failed:
                    action(*args)
            except Exception as error:
                failed.append(error)
                say(f"track={name!r}: nothing is mirrored from here on ({_words(error)})")

        return act

    return Tracker(careful(tracker.log), careful(tracker.close))


def _words(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def require(name: str) -> None:
    """Raises ``ValueError`` where there is no such tracker, or its package is not installed."""
    choose("track", name, TRACKERS)
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise ValueError(f"track={name!r}: needs {package}; pip install 'samscale[track]'")
