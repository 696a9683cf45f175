"""Images with boxes drawn on them."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from tinyjax.data.records import DetectionSplit, Objects, build_split, select_images
from tinyjax.metrics import detection_errors
from tinyjax.reporting import pictures
from tinyjax.reporting.fonts import pillow_font

CLASSES = ("person", "car")
EMPTY = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}


def gray_image(height=40, width=60, channels=1):
    ramp = np.arange(height * width * channels).reshape(height, width, channels)
    return (100 + ramp % 50).astype(np.uint8)


def truth_of(*rows):
    """rows: (xyxy, label, "valid" or "ignore" or "padding")."""
    boxes, labels, states = zip(*rows, strict=True)
    states = np.array(states)
    return {
        "boxes": np.array(boxes, np.float32),
        "labels": np.array(labels, np.int32),
        "valid": states == "valid",
        "ignore": states == "ignore",
    }


def predictions_of(*rows):
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
    return ImageColor.getrgb(pictures.COLORS[label])


@pytest.mark.parametrize(
    ("size", "factor"), [((40, 60), 3), ((256, 320), 3), ((256, 480), 2), ((512, 640), 1)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_draw_keeps_pixels_square(size, factor, channels):
    image = gray_image(*size, channels)
    np.testing.assert_array_equal(np.asarray(pictures.draw_boxes(image)), enlarged(image, factor))


def test_truth_lines_do_not_cover_the_object():
    image = gray_image()
    before = image.copy()
    truth = truth_of(((10, 12, 16, 18), 1, "valid"), ((0, 0, 0, 0), 0, "padding"))
    picture = np.asarray(pictures.draw_boxes(image, truth))
    undrawn = enlarged(image, 3)

    inside = np.s_[36:54, 30:48]
    np.testing.assert_array_equal(picture[inside], undrawn[inside])
    for row, column in [(40, 29), (40, 28), (40, 48), (40, 49), (35, 40), (34, 40), (54, 40)]:
        assert tuple(picture[row, column]) == color(1)
    assert tuple(picture[40, 27]) == tuple(picture[40, 50]) == (0, 0, 0)
    # nothing is drawn elsewhere, in particular not for the padding row
    outside = np.ones(picture.shape[:2], bool)
    outside[33:57, 27:51] = False
    np.testing.assert_array_equal(picture[outside], undrawn[outside])
    np.testing.assert_array_equal(image, before)


def test_ignored_regions_are_hatched():
    image = gray_image()
    region = (10, 12, 30, 32)
    picture = np.asarray(pictures.draw_boxes(image, truth_of((region, 0, "ignore"))))
    changed = (picture != enlarged(image, 3)).any(-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (36, 96, 30, 90)
    assert 0.1 < changed[36:96, 30:90].mean() < 0.3
    hatch = np.unique(picture[changed])
    assert set(hatch) == {gray for _, gray in pictures.HATCHING}


def test_predictions_are_drawn_above_the_threshold():
    image = gray_image()
    undrawn = enlarged(image, 3)
    low = predictions_of(((10, 12, 30, 32), 0, pictures.MIN_SCORE - 0.01))
    np.testing.assert_array_equal(np.asarray(pictures.draw_boxes(image, predictions=low)), undrawn)
    assert (np.asarray(pictures.draw_boxes(image, predictions=low, threshold=0.1)) != undrawn).any()
    np.testing.assert_array_equal(
        np.asarray(pictures.draw_boxes(image, predictions=EMPTY)), undrawn
    )

    high = np.asarray(
        pictures.draw_boxes(image, predictions=predictions_of(((10, 12, 30, 32), 1, 0.9)))
    )
    np.testing.assert_array_equal(high[36:96, 30:90], undrawn[36:96, 30:90])
    assert tuple(high[60, 28]) == tuple(high[60, 91]) == color(1)
    assert (high[12:32, 28:58] != undrawn[12:32, 28:58]).any()  # the score, above the box


def test_highest_score_is_on_top():
    box = (10, 12, 30, 32)
    for scores, top in [((0.9, 0.5), 0), ((0.5, 0.9), 1)]:
        detections = predictions_of((box, 0, scores[0]), (box, 1, scores[1]))
        assert tuple(
            np.asarray(pictures.draw_boxes(gray_image(), predictions=detections))[60, 28]
        ) == color(top)


@pytest.mark.parametrize(
    "box", [(np.nan, 0, 1, 1), (-1e30, -1e30, 1e30, 1e30), (0, 0, np.inf, np.inf), (50, 30, 20, 10)]
)
def test_extreme_predictions_do_not_raise(box):
    picture = pictures.draw_boxes(gray_image(), predictions=predictions_of((box, 0, 0.9)))
    assert picture.size == (180, 120)


def split_of(n=9, scale=(1.0, 1.0), offset=(0.0, 0.0)):
    truth = truth_of(((10, 12, 30, 32), 0, "valid"), ((0, 0, 0, 0), 0, "padding"))
    repeated = {k: np.repeat(v[None], n, 0) for k, v in truth.items()}
    repeated["valid"][0] = False  # an image without objects is not sampled
    return DetectionSplit(
        inputs={"image": np.repeat(gray_image()[None], n, 0)},
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
    detections = predictions_of((in_file, 0, 0.9))
    predictions = {k: np.repeat(v[None], 9, 0) for k, v in detections.items()}
    path = tmp_path / "samples" / "val.png"
    pictures.save_samples(split, predictions, path, count=2)

    sheet = np.asarray(Image.open(path))
    row = pictures.LINE_HEIGHT + 120 + pictures.GAP
    right = (sheet.shape[1] + pictures.GAP) // 2  # the captions are wider than the images of 180 px
    assert right > 180 + pictures.GAP
    assert len(sheet) == 2 * row + pictures.LINE_HEIGHT
    y = pictures.LINE_HEIGHT + 60
    assert tuple(sheet[y, 28]) == tuple(sheet[y, right + 28]) == color(0)
    assert tuple(sheet[y, 91]) == tuple(sheet[y, right + 91]) == color(0)


def test_samples_are_evenly_spaced_and_have_objects(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(
        pictures, "save_pairs", lambda pairs, path, names, classes: chosen.extend(names)
    )
    no_predictions = {k: np.repeat(v[None], 9, 0) for k, v in EMPTY.items()}
    pictures.save_samples(split_of(), no_predictions, tmp_path / "a.png", count=3)
    assert chosen == ["1.png", "5.png", "8.png"]
    chosen.clear()
    pictures.save_samples(split_of(n=3), no_predictions, tmp_path / "a.png", count=5)
    assert chosen == ["1.png", "2.png"]


def test_legend_shows_all_classes():
    picture = Image.new("RGB", (500, 50), "black")
    out = np.asarray(pictures.add_legend(picture, CLASSES))
    assert out.shape == (50 + pictures.LINE_HEIGHT, 500, 3)
    colors = {tuple(c) for c in out[50:].reshape(-1, 3).tolist()}
    assert {color(0), color(1)} <= colors


def test_twenty_classes_have_distinct_colors():
    picture = Image.new("RGB", (2000, 50), "black")
    out = np.asarray(pictures.add_legend(picture, [f"c{k}" for k in range(20)], ignored=False))
    row = {tuple(c) for c in out[50 + pictures.LINE_HEIGHT // 2].tolist()}
    assert len([c for c in row if len(set(c)) > 1]) == 20  # the text has grays


def test_a_long_caption_widens_the_picture(tmp_path):
    small = Image.new("RGB", (60, 40), "red")
    name = "a_name_of_some_length.png"
    pictures.save_pairs([(small, small)], tmp_path / "a.png", [name], CLASSES)
    width = Image.open(tmp_path / "a.png").width
    font = pillow_font("", pictures.CAPTION_HEIGHT)
    longest = font.getlength(f"prediction, scores from {pictures.MIN_SCORE}")
    assert width >= 2 * max(longest, font.getlength(f"truth: {name}"))


def test_errors_have_thick_lines():
    image = gray_image()
    box, other = (10, 12, 20, 22), (40, 12, 50, 22)
    truth = truth_of((box, 0, "valid"), (other, 0, "valid"))
    left = np.asarray(pictures.draw_boxes(image, {**truth, "missed": np.array([True, False])}))
    detections = predictions_of((box, 1, 0.9), (other, 1, 0.8))
    right = np.asarray(
        pictures.draw_boxes(image, predictions={**detections, "false": np.array([True, False])})
    )
    for picture, label in ((left, 0), (right, 1)):
        row = [tuple(p) == color(label) for p in picture[50].tolist()]
        assert np.flatnonzero(row[:90]).tolist() == [26, 27, 28, 29, 60, 61, 62, 63]  # WRONG_WIDTH
        assert np.flatnonzero(row[90:]).tolist() == [29, 60]  # CORRECT_WIDTH
    undrawn = enlarged(image, 3)
    assert (right[12:32, 28:58] != undrawn[12:32, 28:58]).any()  # the score of the false positive
    np.testing.assert_array_equal(right[12:34, 118:148], undrawn[12:34, 118:148])


def test_legend_wraps_lines():
    picture = Image.new("RGB", (300, 50), "black")
    names = [f"a class with a name of some length {k}" for k in range(4)]
    out = np.asarray(pictures.add_legend(picture, names, {4: "a thick line"}))
    lines = out[50:].reshape(-1, pictures.LINE_HEIGHT, 300, 3)
    assert len(lines) >= 4
    for k, line in enumerate(lines[:4]):
        assert color(k) in {tuple(c) for c in line.reshape(-1, 3).tolist()}


def matched_case():
    """Three images: correct, one missed, one false positive. Files are twice the input size."""
    infos = [{"file_name": f"{i}.png", "width": 120, "height": 80} for i in range(3)]
    box = np.array([[20.0, 24, 60, 64]])
    no_objects = Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool), np.zeros(0))
    objects = Objects(box, np.array([0]), np.array([False]), np.array([1600.0]))
    split = build_split(
        [gray_image()] * 3,
        [objects, objects, no_objects],
        infos,
        CLASSES,
        np.full((3, 2), 0.5),
        np.zeros((3, 2)),
    )
    predictions = {
        "boxes": np.repeat(box[None], 3, 0),
        "scores": np.array([[0.9], [0.2], [0.8]]),
        "labels": np.zeros((3, 1), int),
    }
    return split, predictions, detection_errors.match(predictions, split.truth)


def test_worst_images_show_the_errors(tmp_path):
    split, predictions, matches = matched_case()
    path = tmp_path / "samples" / "worst_val.png"
    pictures.save_worst(split, predictions, matches, 0.5, path)
    sheet = np.asarray(Image.open(path))
    height = 120 + pictures.LINE_HEIGHT + pictures.GAP
    width = (sheet.shape[1] + pictures.GAP) // 4  # the two images with errors are in one row
    assert sheet.shape[0] >= height + pictures.LINE_HEIGHT
    row = [tuple(p) == color(0) for p in sheet[pictures.LINE_HEIGHT + 60].tolist()]
    for panel, expected in enumerate(([26, 27, 28, 29, 90, 91, 92, 93], [], [])):
        assert np.flatnonzero(row[panel * width : panel * width + 180]).tolist() == expected
    assert np.flatnonzero(row[3 * width :]).tolist() == [26, 27, 28, 29, 90, 91, 92, 93]


def test_no_file_of_worst_images_without_errors(tmp_path):
    split, predictions, _ = matched_case()
    correct = select_images(split, [0])
    first = {name: values[:1] for name, values in predictions.items()}
    path = tmp_path / "worst.png"
    path.write_text("from a previous run")
    pictures.save_worst(correct, first, detection_errors.match(first, correct.truth), 0.5, path)
    assert not path.exists()
