"""``samscale study``, and what looks at its results."""

import pathlib
import sys

from samscale import shipped
from samscale.cli.train import call
from samscale.cli.words import (
    FINITE,
    Number,
    check_there,
    check_workdir,
    expanded,
    fail,
    guarded,
    parser_of,
    reading,
)
from samscale.laws import AT_ONCE, SEEDS
from samscale.named import says
from samscale.training.progress import wrapped
from samscale.training.signals import stoppable

MANY = 10_000  # cells of a study that is run without being asked about
NO_SPREAD = "Power is not known yet: that takes runs of two seeds or more."
FORMATS = ("pdf", "png", "svg")
FIGURES = "gain, absolute, radius, heatmap, training, cost, efficiency, flatness"


@says("Run a grid of networks and report: FILE --workdir=DIR [--quick] [--epochs=N] [--dry-run]")
def study(argv) -> int:
    parser = _parser(study)
    parser.add_argument("file", metavar="FILE", type=expanded, help="a study file, as in studies/")
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", type=expanded, help="a folder for the runs"
    )
    parser.add_argument("--quick", action="store_true", help="shrink the study to minutes")
    parser.add_argument("--epochs", action=Number, help="instead of the file's")
    parser.add_argument("--seeds", action=Number, law=SEEDS, help="instead of the file's")
    parser.add_argument("--dry-run", action="store_true", help="print what it would cost, and stop")
    parser.add_argument("--executor", default="here", help="here, processes, ray, slurm")
    at_once = {"action": Number, "law": AT_ONCE, "default": 0}
    parser.add_argument("--workers", **at_once, help="at a time; 0: all")
    parser.add_argument("--replicas", **at_once, help="runs under vmap; 0: what is faster")
    parser.add_argument("--address", help="of a Ray cluster; default: auto")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the executor"
    )
    _effect_argument(parser)
    parser.add_argument("--retry-failed", action="store_true", help="try failed cells again")
    parser.add_argument(
        "--keep-going", action="store_true", help="even if the first cells fail for one reason"
    )
    parser.add_argument(
        "--yes", action="store_true", help=f"run the study even if it has over {MANY:,} cells"
    )
    try:
        args = parser.parse_args(argv[1:])
    except ValueError as error:
        return fail(error, 2)
    return guarded(lambda: _study(args, ["samscale", "study", *argv[1:]]))


def _study(args, command) -> int:
    try:
        with stoppable("stopped before anything was trained"):
            check_workdir(args.workdir)
            args.file = str(shipped.find("study", args.file))
            chosen = _changed(load_study(args.file), args)
            _check_number(chosen, args.yes)
            chosen.validate()
            from samscale.study import executors, store

            execute = executors.choose(args.executor, args.workers, args.replicas, _options(args))
            store.check_same(args.workdir, _name_of(args), chosen, args.file)
            _ready(chosen, args.workdir)
            if args.dry_run:
                return _dry_run(chosen, args)
    except ValueError as error:
        return fail(error, 2)
    with stoppable():
        return _run(chosen, _name_of(args), args, execute, command)


def _check_number(chosen, said_yes):
    """Raises ``ValueError`` where a study has so many cells that even to name them takes long."""
    from samscale.study import grid

    if not said_yes and (number := grid.count(chosen)) > MANY:
        raise ValueError(f"axes: make {number:,} cells; add --yes if so many are meant")


def _changed(chosen, args):
    """The study of a file as the command line wants it."""
    if args.quick:
        chosen = chosen.quick()
    if args.epochs is not None:
        chosen = chosen.lasting(args.epochs)
    if args.seeds is not None:
        chosen = chosen.replicated(args.seeds)
    return chosen


def _options(args):
    """NAME -> VALUE, text for text, as the executor wants to understand it."""
    if args.address and args.executor != "ray":
        raise ValueError(f"address={args.address!r}: only for executor='ray'")
    options = {"address": args.address} if args.address else {}
    for text in args.option:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals):
            raise ValueError(f"option={text!r}: must be NAME=VALUE")
        options[name] = value
    return options


def _name_of(args):
    """More seeds widen a study; other epochs make another one."""
    name = pathlib.Path(args.file).stem + ("-quick" if args.quick else "")
    return name + (f"-{args.epochs}epochs" if args.epochs is not None else "")


@reading
@says("How far the studies in a folder are: WORKDIR")
def status(argv) -> int:
    args = _parser(status, "workdir").parse_args(argv[1:])

    def show():
        from samscale.study import status

        check_there(args.workdir)
        for line in status.lines(args.workdir):
            print(line)

    return _asked(show)


@reading
@says("Every run with its knobs and metrics: WORKDIR [--csv|--json|--parquet=FILE] [--where=...]")
def results(argv) -> int:
    parser = _parser(results, "workdir")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", action="store_true", help="to the screen")
    kind.add_argument("--json", action="store_true", help="a line a run, to the screen")
    kind.add_argument("--parquet", metavar="FILE", type=expanded)
    parser.add_argument("--where", metavar="'width > 300 and optimizer == \"sam\"'")
    args = parser.parse_args(argv[1:])

    def show():
        from samscale.study import conditions, load, tables
        from samscale.study.results import damages

        check_there(args.workdir)
        if args.parquet is not None:
            _check_out("parquet", args.parquet)
        table = load(args.workdir)
        _tell(damages(table))
        if args.where:
            table = conditions.rows(table, args.where)
        if args.parquet:
            tables.to_parquet(table, args.parquet)
        else:
            print(tables.text(table, "csv" if args.csv else "json" if args.json else "screen"))

    return _asked(show)


