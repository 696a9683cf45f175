"""VOC files of several tools: a rectangle gives the same box as in the YOLO and COCO layouts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.layouts import source_files
from tests.data.layouts.source_files import HEIGHT, WIDTH, yolo_line
from tests.data.loaders import load_detection
from tinyjax.errors import UserError

BLANK = source_files.png(np.zeros((HEIGHT, WIDTH), np.uint8))

# What each tool writes before its objects, and its corners of the box x1, y1, x2, y2.
DEVKIT = "<source><database>The VOC2007 Database</database><image>flickr</image></source>"
DATUMARO = "<source><database>Unknown</database><annotation>Unknown</annotation></source>"
LABEL_STUDIO = "<source><database>MyDatabase</database></source>"
LABELIMG = "<path>/home/me/a.png</path><source><database>Unknown</database></source>"
MAKESENSE = "<path>/project/a.png</path><source><database>Unspecified</database></source>"
ROBOFLOW = "<path>a.jpg</path><source><database>roboflow.com</database></source>"
TOOLS = {
    "the VOC devkit": (DEVKIT, 1),
    "labelImg or CVAT": (DATUMARO, 0),
    "Label Studio": (LABEL_STUDIO, 0),
    "makesense.ai": (MAKESENSE, 0),
}


def xml(header, boxes, first_pixel):
    text = source_files.voc_xml("a.png", [("person", box) for box in boxes], first_pixel)
    return text.replace("</filename>", f"</filename>{header}")


def devkit_folders(folder, files):
    """files: name -> xml."""
    for name, text in files.items():
        source_files.save(folder / "JPEGImages" / f"{name}.jpg", BLANK)
        source_files.save(folder / "Annotations" / f"{name}.xml", text)
    source_files.save(folder / "ImageSets" / "Main" / "train.txt", "\n".join(files))
    return folder


def flat_folder(folder, files):
    for name, text in files.items():
        source_files.save(folder / "train" / f"{name}.png", BLANK)
        source_files.save(folder / "train" / f"{name}.xml", text)
    return folder


def boxes_of(split):
    return [rows[valid].tolist() for rows, valid in zip(split.boxes, split.valid, strict=True)]


@st.composite
def boxes(draw, low=0, step=1):
    """Up to 8 boxes x1, y1, x2, y2 within the image."""
    out = []
    for _ in range(draw(st.integers(1, 8))):
        x1, y1 = draw(st.integers(low, WIDTH - 1)), draw(st.integers(low, HEIGHT - 1))
        x2, y2 = draw(st.integers(x1 + 1, WIDTH)), draw(st.integers(y1 + 1, HEIGHT))
        shift = draw(st.sampled_from((0, step / 2))) if step < 1 else 0
        out.append([x1 + shift, y1 + shift, x2 + shift, y2 + shift])
    return out


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tools")


@pytest.mark.parametrize("write", [devkit_folders, flat_folder])
@pytest.mark.parametrize("tool", TOOLS)
@settings(max_examples=10, deadline=None)
@given(expected=boxes())
def test_boxes_of_each_tool_are_read_exactly(tool, write, scratch, expected):
    header, first_pixel = TOOLS[tool]
    source = write(scratch / f"{tool}-{write.__name__}", {"a": xml(header, expected, first_pixel)})
    split = load_detection(source, "train")
    assert boxes_of(split) == [expected]
    (notice,) = split.notices
    assert f"pixels counted from {first_pixel}" in notice


@settings(max_examples=25, deadline=None)
@given(expected=boxes(low=1))
def test_labelimg_gives_the_same_arrays_as_yolo_and_coco(scratch, expected):
    """From 1, since labelImg lifts corners of 0 to 1."""
    voc = flat_folder(scratch / "labelimg", {"a": xml(LABELIMG, expected, 0)})
    yolo, coco = scratch / "labelimg yolo", scratch / "labelimg coco"
    source_files.save(yolo / "train" / "a.png", BLANK)
    lines = "\n".join(yolo_line("person", box) for box in expected)
    source_files.save(yolo / "train" / "a.txt", lines)
    source_files.save(yolo / "train" / "classes.txt", "person\n")
    annotations = [
        {"id": k, "image_id": 0, "category_id": 0, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for k, (x1, y1, x2, y2) in enumerate(expected)
    ]
    document = {
        "images": [{"id": 0, "file_name": "a.png"}],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "person"}],
    }
    source_files.save(coco / "images" / "a.png", BLANK)
    source_files.save(coco / "train.json", json.dumps(document))
    reference = load_detection(coco, "train")
    assert boxes_of(reference) == [expected]
    for source in (voc, yolo):
        split = load_detection(source, "train")
        for name in ("boxes", "labels", "valid", "ignore"):
            assert np.array_equal(getattr(split, name), getattr(reference, name)), name
        rows = (each.truth["annotations"] for each in (split, reference))
        for row, expected_row in zip(*rows, strict=True):
            assert row["bbox"] == pytest.approx(expected_row["bbox"])


def test_files_of_several_tools_in_one_set(tmp_path):
    """Own files of labelImg added to those of the devkit: each follows its tool's rule."""
    files = {"a": xml(DEVKIT, [[4, 5, 9, 20]], 1), "b": xml(LABELIMG, [[4, 5, 9, 20]], 0)}
    split = load_detection(devkit_folders(tmp_path, files), "train")
    assert boxes_of(split) == [[[4, 5, 9, 20]], [[4, 5, 9, 20]]]
    assert split.notices == (
        "1 VOC files of the VOC devkit: pixels counted from 1",
        "1 VOC files of labelImg or CVAT: pixels counted from 0",
    )


