"""One live line for a whole study: cells done, failed and left, time left, the best so far."""

import math
import sys
import time

from samscale.study.axes import METHOD
from samscale.study.grid import Study
from samscale.training.progress import EVERY_SECONDS, clock, wrapped


class Lines:
    """A line now and then, for logs."""

    def __init__(self, study: Study, total: int, stream=None):
        self.study, self.total, self.stream = study, total, stream or sys.stdout
        self.counts = {"done": 0, "failed": 0}
        self.best: tuple[float, str] | None = None
        self.begin, self.last, self.ran = time.monotonic(), 0.0, 0

    def update(self, line) -> None:
        self.counts[line["status"]] += 1
        self.ran += "seconds" in line  # else it was done before
        value = line.get(self.study.value or f"test_{self.study.metric}")
        sign = 1 if self.study.maximize else -1
        finite = value is not None and math.isfinite(value)
        if finite and (self.best is None or sign * (value - self.best[0]) > 0):
            self.best = (value, self._where(line))
        self.show()

    def _where(self, line) -> str:
        """The labels of a cell; a method and a size speak for themselves."""
        plain = (METHOD, self.study.size.name)
        axes = [axis.name for axis in self.study.axes if axis.name in line]
        return ", ".join(line[n] if n in plain else f"{n} {line[n]}" for n in axes)

    def words(self) -> str:
        left = self.total - sum(self.counts.values())
        parts = [f"{self.counts['done']} done"]
        if self.counts["failed"]:
            parts.append(f"{self.counts['failed']} failed")
        parts.append(f"{left} left")
        if left and self.ran:
            parts.append(f"{clock((time.monotonic() - self.begin) / self.ran * left)} to go")
        if self.best:
            value, where = self.best
            percent = f"{100 * value:.2f} %" if self.study.metric == "accuracy" else f"{value:.6g}"
            parts.append(f"best {percent} ({where})")
        return ", ".join(parts)

    def show(self) -> None:
        now = time.monotonic()
        if now - self.last > EVERY_SECONDS or sum(self.counts.values()) == self.total:
            self.last = now
            self.say(f"cells: {self.words()}")

    def say(self, text) -> None:
        print(wrapped(text, self.stream), file=self.stream, flush=True)

    def stop(self) -> None: ...


class Live(Lines):
    """The same as a bar on a terminal."""

    def __init__(self, study, total):
        super().__init__(study, total)
        from rich.progress import BarColumn, Progress, TextColumn

        self.bar = Progress(
            TextColumn("cells"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[words]}"),
            transient=True,
        )
        self.task = self.bar.add_task("", total=total, words="compiling")
        self.bar.start()

    def show(self):
        self.bar.update(self.task, completed=sum(self.counts.values()), words=self.words())

    def say(self, text):
        self.bar.console.print(wrapped(text), markup=False, highlight=False, soft_wrap=True)

    def stop(self):
        self.bar.stop()
        Lines.say(self, f"cells: {self.words()}")


def choose(study: Study, total: int) -> Lines:
    return Live(study, total) if sys.stdout.isatty() else Lines(study, total)
