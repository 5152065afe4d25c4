"""The words and tables of the page; everything that comes from outside is escaped here."""

import html
import json

import pandas as pd

from samscale.study.report import frames, marks

FIRST = ["panel", "size", "num_params", "method"]
MAYBE = ["panel", "reason", "memory"]  # without a column where all runs are blank
LAST = ["seed", "select", "value", "status", "reason", "seconds", "gradients", "memory"]


def protocol(study) -> str:
    """By what data the nuisance values were chosen, as a sentence."""
    names = " and ".join(study.design.nuisance)
    if not names:
        return ""
    verb = "was" if len(study.design.nuisance) == 1 else "were"
    chosen = frames.headline(pd.DataFrame(study.analysis.chosen), "mean")
    if set(chosen.dropna(subset=list(study.design.nuisance), how="all")["protocol"]) == {"test"}:
        return f"The best {names} {verb} chosen on the test set, for want of a validation split."
    return (
        f"The best {names} {verb} chosen on validation data: for each seed, on those of the other "
        "seeds."
    )


def runs(study) -> dict:
    """All cells as columns and rows for ``page.js``, five significant digits a number."""
    cells, design = study.cells, study.design
    more = [name for name in cells.columns if str(name).startswith("flatness_")]
    names = [*FIRST, *design.nuisance, *LAST[:3], *more, *LAST[3:], "run_id"]
    frame = cells.reindex(columns=names)
    unit = frames.unit(design)
    percent = " (%)" if unit.factor == 100 else ""
    frame[["select", "value"]] = frame[["select", "value"]].astype(float) * unit.factor
    frame["memory"] = frame["memory"].astype(float) / 1e6
    frame = frame.drop(columns=[name for name in MAYBE if _blank(frame[name])])
    for name in frame.select_dtypes("float"):
        values = frame[name].to_numpy()
        frame[name] = values if name == "num_params" else marks.significant(values)
    words = {"select": f"validation{percent}", "value": f"test{percent}", "memory": "memory (MB)"}
    frame = frame.rename(columns={**words, "num_params": "parameters"})
    text = frame.to_json(orient="split", index=False)
    table = json.loads(text)
    return {"columns": table["columns"], "rows": table["data"]}


def _blank(column):
    return (column.isna() | column.eq("")).all()


def sentences(table, said="") -> str:
    """What the analysis says below a chart, a line each, without what has been said before."""
    table = pd.DataFrame(table)
    if "sentence" not in table or table.empty:
        return ""
    if "protocol" in table:
        table = frames.headline(table, "sentence")
    return plain([str(text) for text in table["sentence"].dropna() if str(text) not in said])


def plain(new) -> str:
    """Sentences, a line each; many fold away."""
    if len(new) <= 3:
        return "".join(f"<p>{html.escape(text)}</p>" for text in new)
    items = "".join(f"<li>{html.escape(text)}</li>" for text in new)
    return f"<details><summary>In {len(new)} sentences</summary><ul>{items}</ul></details>"


def gains(study) -> str:
    """Every mean gain with its intervals, for each way of choosing the nuisance values."""
    names = ["panel", "size", "method", "against", "protocol", "n", "mean", "low", "high", "bias"]
    ranks = {"middle": "median of pairs", "rank_low": "its low", "rank_high": "its high"}
    names += [*ranks, "rank_level", "p", "p_holm"]
    frame = pd.DataFrame(study.analysis.gains).reindex(columns=names)
    numbers = ["mean", "low", "high", "bias", *ranks]
    unit = frames.unit(study.design)
    frame[numbers] = frame[numbers].astype(float) * unit.factor
    tested = frame["p"].notna().sum()
    frame["rank_level"] = frame["rank_level"].map("{:.1%}".format, na_action="ignore")
    frame = frame.rename(
        columns=ranks | {"rank_level": "its level", "p_holm": f"p, Holm of {tested}"}
    )
    note = (
        f"All gains in numbers, in {unit.short}. bias: what a protocol adds to the gain by other "
        "seeds. median of pairs: Hodges and Lehmann's, with the signed-rank interval at its level. "
        f"p, Holm of {tested}: adjusted for as many gains"
    )
    return _details(note, frame, signed=[*numbers, *ranks.values()])


