import numpy as np
import pytest
from PIL import Image, ImageColor

from tinyjax import figures
from tinyjax.data.records import Split

CLASSES = ("person", "car")
EMPTY = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}


def grey(height=40, width=60, channels=1):
    ramp = np.arange(height * width * channels).reshape(height, width, channels)
    return (100 + ramp % 50).astype(np.uint8)


def truth_of(*rows):
    """rows: (xyxy, label, "valid" or "ignore" or "padding")."""
    boxes, labels, kinds = zip(*rows, strict=True)
    kinds = np.array(kinds)
    return {
        "boxes": np.array(boxes, np.float32),
        "labels": np.array(labels, np.int32),
        "valid": kinds == "valid",
        "ignore": kinds == "ignore",
    }


def found_of(*rows):
    """rows: (xyxy, label, score)."""
    boxes, labels, scores = zip(*rows, strict=True)
    return {
        "boxes": np.array(boxes, np.float32),
        "labels": np.array(labels, np.int32),
        "scores": np.array(scores, np.float32),
    }


def enlarged(image, factor):
    return np.repeat(np.repeat(np.broadcast_to(image, (*image.shape[:2], 3)), factor, 0), factor, 1)


def colour(label):
    return ImageColor.getrgb(figures.ON_IMAGE[label])


