"""The host's side of one run: what it has seen, writes down and saves. ``run`` has the loop."""

from typing import Any

import jax
import numpy as np

from samscale import pruning
from samscale.config import Config
from samscale.errors import Diverged
from samscale.tasks import Task
from samscale.training import checkpoint, record
from samscale.training.summary import chance, host_means, summary, train_means


class Lane:
    """A run between its folder and a loop that it may share with replicas."""

    def __init__(self, config: Config, path, lease, tracker, task: Task):
        self.config, self.path, self.lease = config, path, lease
        self.tracker, self.task = tracker, task
        self.error: Exception | None = None  # why it cannot go on
        self.record: record.Record | None = None
        self.final: dict[str, Any] = {}  # the last line, once it is written

    def restore(self, state, infos):
        """The state to go on from. ``infos``: what steps report, by name."""
        zeros = dict.fromkeys(infos, 0.0)
        saved = {"state": state, "epoch": zeros, "interval": dict(zeros), "seconds": 0.0}
        saved["record"] = 0  # the check of its last line
        saved = checkpoint.restore(self.path, saved)
        self.sums = {"epoch": saved["epoch"], "interval": saved["interval"]}
        self.seconds = saved["seconds"]  # of this epoch, spent by earlier processes
        self.step = int(saved["state"].step)
        self.record = record.Record(self.path, int(saved["record"]))
        return saved["state"]

    def absorb(self, infos, count, seconds) -> None:
        """What ``count`` steps report. Raises ``Diverged``."""
        self._check_finite(infos)
        self.step += count
        self.seconds += seconds
        self.lease.progress()
        for sums in self.sums.values():
            for name, values in infos.items():  # in order, so that chunks leave no trace
                sums[name] = float(np.cumsum([sums[name], *values], dtype=np.float64)[-1])
        every = self.config.log_every_steps
        if every > 0 and self.step % every == 0:
            self._write({"kind": "steps", "step": self.step, **self._means("interval")})

    def report_epoch(self, per_epoch, totals, measured) -> dict[str, Any]:
        """``totals``: sums over the splits that were evaluated, by name; ``measured``: flatness."""
        steps = (self.step - 1) % per_epoch + 1
        speed = steps * self.config.batch_size / self.seconds
        evaluated = {
            f"{split}_{name}": value
            for split, sums in totals.items()
            for name, value in host_means(sums).items()
        }
        if not np.isfinite([evaluated[f"{split}_loss"] for split in totals]).all():
            self._diverged(self.step, self._last_losses(), "a loss of the evaluation")
        row = {
            "kind": "epoch",
            "step": self.step,
            "epoch": -(-self.step // per_epoch),
            **self._means("epoch"),
            **evaluated,
            **measured,
            "seconds": round(self.seconds, 4),
            "examples_per_second": round(speed, 1),
        }
        self.seconds = 0.0
        self._write(row)
        return row

    def save(self, state) -> None:
        self.lease.check()
        more = {"seconds": self.seconds, "record": self.record.sync()}
        checkpoint.save(self.path, {"state": state, **self.sums, **more})

    def finish(self, state, gradients: float, memory: int) -> None:
        """The last line. ``gradients``: of a batch, in all; ``memory``: bytes that steps need."""
        epochs = [row for row in self.record.rows if row["kind"] == "epoch"]
        params = jax.tree.leaves(state.params)
        row = {
            **epochs[-1],
            "kind": "final",
            **summary(epochs, self.task),
            **chance(self.config, self.task),
            "num_params": sum(w.size for w in params),
            "sparsity": float(pruning.sparsity(state.mask)),
            "gradients": gradients,
            "memory": memory,
            "seconds": round(sum(row["seconds"] for row in epochs), 4),
        }
        self._write(row)
        self.lease.check()
        self.final = row

    def close(self) -> None:
        if self.record:
            self.record.close()
        self.tracker.close()
        if self.final and self.error is None:
            record.finish(self.path, self.step, self.record.check)

    def _means(self, period):
        """Means since the period began, which ends here."""
        sums = self.sums[period]
        self.sums[period] = dict.fromkeys(sums, 0.0)
        return train_means(sums)

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
        self._diverged(self.step + bad + 1, finite, "the loss or its gradient")

    def _diverged(self, where, finite, what):
        last = f"{finite[-1]:.6g}" if len(finite) else "none"
        self._write({"kind": "diverged", "step": where})
        saved = checkpoint.step(self.path)
        kept = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint was saved yet"
        raise Diverged(
            f"{what} is not finite at step {where} (last finite loss: {last}); {kept} ({self.path})"
        )

    def _last_losses(self):
        sums = self.sums["epoch"]
        if sums["count"]:
            return [sums["loss"] / sums["count"]]
        return [row["train_loss"] for row in self.record.rows if "train_loss" in row]
