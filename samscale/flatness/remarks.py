"""What numbers say beside what the run did, in sentences for the screen."""

import math

from samscale.config import PLAIN
from samscale.flatness import batches, examples
from samscale.flatness.stability import WORDS, bounds

VERDICTS = {1.0: True, 0.0: None, -1.0: False}  # as ``measures`` has them, in numbers


def remarks(point, found) -> list[str]:
    """Of linear stability at the run's own rate, radius and batches; none where it is not known."""
    if "stable" not in found:
        return []
    eta, rho = point.learning_rate, point.train_rho
    kind = f"unnormalized SAM, rho = {rho:g}" if rho else "SGD"
    words = WORDS[VERDICTS[found["stable"]]]
    limits = "; ".join(_limits(point, found))
    lines = [
        f"At the run's rate {eta:g}, for {kind}, over {_taken(point)}: {words}"
        f"{f' ({limits})' if limits else ''}.",
        f"Bounds (6) there, for batches of one: {_held(found, bounds(eta, rho))}.",
    ]
    if rho >= eta / 2:
        lines[-1] = f"{lines[-1][:-1]}; those on s2, s3, s4 are not valid for rho >= eta / 2."
    if point.unlike:
        lines.append(not_of_the_theorem(point.unlike))
    if point.aside:
        lines.append(f"Not part of that theory, but of the run: {', '.join(point.aside)}.")
    return lines


def is_of_the_theorem(optimizer: str) -> bool:
    """Whether theorem 6.3 speaks of a method: of plain gradients and of unnormalized SAM."""
    return optimizer in (*PLAIN, "usam")


def not_of_the_theorem(*methods) -> str:
    """That a verdict on unnormalized SAM is none on runs of these methods, and why."""
    names = " and ".join(methods)
    return (
        "Theorem 6.3, and with it the verdict, safe_rate, mean_rate and excess, is about "
        f"unnormalized SAM (usam) of the same radius, not about {names}. Where the ascent is "
        "divided by the gradient's length, as in sam, a step has no linearization at a minimum: "
        "such a run can oscillate around it for ever where usam would diverge."
    )


def _taken(point):
    """Which batches a verdict is over."""
    n = examples.count(point.data)
    return f"all batches of {min(point.batch_size, n)} of the {n:,} examples measured"


def _limits(point, found):
    """Rates that are known to be stable or not, and how far condition (5) is from holding."""
    eta, mean, n = point.learning_rate, found["mean_rate"], examples.count(point.data)
    size = min(point.batch_size, n)
    bounded = point.train_rho and size > 1 and batches.every(n, size) is None
    if found["stable"] < 1 and found.get("excess", 0) > 0:
        most = "by at most" if bounded else "by"
        yield f"condition (5) is exceeded {most} {found['excess']:.2g}"
    if found.get("safe_rate", math.inf) < math.inf:
        yield f"stable up to {found['safe_rate']:.3g} at least"
    if mean > 0:
        yield f"the mean grows beyond {2 * eta / mean:.3g}"


def _held(found, limits):
    """``s2_any`` is left out: it needs what the others do not."""
    names = [name for name in ("a", "s2", "s3", "s4") if limits[name] < float("inf")]
    sides = {True: "<=", False: ">"}
    return ", ".join(
        f"{name} = {found[name]:.4g} {sides[found[name] <= limits[name]]} {limits[name]:.4g}"
        for name in names
    )