@pytest.mark.parametrize(
    ("size", "factor"), [((40, 60), 3), ((256, 320), 3), ((256, 480), 2), ((512, 640), 1)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_draw_keeps_pixels_square(size, factor, channels):
    image = grey(*size, channels)
    np.testing.assert_array_equal(np.asarray(figures.draw(image)), enlarged(image, factor))


def test_draw_truth_hides_nothing_of_the_object():
    image = grey()
    before = image.copy()
    truth = truth_of(((10, 12, 16, 18), 1, "valid"), ((0, 0, 0, 0), 0, "padding"))
    picture = np.asarray(figures.draw(image, truth))
    plain = enlarged(image, 3)

    inside = np.s_[36:54, 30:48]
    np.testing.assert_array_equal(picture[inside], plain[inside])
    for row, column in [(40, 29), (40, 28), (40, 48), (40, 49), (35, 40), (34, 40), (54, 40)]:
        assert tuple(picture[row, column]) == colour(1)
    assert tuple(picture[40, 27]) == tuple(picture[40, 50]) == (0, 0, 0)
    # nothing is drawn anywhere else, so nothing for the padding row
    outside = np.ones(picture.shape[:2], bool)
    outside[33:57, 27:51] = False
    np.testing.assert_array_equal(picture[outside], plain[outside])
    np.testing.assert_array_equal(image, before)


def test_draw_hatches_what_is_not_scored():
    image = grey()
    region = (10, 12, 30, 32)
    picture = np.asarray(figures.draw(image, truth_of((region, 0, "ignore"))))
    changed = (picture != enlarged(image, 3)).any(-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (36, 96, 30, 90)
    assert 0.1 < changed[36:96, 30:90].mean() < 0.3
    hatch = np.unique(picture[changed])
    assert set(hatch) == {grey for _, grey in figures.HATCH}


def test_draw_predictions_from_the_threshold_on():
    image = grey()
    plain = enlarged(image, 3)
    low = found_of(((10, 12, 30, 32), 0, figures.THRESHOLD - 0.01))
    np.testing.assert_array_equal(np.asarray(figures.draw(image, found=low)), plain)
    assert (np.asarray(figures.draw(image, found=low, threshold=0.1)) != plain).any()
    np.testing.assert_array_equal(np.asarray(figures.draw(image, found=EMPTY)), plain)

    high = np.asarray(figures.draw(image, found=found_of(((10, 12, 30, 32), 1, 0.9))))
    np.testing.assert_array_equal(high[36:96, 30:90], plain[36:96, 30:90])
    assert tuple(high[60, 28]) == tuple(high[60, 91]) == colour(1)
    assert (high[12:32, 28:58] != plain[12:32, 28:58]).any()  # the score, above the box


def test_draw_puts_the_best_on_top():
    box = (10, 12, 30, 32)
    for scores, top in [((0.9, 0.5), 0), ((0.5, 0.9), 1)]:
        found = found_of((box, 0, scores[0]), (box, 1, scores[1]))
        assert tuple(np.asarray(figures.draw(grey(), found=found))[60, 28]) == colour(top)


@pytest.mark.parametrize(
    "box", [(np.nan, 0, 1, 1), (-1e30, -1e30, 1e30, 1e30), (0, 0, np.inf, np.inf), (50, 30, 20, 10)]
)
def test_draw_survives_wild_predictions(box):
    picture = figures.draw(grey(), found=found_of((box, 0, 0.9)))
    assert picture.size == (180, 120)


def split_of(n=9, scale=(1.0, 1.0), offset=(0.0, 0.0)):
    truth = truth_of(((10, 12, 30, 32), 0, "valid"), ((0, 0, 0, 0), 0, "padding"))
    repeated = {k: np.repeat(v[None], n, 0) for k, v in truth.items()}
    repeated["valid"][0] = False  # an image without objects is no sample
    return Split(
        images=np.repeat(grey()[None], n, 0),
        scale=np.tile(np.array(scale, np.float32), (n, 1)),
        offset=np.tile(np.array(offset, np.float32), (n, 1)),
        names=tuple(f"{i}.png" for i in range(n)),
        classes=CLASSES,
        truth={},
        **repeated,
    )


def test_samples_map_predictions_onto_the_network_input(tmp_path):
    split = split_of(scale=(0.5, 0.25), offset=(2.0, 4.0))
    in_file = (np.array([10, 12, 30, 32]) - [2, 4, 2, 4]) / [0.5, 0.25, 0.5, 0.25]
    found = found_of((in_file, 0, 0.9))
    predictions = {k: np.repeat(v[None], 9, 0) for k, v in found.items()}
    path = tmp_path / "samples" / "val.png"
    figures.samples(split, predictions, path, count=2)

    sheet = np.asarray(Image.open(path))
    row = figures.LINE + 120 + figures.GAP
    assert sheet.shape == (2 * row + figures.LINE, 2 * 180 + figures.GAP, 3)
    y, right = figures.LINE + 60, 180 + figures.GAP
    assert tuple(sheet[y, 28]) == tuple(sheet[y, right + 28]) == colour(0)
    assert tuple(sheet[y, 91]) == tuple(sheet[y, right + 91]) == colour(0)


def test_samples_are_spread_and_have_objects(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(figures, "grid", lambda pairs, path, names, classes: chosen.extend(names))
    none = {k: np.repeat(v[None], 9, 0) for k, v in EMPTY.items()}
    figures.samples(split_of(), none, tmp_path / "a.png", count=3)
    assert chosen == ["1.png", "5.png", "8.png"]
    chosen.clear()
    figures.samples(split_of(n=3), none, tmp_path / "a.png", count=5)
    assert chosen == ["1.png", "2.png"]


def test_legend_names_every_class():
    picture = Image.new("RGB", (500, 50), "black")
    out = np.asarray(figures.legend(picture, CLASSES))
    assert out.shape == (50 + figures.LINE, 500, 3)
    colours = {tuple(c) for c in out[50:].reshape(-1, 3).tolist()}
    assert {colour(0), colour(1)} <= colours


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
    figures.curves(tmp_path / "metrics.csv", tmp_path / "figures")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == made
    for name in made:
        pixels = np.asarray(Image.open(tmp_path / "figures" / name).convert("L"))
        assert pixels.min() < 50
        assert pixels.max() == 255


def test_curves_show_the_numbers_of_the_file(tmp_path):
    write(tmp_path / "metrics.csv", [*training(), *reversed([*evaluations()])])
    series = figures._read(tmp_path / "metrics.csv")
    figure = figures._scores({m: {"val": series["val", m]} for m in ("AP", "AP50")})
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
