import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tinyjax.data.records import Objects, stack
from tinyjax.metrics import detection_errors
from tinyjax.metrics.detection import score
from tinyjax.reporting import figures
from tinyjax.tasks import detect


def write(path, rows):
    lines = [",".join(str(v) for v in row) for row in rows]
    path.write_text("\n".join(["step,split,metric,value", *lines]) + "\n")


def training(steps=range(10, 200, 10)):
    for step in steps:
        yield step, "train", "loss", 3.0 / step
        yield step, "train", "class_loss", 1.0 / step
        yield step, "train", "lr", 1e-3
        yield step, "train", "positives", 300


def evaluations(steps=(100, 200)):
    for step in steps:
        for suite in ("val", "shift"):
            yield step, suite, "AP", 0.001 * step
            yield step, suite, "AP50", 0.002 * step
            yield step, suite, "AP/person", "nan"


@pytest.mark.parametrize(
    ("rows", "made"),
    [
        ([*training(), *evaluations()], {"training.png", "scores.png"}),
        ([*training([10])], {"training.png"}),
        ([*evaluations([0])], {"scores.png"}),
        ([], set()),
    ],
)
def test_curves(tmp_path, rows, made):
    write(tmp_path / "metrics.csv", rows)
    figures.curves(tmp_path / "metrics.csv", tmp_path / "figures", detect.SCORES)
    assert {path.name for path in tmp_path.glob("figures/*")} == made
    for name in made:
        pixels = np.asarray(Image.open(tmp_path / "figures" / name).convert("L"))
        assert pixels.min() < 50
        assert pixels.max() == 255


def test_curves_show_the_numbers_of_the_file(tmp_path):
    write(tmp_path / "metrics.csv", [*training(), *reversed([*evaluations()])])
    series = figures._read(tmp_path / "metrics.csv")
    figure = figures._scores({m: {"val": series["val", m]} for m in ("AP", "AP50")}, detect.SCORES)
    lines = [axes.lines[0].get_xydata() for axes in figure.axes]
    np.testing.assert_allclose(lines[0], [(100, 0.1), (200, 0.2)])
    np.testing.assert_allclose(lines[1], [(100, 0.2), (200, 0.4)])

    losses = {m: series["train", m] for m in ("loss", "class_loss")}
    above, below = figures._training(losses, series["train", "lr"]).axes
    assert [t.get_text() for t in above.get_legend().get_texts()] == ["loss", "class loss"]
    assert above.get_ylabel() == "training loss"
    assert (below.get_xlabel(), below.get_ylabel()) == ("step", "learning rate")


def test_running_mean():
    values = np.arange(40.0) ** 2
    mean = figures._running_mean(values)  # a window of three
    assert mean.shape == values.shape
    np.testing.assert_allclose(mean[1:-1], (values[:-2] + values[1:-1] + values[2:]) / 3)
    np.testing.assert_allclose(mean[[0, -1]], [(0 + 1) / 2, (38**2 + 39**2) / 2])
    np.testing.assert_array_equal(figures._running_mean(values[:5]), values[:5])


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setitem(figures.STYLE, "savefig.dpi", 40)


def case(classes, images=3, seed=0, value=None):
    """A split with two objects of each class an image, and predictions for it: the first object
    found, the second not, and one false detection. value: of all scores.
    """
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 255, (64, 96, 1), np.uint8) for _ in range(images)]
    infos = [{"file_name": f"{i}.png", "width": 96, "height": 64} for i in range(images)]
    n = len(classes)
    corner = rng.uniform(0, 40, (images, 2 * n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(6, 20, (images, 2 * n, 2))], -1)
    label = np.repeat(np.arange(n), 2)
    area = np.prod(boxes[..., 2:] - boxes[..., :2], -1)
    objects = [Objects(boxes[i], label, np.zeros(2 * n, bool), area[i]) for i in range(images)]
    split = stack(pixels, objects, infos, classes, np.ones((images, 2)), np.zeros((images, 2)))
    guess = boxes.copy()
    guess[:, 1::2] += 500
    scores = np.tile(np.where(label % 2, 0.6, 0.4) + np.tile([0.2, -0.1], n), (images, 1))
    scores = scores if value is None else np.full_like(scores, value)
    predictions = {"boxes": guess, "scores": scores, "labels": np.tile(label, (images, 1))}
    return split, predictions


def report(folder, **cases):
    suites = {name: split for name, (split, _) in cases.items()}
    predictions = {name: found for name, (_, found) in cases.items()}
    scores = {name: score(found, split.truth, {}) for name, (split, found) in cases.items()}
    figures.report(folder, suites, predictions, scores)
    with (folder / "per_class.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


NAMES = ("precision_recall", "f1", "confusion", "per_class")
LONG = tuple(f"a_vehicle_of_a_rather_long_name_and_number_{k}" for k in range(20))
CASES = {
    "one class": case(("person",)),
    "20 classes": case(LONG, images=1),
    "nothing found": case(("person", "car"), value=0.0),
    "not a number": case(("person", "car"), value=np.nan),
    "odd names": case(("_hidden", "$x$ and $y")),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CASES)
def test_report_draws_anything(tmp_path, coarse, name):
    split, predictions = CASES[name]
    rows = report(tmp_path, val=(split, predictions))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(NAMES)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["worst_val.png"]
    assert [row["class"] for row in rows] == [*split.classes, "all"]


@pytest.mark.filterwarnings("error")
def test_report_without_objects(tmp_path, coarse):
    split, predictions = case(("person", "car"), value=0.0)
    nothing = [Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool), np.zeros(0))] * 3
    empty = stack(
        split.images, nothing, split.truth["images"], split.classes, split.scale, split.offset
    )
    rows = report(tmp_path, val=(empty, predictions))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(NAMES)
    assert not (tmp_path / "samples").exists()
    assert {row["AP50"] for row in rows} == {"nan"}
    figures.labels(empty, (4, 8), tmp_path / "labels.png")
    assert not (tmp_path / "labels.png").exists()


