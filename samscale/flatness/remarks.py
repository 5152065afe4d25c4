"""What numbers say beside what the run did, in sentences for the screen."""

import math

from samscale.flatness.stability import WORDS, bounds

VERDICTS = {1.0: True, 0.0: None, -1.0: False}  # as ``measures`` has them, in numbers


def remarks(point, found) -> list[str]:
    """Of linear stability at the run's own rate, radius and batches; none where it is not known."""
    if "stable" not in found:
        return []
    eta, rho = point.learning_rate, point.train_rho
    kind = f"unnormalized SAM, rho = {rho:g}" if rho else "SGD"
    words = WORDS[VERDICTS[found["stable"]]]
    mean, until = found["mean_rate"], []
    if found["stable"] < 1:
        until.append(f"condition (5) is exceeded by {found['excess']:.2g}")
    if found.get("safe_rate", math.inf) < math.inf:
        until.append(f"stable up to {found['safe_rate']:.3g} at least")
    if mean > 0:
        until.append(f"the mean grows beyond {2 * eta / mean:.3g}")
    told = f" ({'; '.join(until)})" if until else ""
    lines = [
        f"At the run's rate {eta:g}, for {kind}, batches of {point.batch_size}: {words}{told}.",
        f"Bounds (6) there, for batches of one: {_held(found, bounds(eta, rho))}.",
    ]
    if rho >= eta / 2:
        lines[-1] = f"{lines[-1][:-1]}; those on s2, s3, s4 are not valid for rho >= eta / 2."
    if point.aside:
        lines.append(f"Not part of that theory, but of the run: {', '.join(point.aside)}.")
    return lines


def _held(found, limits):
    """``s2_any`` is left out: it needs what the others do not."""
    names = [name for name in ("a", "s2", "s3", "s4") if limits[name] < float("inf")]
    sides = {True: "<=", False: ">"}
    return ", ".join(
        f"{name} = {found[name]:.4g} {sides[found[name] <= limits[name]]} {limits[name]:.4g}"
        for name in names
    )
