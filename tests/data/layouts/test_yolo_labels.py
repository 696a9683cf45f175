"""The lines of YOLO's label files."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.layouts import source_files
from tests.data.layouts.source_files import HEIGHT, WIDTH, assert_same
from tests.data.layouts.yolo_sets import BOX, read_boxes, skip_errors, write
from tests.data.loaders import load_detection
from tinyjax import errors, prepare
from tinyjax.errors import UserError

# A polygon that no other format fits: it neither ends in an integer nor resembles a box.
POLYGON = "0 0.9 0.9 0.95 0.95 0.9 0.95 0.85 0.95"
POLYGON_BOX = [81.6, 57.6, 91.2, 60.8]


# ---- single lines


@pytest.mark.parametrize(
    "text",
    [
        f"1 {BOX}",
        f"1.0 {BOX}",
        f"\ufeff1 {BOX}\r\n\r\n",
        f"  1\t{BOX.replace(' ', '   ')}\t \n",
        "1 +5e-1 .5 2.5E-1 0.25",
        "1 0.375 0.375 0.625 0.375 0.625 0.625 0.375 0.625",  # OBB
        "1 0.375 0.375 0.625 0.375 0.375 0.625",  # a triangle
    ],
)
def test_valid_lines(text, tmp_path):
    assert read_boxes(write(tmp_path, text))[0] == [[1, 36, 24, 60, 40]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"0 {BOX} 0.87", "has 6 numbers; .* a confidence or a track id at its end; remove it"),
        (f"0 {BOX} 3", "has 6 numbers; .* a confidence or a track id at its end; remove it"),
        (f"0 {BOX} 0.87 3", "a confidence and a track id at its end; remove these two numbers"),
        (f"0 {BOX} 0.87 -1", "a confidence and a track id at its end; remove these two numbers"),
        (f"0 {BOX} 7 0.87", "a confidence and a track id at its end; remove these two numbers"),
        (f"0 {BOX} 1 1", "either a polygon of 3 corners or has a confidence and a track id"),
        (f"7 0 {BOX} 0.5 0.5", "has 8 numbers; give class x y width height"),
        ("0 .5 .5 .1", "has 4 numbers; give class x y width height"),
        ("0", "has 1 numbers; give class x y width height"),
        (f"0 {BOX}" + " 0.5 0.5 1" * 17, r"has 56 numbers; .* write kpt_shape: \[17, 3\] into"),
        (f"0 {BOX}" + " 0.5 0.5 2" * 4, r"not a polygon .* write kpt_shape: \[4, 3\] into data"),
        (f"0 {BOX}" + " 0.5 0.5 1" * 4, r"of 8 corners or has 4 key .* kpt_shape: \[4, 3\]"),
        ("0 .8 .8 .2 .2 .75 .75 .85 .8 .8 .7", r"of 5 corners or .* kpt_shape: \[3, 2\] into"),
        ("0 .8 .8 .2 .2 .75 .75 0 0 .8 .7", r"of 5 corners or .* kpt_shape: \[3, 2\] into"),
        ("0 .8 .8 .2 .2 .75 .75 .9 .85 .8 .7", r"of 5 corners or .* kpt_shape: \[2, 3\] into"),
        ("0 10 20 30 40 50 60 70 80", "is in pixels; give fractions"),
        ("0 .1 .2 .1 .4 .5 2", "is in pixels; give fractions|confidence and a track id"),
        ("0 .1 .2 .1 .4 .5 -1.5", "is in pixels; give fractions"),
        ("0 0,5 0,5 0,1 0,1", "has commas; separate numbers by spaces"),
        (f"0, {BOX}", "has commas"),
        ("0 .5 .5 .1 nan", "give numbers: class x y width height"),
        ("0 .5 .5 .1 inf", "give numbers"),
        ("0 .5 .5 .1 1e999", "give numbers"),
        ("0 .5 .5 .1 0x1", "give numbers"),
        ("0 .5 .5 .1 0_1", "give numbers"),
        ("0 .5 .5 .1 \u0661", "give numbers"),
        ("0\u00a0.5 .5 .1 .1", "give numbers"),
        (f"car {BOX}", "give numbers"),
        (f"1.5 {BOX}", "class 1.5; give 0 to 1"),
        (f"-1 {BOX}", "class -1; give 0 to 1"),
        (f"2 {BOX}", "class 2; give 0 to 1"),
    ],
)
def test_invalid_line_is_an_error_that_shows_it(line, message, tmp_path):
    folder = write(tmp_path, f"0 {BOX}\n{line}\n1 {BOX}\n")
    with pytest.raises(UserError, match=rf"train_00.txt: line 2: .*({message})") as error:
        load_detection(folder, "train")
    assert repr(line)[:77] in str(error.value) or message.startswith("class")
    with pytest.raises(UserError, match="line 2"):
        load_detection(folder, "train", stream=True, size=(HEIGHT, WIDTH))
    boxes, messages = skip_errors(folder)
    assert boxes[0] == [[0, 36, 24, 60, 40], [1, 36, 24, 60, 40]]
    assert len(messages) == 1


def test_polygon_within_the_box_of_its_first_numbers_is_read(tmp_path):
    """As key points, all its points lie in their box; but (w, h) lies there as well."""
    boxes = read_boxes(write(tmp_path, "0 0.25 0.25 0.5 0.25 0.375 0.3125"))
    assert boxes[0] == [[0, 24, 16, 48, 20]]


def test_long_line_is_shortened_in_messages(tmp_path):
    folder = write(tmp_path, "0" + " 0.123" * 101)
    with pytest.raises(UserError, match=r"'0 0\.123 .* \.\.\.' has 102 numbers") as error:
        load_detection(folder, "train")
    assert len(str(error.value)) < 300


def test_overhang_is_kept(tmp_path):
    boxes = read_boxes(write(tmp_path, "0 0.0 0.5 0.5 1.5\n0 -0.25 0 1.25 0.5 0.5 1.5 0 1\n"))
    assert boxes[0] == [[0, -24, -16, 24, 80], [0, -24, 0, 120, 96]]


def test_prepare_lists_invalid_lines(tmp_path, capsys):
    folder = write(tmp_path / "set", f"0 {BOX} 0.9 1\n1 {BOX}\n", f"0 {BOX} 0.8 14\n0 {BOX} 0.8\n")
    argv = [str(folder), "--check", "--report", str(tmp_path / "report")]
    assert errors.exit_code(lambda: prepare.main(argv)) == 2
    printed = capsys.readouterr().out
    assert "bad label: 3" in printed
    assert "car 1" in printed


# ---- lines that could be polygons: the split decides

TRIANGLE = "0 0.25 0.25 0.5 0.25 0.5 1"  # as a track: confidence 0.5, id 1
TRIANGLE_BOX = [0, 24, 16, 48, 64]


@pytest.mark.parametrize(
    ("texts", "boxes"),
    [
        ([TRIANGLE, POLYGON], [[TRIANGLE_BOX], [[0, *POLYGON_BOX]]]),
        ([f"{TRIANGLE}\n{POLYGON}"], [[TRIANGLE_BOX, [0, *POLYGON_BOX]]]),
        ([TRIANGLE, "0 0.25 0.25 0.5 0.25 0.5 0.5"], [[TRIANGLE_BOX], [[0, 24, 16, 48, 32]]]),
        (["0 0.25 0.25 0.5 0.25 0.5 1 0.25 1"], [[TRIANGLE_BOX]]),  # OBB
        (["0 0 0 0 1 1 1 1 0"], [[[0, 0, 0, 96, 64]]]),  # OBB of the whole image
        ([f"0 {BOX} 0.5 1", POLYGON], [[[0, 24, 16, 48, 64]], [[0, *POLYGON_BOX]]]),
    ],
)
def test_polygons_that_end_in_an_integer(texts, boxes, tmp_path):
    assert read_boxes(write(tmp_path, *texts))[: len(texts)] == boxes


@pytest.mark.parametrize(
    "texts",
    [
        [TRIANGLE],
        [f"0 {BOX}\n{TRIANGLE}"],
        [TRIANGLE.replace(" 1", " 1.000000")],
        ["0 0.25 0.25 0.5 0.25 0.5 0", f"0 {BOX} 0.9 1"],
        ["0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 0.9 1"],  # OBB, confidence and id
        ["0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 0.05 0.15 0.9 1"],  # polygon, confidence and id
    ],
)
def test_lines_that_may_be_tracks_are_errors(texts, tmp_path):
    folder = write(tmp_path, *texts)
    with pytest.raises(UserError, match=r"either a polygon of .* or start the polygon at another"):
        load_detection(folder, "train")
    others = sum(line == f"0 {BOX}" for text in texts for line in text.splitlines())
    assert sum(map(len, skip_errors(folder)[0])) == others


def test_track_id_0_or_1_is_recognized_by_other_ids_of_the_split(tmp_path):
    folder = write(tmp_path, f"{TRIANGLE}\n{POLYGON}", f"0 {BOX} 0.8 14", f"0 {BOX}")
    boxes, messages = skip_errors(folder)
    assert [len(image_boxes) for image_boxes in boxes] == [1, 0, 1]
    assert len(messages) == 2


# ---- key points


def test_key_points_are_skipped_and_their_number_is_checked(tmp_path):
    yaml = "names: [person, car]\nkpt_shape: [2, 3]\n"
    points = "0.9 0.9 2 0 0 0"
    folder = write(tmp_path, f"1 {BOX} {points}\n0 {BOX}", yaml=yaml)
    assert read_boxes(folder)[0] == [[1, 36, 24, 60, 40], [0, 36, 24, 60, 40]]
    for line in (f"0 {BOX} {points} 0.9", f"0 {BOX} 0.9 0.9 2", f"0 {BOX} 0.9 3", POLYGON):
        write(folder, line, yaml=yaml)
        with pytest.raises(UserError, match=r"or with the key .* kpt_shape: \[2, 3\], 11 numbers"):
            load_detection(folder, "train")
    for shape in ("17", "[17]", "[17, 4]", "[0, 3]", "[a, 2]", "[17, 3, 1]", "{n: 17}"):
        write(folder, f"0 {BOX}", yaml=f"names: [person, car]\nkpt_shape: {shape}\n")
        with pytest.raises(UserError, match=r"data.yaml: kpt_shape: .*; give \[number of key"):
            load_detection(folder, "train")
    for shape in ("", "null", "~"):
        write(folder, POLYGON, yaml=f"names: [person, car]\nkpt_shape: {shape}\n")
        assert read_boxes(folder)[0] == [[0, *POLYGON_BOX]]


# ---- properties

example = settings(max_examples=20, deadline=None, database=None)
class_numbers = st.integers(0, 1)
fractions = st.floats(0, 1).map(lambda value: round(value, 6))
confidences = st.floats(0.01, 1).map(lambda value: round(value, 6))


def lists(elements, **options):
    return st.lists(elements, min_size=1, max_size=4, **options)


@st.composite
def pixel_boxes(draw):
    x1, x2 = sorted(draw(lists(st.integers(0, WIDTH), unique=True).filter(lambda v: len(v) == 2)))
    y1, y2 = sorted(draw(lists(st.integers(0, HEIGHT), unique=True).filter(lambda v: len(v) == 2)))
    return [x1, y1, x2, y2]


def box_values(box):
    return [float(word) for word in source_files.yolo_line("person", box).split()[1:]]


@st.composite
def box_lines(draw):
    category = draw(class_numbers)
    box = draw(pixel_boxes())
    return [category, *box], [category, *box_values(box)]


@st.composite
def polygon_lines(draw):
    """OBB is the case of four corners."""
    category = draw(class_numbers)
    corners = st.tuples(st.integers(0, WIDTH), st.integers(0, HEIGHT))
    points = draw(st.lists(corners, min_size=3, max_size=12).filter(_has_area))
    x, y = zip(*points, strict=True)
    values = [round(v, 6) for px, py in points for v in (px / WIDTH, py / HEIGHT)]
    return [category, min(x), min(y), max(x), max(y)], [category, *values]


def _has_area(points):
    return all(len(set(coordinates)) > 1 for coordinates in zip(*points, strict=True))


@st.composite
def written(draw, values, integers=True):
    """The text of a line: formats of numbers and separators that tools write."""
    form = draw(st.sampled_from(["{:.6f}", "{:g}" if integers else "{}", "{}"]))
    words = [str(values[0]), *(form.format(value) for value in values[1:])]
    return draw(st.sampled_from([" ", "  ", "\t"])).join(words) + draw(st.sampled_from(["", " "]))


def in_folder(*texts, yaml=""):
    with tempfile.TemporaryDirectory() as folder:
        return skip_errors(write(Path(folder), *texts, yaml=yaml))


@example
@given(data=st.data())
def test_boxes_and_polygons_are_read_exactly(data):
    rows = data.draw(lists(st.one_of(box_lines(), polygon_lines())))
    text = data.draw(st.sampled_from(["\n", "\r\n"])).join(
        data.draw(written(values)) for _, values in rows
    )
    boxes, messages = in_folder(data.draw(st.sampled_from(["", "\ufeff"])) + text, POLYGON)
    assert messages == []
    assert boxes[0] == [row for row, _ in rows]


@example
@given(data=st.data(), n=st.integers(1, 5), size=st.integers(2, 3))
def test_boxes_with_key_points_are_read_exactly(data, n, size):
    rows = data.draw(lists(box_lines()))
    lines = []
    for _, values in rows:
        points = data.draw(st.lists(fractions, min_size=n * size, max_size=n * size))
        lines.append(data.draw(written([*values, *points])))
    yaml = f"kpt_shape: [{n}, {size}]\nnames: [person, car]\n"
    boxes, messages = in_folder("\n".join(lines), yaml=yaml)
    assert (boxes[0], messages) == ([row for row, _ in rows], [])


@example
@given(data=st.data())
def test_detector_lines_are_errors(data):
    rows = data.draw(lists(box_lines()))
    lines = [data.draw(written([*values, data.draw(confidences)])) for _, values in rows]
    boxes, messages = in_folder("\n".join(lines), POLYGON)
    assert (boxes[0], len(messages)) == ([], len(lines))


@example
@given(data=st.data(), obb=st.booleans())
def test_track_lines_are_errors(data, obb):
    """Boxes, OBB and larger polygons; in a split of its own, or next to boxes without track."""
    shapes = polygon_lines().filter(lambda row: len(row[1]) >= 9) if obb else box_lines()
    ids = data.draw(st.lists(st.integers(-1, 20), min_size=1, max_size=4, unique=True))
    lines = []
    for track in ids:
        _, values = data.draw(shapes)
        lines.append(data.draw(written([*values, data.draw(confidences), track])))
    half = len(lines) // 2
    boxes, messages = in_folder("\n".join(lines[:half]), "\n".join(lines[half:]), f"0 {BOX}")
    assert boxes == [[], [], [[0, 36, 24, 60, 40]]]
    assert len(messages) == len(lines)
    assert all("track id" in message for message in messages)
    for line in lines:
        assert any(line[:60].replace("\t", "\\t") in message for message in messages)


@st.composite
def small_boxes(draw):
    """x y w h of an object in the lower right of the image, as its (w, h) is then far from it."""
    w, h = draw(st.floats(0.02, 0.3)), draw(st.floats(0.02, 0.3))
    return [draw(st.floats(0.5, 1 - w / 2)), draw(st.floats(0.5, 1 - h / 2)), w, h]


@st.composite
def poses(draw, n, visible):
    x, y, w, h = box = draw(small_boxes())
    points = []
    for _ in range(n):
        shift = st.floats(-0.5, 0.5)
        point = [x + w * draw(shift), y + h * draw(shift)]
        points += [*point, draw(st.integers(0, 2))] if visible else point
    return [draw(class_numbers), *box, *points]


@example
@given(data=st.data(), n=st.integers(1, 8), visible=st.booleans())
def test_key_points_without_kpt_shape_are_errors(data, n, visible):
    lines = [data.draw(written(values)) for values in data.draw(lists(poses(n, visible)))]
    boxes, messages = in_folder("\n".join(lines), f"0 {BOX}")
    assert (boxes[0], len(messages)) == ([], len(lines))
    assert boxes[1] == [[0, 36, 24, 60, 40]]
    shape = f"[{n}, {3 if visible else 2}]"
    assert all(f"kpt_shape: {shape}" in message for message in messages)


@example
@given(data=st.data())
def test_same_boxes_in_coco_and_yolo_give_the_same_arrays(data):
    objects = st.tuples(st.sampled_from(source_files.CLASSES), pixel_boxes())
    rows = data.draw(st.lists(st.lists(objects, max_size=4), min_size=2, max_size=3).filter(any))
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    scenes = [(f"{i}.png", image, [*row]) for i, row in enumerate(rows)]
    splits = []
    for writer in (source_files.coco, source_files.yolo):
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(source_files, "scenes", return_value=scenes),
        ):
            writer(Path(folder), {"train": len(scenes)})
            splits.append(load_detection(folder, "train", source_files.CLASSES))
    assert_same(*splits)