@pytest.mark.parametrize(
    ("write", "boxes", "first_pixel", "reason"),
    [
        (devkit_folders, [[0, 3, 9, 9]], 0, "some corners are below 1"),
        (devkit_folders, [[4, 5, 9, 20], [10.5, 3, 19, 9]], 0, "some corners are fractions"),
        (flat_folder, [[4, 5, 9, 20]], 0, "the xml files are next to the images"),
        (devkit_folders, [[4, 5, 9, 20]], 1, "files of labelImg or CVAT, Label Studio, makesense"),
    ],
)
def test_rule_for_files_of_an_unknown_tool(write, boxes, first_pixel, reason, tmp_path):
    split = load_detection(write(tmp_path, {"a": xml("", boxes, first_pixel)}), "train")
    assert boxes_of(split) == [boxes]
    (notice,) = split.notices
    assert f"1 VOC files of an unknown tool: pixels counted from {first_pixel}" in notice
    assert reason in notice
    assert (
        first_pixel == 0 and write is devkit_folders
    ) or f"first_pixel={1 - first_pixel}" in notice


def test_a_corner_of_zero_overrules_the_devkits_name(tmp_path):
    """Converters copy the devkit's header; a corner of 0 in any split decides for all splits."""
    source = devkit_folders(
        tmp_path, {"a": xml(DEVKIT, [[4, 5, 9, 20]], 0), "b": xml(DEVKIT, [[0, 5, 9, 20]], 0)}
    )
    source_files.save(source / "ImageSets" / "Main" / "train.txt", "a")
    source_files.save(source / "ImageSets" / "Main" / "val.txt", "b")
    assert boxes_of(load_detection(source, "train")) == [[[4, 5, 9, 20]]]
    assert boxes_of(load_detection(source, "val")) == [[[0, 5, 9, 20]]]


def test_a_negative_corner_does_not_overrule_the_tool(tmp_path):
    """One broken file does not move the boxes of the others."""
    files = {"a": xml(DEVKIT, [[4, 5, 9, 20]], 1), "b": xml(DEVKIT, [[-3, 5, 9, 20]], 0)}
    source, problems = devkit_folders(tmp_path, files), []
    split = load_detection(source, "train", on_error=lambda *problem: problems.append(problem))
    assert boxes_of(split) == [[[4, 5, 9, 20]]]
    ((problem, message),) = problems
    assert problem == "bad label file"
    assert "b.xml: object 1: xmin -3, ymin 5: this file counts pixels from 0" in message


def test_fractions_of_the_devkit_count_from_one(tmp_path):
    """VOC2012 has a few."""
    source = devkit_folders(tmp_path, {"a": xml(DEVKIT, [[44.5, 5, 60.5, 20]], 1)})
    assert boxes_of(load_detection(source, "train")) == [[[44.5, 5, 60.5, 20]]]


def test_roboflow_is_read_by_the_devkits_rule_and_the_notice_says_so(tmp_path):
    split = load_detection(flat_folder(tmp_path, {"a": xml(ROBOFLOW, [[4, 5, 9, 20]], 1)}), "train")
    assert boxes_of(split) == [[[4, 5, 9, 20]]]
    assert "Roboflow: pixels counted from 1 (it does not document its rule" in split.notices[0]


@pytest.mark.parametrize("header", [DEVKIT, LABELIMG, ""])
def test_explicit_first_pixel_decides(header, tmp_path):
    source = flat_folder(tmp_path, {"a": xml(header, [[4, 5, 9, 20]], 0)})
    for first_pixel, x1, y1 in ((0, 4, 5), (1, 3, 4)):
        split = load_detection(source, "train", first_pixel=first_pixel)
        assert boxes_of(split) == [[[x1, y1, 9, 20]]]
        assert split.notices == ()


def test_wrong_values_of_first_pixel_are_errors(tmp_path):
    source = flat_folder(tmp_path, {"a": xml("", [[0, 5, 9, 20]], 0)})
    with pytest.raises(UserError, match="this file counts pixels from 0; give first_pixel=0"):
        load_detection(source, "train", first_pixel=1)
    with pytest.raises(UserError, match="first_pixel = 2: VOC files count pixels from 1, or from"):
        load_detection(source, "train", first_pixel=2)


def test_own_files_in_a_folder_with_the_devkits_name(tmp_path):
    """Such a folder is recognized as the published set, but its files are labelImg's."""
    files = {"a": xml(LABELIMG, [[4, 5, 9, 20]], 0)}
    source = devkit_folders(tmp_path / "VOC2007", files)
    assert boxes_of(load_detection(source, "train")) == [[[4, 5, 9, 20]]]
    by_name = load_detection(tmp_path, "train", layout="voc2007")
    assert boxes_of(by_name) == [[[3, 4, 9, 20]]]


def test_published_sets_keep_their_rule(tmp_path):
    files = {"a": xml(LABELIMG, [[4, 5, 9, 20]], 1)}
    source = devkit_folders(tmp_path / "clipart", files)
    source_files.save(source / "ImageSets" / "Main" / "test.txt", "a")
    assert boxes_of(load_detection(tmp_path, "train")) == [[[4, 5, 9, 20]]]
