"""Report of a single detection run."""

from collections import Counter

import numpy as np
import pytest

from tests.reporting.detection_case import make_case, make_matched_case
from tinyjax.data.records import Objects, build_split
from tinyjax.metrics import detection_errors
from tinyjax.metrics.detection import score
from tinyjax.reporting import detection, plotting
from tinyjax.run.csv_files import read_rows


@pytest.fixture
def low_resolution(monkeypatch):
    monkeypatch.setitem(plotting.STYLE, "savefig.dpi", 40)


def write_report(folder, **cases):
    suites = {name: split for name, (split, _) in cases.items()}
    predictions = {name: predicted for name, (_, predicted) in cases.items()}
    scores = {name: score(predictions[name], suites[name].truth, {}) for name in suites}
    detection.write_report(folder, suites, predictions, scores)
    return read_rows(folder / "per_class.csv")


FIGURES = ("precision_recall", "f1", "confusion", "per_class")
LONG_NAMES = tuple(f"a_vehicle_of_a_rather_long_name_and_number_{k}" for k in range(20))
CASES = {
    "one class": make_case(("person",)),
    "20 classes": make_case(LONG_NAMES, images=1),
    "no detections": make_case(("person", "car"), value=0.0),
    "not a number": make_case(("person", "car"), value=np.nan),
    "special characters": make_case(("_hidden", "$x$ and $y")),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CASES)
def test_report_of_edge_cases(tmp_path, low_resolution, name):
    split, predictions = CASES[name]
    rows = write_report(tmp_path, val=(split, predictions))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(FIGURES)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["worst_val.png"]
    assert [row["class"] for row in rows] == [*split.classes, "all"]


@pytest.mark.filterwarnings("error")
def test_report_without_objects(tmp_path, low_resolution):
    split, predictions = make_case(("person", "car"), value=0.0)
    no_objects = [Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool), np.zeros(0))] * 3
    empty = build_split(
        split.inputs["image"],
        no_objects,
        split.truth["images"],
        split.classes,
        split.scale,
        split.offset,
    )
    rows = write_report(tmp_path, val=(empty, predictions))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(FIGURES)
    assert not (tmp_path / "samples").exists()
    assert {row["AP50"] for row in rows} == {"nan"}


def test_report_of_several_suites(tmp_path, low_resolution):
    rows = write_report(
        tmp_path, val=make_case(("person", "car")), shift=make_case(("person", "car"), seed=1)
    )
    assert Counter(row["suite"] for row in rows) == {"val": 3, "shift": 3}
    assert {path.stem for path in (tmp_path / "samples").iterdir()} == {"worst_val", "worst_shift"}
    person = rows[0]
    assert (person["class"], person["images"], person["boxes"]) == ("person", "3", "6")
    # Half of the persons are detected with a score of 0.6; false positives score 0.3.
    assert [float(person[k]) for k in ("threshold", "precision", "recall")] == [0.6, 1.0, 0.5]
    assert float(person["F1"]) == pytest.approx(2 / 3)


def test_precision_recall_figure():
    split, predictions, matches = make_matched_case()
    scores = {"val": score(predictions, split.truth, {})}
    (axes,) = detection._draw_precision_recall({"val": matches}, scores).axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "val",
        "recall",
        "precision",
    )
    recall, precision = axes.lines[0].get_xydata().T
    # Half of the objects are detected without errors; then the curve falls to 0.
    np.testing.assert_allclose(recall, np.arange(52) / 100)
    np.testing.assert_allclose(precision, [1.0] * 51 + [0])
    legend = axes.get_legend()
    assert legend.get_title().get_text() == "AP50 (IoU 0.50)"
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["person  0.505", "car  0.505", "mean  0.505"]


def test_f1_figure_marks_the_best_threshold():
    matches = make_matched_case()[2]
    figure = detection._draw_f1(
        {"val": matches}, {"val": detection_errors.threshold_curves(matches)}
    )
    f1, precision, recall = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["F1", "precision", "recall"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"score threshold"}
    dots = [line.get_xydata()[0] for line in f1.lines if line.get_marker() == "o"]
    # Cars are detected with a score of 0.8, persons with 0.6.
    np.testing.assert_allclose(dots, [(0.6, 2 / 3), (0.8, 2 / 3), (0.6, 2 / 3)])
    texts = [text.get_text() for text in recall.get_legend().get_texts()]
    assert texts == ["person  0.667 at 0.600", "car  0.667 at 0.800", "mean  0.667 at 0.600"]
    assert np.isnan(precision.lines[0].get_ydata()[-1])  # no detection scores 1


def test_confusion_figure_shows_fractions_and_counts():
    matches = make_matched_case()[2]
    table = np.array([[3, 1, 0], [0, 399, 1], [2, 0, 0]])
    figure = detection._draw_confusion({"val": matches}, {"val": table}, {"val": 0.25})
    (axes,) = figure.axes
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {
        (0, 0): "75%\n3",
        (1, 0): "25%\n1",
        (1, 1): "100%\n399",
        (2, 1): "<1%\n1",
        (0, 2): "100%\n2",
    }
    assert [t.get_text() for t in axes.get_xticklabels()] == ["person", "car", "missed"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["person", "car", "background"]
    assert axes.get_title() == "val: IoU 0.50, scores from 0.250"


def test_per_class_figure():
    rows = [
        {"class": "person", "images": 2, "boxes": 1500, "AP": 0.25, "AP50": 0.5},
        {"class": "car", "images": 0, "boxes": 0, "AP": np.nan, "AP50": np.nan},
    ]
    (axes,) = detection._draw_per_class({"val": rows}).axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0, 0.25, 0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["0.500", "no objects", "0.250", "no objects"]
    assert axes.get_yticklabels()[0].get_text() == "person\n1,500 boxes, 2 images"


def test_figures_of_many_classes_show_the_most_frequent_ones(monkeypatch):
    monkeypatch.setattr(plotting, "MAX_CLASSES", 2)
    objects = detection_errors.Objects(np.zeros(6, int), np.array([0, 1, 1, 2, 3, 3]), np.ones(6))
    none = detection_errors.Detections(*np.zeros((6, 0)))
    matches = detection_errors.Matches(("a", "b", "c", "d"), 1, none, objects, np.ones((4, 101)))
    scores = {"AP50": 0.25, **{f"AP50/{name}": k / 10 for k, name in enumerate("abcd")}}
    (axes,) = detection._draw_precision_recall({"val": matches}, {"val": scores}).axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["b  0.100", "d  0.300", "mean  0.250"]
    table = np.arange(25).reshape(5, 5)
    (axes,) = detection._draw_confusion({"val": matches}, {"val": table}, {"val": 0.5}).axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["b", "d", "missed"]
    counts = [int(text.get_text().split("\n")[1]) for text in axes.texts]
    assert counts == [6, 8, 9, 16, 18, 19, 21, 23, 24]


def test_figures_name_the_protocol():
    split, predictions, matches = make_matched_case()
    scores = {"val": score(predictions, split.truth, {})}
    (axes,) = detection._draw_precision_recall({"val": matches}, scores, "voc2007").axes
    assert axes.get_legend().get_title().get_text() == "VOC AP, 11 points (IoU 0.50)"
    table = {"val": np.eye(3, dtype=int)}
    (axes,) = detection._draw_confusion({"val": matches}, table, {"val": 0.5}, "voc2007").axes
    assert "COCO's rules" in axes.get_xlabel()
