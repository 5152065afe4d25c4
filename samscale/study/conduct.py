"""From a study to its finished cells: what is missing is run, what exists is kept."""

import itertools
import pathlib
import time

import jax

from samscale import tasks
from samscale.config import Config
from samscale.errors import Hopeless
from samscale.study import results, store, view
from samscale.study.execute import BUSY, DONE, FAILED, Executor, Outcome
from samscale.study.grid import Cell, Study, cells
from samscale.training import environment, folder, run, signals

POLL_SECONDS = 1.0  # between looks at cells that another process is running
FEW = 3  # first cells that tell, where they fail for one reason, what becomes of the others


def check(study: Study) -> None:
    """Looks at every program of a study, with shapes alone, before anything is written.

    What is wrong with a cell's method, network, data or batch is found, and so are names of numbers
    that no run has. Raises ``ValueError``, ``OSError``.
    """
    check_names(study)
    programs: dict[str, Config] = {}
    for cell in cells(study):
        programs.setdefault(cell.config.program_id, cell.config)
    seen = set()
    for config in sorted(programs.values(), key=tasks.data_knobs):  # so data are loaded once
        task = run.ready(config).task
        reports = config.program_id if config.task else (tasks.data_knobs(config), config.loss)
        if reports not in seen:
            seen.add(reports)
            _check_numbers(study, task)


def _check_numbers(study, task):
    params, stats = jax.eval_shape(task.init, jax.random.key(0))
    batch = {k: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype) for k, a in task.train.items()}
    loss = lambda *at: task.loss(*at, False)[0]
    means = sorted({*jax.eval_shape(loss, params, stats, batch, jax.random.key(0))} - {"count"})
    if not study.value and study.metric not in means:
        choices = " or ".join(map(repr, means))
        raise ValueError(f"metric={study.metric!r}: must be {choices}, or value be given")
    known = [f"{split}_{name}" for split in ("train", "validation", "test") for name in means]
    for field in ("value", "select"):
        name = getattr(study, field)
        of_split = name.startswith(("train_", "validation_", "test_")) and "_at_" not in name
        if of_split and name not in known:
            raise ValueError(f"{field}={name!r}: must be one of {', '.join(known)}")


def check_names(study: Study) -> None:
    """Raises ``ValueError`` for a data set, a model ... of any cell that there is not."""
    for cell in cells(study):
        tasks.check_names(cell.config)


def check_environments(study: Study, workdir) -> list[str]:
    """Sentences about cells that would go on, or were finished, in another environment.

    Raises ``ValueError`` where unfinished ones would go on with other random bits or precision.
    """
    if not pathlib.Path(workdir).is_dir():
        return []
    now, found, finished = environment.environment(), {}, 0
    for config in {cell.config.run_id: cell.config for cell in cells(study)}.values():
        if sentence := folder.check_environment(config, workdir, now):
            found[sentence] = found.get(sentence, 0) + 1
        finished += folder.was_bound_otherwise(config, workdir, now)
    told = [f"{number} unfinished cells go on: {sentence}" for sentence, number in found.items()]
    if finished:
        told.append(
            f"{finished} finished cells were trained with other random bits or precision than the "
            "settings of JAX now give, so they do not compare with those that are still to run; "
            "environment.json in their folders has the settings"
        )
    return told


def conduct(
    study: Study,
    name: str,
    workdir,
    execute: Executor,
    command=(),
    retry_failed=False,
    keep_going=False,
    file="",
):
    """Run every cell of a study that is not done; returns the study's folder.

    Finished cells are kept, unfinished ones go on from their checkpoints, a failed one is noted
    with its reason and stops no other; but where the first ``FEW`` have all failed for one reason,
    the others are not tried unless ``keep_going``. Raises ``ValueError`` (the study), ``OSError``
    (disk), ``Hopeless`` (those first), ``Interrupted`` (a signal; what ran is saved).
    """
    check_names(study.validate())
    workdir = pathlib.Path(workdir)
    path = store.save(workdir, name, study, list(command), file)
    by_id = {cell.config.run_id: cell for cell in cells(study)}
    if retry_failed:
        for run_id in by_id:
            folder.forgive(workdir / run_id)
    store.mend(path)
    shown = view.choose(study, len(by_id))
    left, waited = dict(by_id), 0
    first: list[Outcome] = []
    try:
        while left:
            busy = set(left) if waited else set()
            for outcome in execute(_chunks(left.values()), workdir):
                if outcome.status == BUSY:
                    continue
                cell = left.pop(outcome.run_id)
                folder.sweep(pathlib.Path(workdir) / outcome.run_id)
                line = _line(study, cell, outcome, workdir)
                if outcome.run_id in busy:
                    time.sleep(POLL_SECONDS)  # whoever ran it is about to note it
                if store.noted(path).get(outcome.run_id) != outcome.status:
                    store.note(path, line)
                shown.update(line)
                signals.check()
                if not keep_going and len(first) < FEW:
                    first.append(outcome)
                    _check_hope(first, left, workdir)
            if left:
                if len(left) != waited:
                    shown.say(f"waiting for cells that another process is running: {len(left)}")
                waited = len(left)
                time.sleep(POLL_SECONDS)
    finally:
        shown.stop()
    return path


def _check_hope(first, left, workdir):
    """Raises ``Hopeless`` where the first few have all failed in the same words."""
    same = len({outcome.reason.replace(outcome.run_id, "") for outcome in first}) == 1
    failed = len(first) == FEW and all(outcome.status == FAILED for outcome in first)
    if failed and same and left and not any(folder.is_done(workdir / i) for i in left):
        raise Hopeless(
            f"the first {FEW} cells have all failed: {first[0].reason}; {len(left)} were not "
            "tried: mend it and add --retry-failed, or add --keep-going to try them all the same"
        )


def _chunks(cells):
    """Cells that share a program, one after another."""
    groups = itertools.groupby((cell.config for cell in cells), lambda config: config.program_id)
    return [list(group) for _, group in groups]


def _line(study: Study, cell: Cell, outcome: Outcome, workdir):
    found = results.outcome(pathlib.Path(workdir) / outcome.run_id)
    value = study.value or f"test_{study.metric}"
    numbers = {value: found[value]} if outcome.status == DONE and value in found else {}
    reason = {"reason": outcome.reason} if outcome.status == FAILED else {}
    seconds = {"seconds": found["seconds"]} if "seconds" in found else {}
    return {
        "run_id": outcome.run_id,
        "status": outcome.status,
        **cell.labels,
        **numbers,
        **seconds,
        **reason,
    }
