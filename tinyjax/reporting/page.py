"""The report as one self-contained HTML file."""

import base64
import json
import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.config.parsing import leaves_with_path
from tinyjax.reporting import exported_files
from tinyjax.reporting.grouping import count_text
from tinyjax.reporting.html_table import Column, has_value, rows_html
from tinyjax.reporting.summary import Summary
from tinyjax.reporting.tables import EVALUATION_PREFIX, Condition, Tables

PIXEL_RATIO = 2  # image pixels per CSS pixel
COMMAND_PREFIX, COMMIT_PREFIX = "command: ", "commit: "  # of lines of environment.txt
DEFINITIONS = {
    "in domain": "the suite that selects a run's best weights (monitor)",
    "shifted": "mean score of all other uncorrupted suites",
    "gap, relative drop": "in-domain score minus shifted score; gap divided by in-domain score. "
    "For a suite with fewer classes, the in-domain score is over these classes only",
    "effective robustness": "shifted score minus the score predicted from the in-domain score by a "
    "line, linear in logits, fitted to the members of all other networks (Taori et al. 2020)",
    "worst slice": "lowest score of the slices with at least 50 objects or images",
    "mPC, rPC": "mean score over severities, then over corruptions; mPC divided by the clean score "
    "(Michaelis et al. 2019)",
    "ECE": "mean distance between confidence and precision, over bins of confidence (Guo et al. "
    "2017; for detections with a score of at least 0.1, Kueppers et al. 2020)",
    "RGN": "relative gradient norm: norm of the gradient divided by that of the weights, mean over "
    "the backbone's layers",
    "capacity threshold": "number of parameters above which the gain of pretraining starts to "
    "grow: the break of a fitted broken line, if a straight line fits significantly worse",
    "interval": "95 %, for new seeds and new {0}; with one seed, for new {0} only",
    "network, member": "a member is one trained set of weights, weights/<member>.safetensors (the "
    "last EMA weights); members that differ only in their seed are one network",
}


SCORE_DEFINITIONS = {  # what the names of scores do not say
    "APr": "mean over classes with fewer than 10 training images",
    "APc": "mean over classes with 10 to 99 training images",
    "APf": "mean over classes with 100 or more training images",
    "mAP": "mean over the queries of the average precision, over all their matches in the gallery",
    "R1": "fraction of the queries whose first match has rank 1",
    "mINP": "mean over the queries of (number of matches) / (rank of the last match) (Ye et al. "
    "2021)",
    "AP fixed": "AP of the 10,000 highest-scored detections of each class, without a limit "
    "per image (Dave et al. 2021)",
}


class PageFigure(NamedTuple):
    """A figure that was written to a file."""

    name: str
    title: str
    file: Path
    width: int  # on the page, CSS pixels times PIXEL_RATIO
    alt: str
    note: str


