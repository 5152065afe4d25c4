"""``samscale flatness``: every flatness number of a run."""

import argparse
import json
import math
import pathlib

from samscale.cli.words import fail, guarded, words


def flatness(argv) -> int:
    """All flatness numbers of a run: RUN_FOLDER [--measure=A,B] [--examples=N] [--json]"""
    parser = argparse.ArgumentParser(
        prog="samscale flatness", description=flatness.__doc__.splitlines()[0]
    )
    parser.add_argument("run", metavar="RUN_FOLDER", help="as `samscale train` made it")
    parser.add_argument("--measure", default="", metavar="A,B", help="default: all; see --list")
    parser.add_argument(
        "--examples", type=int, default=1000, metavar="N", help="of the training data; 0: all"
    )
    parser.add_argument("--seed", type=int, default=0, help="of examples and random probes")
    parser.add_argument("--rho", type=float, help="radius of ascents; default: 0.05")
    parser.add_argument("--json", action="store_true", help="to the screen, for programs")
    parser.add_argument("--list", action="store_true", help="what there is to measure, and stop")
    if "--list" in argv[1:]:
        return _list()
    args = parser.parse_args(argv[1:])
    try:
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
    about = f"{config.optimizer} at rate {config.learning_rate:g}"
    return guarded(lambda: _measure(args, names, point, int(state.step), about))


def _checked(args):
    """The measures that are asked for. Raises ``ValueError``, before anything is loaded."""
    from samscale.flatness.measures import MEASURES

    names = [name for name in args.measure.split(",") if name] or list(MEASURES)
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"measure={name!r}: choose some of {', '.join(MEASURES)}")
    if args.examples < 0:
        raise ValueError(f"examples={args.examples}: must be at least 0 (all)")
    if args.seed < 0:
        raise ValueError(f"seed={args.seed}: must be at least 0")
    if args.rho is not None and not 0 < args.rho < math.inf:
        raise ValueError(f"rho={args.rho}: must be finite and greater than 0")
    return names


def _check_means(args, names, point):
    """Raises ``ValueError`` for a measure that was asked for by name and cannot be taken."""
    from samscale.flatness.measures import lacking

    for name in names if args.measure else ():
        if words := lacking(point, name):
            raise ValueError(f"measure={name!r}: {words}")


def _measure(args, names, point, step, about):
    import jax
    from rich.console import Console

    from samscale import keys
    from samscale.flatness import measures, operators
    from samscale.training.files import write_atomically

    screen = Console(stderr=True)
    key, found = keys.address(args.seed, keys.MEASURE, 1), {}
    n, path = operators.count(point.data), pathlib.Path(args.run) / "flatness.json"
    row = {"step": step, "examples": n, "seed": args.seed, "rho": point.rho}
    row = _earlier(path, row)
    with screen.status("") as status:
        for name in (name for name in names if not measures.lacking(point, name)):
            status.update(f"measuring {name}: {measures.first_line(name)}")
            found[name] = measures.measured(point, key, [name])
            row |= found[name]
            write_atomically(path, json.dumps(row, indent=2).encode())
    if args.json:
        print(json.dumps(row, indent=2))
        return
    size = sum(w.size for w in jax.tree.leaves(point.params))
    title = (
        f"{pathlib.Path(args.run).name}\n{size:,} parameters after {step:,} steps of {about}; "
        f"measured on {n:,} examples, rho = {point.rho:g}"
    )
    _show(title, found, measures)
    for name in names:
        if words := measures.lacking(point, name):
            print(f"Not measured: {name}; {words}")
    print(f"Written to {path}")


def _earlier(path, about):
    """What was measured there before in just the same way, to be added to; else ``about`` alone."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return about
    return before if about.items() <= before.items() else about


def _show(title, found, measures):
    from rich.console import Console
    from rich.table import Table

    from samscale.flatness.meanings import meaning

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name, justify in (("", "left"), ("value", "right"), ("±", "right"), ("what it is", "left")):
        table.add_column(name, justify=justify)
    for measure, numbers in found.items():
        table.add_row(f"[bold]{measure}[/bold]", "", "", measures.first_line(measure))
        for name, value in numbers.items():
            if not name.endswith(("_se", "_residual")):
                error = numbers.get(f"{name}_se", numbers.get(f"{name}_residual"))
                known = "" if error is None else f"{error:.2g}"
                table.add_row(f"  {name}", f"{value:.5g}", known, meaning(name))
        table.add_section()
    Console(width=None if Console().is_terminal else 150).print(table)


def _list():
    from samscale.flatness import measures

    for name in measures.MEASURES:
        print(f"  {name:12}{measures.first_line(name)}")
    return 0
