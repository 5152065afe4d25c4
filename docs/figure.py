"""Draw docs/demo.svg from the run folders of ``make demo``.

pip install altair vl-convert-python; python docs/figure.py runs/demo docs/demo.svg
"""

import json
import pathlib
import sys

import altair as alt


def rows(workdir):
    for done in pathlib.Path(workdir).glob("*/done"):
        config = json.loads((done.parent / "config.json").read_text())
        last = json.loads((done.parent / "metrics.jsonl").read_text().splitlines()[-1])
        yield {
            "method": config["optimizer"].upper(),
            "parameters": last["num_params"],
            "accuracy": 100 * last["test_accuracy"],
        }


def chart(values):
    colour = alt.Color("method:N", title=None, scale=alt.Scale(range=["#0072B2", "#D55E00"]))
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X("parameters:Q", title="Parameters", scale=alt.Scale(type="log")),
        color=colour,
    )
    y = {"title": "Test accuracy (%)", "scale": alt.Scale(zero=False)}
    seeds = base.mark_circle(opacity=0.5, size=45).encode(
        y=alt.Y("accuracy:Q", **y), xOffset="method:N"
    )
    line = base.mark_line(point=True).encode(y=alt.Y("mean(accuracy):Q", **y))
    layers = line + seeds.encode(xOffset=alt.Undefined)
    return layers.properties(width=460, height=240, background="white")


if __name__ == "__main__":
    chart(sorted(rows(sys.argv[1]), key=lambda row: row["parameters"])).save(sys.argv[2])
