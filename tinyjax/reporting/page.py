"""The report as one HTML file, which needs nothing but itself."""

import base64
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.config import leaves
from tinyjax.reporting.summary import Summary, counted
from tinyjax.reporting.tables import EVALUATED, Part, Tables

PIXELS = 2  # of a picture, for one of the page
COMMAND, COMMIT = "command: ", "commit: "  # what the lines of environment.txt begin with


class Picture(NamedTuple):
    """A figure that was written to a file."""

    name: str
    title: str
    file: Path
    width: int  # pixels of the file
    alt: str
    note: str


class Column(NamedTuple):
    """Of the table of members."""

    title: str
    kind: str  # "number", "text", or "choice": text of a few values, which can be chosen from
    help: str
    cells: Sequence[Any]
    format: str = ".3f"  # of numbers


def html(
    tables: Tables,
    summary: Summary,
    findings: Iterable[str],
    pictures: Sequence[Picture],
    notes: Iterable[str] = (),
) -> str:
    """The page. notes: lines on what could not be shown. All that is not ours is escaped."""
    room = files("tinyjax.robust")
    sections = {"Findings": _findings(findings), "Members": _members(tables, summary)}
    for picture in pictures:
        sections[picture.title] = sections.get(picture.title, "") + _figure(picture)
    if missing := "".join(f"<p>{escape(note)}</p>" for note in notes):
        sections["Not shown"] = missing
    sections["Configuration"] = _configuration(tables)
    sections["How numbers are defined"] = _definitions(tables)
    links = "\n".join(f'<a href="#s{k}">{escape(title)}</a>' for k, title in enumerate(sections))
    parts = "".join(
        f'<section id="s{k}"><h2>{escape(title)}</h2>\n{body}</section>\n'
        for k, (title, body) in enumerate(sections.items())
    )
    name = escape(tables.folder.resolve().name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: tinyjax report</title>
<link rel="icon" href="data:,">
<style>
{(room / "page.css").read_text()}</style>
</head>
<body>
<header>
<h1>{name}</h1>
{_about(tables)}
</header>
<nav>{links}</nav>
<main>
{parts}</main>
<script>
{(room / "page.js").read_text()}</script>
</body>
</html>
"""


def _about(tables: Tables) -> str:
    """When, where, which task, by which command on which machine."""
    lines = {
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "folder": str(tables.folder),
        "task": f"{tables.task}, {counted(len(tables.members), 'member')}",
    }
    for run, said in tables.said.items():
        of = f" of {run}" if run else ""
        for name, start in (
            ("command", COMMAND), ("commit", COMMIT), ("evaluated by", EVALUATED),
        ):  # fmt: skip
            if found := [line.removeprefix(start) for line in said if line.startswith(start)]:
                lines[f"{name}{of}"] = found[0]
        said = [line for line in said if not line.startswith((COMMAND, COMMIT, EVALUATED))]
        if said:
            lines[f"machine{of}"] = "; ".join(said[:2][::-1])
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>"
        + (
            f"<code>{escape(text)}</code>"
            if name.startswith(("command", "evaluated"))
            else escape(text)
        )
        + "</dd>\n"
        for name, text in lines.items()
    )
    return f"<dl>\n{rows}</dl>"


def _findings(findings: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in findings)
    return (
        f'<ul class="findings">\n{items}</ul>\n'
        '<p class="note">In brackets: 95 % intervals. "Not shown" is what an interval with zero in '
        "it leaves open; it does not say that there is nothing.</p>"
    )


def columns(tables: Tables, summary: Summary) -> list[Column]:
    """Of the table of members; a column without any value is left out."""
    members, score = tables.members, tables.title
    numbers = [summary.numbers[member.key] for member in members]
    own = [{**member.varied, **member.tied} for member in members]
    fields = dict.fromkeys(field for fields in own for field in fields)
    several = [suite for suite in tables.suites if len(tables.suites) > 2]
    found = [
        Column("member", "text", "hash of what sets it apart", [m.id for m in members]),
        Column("run", "choice", "subfolder of the study", [m.run for m in members]),
        Column("backbone", "choice", "", [m.backbone for m in members]),
        Column("parameters", "number", "", [m.parameters for m in members], ","),
        Column("multiply-adds", "number", "of one image", [m.multiply_adds for m in members], ","),
        Column("seed", "number", "", [m.seed for m in members], "d"),
        Column("start", "choice", "starting weights", [m.start for m in members]),
        *(
            Column(field, "choice", "varied", [fields.get(field, "") for fields in own])
            for field in fields
        ),
        Column("in domain", "number", f"{score} in the own domain", [n.home for n in numbers]),
        Column("shifted", "number", f"{score}, mean of suites", [n.shifted for n in numbers]),
        *(
            Column(suite, "number", score, [tables.of(m, Part(suite)) for m in members])
            for suite in several
        ),
        Column("gap", "number", "in domain less shifted", [n.gap for n in numbers]),
        Column("rel. drop", "number", "gap / in domain", [n.drop for n in numbers]),
        Column("eff. rob.", "number", "effective robustness", [n.effective for n in numbers]),
        Column("worst slice", "number", "lowest score of a slice", [n.worst[1] for n in numbers]),
        Column("mPC", "number", "mean over corruptions", [n.mpc for n in numbers]),
        Column("rPC", "number", "mPC / clean score", [n.rpc for n in numbers]),
        Column("ECE", "number", "calibration error in domain", [n.ece for n in numbers]),
        Column("RGN", "number", "relative gradient norm", [m.rgn for m in members], ".3g"),
        Column("which slice is worst", "text", "suite/slice", [n.worst[0] for n in numbers]),
    ]  # fmt: skip
    if any(member.diverged_at >= 0 for member in members):
        steps = [m.diverged_at if m.diverged_at >= 0 else math.nan for m in members]
        found.append(Column("stopped at", "number", "step", steps, ".0f"))
    return [column for column in found if any(_known(cell) for cell in column.cells)]


def _members(tables: Tables, summary: Summary) -> str:
    found = columns(tables, summary)
    heads = "".join(
        f'<th scope="col" class="{c.kind}" data-kind="{c.kind}" title="{escape(c.help)}">'
        f'<button type="button">{escape(c.title)}</button></th>'
        for c in found
    )
    rows = "".join(
        f"<tr>{''.join(cells)}</tr>\n" for cells in zip(*map(_cells, found), strict=True)
    )
    return (
        f"{_choices(found, len(tables.members))}\n"
        f'<div class="scroll"><table class="members">\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table></div>\n"
        '<p class="note">A click on a column\'s head sorts by it, a second one the other way.</p>'
    )


def _cells(column: Column) -> list[str]:
    if column.kind != "number":
        return [f"<td>{escape(str(cell))}</td>" for cell in column.cells]
    return [
        f'<td class="number" data-v="{cell!r}">{_text(cell, column.format)}</td>'
        if _known(cell)
        else '<td class="number"></td>'
        for cell in column.cells
    ]


def _text(number: float, how: str) -> str:
    """A number as text; no "-0.000"."""
    text = f"{number:{how}}"
    return text.removeprefix("-") if set(text) <= {*"-0."} else text


def _choices(found: Sequence[Column], members: int) -> str:
    """A text filter, and a choice for each column of words that differ."""
    boxes = ['<label>filter <input type="search" placeholder="any words"></label>']
    for k, column in enumerate(found):
        values = sorted({str(cell) for cell in column.cells})
        if column.kind == "choice" and len(values) > 1:
            options = "".join(
                f'<option value="{escape(v)}">{escape(v or "(default)")}</option>' for v in values
            )
            boxes.append(
                f'<label>{escape(column.title)} <select data-column="{k}">'
                f"<option>all</option>{options}</select></label>"
            )
    count = f'<output>{counted(members, "member")}</output><button type="button" hidden></button>'
    return f'<div class="choices">{"".join(boxes)}{count}</div>'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.file.read_bytes()).decode()
    note = f"<figcaption>{escape(picture.note)}</figcaption>" if picture.note else ""
    return (
        f'<figure id="{escape(picture.name)}"><img alt="{escape(picture.alt)}" '
        f'width="{picture.width // PIXELS}" src="data:image/png;base64,{data}">{note}</figure>\n'
    )


def _configuration(tables: Tables) -> str:
    """The first config whole, what others have else, and what members vary."""
    (first, config), *others = tables.configs.items()
    own = [{**member.varied, **member.tied} for member in tables.members]
    fields = {
        field: sorted({values.get(field, "") for values in own})
        for field in dict.fromkeys(field for values in own for field in values)
    }
    fields["backbone"] = sorted({member.backbone for member in tables.members})
    fields["seed"] = sorted({str(member.seed) for member in tables.members}, key=int)
    fields["start"] = sorted({member.start for member in tables.members})
    varied = "".join(
        f"<dt>{escape(field)}</dt><dd>{escape(_few(values))}</dd>\n"
        for field, values in sorted(fields.items())
        if len(values) > 1
    )
    said = f"<p>Members differ in</p><dl>\n{varied}</dl>\n" if varied else ""
    for run, other in others:
        rows = "".join(
            f"<dt>{escape(path)}</dt><dd>{escape(text)}</dd>\n"
            for path, text in _differences(config, other)
        )
        if rows:
            said += f"<p>{escape(run)} differs from {escape(first)} in</p><dl>\n{rows}</dl>\n"
    whole = escape(json.dumps(config, indent=2, sort_keys=True))
    of = f" of {escape(first)}" if first else ""
    return f"{said}<details><summary>The whole config{of}</summary><pre>{whole}</pre></details>"


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    a, b = (dict(leaves(config)) for config in (one, other))
    for path in sorted(a.keys() | b.keys()):
        if a.get(path) != b.get(path):
            yield path, f"{b.get(path, 'absent')} instead of {a.get(path, 'absent')}"


def _definitions(tables: Tables) -> str:
    names = {
        tables.score: f"{tables.title}; the score that all figures show unless they say otherwise",
        "in domain": "the suite that picks a run's best weights (monitor)",
        "shifted": "mean of all other uncorrupted suites",
        "gap, relative drop": "in domain less shifted; the same as a part of in domain. For a "
        "suite of fewer classes the score in domain is that of these alone",
        "effective robustness": "shifted score less that which the line through all other members, "
        "straight in logits, expects of the in-domain score (Taori et al. 2020)",
        "worst slice": "lowest score of a slice with enough objects or images to be judged",
        "mPC, rPC": "mean over corruptions' severities, then kinds; as a part of the clean score "
        "(Michaelis et al. 2019)",
        "ECE": "mean distance of confidence and precision, by bins of confidence (Guo et al. 2017; "
        "of detections that score 0.1 or more Kueppers et al. 2020)",
        "RGN": "norm of the gradient over that of the weights, mean over the backbone's layers",
        "capacity threshold": "parameters above which the gain of pretraining starts to grow, by a "
        "fitted break that a straight line does not explain",
        "interval": "95 %, for new seeds and new images; of one seed for new images alone",
        "member": "one network; its weights are weights/<member>.safetensors, the last averaged "
        "ones",
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>\n" for k, v in names.items())
    return f"<dl>\n{rows}</dl>"


def _few(values: Sequence[str], most: int = 12) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(value or "(default)" for value in values[:most]) + more


def _known(cell: Any) -> bool:
    return math.isfinite(cell) if isinstance(cell, int | float) else bool(cell)
