import numpy as np
import pytest
from PIL import Image, ImageColor

from tinyjax.data.records import Objects, Split, stack, subset
from tinyjax.metrics import detection_errors
from tinyjax.reporting import pictures

CLASSES = ("person", "car")
EMPTY = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}


def gray(height=40, width=60, channels=1):
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


def color(label):
    return ImageColor.getrgb(pictures.ON_IMAGE[label])


@pytest.mark.parametrize(
    ("size", "factor"), [((40, 60), 3), ((256, 320), 3), ((256, 480), 2), ((512, 640), 1)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_draw_keeps_pixels_square(size, factor, channels):
    image = gray(*size, channels)
    np.testing.assert_array_equal(np.asarray(pictures.draw(image)), enlarged(image, factor))


def test_draw_truth_hides_nothing_of_the_object():
    image = gray()
    before = image.copy()
    truth = truth_of(((10, 12, 16, 18), 1, "valid"), ((0, 0, 0, 0), 0, "padding"))
    picture = np.asarray(pictures.draw(image, truth))
    plain = enlarged(image, 3)

    inside = np.s_[36:54, 30:48]
    np.testing.assert_array_equal(picture[inside], plain[inside])
    for row, column in [(40, 29), (40, 28), (40, 48), (40, 49), (35, 40), (34, 40), (54, 40)]:
        assert tuple(picture[row, column]) == color(1)
    assert tuple(picture[40, 27]) == tuple(picture[40, 50]) == (0, 0, 0)
    # nothing is drawn anywhere else, so nothing for the padding row
    outside = np.ones(picture.shape[:2], bool)
    outside[33:57, 27:51] = False
    np.testing.assert_array_equal(picture[outside], plain[outside])
    np.testing.assert_array_equal(image, before)


def test_draw_hatches_what_is_not_scored():
    image = gray()
    region = (10, 12, 30, 32)
    picture = np.asarray(pictures.draw(image, truth_of((region, 0, "ignore"))))
    changed = (picture != enlarged(image, 3)).any(-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (36, 96, 30, 90)
    assert 0.1 < changed[36:96, 30:90].mean() < 0.3
    hatch = np.unique(picture[changed])
    assert set(hatch) == {gray for _, gray in pictures.HATCH}


def test_draw_predictions_from_the_threshold_on():
    image = gray()
    plain = enlarged(image, 3)
    low = found_of(((10, 12, 30, 32), 0, pictures.THRESHOLD - 0.01))
    np.testing.assert_array_equal(np.asarray(pictures.draw(image, found=low)), plain)
    assert (np.asarray(pictures.draw(image, found=low, threshold=0.1)) != plain).any()
    np.testing.assert_array_equal(np.asarray(pictures.draw(image, found=EMPTY)), plain)

    high = np.asarray(pictures.draw(image, found=found_of(((10, 12, 30, 32), 1, 0.9))))
    np.testing.assert_array_equal(high[36:96, 30:90], plain[36:96, 30:90])
    assert tuple(high[60, 28]) == tuple(high[60, 91]) == color(1)
    assert (high[12:32, 28:58] != plain[12:32, 28:58]).any()  # the score, above the box


def test_draw_puts_the_best_on_top():
    box = (10, 12, 30, 32)
    for scores, top in [((0.9, 0.5), 0), ((0.5, 0.9), 1)]:
        found = found_of((box, 0, scores[0]), (box, 1, scores[1]))
        assert tuple(np.asarray(pictures.draw(gray(), found=found))[60, 28]) == color(top)


@pytest.mark.parametrize(
    "box", [(np.nan, 0, 1, 1), (-1e30, -1e30, 1e30, 1e30), (0, 0, np.inf, np.inf), (50, 30, 20, 10)]
)
def test_draw_survives_wild_predictions(box):
    picture = pictures.draw(gray(), found=found_of((box, 0, 0.9)))
    assert picture.size == (180, 120)


def split_of(n=9, scale=(1.0, 1.0), offset=(0.0, 0.0)):
    truth = truth_of(((10, 12, 30, 32), 0, "valid"), ((0, 0, 0, 0), 0, "padding"))
    repeated = {k: np.repeat(v[None], n, 0) for k, v in truth.items()}
    repeated["valid"][0] = False  # an image without objects is no sample
    return Split(
        images=np.repeat(gray()[None], n, 0),
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
    pictures.samples(split, predictions, path, count=2)

    sheet = np.asarray(Image.open(path))
    row = pictures.LINE + 120 + pictures.GAP
    right = (sheet.shape[1] + pictures.GAP) // 2  # the captions are wider than the images of 180 px
    assert right > 180 + pictures.GAP
    assert len(sheet) == 2 * row + pictures.LINE
    y = pictures.LINE + 60
    assert tuple(sheet[y, 28]) == tuple(sheet[y, right + 28]) == color(0)
    assert tuple(sheet[y, 91]) == tuple(sheet[y, right + 91]) == color(0)


def test_samples_are_spread_and_have_objects(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(pictures, "grid", lambda pairs, path, names, classes: chosen.extend(names))
    none = {k: np.repeat(v[None], 9, 0) for k, v in EMPTY.items()}
    pictures.samples(split_of(), none, tmp_path / "a.png", count=3)
    assert chosen == ["1.png", "5.png", "8.png"]
    chosen.clear()
    pictures.samples(split_of(n=3), none, tmp_path / "a.png", count=5)
    assert chosen == ["1.png", "2.png"]


def test_legend_names_every_class():
    picture = Image.new("RGB", (500, 50), "black")
    out = np.asarray(pictures.legend(picture, CLASSES))
    assert out.shape == (50 + pictures.LINE, 500, 3)
    colors = {tuple(c) for c in out[50:].reshape(-1, 3).tolist()}
    assert {color(0), color(1)} <= colors


def test_twenty_classes_have_twenty_colors():
    picture = Image.new("RGB", (2000, 50), "black")
    out = np.asarray(pictures.legend(picture, [f"c{k}" for k in range(20)], ignore_classes=False))
    left = {tuple(c) for c in out[50 + pictures.LINE // 2].tolist()}
    assert len([c for c in left if len(set(c)) > 1]) == 20  # and the grays of the text


def test_a_caption_longer_than_its_image_is_not_cut(tmp_path):
    small = Image.new("RGB", (60, 40), "red")
    name = "a_name_of_some_length.png"
    pictures.grid([(small, small)], tmp_path / "a.png", [name], CLASSES)
    wide = Image.open(tmp_path / "a.png").width
    longest = pictures.CAPTION.getlength(f"prediction, scores from {pictures.THRESHOLD}")
    assert wide >= 2 * max(longest, pictures.CAPTION.getlength(f"truth: {name}"))


def test_draw_tells_right_from_wrong():
    image = gray()
    box, other = (10, 12, 20, 22), (40, 12, 50, 22)
    truth = truth_of((box, 0, "valid"), (other, 0, "valid"))
    left = np.asarray(pictures.draw(image, {**truth, "missed": np.array([True, False])}))
    found = found_of((box, 1, 0.9), (other, 1, 0.8))
    right = np.asarray(pictures.draw(image, found={**found, "false": np.array([True, False])}))
    for picture, label in ((left, 0), (right, 1)):
        row = [tuple(p) == color(label) for p in picture[50].tolist()]
        assert np.flatnonzero(row[:90]).tolist() == [26, 27, 28, 29, 60, 61, 62, 63]  # WRONG wide
        assert np.flatnonzero(row[90:]).tolist() == [29, 60]  # RIGHT wide
    plain = enlarged(image, 3)
    assert (right[12:32, 28:58] != plain[12:32, 28:58]).any()  # the score of what is false
    np.testing.assert_array_equal(right[12:34, 118:148], plain[12:34, 118:148])


def test_legend_goes_on_in_a_further_line():
    picture = Image.new("RGB", (300, 50), "black")
    names = [f"a class with a name of some length {k}" for k in range(4)]
    out = np.asarray(pictures.legend(picture, names, {4: "a thick line"}))
    lines = out[50:].reshape(-1, pictures.LINE, 300, 3)
    assert len(lines) >= 4
    for k, line in enumerate(lines[:4]):
        assert color(k) in {tuple(c) for c in line.reshape(-1, 3).tolist()}


def judged():
    """Three images: right, one missed, one false; files twice as large as the network's input."""
    infos = [{"file_name": f"{i}.png", "width": 120, "height": 80} for i in range(3)]
    box = np.array([[20.0, 24, 60, 64]])
    none = Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool), np.zeros(0))
    one = Objects(box, np.array([0]), np.array([False]), np.array([1600.0]))
    split = stack(
        [gray()] * 3, [one, one, none], infos, CLASSES, np.full((3, 2), 0.5), np.zeros((3, 2))
    )
    predictions = {
        "boxes": np.repeat(box[None], 3, 0),
        "scores": np.array([[0.9], [0.2], [0.8]]),
        "labels": np.zeros((3, 1), int),
    }
    return split, predictions, detection_errors.match(predictions, split.truth)


def test_worst_shows_what_is_wrong(tmp_path):
    split, predictions, matches = judged()
    path = tmp_path / "samples" / "worst_val.png"
    pictures.worst(split, predictions, matches, 0.5, path)
    sheet = np.asarray(Image.open(path))
    high = 120 + pictures.LINE + pictures.GAP
    wide = (sheet.shape[1] + pictures.GAP) // 4  # the two images that have an error, in a row
    assert sheet.shape[0] >= high + pictures.LINE
    row = [tuple(p) == color(0) for p in sheet[pictures.LINE + 60].tolist()]
    for panel, expected in enumerate(([26, 27, 28, 29, 90, 91, 92, 93], [], [])):
        assert np.flatnonzero(row[panel * wide : panel * wide + 180]).tolist() == expected
    assert np.flatnonzero(row[3 * wide :]).tolist() == [26, 27, 28, 29, 90, 91, 92, 93]


def test_worst_leaves_no_file_where_nothing_is_wrong(tmp_path):
    split, predictions, _ = judged()
    right = subset(split, [0])
    first = {name: values[:1] for name, values in predictions.items()}
    path = tmp_path / "worst.png"
    path.write_text("of a run before")
    pictures.worst(right, first, detection_errors.match(first, right.truth), 0.5, path)
    assert not path.exists()
