"""What a study leaves on the screen."""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from samscale.study.axes import METHOD
from samscale.study.statistics import headline
from samscale.training.progress import clock

MOST_FAILED = 10  # failed cells that are listed


def show(found) -> None:
    """The gain at every size, the answer, the warnings, and the cells that failed."""
    design, analysis = found.design, found.analysis
    console = _console()
    percent = design.metric == "accuracy"
    scale, digits, unit = (100, 2, " %") if percent else (1, 4, "")
    numbers = [design.x_name, design.baseline + unit, f"its{unit or f' {design.metric}'}", "n"]
    names = ["", *numbers[:2], METHOD, numbers[2], "gain, 95 %", *(others := _others(found)), "n"]
    table = _table(found.study.question, names, numbers)
    chosen = headline(analysis.chosen).to_dict("records")
    base = {(r["panel"], r["size"]): r for r in chosen if r["method"] == design.baseline}
    mine = {(r["panel"], r["size"], r["method"]): r for r in chosen}
    rows = headline(analysis.gains).to_dict("records")
    told = {(r["panel"], r["size"], r["method"], f"over {r['against']}"): r for r in rows}

    def gain(row):
        half = (row["high"] - row["low"]) / 2
        interval = f" ±{scale * half:.{digits}f}" if half == half else ""
        return f"{scale * row['mean']:+.{digits}f}{interval}"

    for row in rows:
        at = row["panel"], row["size"]
        if row["against"] != design.baseline or (*at, row["method"]) not in mine:
            continue
        own = mine[(*at, row["method"])]
        where = ", ".join(f"{n} {own[n]:g}" for n in design.nuisance if own[n] == own[n])
        table.add_row(
            " ".join(filter(None, at)),
            _short(row["x"]),
            f"{scale * base[at]['mean']:.{digits}f}" if at in base else "",
            f"{row['method']} {where}".strip(),
            f"{scale * own['mean']:.{digits}f}",
            gain(row),
            *(gain(r) if (r := told.get((*at, row["method"], o))) else "" for o in others),
            str(row["n"]),
        )
    console.print(table)
    for warning in analysis.warnings:
        _say(console, Text.assemble(("warning", "bold"), ": ", warning))
    failed = found.cells[found.cells["status"] == "failed"]
    for _, row in failed.head(MOST_FAILED).iterrows():
        _say(console, f"failed: {row['run_id']}: {row['reason']}")
    if len(failed) > MOST_FAILED:
        _say(console, f"... and {len(failed) - MOST_FAILED} more failed cells")
    for sentence in (analysis.answer, *analysis.selection, *analysis.notes):
        _say(console, sentence)


def _others(found):
    """The other baselines, such as twice the epochs, as columns."""
    names = dict.fromkeys(headline(found.analysis.gains)["against"])
    return [f"over {name}" for name in names if name != found.design.baseline]


def _short(x):
    """A number of parameters, or of whatever the abscissa is."""
    return f"{x:,.0f}" if float(x).is_integer() else f"{x:.3g}"


def _console():
    """What users write is no markup. A file has more room than a terminal of 80 columns."""
    width = None if sys.stdout.isatty() else 110
    return Console(width=width, markup=False, emoji=False)


def _say(console, sentence):
    """On a terminal broken between words, in a file one line."""
    console.print(sentence, highlight=False, soft_wrap=not console.is_terminal)


def _table(title, names, numbers):
    """Where there is no room, all but numbers are wrapped at spaces and then folded, never cut."""
    table = Table(title=title)
    for name in names:
        table.add_column(name, justify="right", overflow="fold", no_wrap=name in numbers)
    return table


def show_plan(groups) -> None:
    """One row for each program, and the sum."""
    numbers = ["cells", "done", "parameters", "gradients"]
    names = ["program", *numbers, "time,\nabout", "memory,\nat least"]
    table = _table("What is left to run", names, numbers)
    table.columns[0].justify = "left"
    for g in groups:
        table.add_row(
            g.title,
            str(g.cells),
            str(g.done),
            f"{g.num_params:,}",
            f"{g.gradients:,.0f}",
            clock(g.seconds),
            f"{g.memory / 2**20:,.1f} MiB",
        )
    total = lambda name: sum(getattr(g, name) for g in groups)
    console = _console()
    console.print(table)
    _say(
        console,
        f"{len(groups)} programs, {total('cells')} cells, {total('done')} of them done; "
        f"{total('gradients'):,.0f} gradients of a batch, about {clock(total('seconds'))} in this "
        "process. Estimated: finished runs of a program say how long it takes, else its operations "
        "at half this machine's matrix rate.",
    )
