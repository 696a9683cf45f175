"""Sets with labels in several formats, label files as sources, and files of other tools."""

import json
import shutil

import pytest

from tests.data.layouts import source_files
from tests.data.layouts.source_files import assert_same, save, voc_xml
from tests.data.loaders import load_detection
from tinyjax import errors, prepare
from tinyjax.data.layouts import arrayrecord, coco
from tinyjax.data.layouts.listing import raise_error
from tinyjax.data.layouts.recognition import find_layout, label_paths
from tinyjax.errors import UserError

SPLITS = {"train": 4, "val": 3}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load_detection(folder, name, source_files.CLASSES) for name in SPLITS}


def scene(split, i):
    return source_files.scenes(split, SPLITS[split])[i]


def coco_by_split(folder):
    """COCO with images in images/<split>/."""
    source_files.coco(folder, SPLITS)
    for file in [*(folder / "images").iterdir()]:
        save(folder / "images" / file.name[:-7] / file.name, file.read_bytes())
        file.unlink()
    return folder


WRITERS = {"yolo": lambda folder: source_files.yolo(folder, SPLITS), "coco": coco_by_split}


def with_stray_xml(folder, layout, splits=("train",)):
    """A set with one VOC xml next to an image, as labelImg writes it."""
    source = WRITERS[layout](folder)
    for split in splits:
        name, _, objects = scene(split, 0)
        xml = source / "images" / split / name.replace(".png", ".xml")
        save(xml, voc_xml(name, objects[:1], 1))
    return source


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("splits", [("train",), ("train", "val")])
@pytest.mark.parametrize("layout", WRITERS)
def test_stray_xml_is_an_error_unless_the_format_is_given(
    layout, splits, packed, tmp_path, expected
):
    folder = with_stray_xml(tmp_path / "set", layout, splits)
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    for split in SPLITS:
        with pytest.raises(UserError) as error:
            load_detection(source, split)
        for words in (
            f"VOC ({len(splits)} file{'s' * (len(splits) > 1)}, such as images/train/train_00.xml)",
            {"yolo": "YOLO (5 files, such as labels/train/train_00.txt)"}.get(layout, "COCO (2 "),
            f"choose one with data.format = voc or {layout} (prepare: --format)",
        ):
            assert words in str(error.value), words
        assert_same(load_detection(source, split, layout=layout), expected[split])


LABEL_FILES = {"yolo": ["data.yaml"], "coco": ["annotations/instances_train.json"]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("layout", WRITERS)
def test_label_file_as_source_decides(layout, stream, tmp_path, expected):
    folder = with_stray_xml(tmp_path, layout)
    for name in LABEL_FILES[layout]:
        for split in SPLITS:
            loaded = load_detection(folder / name, split, size=(64, 96), stream=stream)
            assert loaded.names == expected[split].names
            assert (loaded.boxes == expected[split].boxes).all()
    with pytest.raises(UserError, match=rf"or give .*/{LABEL_FILES[layout][0]} as the source"):
        load_detection(folder, "train")


def test_prepare_reports_two_formats(tmp_path, capsys):
    folder = with_stray_xml(tmp_path / "set", "yolo")
    for argv, code in (([], 2), (["--format", "yolo"], 0)):
        argv = [str(folder), "--check", "--report", str(tmp_path / "report"), *argv]
        assert errors.exit_code(lambda argv=argv: prepare.main(argv)) == code
    assert "error: " in (message := capsys.readouterr().err)
    assert "labels in 2 formats: VOC (1 file," in message


@pytest.fixture
def half(tmp_path):
    """labelImg's format was switched: xml for two images of a split, txt for the others."""
    folder = tmp_path / "half"
    for split, n in SPLITS.items():
        for i in range(n):
            name, image, objects = scene(split, i)
            save(folder / split / name, source_files.png(image))
            if i % 2:
                text = "\n".join(source_files.yolo_line(*one) for one in objects)
                save(folder / split / name.replace(".png", ".txt"), text)
            else:
                xml = folder / split / name.replace(".png", ".xml")
                save(xml, voc_xml(name, objects, 1))
        save(folder / split / "classes.txt", "person\ncar\n")
    return folder


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (
            "auto",
            r"VOC \(4 files, such as train/train_00.xml\) and YOLO \(3 files, such as t",
        ),
        ("voc", r"train_01.png: has no VOC labels, but .*train_01.txt has some \(1 of 4 images"),
        ("yolo", r"train_00.png: has no YOLO labels, but .*train_00.xml has some \(2 of 4 images"),
    ],
)
def test_images_labeled_only_in_the_other_format_are_an_error(layout, words, half):
    with pytest.raises(UserError, match=words):
        load_detection(half, "train", layout=layout)


