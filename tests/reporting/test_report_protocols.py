"""Reports of detectors whose scores follow other protocols, and of many classes."""

import json

import pytest

from tests.reporting.reports import SMALL, write
from tinyjax import report
from tinyjax.errors import UserError
from tinyjax.reporting import heatmaps, page, summary, tables
from tinyjax.tasks import get_task


@pytest.mark.parametrize(
    ("protocol", "label", "columns"),
    [
        (
            "lvis",
            "LVIS AP50 (IoU 0.50)",
            {"APr": 0.125, "APc": 0.25, "APf": 0.375, "AP fixed": 0.5},
        ),
        ("voc2007", "VOC AP, 11 points (IoU 0.50)", {}),
    ],
)
def test_the_page_names_the_protocol(tmp_path, without_figures, protocol, label, columns):
    write(tmp_path, sizes=["s-6"], starts=[""], seeds=1, protocol=protocol, **SMALL)
    assert report.main([str(tmp_path)]) == 0
    contents = tables.read(tmp_path, get_task)
    table = {c.title: c.cells for c in page.member_columns(contents, summary.summarize(contents))}
    assert {name: table[name] for name in columns} == {n: [v] for n, v in columns.items()}
    html = (tmp_path / "report.html").read_text()
    assert f"On the in-domain suite val, {label} is" in html
    assert all(f"<dt>{name}</dt>" in html for name in columns)


def test_an_evaluation_may_use_another_protocol(tmp_path):
    """Then the scores that training recorded are left out: they are of the other protocol."""
    write(tmp_path, sizes=["s-6"], starts=[""], seeds=1, **(SMALL | {"steps": (300,)}))
    assert {*next(iter(tables.read(tmp_path, get_task).curves.values()))} == {"loss", "score"}
    file = tmp_path / "evaluations" / "last.json"
    evaluation = json.loads(file.read_text())
    evaluation["config"]["score"]["protocol"] = "voc"
    file.write_text(json.dumps(evaluation))
    contents = tables.read(tmp_path, get_task)
    assert contents.metric_label == "VOC AP, area (IoU 0.50)"
    assert {*next(iter(contents.curves.values()))} == {"loss"}


def test_runs_with_different_protocols_cannot_be_compared(tmp_path):
    for name in ("coco", "lvis"):
        write(tmp_path / name, sizes=["s-6"], seeds=1, protocol=name, **SMALL)
    with pytest.raises(UserError, match=r"cannot be compared \(coco: AP50 .*, lvis: LVIS AP50"):
        tables.read(tmp_path, get_task)


def test_heat_map_of_many_classes_has_sizes_only(tmp_path):
    write(tmp_path, sizes=["s-6"], starts=[""], seeds=1, **SMALL)
    contents = tables.read(tmp_path, get_task)
    (key,) = contents.scores
    val = contents.scores[key][tables.Condition("val")]
    val |= {f"AP50/class{k}": 0.5 for k in range(80)}
    figure = heatmaps.draw_classes_and_sizes(contents, summary.summarize(contents))
    assert [t.get_text() for t in figure.figure.axes[0].get_xticklabels()] == [
        "<8", "8-16", "16-32", ">32"
    ]  # fmt: skip
    assert figure.note.startswith("The scores of the 83 classes are in evaluations/last.csv. ")
