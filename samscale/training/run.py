"""One run, from nothing or from where it stopped to the end; or replicas of it in lockstep.

The only training module that has a clock.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import jax

from samscale.config import Config
from samscale.errors import Diverged, Interrupted
from samscale.training import checkpoint, folder, measured, progress, signals, snapshots, track
from samscale.training.compiled import Compiled, compiled
from samscale.training.lane import Lane
from samscale.training.record import last
from samscale.training.step import Knobs
from samscale.training.summary import last_line, train_means

CHUNK_SECONDS = 1.0  # the host looks up so often: for signals, progress and checkpoints
TIMED = ("seconds", "examples_per_second", "memory")  # what may differ between equal runs


def ready(config: Config) -> Compiled:
    """What may find config or data wrong: raises ``ValueError``, writes nothing."""
    config = config.validate()
    track.require(config.track)
    measured.check(config)
    return compiled(config)


def train(config: Config, workdir, view: progress.Silent | None = None) -> dict[str, Any]:
    """Train one run in ``workdir/run_id``, or go on with it; return its last line of metrics.

    A run that was killed at any instant and started again ends with the same bits as one that was
    not. Raises ``ValueError`` (config or data; nothing is written), ``OSError`` (disk; a
    ``BlockingIOError`` where another process is at it), ``Diverged``, ``Interrupted``.
    """
    (found,) = train_together([config], workdir, view)
    if isinstance(found, Exception):
        raise found
    return found


def train_together(
    configs: Sequence[Config], workdir, view: progress.Silent | None = None
) -> list[dict[str, Any] | Exception]:
    """The same for configs of one program, as replicas: a last line or error each.

    A replica ends with the bits of the run alone, whoever its neighbours are and however many. One
    that diverges, or that another process is at, stops no other. Large networks, streamed data and
    runs that were stopped after different steps are trained in turn. ``seconds`` and ``memory`` of
    a replica are its share. Raises as ``train`` does what concerns them all.
    """
    configs = [config.validate() for config in configs]
    machine = ready(configs[0])
    view = view or progress.choose()
    found: dict[str, Any] = {}
    # from here on signals wait for the first steps: none may break into a compiler
    with signals.collected() as asked, contextlib.ExitStack() as stack:
        lanes = []
        for config in configs:
            try:
                path, lease = stack.enter_context(folder.opened(config, workdir, view.say))
            except BlockingIOError as error:
                found[config.run_id] = error
                continue
            if folder.is_done(path):
                found[config.run_id] = last(path)
                view.say(f"done before: {path}")
                continue
            tracker = track.started(config.track, path, config, view.say)
            lanes.append(Lane(config, path, lease, tracker, machine.task))
            stack.callback(lanes[-1].close)
        stack.callback(view.stop)
        for group in _groups(lanes, machine.lanes):
            _Loop(machine.of(len(group)), group, view).to_the_end(asked)
    found |= {lane.config.run_id: lane.error or lane.final for lane in lanes}
    return [found[config.run_id] for config in configs]


def _groups(lanes, most):
    """Those that can go in lockstep, ``most`` at a time: they stand at the same step."""
    at: dict[int, list[Lane]] = {}
    for lane in lanes:
        at.setdefault(checkpoint.step(lane.path), []).append(lane)
    return [group[i : i + most] for group in at.values() for i in range(0, len(group), most)]


class _Loop:
    """Chunks of steps of one run, or of replicas that stand at the same step."""

    def __init__(self, machine, lanes: list[Lane], view):
        self.machine, self.lanes, self.view = machine, lanes, view
        self.config = lanes[0].config
        title = str(lanes[0].path) if len(lanes) == 1 else f"{len(lanes)} replicas"
        view.start(title, machine.program.num_steps)
        self.knobs = machine.stack([Knobs.of(lane.config) for lane in lanes])
        self.epoch, self.order = 0, machine.order(self.knobs, 0)
        window = machine.feed(self.order, 0)
        state = machine.init(self.knobs, window.examples, window.order)
        nothing = (window.examples, window.order, 0, 0, self.knobs)
        state, infos = machine.advance(state, *nothing)  # compiles, and shows what steps report
        states = [lane.restore(machine.row(state, i), infos) for i, lane in enumerate(lanes)]
        self.state = jax.device_put(machine.stack(states))
        self.step = lanes[0].step
        self.last_save = time.perf_counter()
        self.save_cost = 0.0
        self.chunk = 1  # grows until it takes a second
        if not self.step:
            self._each(lambda i, lane: self._snapshot(lane, 0, self.machine.row(self.state, i)))
        else:
            view.say(f"going on from step {self.step}")

    def to_the_end(self, asked) -> None:
        """Leaves ``final`` or ``error`` in every lane. Raises ``OSError``, and ``Interrupted`` once
        ``asked`` holds a signal."""
        num_steps, per_epoch = self.machine.program.num_steps, self.machine.program.steps_per_epoch
        while self.step < num_steps and self._going():
            epoch, first = divmod(self.step, per_epoch)
            if epoch != self.epoch:
                self.epoch, self.order = epoch, self.machine.order(self.knobs, epoch)
            self._advance(first, self._count(num_steps, per_epoch))
            if self.step % per_epoch == 0 or self.step == num_steps:
                self._report_epoch(per_epoch)
            self._save(now=bool(asked) or self.step == num_steps)
            if asked and self.step < num_steps and self._going():
                again = "" if self.config.restore_checkpoint else ", with restore_checkpoint=True,"
                raise Interrupted(
                    f"stopped at step {self.step} of {num_steps}, saved; the same command{again} "
                    f"goes on from there ({self.lanes[0].path.parent})",
                    asked[0],
                )
        gradients = self.machine.program.gradients(self.step)
        cost = gradients, self.machine.memory
        self._each(lambda i, lane: lane.finish(self.machine.row(self.state, i), *cost))
        self.view.stop()
        for lane in self._going():
            self.view.say(last_line(lane.final, lane.task.monitor))

    def _going(self):
        return [lane for lane in self.lanes if lane.error is None]

    def _each(self, act):
        """``act(i, lane)`` wherever a run goes on; what ends one is kept as its error."""
        for i, lane in enumerate(self.lanes):
            if lane.error is None:
                try:
                    act(i, lane)
                except (Diverged, BlockingIOError) as error:
                    lane.error = error

    def _count(self, num_steps, per_epoch):
        """Steps until something is due: an epoch's end, a line of metrics, or the next look-up."""
        due = [num_steps, (self.step // per_epoch + 1) * per_epoch]
        if (every := self.config.log_every_steps) > 0:
            due.append((self.step // every + 1) * every)
        return min(self.chunk, min(due) - self.step)

    def _advance(self, first, count):
        begin = time.perf_counter()
        window = self.machine.feed(self.order, first)
        count = min(count, window.size)
        self.state, infos = self.machine.advance(
            self.state, window.examples, window.order, window.first, count, self.knobs
        )
        infos = jax.device_get(infos)
        elapsed = time.perf_counter() - begin
        share = elapsed / len(self.lanes)

        def absorb(i, lane):
            own = {name: v[:count] for name, v in self.machine.row(infos, i).items()}
            lane.absorb(own, count, share)
            self._show(own, count, share)

        self.step += count
        self._each(absorb)
        self.chunk = max(1, min(2 * self.chunk, int(CHUNK_SECONDS * count / elapsed)))

    def _show(self, infos, count, seconds):
        now = train_means({name: float(values.sum()) for name, values in infos.items()})
        speed = count * self.config.batch_size / seconds
        epoch = (self.step - 1) // self.machine.program.steps_per_epoch + 1
        self.view.update(self.step, {"epoch": epoch, **now, "examples_per_second": speed})

    def _report_epoch(self, per_epoch):
        totals = self.machine.totals(self.state)

        def report(i, lane):
            state, epoch = self.machine.row(self.state, i), -(-self.step // per_epoch)
            last = self.step == self.machine.program.num_steps
            flat = measured.at_epoch(lane.path, lane.config, lane.task, state, epoch, last)
            row = lane.report_epoch(per_epoch, self.machine.row(totals, i), flat)
            self._snapshot(lane, epoch, state)
            self.view.update(self.step, row)

        self._each(report)

    def _snapshot(self, lane, epoch, state):
        if snapshots.due(lane.config, epoch, self.machine.program.num_epochs):
            snapshots.save(lane.path, epoch, state.params)

    def _save(self, now=False):
        """Every ``checkpoint_seconds``, if that takes no more than 5 % of the time; 0: always."""
        least, since = self.config.checkpoint_seconds, time.perf_counter() - self.last_save
        if now or least == 0 or since >= max(least, 20 * self.save_cost):
            begin = time.perf_counter()
            state = jax.device_get(self.state)
            self._each(lambda i, lane: lane.save(self.machine.row(state, i)))
            self.last_save = time.perf_counter()
            self.save_cost = self.last_save - begin