def test_images_labeled_only_in_the_other_format_can_be_skipped(half):
    problems = []
    split = load_detection(
        half, "train", layout="yolo", on_error=lambda *problem: problems.append(problem)
    )
    assert split.names == ("train_01.png", "train_03.png")
    assert {problem for problem, _ in problems} == {"labels in another format"}


OTHERS = {
    "voc": ("txt", "LabelMe", "coco"),
    "yolo": ("xml", "xml in Annotations", "LabelMe", "coco"),
    "coco": ("txt", "xml", "xml in Annotations", "LabelMe"),
}


@pytest.mark.parametrize(
    ("layout", "other"), [(layout, other) for layout, rows in OTHERS.items() for other in rows]
)
def test_labels_only_in_another_file(layout, other, tmp_path):
    """In each layout, the last image has no objects; another tool's file has one for it."""
    folder = getattr(source_files, layout)(tmp_path, SPLITS)
    image = next(folder.rglob("train_03.png"))
    box = ("person", [4, 5, 10, 20])
    if other == "txt":
        file, text = image.with_suffix(".txt"), source_files.yolo_line(*box)
    elif other.startswith("xml"):
        label_folder = image.parent if other == "xml" else folder / "Annotations"
        file, text = label_folder / "train_03.xml", voc_xml(image.name, [box], 1)
    elif other == "LabelMe":
        shape = {"label": "person", "points": [[4, 5], [10, 20]], "shape_type": "rectangle"}
        file, text = image.with_suffix(".json"), json.dumps({"version": "5", "shapes": [shape]})
    else:
        path = image.relative_to(folder).as_posix()
        document = {
            "images": [{"id": 1, "file_name": path}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 6, 15]}],
        }
        file, text = folder / "annotations" / "instances_more.json", json.dumps(document)
    assert load_detection(folder, "train", layout=layout).valid[3].sum() == 0
    save(file, text)
    with pytest.raises(UserError, match=rf"train_03.png: has no .* labels, but .*{file.name} has"):
        load_detection(folder, "train", layout=layout)


