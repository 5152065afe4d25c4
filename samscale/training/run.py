"""One run on disk: resume, train, evaluate, report. The only training module that has a clock."""

import contextlib
import time
from typing import Any

import jax
import numpy as np

from samscale import pruning
from samscale.config import Config
from samscale.errors import Diverged, Interrupted
from samscale.training import checkpoint, folder, progress, signals, track
from samscale.training.compiled import Compiled, compiled
from samscale.training.record import Record, read
from samscale.training.step import Knobs
from samscale.training.summary import last_line, summary, train_means

CHUNK_SECONDS = 1.0  # the host looks up so often: for signals, progress and checkpoints
TIMED = ("seconds", "examples_per_second")  # what may differ between two equal runs


def ready(config: Config) -> Compiled:
    """What may find config or data wrong: raises ``ValueError``, writes nothing."""
    config.validate()
    track.require(config.track)
    return compiled(config)


def train(config: Config, workdir, view: progress.Silent | None = None) -> dict[str, Any]:
    """Train one run in ``workdir/run_id``, or go on with it; return its last line of metrics.

    A run that was killed at any instant and started again ends with the same bits as one that was
    not. Raises ``ValueError`` (config or data; nothing is written), ``OSError`` (disk),
    ``Diverged``, ``Interrupted``.
    """
    machine = ready(config)
    view = view or progress.choose()
    with folder.opened(config, workdir) as (path, lease):
        if folder.is_done(path):
            final = read(path)[-1]
            view.say(f"done before: {path}")
            return final
        with contextlib.ExitStack() as stack:
            tracker = track.TRACKERS[config.track](path, config)
            stack.callback(tracker.close)
            stack.callback(view.stop)
            loop = _Run(config, machine, path, lease, view, tracker)
            stack.callback(loop.record.close)
            final = loop.to_the_end()
        lease.check()
        folder.finish(path)
        return final


