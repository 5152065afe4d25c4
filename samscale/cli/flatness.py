"""``samscale flatness``: every flatness number of a run."""

import json
import math
import pathlib
import sys

from samscale.cli.words import (
    EXAMPLES,
    FINITE,
    Number,
    expanded,
    fail,
    guarded,
    parser_of,
    reading,
    words,
)
from samscale.laws import SEED
from samscale.named import says
from samscale.training.progress import wrapped


@reading
@says("All flatness numbers of a run: RUN_FOLDER [--measure=A,B] [--examples=N] [--json]")
def flatness(argv) -> int:
    parser = parser_of(flatness)
    parser.add_argument(
        "run", metavar="RUN_FOLDER", type=expanded, help="as `samscale train` made it"
    )
    parser.add_argument("--measure", metavar="A,B", help="default: all; see --list")
    of_data = {"default": 1000, "help": "of the training data; 0: all"}
    parser.add_argument("--examples", action=Number, law=EXAMPLES, **of_data)
    of_chance = {"default": 0, "help": "of examples and random probes"}
    parser.add_argument("--seed", action=Number, law=SEED, **of_chance)
    of_ascents = {"metavar": "RADIUS", "help": "radius of ascents; default: 0.05"}
    parser.add_argument("--rho", action=Number, kind=float, law=FINITE, **of_ascents)
    parser.add_argument(
        "--float64", action="store_true", help="in double precision: for what float32 cancels"
    )
    parser.add_argument("--json", action="store_true", help="to the screen, for programs")
    parser.add_argument("--list", action="store_true", help="what there is to measure, and stop")
    if "--list" in argv[1:]:
        return _list()
    try:
        args = parser.parse_args(argv[1:])
        names = _checked(args)
        from samscale.training import compiled, measured

        compiled.keep_programs()
        config, state, point = measured.of_run(args.run, args.examples, args.seed)
        _check_means(args, names, point)
    except ValueError as error:
        return fail(error, 2)
    except OSError as error:
        return fail(words(error), 1)
    if args.rho is not None:
        point = point._replace(rho=args.rho)
    if args.float64:
        point = point.in_float64()
    about = f"{config.optimizer} at rate {config.learning_rate:g}"
    return guarded(lambda: _measure(args, names, point, int(state.step), about))


def _checked(args):
    """The measures that are asked for. Raises ``ValueError``, before anything is loaded."""
    from samscale.flatness.measures import MEASURES

    asked = ",".join(MEASURES) if args.measure is None else args.measure
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if not names:
        raise ValueError(f"measure={args.measure!r}: choose some of {', '.join(MEASURES)}")
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"measure={name!r}: choose some of {', '.join(MEASURES)}")
    return names


def _check_means(args, names, point):
    """Raises ``ValueError`` for what was asked for and this run cannot give."""
    from samscale.flatness.measures import lacking

    for name in names if args.measure else ():
        if words := lacking(point, name):
            raise ValueError(f"measure={name!r}: {words}")


def _measure(args, names, point, step, about):
    import jax
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from samscale import keys
    from samscale.flatness import examples, measures, remarks
    from samscale.training import files, folder

    folder.sweep(args.run)
    screen = Console(stderr=True)
    key, found = keys.address(args.seed, keys.MEASURE, 1), {}
    n, path = examples.count(point.data), pathlib.Path(args.run) / "flatness.json"
    row = {"step": step, "examples": n, "seed": args.seed, "rho": point.rho}
    row = _earlier(path, row | {"float64": args.float64})
    due = [name for name in names if not measures.lacking(point, name)]
    columns = MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        task = progress.add_task("", total=len(due))
        for name in due:
            progress.update(task, description=f"{name}: {measures.first_line(name)}")
            with jax.enable_x64(args.float64):
                found[name] = measures.numbers(point, key, [name])
            row |= {k: v for k, v in found[name].items() if math.isfinite(v)}
            files.write_json(path, row)
            progress.advance(task)
    _tell_what_is_not_finite(found)
    if args.json:
        print(json.dumps(row, indent=2))
        return
    size = sum(w.size for w in jax.tree.leaves(point.params))
    title = (
        f"{pathlib.Path(args.run).name}\n{size:,} parameters after {step:,} steps of {about}; "
        f"measured on {n:,} examples, rho = {point.rho:g}" + ", in float64" * args.float64
    )
    _show(title, found, measures)
    for sentence in remarks.remarks(point, found.get("stability", {})):
        print(wrapped(sentence))
    for name in names:
        if words := measures.lacking(point, name):
            print(wrapped(f"Not measured: {name}; {words}"))
    print(f"Written to {path}")


def _earlier(path, about):
    """What was measured there before in just the same way, to be added to; else ``about`` alone,
    and what was there is moved aside. Raises ``Damaged``.
    """
    from samscale.training.files import read_json

    if not path.exists():
        return about
    before = {"float64": False, **read_json(path)}
    if about.items() <= before.items():
        return before
    how = "{examples:,} examples (step {step}, seed {seed}, rho = {rho:g})".format(**before)
    how += " in float64" * before["float64"]
    number = 1 + sum(1 for _ in path.parent.glob("earlier-flatness-*"))
    aside = path.rename(path.with_name(f"earlier-flatness-{number}.json"))
    print(f"{path.name}: what was measured on {how} is now {aside.name}", file=sys.stderr)
    return about


def _tell_what_is_not_finite(found):
    """What the file, which is JSON, cannot hold."""
    from samscale.flatness.meanings import infinite

    for numbers in found.values():
        for name in (name for name, value in numbers.items() if math.isinf(value)):
            print(", ".join(filter(None, [f"{name}: infinite", infinite(name)])), file=sys.stderr)
        for name in (name for name, value in numbers.items() if math.isnan(value)):
            print(f"{name}: not a number", file=sys.stderr)


def _show(title, found, measures):
    from rich.console import Console
    from rich.table import Table

    from samscale.flatness.meanings import ASIDE, meaning

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name, justify in (("", "left"), ("value", "right"), ("±", "right"), ("what it is", "left")):
        table.add_column(name, justify=justify)
    for measure, numbers in found.items():
        table.add_row(f"[bold]{measure}[/bold]", "", "", measures.first_line(measure))
        for name, value in numbers.items():
            if not name.endswith(ASIDE):
                error = numbers.get(f"{name}_se", numbers.get(f"{name}_residual"))
                known = "" if error is None else f"{error:.2g}"
                mark = "not converged; " if f"{name}_converged" in numbers else ""
                table.add_row(f"  {name}", f"{value:.5g}", known, mark + meaning(name))
        table.add_section()
    Console(width=None if Console().is_terminal else 150).print(table)


def _list():
    from samscale.flatness import measures

    for name in measures.MEASURES:
        print(f"  {name:12}{measures.first_line(name)}")
    return 0
