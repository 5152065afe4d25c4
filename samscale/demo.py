"""A first result in about a minute: does SAM help more where the network is wider?"""

import dataclasses
import statistics

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from samscale.config import Config
from samscale.training import progress, run

WIDTHS = ((16, 8), (48, 24), (192, 96))
SEEDS = range(5)
BASE = Config(dataset="digits", batch_size=64, num_epochs=20, rho=0.05, learning_rate=0.1)


def run_all(workdir) -> dict:
    """Final rows of every seed by (widths, optimizer); what is done already is not repeated."""
    rows: dict = {(width, name): [] for width in WIDTHS for name in ("sgd", "sam")}
    with Progress(transient=True) as bar:
        task = bar.add_task("training", total=len(rows) * len(SEEDS))
        for (width, name), cell in rows.items():
            bar.update(task, description=f"{name} {width}")
            for seed in SEEDS:
                changes = {"num_neurons": width, "optimizer": name, "seed": seed}
                config = dataclasses.replace(BASE, **changes)
                cell.append(run.train(config, workdir, progress.Silent()))
                bar.advance(task)
    return rows


def main(workdir) -> None:
    rows = run_all(workdir)
    from scipy import stats  # takes a second to import: not before there is something to see

    table = Table(title=f"Test accuracy on digits after {BASE.num_epochs} epochs, %")
    for name in ("parameters", "SGD", f"SAM, rho {BASE.rho:g}", "gain, 95 % interval"):
        table.add_column(name, justify="right")
    for width in WIDTHS:
        sgd, sam = ([100 * r["test_accuracy"] for r in rows[width, o]] for o in ("sgd", "sam"))
        gains = [b - a for a, b in zip(sgd, sam, strict=True)]  # paired: same seed, same order
        half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
        table.add_row(
            f"{rows[width, 'sgd'][0]['num_params']:,}",
            f"{statistics.fmean(sgd):.2f}",
            f"{statistics.fmean(sam):.2f}",
            f"{statistics.fmean(gains):+.2f} ± {half:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"n = {len(SEEDS)} seeds, final epoch, one radius, nothing tuned. An interval that holds 0 "
        f"shows no difference.\nRun folders: {workdir}",
        highlight=False,
        soft_wrap=True,
    )