def test_report_of_several_suites(tmp_path, coarse):
    rows = report(tmp_path, val=case(("person", "car")), shift=case(("person", "car"), seed=1))
    assert Counter(row["suite"] for row in rows) == {"val": 3, "shift": 3}
    assert {path.stem for path in (tmp_path / "samples").iterdir()} == {"worst_val", "worst_shift"}
    person = rows[0]
    assert (person["class"], person["images"], person["boxes"]) == ("person", "3", "6")
    # Half of the persons found with a score of 0.6, what is false has 0.3.
    assert [float(person[k]) for k in ("threshold", "precision", "recall")] == [0.6, 1.0, 0.5]
    assert float(person["F1"]) == pytest.approx(2 / 3)


def judged(classes=("person", "car")):
    split, predictions = case(classes)
    return split, predictions, detection_errors.match(predictions, split.truth)


def test_precision_recall_shows_the_numbers():
    matches = judged()[2]
    (axes,) = figures._precision_recall({"val": matches}).axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "val",
        "recall",
        "precision",
    )
    recall, precision = axes.lines[0].get_xydata().T
    # Half is found without an error; the curve falls to 0 at the next of the 101 recalls.
    np.testing.assert_allclose(recall, np.arange(52) / 100)
    np.testing.assert_allclose(precision, [1.0] * 51 + [0])
    legend = axes.get_legend()
    assert legend.get_title().get_text() == "AP50 (IoU 0.50)"
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["person  0.505", "car  0.505", "mean  0.505"]


def test_f1_marks_the_best():
    matches = judged()[2]
    figure = figures._f1({"val": matches}, {"val": detection_errors.curves(matches)})
    f1, precision, recall = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["F1", "precision", "recall"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"score threshold"}
    dots = [line.get_xydata()[0] for line in f1.lines if line.get_marker() == "o"]
    # Cars are found with a score of 0.8; at 0.6 the persons are found, too.
    np.testing.assert_allclose(dots, [(0.6, 2 / 3), (0.8, 2 / 3), (0.6, 2 / 3)])
    texts = [text.get_text() for text in recall.get_legend().get_texts()]
    assert texts == ["person  0.667 at 0.600", "car  0.667 at 0.800", "mean  0.667 at 0.600"]
    assert np.isnan(precision.lines[0].get_ydata()[-1])  # nothing scores 1


def test_confusion_shows_shares_and_counts():
    matches = judged()[2]
    table = np.array([[3, 1, 0], [0, 399, 1], [2, 0, 0]])
    figure = figures._confusion({"val": matches}, {"val": table}, {"val": 0.25})
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


def test_per_class_shows_the_numbers():
    rows = [
        {"class": "person", "images": 2, "boxes": 1500, "AP": 0.25, "AP50": 0.5},
        {"class": "car", "images": 0, "boxes": 0, "AP": np.nan, "AP50": np.nan},
    ]
    (axes,) = figures._per_class({"val": rows}).axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0, 0.25, 0]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["0.500", "no objects", "0.250", "no objects"]
    assert axes.get_yticklabels()[0].get_text() == "person\n1,500 boxes, 2 images"


def test_labels_show_the_numbers():
    split, *_ = judged(("person", "car", "truck"))
    split.valid[0] = False
    split.ignore[0, 0] = True
    figure = figures._labels(split, (4, 8))
    count, size, crowd, place = figure.axes[:4]
    assert [bar.get_width() for bar in count.patches] == [4, 4, 4]
    assert [line.get_xdata()[0] for line in size.lines] == [4, 8]
    assert size.get_xscale() == "log"
    assert [text.get_text() for text in size.texts] == ["stride 4", "stride 8"]
    height = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in crowd.patches}
    assert {k: h for k, h in height.items() if h} == {0: 1, 6: 2}
    assert place.images[0].get_array().sum() == 12
    title = figure.get_suptitle()
    assert title == "12 boxes in 3 images of 96 x 64 px; 1 don't-care boxes left out"


def test_labels_mark_the_median():
    split, *_ = judged()
    side = np.sqrt(np.prod(split.boxes[..., 2:] - split.boxes[..., :2], -1))
    size = figures._labels(split, (4, 8)).axes[1]
    for k, lines in enumerate(c for c in size.collections if len(c.get_segments()) == 1):
        (line,) = lines.get_segments()
        own = side[split.valid & (split.labels == k)]
        np.testing.assert_allclose(line[:, 0], np.median(own), rtol=1e-6)
    assert k == 1


def test_labels_are_written(tmp_path, coarse):
    figures.labels(judged()[0], (4, 8), tmp_path / "figures" / "labels.png")
    assert np.asarray(Image.open(tmp_path / "figures" / "labels.png").convert("L")).min() < 100


def test_names_are_cut_in_the_middle():
    assert figures._short("person") == "person"
    cut = figures._short("emergency_vehicle_of_type_07")
    assert cut == "emergency_v\u2026_type_07"
    assert figures._short("$") == r"\$"