def agreement(study) -> str:
    """Our numbers less the paper's, with the errors of both, for each point and each slope."""
    frame = pd.DataFrame(study.analysis.agreement)
    if frame.empty:
        return ""
    unit = frames.unit(study.design)
    numbers = ["ours", "ours_sem", "paper", "paper_sem", "difference", "low", "high"]
    frame[numbers] = frame[numbers].astype(float) * unit.factor
    frame = frame.drop(columns=["x", "sem"]).rename(columns={"ours_sem": "its sem"})
    frame = frame.rename(columns={"paper_sem": "the paper's sem", "sizes": "of sizes"})
    note = f"Agreement with the paper, in {unit.short}; slopes per {_step(study.design)}"
    return _details(note, frame, signed=["difference", "low", "high"])


def _step(design):
    return "factor of ten" if design.log_x else f"unit of {design.x_name}"


def correlations(table) -> str:
    """Every rank correlation of a measure of flatness with the metric, and its p."""
    names = {
        "p_adjusted": "p",
        "rho_given_loss": "rho at matched loss",
        "p_given_loss_adjusted": "p at matched loss",
    }
    columns = ["measure", "comparison", "scope", "n", "rho", *names, "least_p"]
    frame = table.reindex(columns=columns).rename(columns=names)
    note = "All rank correlations in numbers; p after Benjamini and Hochberg"
    return _details(note, frame, signed=("rho", "rho at matched loss"))


def costs(study) -> str:
    """Cost by size and method, and the gain that it buys."""
    frame = frames.costs(study).drop(columns="x")
    extra = 100 * frame.pop("extra")
    frame.insert(6, "extra gradients (%)", extra)
    frame = frame.rename(columns={"memory": "memory (MB)", "efficiency": "gain per +100 %"})
    return _details("Costs in numbers", frame)


def reproduce(info) -> str:
    """Commands, versions, and what every run of the study has in common."""
    commands = "\n".join(map(str, info.get("commands", ())))
    parts = [f"<pre>{html.escape(commands)}</pre>"] if commands else []
    environment = {str(k): str(v) for k, v in (info.get("environment") or {}).items()}
    if environment:
        parts.append(_table(pd.DataFrame(environment.items(), columns=["environment", "version"])))
    if info.get("axes"):
        axes = "".join(f"<li>{html.escape(str(axis))}</li>" for axis in info["axes"])
        parts.append(f"<p>What varies:</p><ul>{axes}</ul>")
    if info.get("base"):
        base = json.dumps(info["base"], indent=1, default=str, ensure_ascii=False)
        summary = "<summary>What all runs share</summary>"
        parts.append(f"<details>{summary}<pre>{html.escape(base)}</pre></details>")
    return "".join(parts)


def _details(title, frame, signed=()):
    if frame.empty:
        return ""
    table = _table(frame.dropna(axis="columns", how="all"), signed)
    return f"<details><summary>{html.escape(title)}</summary>{table}</details>"


def _table(frame, signed=()):
    if "panel" in frame and not frame["panel"].any():
        frame = frame.drop(columns="panel")
    heads = "".join(f"<th>{html.escape(str(name))}</th>" for name in frame.columns)
    lines = []
    for row in frame.itertuples(index=False):
        pairs = zip(frame.columns, row, strict=True)
        cells = (f"<td>{html.escape(_word(value, name in signed))}</td>" for name, value in pairs)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{body}</table></div>'


def _word(value, signed):
    if isinstance(value, float):
        if value != value:
            return ""
        return (
            f"{value:+.2f}" if signed else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        )
    return str(value)
