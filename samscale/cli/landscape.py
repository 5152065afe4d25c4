"""``samscale landscape``: the loss around a run, or between runs, as a picture."""

import pathlib

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
from samscale.laws import SEED, Law
from samscale.named import says

FORMATS = ("svg", "png", "pdf")
MOST_CELLS = 300  # a side: a plane is drawn 300 pixels wide
CELLS = Law(lambda value: 2 <= value <= MOST_CELLS, f"at least 2 and at most {MOST_CELLS}")
PRINCIPAL = ("first principal direction", "second")


@reading
@says("The loss around a run, or along and between several: RUN_FOLDER ... [--out=FILE] [--curve]")
def landscape(argv) -> int:
    parser = parser_of(landscape)
    parser.add_argument(
        "runs", metavar="RUN_FOLDER", nargs="+", type=expanded, help="as `samscale train` made it"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=expanded, help="default: landscape.svg in the first folder"
    )
    of_data = {"default": 1000, "help": "of the training data; 0: all"}
    parser.add_argument("--examples", action=Number, law=EXAMPLES, **of_data)
    of_plane = {"default": 31, "help": "points a side of the plane"}
    parser.add_argument("--cells", action=Number, law=CELLS, **of_plane)
    of_lone = {"default": 1.0, "metavar": "R", "help": "of a lone run's plane"}
    parser.add_argument("--reach", action=Number, kind=float, law=FINITE, **of_lone)
    of_chance = {"default": 0, "help": "of examples, directions and probes"}
    parser.add_argument("--seed", action=Number, law=SEED, **of_chance)
    parser.add_argument("--curve", action="store_true", help="train a Bezier curve between two")
    try:
        args = parser.parse_args(argv[1:])
        out = _checked(args)
        from samscale.study import landscape as pictures
        from samscale.training import compiled

        compiled.keep_programs()
        walks = [pictures.walk(run, args.examples, args.seed) for run in args.runs]
        return guarded(lambda: _draw(args, walks, out))
    except ValueError as error:
        return fail(error, 2)
    except OSError as error:
        return fail(words(error), 1)


def _checked(args):
    """Where the picture goes. Raises ``ValueError``, before anything is loaded."""
    out = pathlib.Path(args.out or pathlib.Path(args.runs[0]) / "landscape.svg")
    if _format(out) not in FORMATS:
        raise ValueError(f"out={str(out)!r}: the suffix must be one of {', '.join(FORMATS)}")
    if args.out and not out.resolve().parent.is_dir():
        raise ValueError(f"out={str(out)!r}: must be in a folder that is there")
    if len({pathlib.Path(run).resolve() for run in args.runs}) < len(args.runs):
        raise ValueError("runs: name each folder once")
    if args.curve and len(args.runs) != 2:
        raise ValueError(f"curve: takes two runs, not {len(args.runs)}")
    return out


def _format(out):
    return out.suffix.removeprefix(".").lower()


def _draw(args, walks, out):
    import altair as alt

    from samscale.study.pictures import specification
    from samscale.study.report.figures import as_drawn, convert
    from samscale.training.files import write_atomically

    charts, told = _alone(args, *walks) if len(walks) == 1 else _together(args, walks)
    spec = alt.hconcat(*charts).resolve_scale(color="independent", stroke="independent")
    svg = as_drawn(specification(spec))
    write_atomically(out, convert(svg, _format(out)))
    print("\n".join([*told, f"Written to {out}"]))


def _alone(args, walk):
    from samscale.study import landscape as pictures

    key = pictures.key(args.seed)
    grid = pictures.around(walk.point, key, args.reach, args.cells)
    spectrum = pictures.density(walk.point, key)
    charts = [
        pictures.plane_chart(grid, "Along two random directions, filters normalized"),
        pictures.density_chart(spectrum, "Eigenvalues of the Hessian"),
    ]
    return charts, [walk.name]


def _together(args, walks):
    from samscale.study import landscape as pictures

    grid, walked, share = pictures.trajectories(walks, args.cells)
    title = f"The plane that holds {100 * share:.0f} % of the ways"
    charts = [pictures.plane_chart(grid, title, walked, PRINCIPAL)]
    told = []
    if len(walks) == 2:
        steps = 1000 if args.curve else 0
        table, barriers = pictures.between(*walks, curve_steps=steps, key=pictures.key(args.seed))
        charts.append(pictures.between_chart(table, "The loss between their ends"))
        told = [f"barrier, {way}: {height:.4g}" for way, height in barriers.items()]
    return charts, told