class _Run:
    """The loop of ``train`` over chunks of steps, with what it has to remember between them."""

    def __init__(self, config: Config, machine: Compiled, path, lease, view, tracker):
        self.config, self.machine, self.path, self.lease = config, machine, path, lease
        self.view, self.tracker = view, tracker
        self.knobs = Knobs.of(config)
        view.start(str(path), machine.program.num_steps)
        self.epoch, self.order = 0, machine.order(self.knobs, 0)
        window = machine.feed(self.order, 0)
        state = machine.init(self.knobs, window.examples, window.order)
        nothing = (window.examples, window.order, 0, 0, self.knobs)
        state, infos = machine.advance(state, *nothing)  # compiles, and shows what steps report
        zeros = dict.fromkeys(infos, 0.0)
        saved = {"state": state, "epoch": zeros, "interval": dict(zeros), "seconds": 0.0}
        saved = checkpoint.restore(path, saved)
        self.state = jax.device_put(saved["state"])
        self.sums = {"epoch": saved["epoch"], "interval": saved["interval"]}
        self.seconds = saved["seconds"]  # of this epoch, spent by earlier processes
        self.step = int(self.state.step)
        self.record = Record(path, self.step)
        self.last_save = time.perf_counter()
        self.save_cost = 0.0
        self.chunk = 1  # grows until it takes a second
        if self.step:
            view.say(f"going on from step {self.step}")

    def to_the_end(self) -> dict[str, Any]:
        num_steps, per_epoch = self.machine.program.num_steps, self.machine.program.steps_per_epoch
        with signals.collected() as asked:
            while self.step < num_steps:
                epoch, first = divmod(self.step, per_epoch)
                if epoch != self.epoch:
                    self.epoch, self.order = epoch, self.machine.order(self.knobs, epoch)
                self._advance(first, self._count(num_steps, per_epoch))
                if self.step % per_epoch == 0 or self.step == num_steps:
                    self._report_epoch(per_epoch)
                self._save(now=bool(asked) or self.step == num_steps)
                if asked and self.step < num_steps:
                    raise Interrupted(
                        f"stopped at step {self.step} of {num_steps}, saved; "
                        f"the same command goes on from there ({self.path})",
                        asked[0],
                    )
        return self._finish()

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
        infos = {name: np.asarray(values)[:count] for name, values in infos.items()}
        self._check_finite(infos)
        elapsed = time.perf_counter() - begin
        self.step += count
        self.seconds += elapsed
        self.lease.progress()
        for sums in self.sums.values():
            for name, values in infos.items():  # in order, so that chunks leave no trace
                sums[name] = float(np.cumsum([sums[name], *values], dtype=np.float64)[-1])
        self.view.update(self.step, self._live(infos, count, elapsed))
        self.chunk = max(1, min(2 * self.chunk, int(CHUNK_SECONDS * count / elapsed)))
        every = self.config.log_every_steps
        if every > 0 and self.step % every == 0:
            self._write({"kind": "steps", "step": self.step, **self._means("interval")})

    def _live(self, infos, count, elapsed):
        now = train_means({name: float(values.sum()) for name, values in infos.items()})
        speed = count * self.config.batch_size / elapsed
        epoch = (self.step - 1) // self.machine.program.steps_per_epoch + 1
        return {"epoch": epoch, **now, "examples_per_second": speed}

    def _means(self, period):
        """Means since the period began, which ends here."""
        sums = self.sums[period]
        self.sums[period] = dict.fromkeys(sums, 0.0)
        return train_means(sums)

    def _report_epoch(self, per_epoch):
        steps = (self.step - 1) % per_epoch + 1
        speed = steps * self.config.batch_size / self.seconds
        row = {
            "kind": "epoch",
            "step": self.step,
            "epoch": -(-self.step // per_epoch),
            **self._means("epoch"),
            **self.machine.means(self.state),
            "seconds": round(self.seconds, 4),
            "examples_per_second": round(speed, 1),
        }
        self.seconds = 0.0
        self._write(row)
        self.view.update(self.step, row)

    def _write(self, row):
        self.lease.check()
        self.record.write(row)
        numbers = {k: v for k, v in row.items() if k not in ("kind", "step")}
        self.tracker.log(row["step"], numbers)

    def _check_finite(self, infos):
        losses = infos["loss"] / np.where(infos["count"] > 0, infos["count"], 1)
        good = np.isfinite(losses) & np.isfinite(infos["grad_norm"])
        if good.all():
            return
        bad = int(np.argmin(good))
        finite = losses[:bad][-1:] if bad else self._last_losses()
        last = f"{finite[-1]:.6g}" if len(finite) else "none"
        where = self.step + bad + 1
        self._write({"kind": "diverged", "step": where})
        raise Diverged(
            f"the loss or its gradient is not finite at step {where} (last finite loss: {last}); "
            f"the last good checkpoint is kept ({self.path})"
        )

    def _last_losses(self):
        sums = self.sums["epoch"]
        if sums["count"]:
            return [sums["loss"] / sums["count"]]
        return [row["train_loss"] for row in self.record.rows if "train_loss" in row]

    def _save(self, now=False):
        """Every ``checkpoint_seconds``, if that takes no more than 5 % of the time; 0: always."""
        least, since = self.config.checkpoint_seconds, time.perf_counter() - self.last_save
        if now or least == 0 or since >= max(least, 20 * self.save_cost):
            begin = time.perf_counter()
            tree = {"state": self.state, **self.sums, "seconds": self.seconds}
            self.lease.check()
            checkpoint.save(self.path, jax.device_get(tree))
            self.last_save = time.perf_counter()
            self.save_cost = self.last_save - begin

    def _finish(self):
        epochs = [row for row in self.record.rows if row["kind"] == "epoch"]
        params = jax.tree.leaves(self.state.params)
        row = {
            **epochs[-1],
            "kind": "final",
            **summary(epochs, self.machine.task),
            "num_params": sum(w.size for w in params),
            "sparsity": float(pruning.sparsity(self.state.mask)),
            "seconds": round(sum(row["seconds"] for row in epochs), 4),
        }
        if self.record.rows[-1]["kind"] != "final":
            self._write(row)
        self.view.stop()
        self.view.say(last_line(row, self.machine.task.monitor))
        return row