@reading
@says("Build report.html again, also in mid-study: WORKDIR [--study=NAME]")
def report(argv) -> int:
    parser = _parser(report, "workdir")
    _study_argument(parser)
    _effect_argument(parser)
    try:
        args = parser.parse_args(argv[1:])
    except ValueError as error:
        return fail(error, 2)

    def show():
        from samscale.study import pictures
        from samscale.study.publish import publish

        found, path = publish(args.workdir, _named(args))
        _tell(found.info["warnings"])
        if args.effect is not None:
            _say_power(found.cells, found.analysis, found.design, args.effect)
        if names := ", ".join(pictures.left_out(found.study)):
            print(
                f"left out: {names}, code outside of samscale; say --trust to run it",
                file=sys.stderr,
            )
        print(wrapped(f"{found.analysis.answer}\n{path}"))

    return _asked(show)


@reading
@says("A figure for a paper: WORKDIR --kind=gain [--format=pdf] [--out=FILE] [--study=NAME]")
def figure(argv) -> int:
    parser = _parser(figure, "workdir")
    _study_argument(parser)
    parser.add_argument("--kind", default="gain", help=FIGURES)
    parser.add_argument("--format", help="pdf, svg, png; default: that of --out, or pdf")
    parser.add_argument("--out", metavar="FILE", type=expanded, help="default: KIND.FORMAT here")
    args = parser.parse_args(argv[1:])

    def show():
        from samscale.study import publish

        suffix = (args.format or pathlib.Path(args.out or "").suffix[1:] or "pdf").lower()
        if suffix not in FORMATS:
            field = f"format={args.format!r}" if args.format else f"out={args.out!r}: the suffix"
            raise ValueError(f"{field}: must be one of {', '.join(FORMATS)}")
        path = pathlib.Path(args.out or f"{args.kind}.{suffix}")
        if path.suffix.lower() != f".{suffix}":
            raise ValueError(f"out={args.out!r}: must end in .{suffix}, as --format says")
        _check_out("out", str(path))
        drawn, warnings = publish.figure(args.workdir, _named(args), args.kind, path)
        _tell(warnings)
        if not drawn:
            print("nothing to draw yet; the figure says so", file=sys.stderr)
        print(path)

    return _asked(show)


def load_study(file: str):
    """What ``get_study`` of a file returns."""
    from samscale.study import Study

    found = call(file, "study", "get_study")
    if not isinstance(found, Study):
        kind = type(found).__name__
        raise ValueError(f"study={file!r}: get_study() must return a samscale Study, not {kind}")
    return found


def _run(chosen, name, args, execute, command):
    from samscale.study import conduct, publish, screen

    how = {"retry_failed": args.retry_failed, "keep_going": args.keep_going, "file": args.file}
    conduct.conduct(chosen, name, args.workdir, execute, command, **how)
    found, path = publish.publish(args.workdir, name)
    screen.show(found)
    _tell(found.info["warnings"])
    print(f"Report: {path}\nRun folders: {args.workdir}")
    if args.quick:
        print("--quick: too few epochs, seeds and radii to answer the question.")
    failed = int((found.cells["status"] == "failed").sum())
    if failed == len(found.cells):
        return fail("every cell has failed: see the reasons above", 1)
    if failed:
        of = f"{failed} of {len(found.cells)} cells"
        return fail(f"{of} failed: see the reasons above; --retry-failed tries them again", 1)
    return 0


def _ready(chosen, workdir):
    from samscale.study import conduct, pictures
    from samscale.training import compiled

    compiled.keep_programs()
    pictures.check(chosen)
    conduct.check(chosen)
    for sentence in conduct.check_environments(chosen, workdir):
        print(sentence, file=sys.stderr)


def _dry_run(chosen, args):
    from samscale.study import plan, results, screen
    from samscale.study.analysis import analyse
    from samscale.study.publish import design_of

    screen.show_plan(plan.plan(chosen, args.workdir))
    cells, design = results.cells(chosen, args.workdir), design_of(chosen)
    _say_power(cells, analyse(cells, design), design, args.effect)
    return 0


def _effect_argument(parser):
    words = "say what it takes to tell a gain of so many points (or of the metric's unit)"
    parser.add_argument(
        "--effect", action=Number, kind=float, law=FINITE, metavar="GAIN", help=words
    )


def _say_power(cells, analysis, design, effect):
    """What the seeds at hand can tell, of the effects that were seen or of the one asked for."""
    from samscale.study import power
    from samscale.study.report import frames

    seconds = power.seconds_of_a_seed(cells)
    if effect is None:
        lines = list(power.sentences(analysis.power, seconds, design))
    else:
        size = effect / frames.unit(design).factor
        lines = list(power.sentences_of(analysis.power, size, seconds, design))
    print(wrapped("\n".join(lines or [NO_SPREAD])))


def _tell(sentences):
    for sentence in sentences:
        print(f"warning: {sentence}", file=sys.stderr)


def _asked(show) -> int:
    try:
        return guarded(show)
    except ValueError as error:
        return fail(error, 2)


def _named(args):
    """The study that is asked for, the newest unless told. Raises ``ValueError``."""
    from samscale.study import store

    check_there(args.workdir)
    names = store.names(args.workdir)
    if not names:
        raise ValueError(f"workdir={args.workdir!r}: holds no study")
    return names[0] if args.study is None else args.study


def _check_out(field, path):
    """Raises ``ValueError`` where a file cannot be written: before what takes time."""
    if not path or not pathlib.Path(path).parent.is_dir():
        raise ValueError(f"{field}={path!r}: must be a file in a folder that is there")


def _parser(command, *positional):
    parser = parser_of(command)
    for name in positional:
        parser.add_argument(name, metavar=name.upper(), type=expanded)
    return parser


def _study_argument(parser):
    parser.add_argument("--study", metavar="NAME", help="default: the newest")
