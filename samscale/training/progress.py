"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

import shutil
import sys
import textwrap
import time
from typing import Any

SPEED = "examples_per_second"
EVERY_SECONDS = 10.0  # at most one plain line so often, besides the last


class Silent:
    """For tests and for programs that train many networks."""

    def start(self, title: str, num_steps: int) -> None: ...
    def update(self, step: int, values: dict[str, float]) -> None: ...
    def say(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Lines(Silent):
    """A line now and then, for logs."""

    def __init__(self, stream=None):
        self.stream, self.deaf = stream or sys.stdout, False

    def start(self, title, num_steps):
        self.num_steps, self.first, self.last = num_steps, None, 0.0
        self.say(title)

    def update(self, step, values):
        now = time.monotonic()
        if self.first is None:  # the first report; what compiled before it took is no measure
            self.first, self.begin = step, now
        if now - self.last > EVERY_SECONDS or ("test_loss" in values and step == self.num_steps):
            self.last = now
            self.say(f"step {step}/{self.num_steps}  {words(values)}{self._left(step, now)}")

    def _left(self, step, now):
        """Nothing is known of the time left until some steps have been seen to take some."""
        if self.first == step < self.num_steps:
            return ""
        left = (now - self.begin) * (self.num_steps - step) / max(step - self.first, 1)
        return f"  {clock(left)} left"

    def say(self, text):
        if not self.deaf:
            try:
                print(text, file=self.stream, flush=True)
            except BrokenPipeError:  # of ``| head``: whoever read has gone, the run goes on
                self.deaf = True


class Bar(Silent):
    """A bar with speed and time left; below it loss, accuracy and gap. Fits 80 columns."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        class Two(Progress):
            numbers = "compiling"

            def get_renderables(self):
                yield self.make_tasks_table(self.tasks)
                yield self.numbers

        self.console = Console()
        self.progress: Any = Two(
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            transient=True,
        )

    def start(self, title, num_steps):
        self.say(title)
        self.task = self.progress.add_task("", total=num_steps, speed="")
        self.progress.start()

    def update(self, step, values):
        speed = words({name: v for name, v in values.items() if name == SPEED})
        self.progress.numbers = words({name: v for name, v in values.items() if name != SPEED})
        self.progress.update(self.task, completed=step, speed=speed)

    def say(self, text):
        self.console.print(wrapped(text), markup=False, highlight=False, soft_wrap=True)

    def stop(self):
        self.progress.stop()


def choose() -> Silent:
    """A bar where a person looks on, lines where a file does."""
    return Bar() if sys.stdout.isatty() else Lines()


def wrapped(text: str, stream=None) -> str:
    """Text as wide as the terminal, which would break it inside words; elsewhere as it is."""
    if not (stream or sys.stdout).isatty():
        return text
    how = {"break_long_words": False, "break_on_hyphens": False}
    width = shutil.get_terminal_size().columns
    return "\n".join(textwrap.fill(line, width, **how) for line in text.split("\n"))


def words(values: dict[str, float]) -> str:
    """Numbers as a person reads them; what a task does not have is left out."""
    return "  ".join(FORMATS[name](values[name]) for name in FORMATS if name in values)


FORMATS = {
    "epoch": lambda v: f"epoch {v:.0f}",
    "train_loss": lambda v: f"loss {v:.4f}",
    "train_accuracy": lambda v: f"accuracy {100 * v:.2f} %",
    "gap": lambda v: f"gap {v:.4f}",
    "validation_accuracy": lambda v: f"validation {100 * v:.2f} %",
    "test_accuracy": lambda v: f"test {100 * v:.2f} %",
    SPEED: lambda v: f"{v:,.0f} examples/s",
}


def clock(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