def render(
    tables: Tables,
    summary: Summary,
    findings: Iterable[str],
    figures: Sequence[PageFigure],
    notes: Iterable[str] = (),
) -> str:
    """Return the page as HTML. Text from run folders is escaped.

    notes: why something is not shown.
    """
    resources = files("tinyjax.reporting")
    sections = {"Findings": _findings_html(findings), "Members": _members_html(tables, summary)}
    if records := exported_files.read(tables):
        sections["Exported files"] = exported_files.to_html(records)
    for figure in figures:
        sections[figure.title] = sections.get(figure.title, "") + _figure_html(figure)
    if not_shown := "".join(f"<p>{escape(note)}</p>" for note in notes):
        sections["Not shown"] = not_shown
    sections["Configuration"] = _configuration_html(tables)
    sections["Definitions"] = _definitions_html(tables, summary)
    links = "\n".join(f'<a href="#s{k}">{escape(title)}</a>' for k, title in enumerate(sections))
    body = "".join(
        f'<section id="s{k}"><h2>{escape(title)}</h2>\n{html}</section>\n'
        for k, (title, html) in enumerate(sections.items())
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
{(resources / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>{name}</h1>
{_header_html(tables)}
</header>
<nav>{links}</nav>
<main>
{body}</main>
<script>
{(resources / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _header_html(tables: Tables) -> str:
    """Date, folder, task, and commands, commit and machine of each run."""
    entries = {
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "folder": str(tables.folder),
        "task": f"{tables.task.name}, {count_text(len(tables.members), 'member')}",
    }
    for run, lines in tables.environment.items():
        suffix = f" of {run}" if run else ""
        for name, prefix in (
            ("command", COMMAND_PREFIX),
            ("commit", COMMIT_PREFIX),
            ("evaluation", EVALUATION_PREFIX),
        ):
            if texts := [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]:
                entries[f"{name}{suffix}"] = texts[0]
        machine = [
            line
            for line in lines
            if not line.startswith((COMMAND_PREFIX, COMMIT_PREFIX, EVALUATION_PREFIX))
        ]
        if machine:  # Python version and machine; packages follow
            entries[f"machine{suffix}"] = "; ".join(machine[:2][::-1])
    code_names = {name for name in entries if name.startswith(("command", "evaluation"))}
    return _definition_list(entries, code_names)


def _definition_list(entries: Mapping[str, str], code_names: Collection[str] = ()) -> str:
    """An HTML list of name -> text; the texts of `code_names` are shown as code."""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>"
        + (f"<code>{escape(text)}</code>" if name in code_names else escape(text))
        + "</dd>\n"
        for name, text in entries.items()
    )
    return f"<dl>\n{rows}</dl>"


def _findings_html(findings: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in findings)
    return (
        f'<ul class="findings">\n{items}</ul>\n'
        '<p class="note">In brackets: 95 % intervals. A difference is not significant if its '
        "interval contains zero; this does not show that there is no difference.</p>"
    )


# ---- the table of members


def member_columns(tables: Tables, summary: Summary) -> list[Column]:
    """Columns of the table of members, without empty ones."""
    members, metric = tables.members, tables.metric_label
    rows = [summary.members[member.key] for member in members]
    fields = [{**member.varied, **member.start_fields} for member in members]
    suites = tables.suites if len(tables.suites) > 2 else ()
    some_frozen = any(member.trained_share < 1 for member in members)
    trained = [member.trained_parameters if some_frozen else math.nan for member in members]
    columns = [
        Column("member", "text", "hash of the fields that distinguish it", [m.id for m in members]),
        Column("run", "choice", "subfolder of the study", [m.run for m in members]),
        Column("backbone", "choice", "", [m.backbone for m in members]),
        Column("parameters", "number", "", [m.parameters for m in members], ","),
        Column("trained", "number", "parameters that are not frozen", trained, ","),
        Column("multiply-adds", "number", "per image", [m.multiply_adds for m in members], ","),
        Column("seed", "number", "", [m.seed for m in members], "d"),
        Column("start", "choice", "starting weights", [m.start for m in members]),
        *(
            Column(field, "choice", "varied field", [values.get(field, "") for values in fields])
            for field in dict.fromkeys(field for values in fields for field in values)
        ),
        Column("in domain", "number", f"in-domain {metric}", [r.in_domain for r in rows]),
        *(
            Column(name, "number", f"in-domain {label}", _in_domain_scores(tables, name))
            for name, label in tables.metrics.items()
            if name != tables.metric
        ),
        Column("shifted", "number", f"{metric}, mean of suites", [r.shifted for r in rows]),
        *(
            Column(suite, "number", metric, [tables.score(m, Condition(suite)) for m in members])
            for suite in suites
        ),
        Column("gap", "number", "in domain minus shifted", [r.gap for r in rows]),
        Column("rel. drop", "number", "gap / in domain", [r.relative_drop for r in rows]),
        Column("eff. rob.", "number", "see Definitions", [r.effective_robustness for r in rows]),
        Column("worst slice", "number", "lowest slice score", [r.worst_slice[1] for r in rows]),
        Column("mPC", "number", "mean over corruptions", [r.mpc for r in rows]),
        Column("rPC", "number", "mPC / clean score", [r.rpc for r in rows]),
        Column("ECE", "number", "in-domain calibration error", [r.ece for r in rows]),
        Column("RGN", "number", "relative gradient norm", [m.rgn for m in members], ".3g"),
        Column("name of worst slice", "text", "suite/slice", [r.worst_slice[0] for r in rows]),
    ]  # fmt: skip
    if any(member.diverged_at >= 0 for member in members):
        steps = [m.diverged_at if m.diverged_at >= 0 else math.nan for m in members]
        columns.append(Column("diverged at", "number", "step", steps, ".0f"))
    return [column for column in columns if any(has_value(cell) for cell in column.cells)]


def _in_domain_scores(tables: Tables, column: str) -> list[float]:
    return [tables.score(m, Condition(m.in_domain), column) for m in tables.members]


def _members_html(tables: Tables, summary: Summary) -> str:
    columns = member_columns(tables, summary)
    titles = "".join(
        f'<th scope="col" class="{c.type}" data-type="{c.type}" title="{escape(c.help)}">'
        f'<button type="button">{escape(c.title)}</button></th>'
        for c in columns
    )
    return (
        f"{_filters_html(columns, len(tables.members))}\n"
        f'<div class="scroll"><table class="members">\n<thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{rows_html(columns)}</tbody>\n</table></div>\n"
        '<p class="note">Click on a column title to sort; click again to reverse the order.</p>'
    )


def _filters_html(columns: Sequence[Column], num_members: int) -> str:
    """A text filter, and a drop-down list for each "choice" column with several values."""
    controls = ['<label>filter <input type="search" placeholder="any words"></label>']
    for k, column in enumerate(columns):
        values = sorted({str(cell) for cell in column.cells})
        if column.type == "choice" and len(values) > 1:
            options = "".join(
                f'<option value="{escape(v)}">{escape(v or "(default)")}</option>' for v in values
            )
            controls.append(
                f'<label>{escape(column.title)} <select data-column="{k}">'
                f"<option>all</option>{options}</select></label>"
            )
    count = f"<output>{count_text(num_members, 'member')}</output>"
    show_all = '<button type="button" hidden></button>'
    return f'<div class="filters">{"".join(controls)}{count}{show_all}</div>'


# ---- figures, configuration, definitions


def _figure_html(figure: PageFigure) -> str:
    data = base64.b64encode(figure.file.read_bytes()).decode()
    note = f"<figcaption>{escape(figure.note)}</figcaption>" if figure.note else ""
    return (
        f'<figure id="{escape(figure.name)}"><img alt="{escape(figure.alt)}" '
        f'width="{figure.width // PIXEL_RATIO}" src="data:image/png;base64,{data}">'
        f"{note}</figure>\n"
    )


def _configuration_html(tables: Tables) -> str:
    """Fields in which members and runs differ, and the full config of the first run."""
    (first_run, first_config), *others = tables.configs.items()
    html = ""
    if varied := _varied_fields(tables):
        html += f"<p>Members differ in</p>{_definition_list(varied)}\n"
    for run, config in others:
        if differences := _differences(first_config, config):
            title = f"{escape(run)} differs from {escape(first_run)} in"
            html += f"<p>{title}</p>{_definition_list(differences)}\n"
    text = escape(json.dumps(first_config, indent=2, sort_keys=True))
    suffix = f" of {escape(first_run)}" if first_run else ""
    return f"{html}<details><summary>Full config{suffix}</summary><pre>{text}</pre></details>"


def _varied_fields(tables: Tables) -> dict[str, str]:
    """Field -> its values, for fields in which members differ."""
    fields = [{**member.varied, **member.start_fields} for member in tables.members]
    values = {
        field: sorted({member_fields.get(field, "") for member_fields in fields})
        for field in dict.fromkeys(field for member_fields in fields for field in member_fields)
    }
    values["backbone"] = sorted({member.backbone for member in tables.members})
    values["seed"] = sorted({str(member.seed) for member in tables.members}, key=int)
    values["start"] = sorted({member.start for member in tables.members})
    return {
        field: _join_truncated(texts) for field, texts in sorted(values.items()) if len(texts) > 1
    }


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, str]:
    a, b = (dict(leaves_with_path(config)) for config in (first, second))
    return {
        path: f"{b.get(path, 'absent')} instead of {a.get(path, 'absent')}"
        for path in sorted(a.keys() | b.keys())
        if a.get(path) != b.get(path)
    }


def _definitions_html(tables: Tables, summary: Summary) -> str:
    """Definitions of the task's scores, and of all others but those that no member has."""
    members = summary.members.values()
    omitted = {
        "worst slice": not any(member.worst_slice[0] for member in members),
        "ECE": not any(has_value(member.ece) for member in members),
    }
    definitions = {
        name: text.format(tables.task.words.resampled)
        for name, text in DEFINITIONS.items()
        if not omitted.get(name)
    }
    scores = {
        name: "; ".join(filter(None, [label, SCORE_DEFINITIONS.get(name)]))
        for name, label in tables.metrics.items()
    }
    scores[tables.metric] += (
        "; the score in all figures unless stated otherwise. Intervals and ECE follow its rules"
        if "ECE" in definitions
        else "; the score in all figures unless stated otherwise"
    )
    return _definition_list({**scores, **definitions})


def _join_truncated(values: Sequence[str], max_values: int = 12) -> str:
    more = f" and {len(values) - max_values} more" if len(values) > max_values else ""
    return ", ".join(value or "(default)" for value in values[:max_values]) + more