def test_empty_files_of_another_format_do_not_matter(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    difficult = voc_xml("train_03.png", [("car", [4, 5, 10, 20])], 1)
    difficult = difficult.replace("<difficult>0", "<difficult>1")
    save(folder / "Annotations" / "train_03.xml", difficult)
    save(folder / "images" / "train" / "train_03.txt", "a gray scene 5\n")
    save(folder / "images" / "val" / "val_02.xml", voc_xml("val_02.png", [], 1))
    for split in SPLITS:
        loaded = load_detection(folder, split, layout="yolo")
        assert_same(loaded, expected[split])


@pytest.mark.parametrize("file", ["classes.txt", "data.yaml"])
def test_class_list_without_labels_is_no_second_format(file, tmp_path, expected):
    folder = coco_by_split(tmp_path)
    names = "names: [person, car]\ntrain: images/train\nval: images/val\n"
    (folder / file).write_text(names if file == "data.yaml" else "person\ncar\n")
    for split in SPLITS:
        assert_same(load_detection(folder, split), expected[split])


def test_yolo_labels_and_json_are_two_formats(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    shutil.copytree(source_files.coco(tmp_path / "x", SPLITS) / "annotations", folder / "coco")
    (folder / "coco").rename(folder / "annotations")
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(UserError, match=r"YOLO \(5 files.* and COCO \(2 files, such as annot"):
        load_detection(folder, "train")


def test_prepared_files_within_their_source_are_two_formats(tmp_path):
    folder = source_files.coco(tmp_path, SPLITS)
    listing = find_layout(folder, "coco").read_listing(folder, "train", raise_error)
    arrayrecord.write({"train": listing}, folder)
    with pytest.raises(UserError, match=r"ArrayRecord \(1 file, .*dataset_info.json\) and COCO"):
        load_detection(folder, "train")


def test_train_in_voc_and_val_in_yolo_is_an_error(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    for i in range(SPLITS["train"]):
        name, _, objects = scene("train", i)
        save(folder / "images" / "train" / name.replace(".png", ".xml"), voc_xml(name, objects, 1))
    shutil.rmtree(folder / "labels" / "train")
    for split in SPLITS:
        with pytest.raises(UserError, match=r"labels in 2 formats: VOC .* and YOLO"):
            load_detection(folder, split)


def test_two_jsons_of_a_split_must_agree(tmp_path, expected):
    folder = source_files.coco(tmp_path, SPLITS)
    first = folder / "annotations" / "instances_train.json"
    second = folder / "annotations" / "train.json"
    shutil.copy(first, second)
    assert_same(load_detection(folder, "train"), expected["train"])
    document = json.loads(first.read_text())
    document["annotations"] = document["annotations"][:2]
    second.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"instances_train.json and .*/train.json both have"):
        load_detection(folder, "train")
    assert_same(load_detection(first, "train"), expected["train"])
    assert load_detection(second, "train").valid.sum() == 2
    second.write_text(json.dumps({"images": [], "annotations": [{"caption": "a car"}]}))
    assert_same(load_detection(folder, "train"), expected["train"])


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("annotations/instances_train.json", "train"),
        ("annotations/train.json", "train"),
        ("instances_train.json", "train"),
        ("train.json", "train"),
        ("result.json", "result"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_json_as_source(path, split, tmp_path, expected):
    folder = source_files.coco(tmp_path, {"train": 4})
    document = (folder / "annotations" / "instances_train.json").read_text()
    (folder / "annotations" / "instances_train.json").unlink()
    save(folder / path, document)
    assert coco.list_splits(folder / path) == [split]
    assert_same(load_detection(folder / path, split), expected["train"])


CONTENT = {
    "LabelMe": ("train/a.json", '{"version": "5.0", "shapes": [], "imageData": null}'),
    "VGG Image Annotator": ("via_project.json", '{"_via_settings": {}, "_via_img_metadata": {}}'),
    "Supervisely": ("ds/ann/a.png.json", '{"objects": [{"classTitle": "car"}]}'),
    "Label Studio": ("project.json", '[{"annotations": [{"type": "rectanglelabels"}]}]'),
    "CVAT": ("annotations.xml", "<?xml version='1.0'?><annotations><version>1.1</version>"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tool", CONTENT)
def test_formats_that_are_not_read_are_named(tool, packed, tmp_path):
    folder = tmp_path / "set"
    save(folder / "train" / "a.png", b"")
    file, content = CONTENT[tool]
    save(folder / file, content)
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    with pytest.raises(UserError, match=rf"{file}: a file of {tool}.*not read; export or conv"):
        load_detection(source, "train")


def test_misspelled_folders_are_named(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    (folder / "data.yaml").unlink()
    (folder / "images").rename(folder / "Images")
    (folder / "labels").rename(folder / "Labels")
    with pytest.raises(UserError, match=r"rename .*/Images to images; rename .*/Labels to labels"):
        load_detection(folder, "train")


def test_misspelled_folders_next_to_a_yaml_are_named(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    (folder / "data.yaml").write_text("names: [person, car]")
    (folder / "images").rename(folder / "Images")
    (folder / "labels").rename(folder / "Labels")
    with pytest.raises(UserError, match=r"rename .*/Labels to labels") as error:
        load_detection(folder, "train")
    assert "prepare" not in str(error.value)


def test_misspelled_folders_of_images_are_named(tmp_path):
    for k, write in enumerate((source_files.coco, source_files.yolo)):
        folder = write(tmp_path / str(k), SPLITS)
        (folder / "images").rename(folder / "Images")
        with pytest.raises(UserError, match=r"no .*; rename .*/Images to images"):
            load_detection(folder, "train")


def test_json_of_another_format_as_source(tmp_path):
    (tmp_path / "notes.json").write_text('{"categories": []}')
    with pytest.raises(UserError, match=r"notes.json: not COCO: no list 'images'"):
        load_detection(tmp_path / "notes.json", "train")


def test_folders_of_classes_are_named(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png", b"")
    with pytest.raises(UserError, match=r"if cat, dog are classes: .* data.format = folder.*--spl"):
        load_detection(tmp_path, "train")


def test_paths_of_label_files():
    assert [*label_paths("a.png")] == [("", "a")]
    assert ("labels/train", "a.b") in label_paths("images/train/a.b.png")
    assert ("Annotations", "a") in label_paths("images/train/a.png")
    assert ("x/train/labels", "a") in label_paths("x/train/images/a.png")
    assert ("x/Annotations", "a") in label_paths("x/JPEGImages/a.png")
