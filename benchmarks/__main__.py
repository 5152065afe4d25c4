"""Every speed that the project promises, as one table.

python -m benchmarks            # all, about half an hour on two cores
python -m benchmarks mlp cost   # some
"""

import sys

from benchmarks import cost, family, flatness, flatness_peers, mlp, report, resnet, startup, study
from samscale.training.compiled import keep_programs

PARTS = {
    "mlp": mlp,
    "cost": cost,
    "family": family,
    "flatness": flatness,
    "flatness_peers": flatness_peers,
    "startup": startup,
    "study": study,
    "report": report,
    "resnet": resnet,
}


def main(names):
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"{unknown[0]!r}: choose some of {', '.join(PARTS)}")
    keep_programs()
    for name in names or PARTS:
        for row in PARTS[name].rows():
            print(f"{row.value:8.2f}  {row.verdict():16}  {row.what}\n{'':28}{row.detail}")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
