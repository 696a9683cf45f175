"""Published sets: tiny copies in their layouts give the drawn objects, and missing files are named.

The copies are written by `published_sets`; the sets themselves are not available.
"""

import json
import shutil
from functools import partial

import pytest

from tests.data.layouts import published_sets as tiny
from tests.data.layouts import source_files
from tests.data.loaders import load_detection
from tinyjax import errors, prepare
from tinyjax.config import classifier, detector
from tinyjax.data.layouts import published
from tinyjax.data.layouts.catalog import DETECTION_SETS, PUBLISHED_SETS
from tinyjax.data.layouts.recognition import find_layout
from tinyjax.data.loading import load_split
from tinyjax.data.sources import open_source
from tinyjax.errors import UserError

FLIR = ("person", "bicycle", "car", "dog", "other vehicle")
WRITERS = {  # name of the set, what writes it, the classes that are scored by default
    "llvip": ("llvip", tiny.llvip, ("person",)),
    "flir_aligned": ("flir_aligned", tiny.flir_aligned, ("person", "bicycle", "car")),
    "flir_aligned, stems": (
        "flir_aligned",
        partial(tiny.flir_aligned, suffix=""),
        ("person", "bicycle", "car"),
    ),
    "flir_adas_v1": ("flir_adas_v1", tiny.flir_adas_v1, FLIR),
    "flir_adas_v1, first release": ("flir_adas_v1", tiny.flir_adas_first, FLIR),
    "flir_adas_v2": (
        "flir_adas_v2",
        tiny.flir_adas_v2,
        ("person", "bike", "car", "motor", "light"),
    ),
    "hit_uav": ("hit_uav", tiny.hit_uav, ("Person", "Car", "Bicycle", "OtherVehicle")),
    "hit_uav, xml": (
        "hit_uav",
        partial(tiny.hit_uav, only="normal_xml"),
        ("Person", "Car", "Bicycle", "OtherVehicle"),
    ),
    **{
        f"kaist, {labels}": ("kaist", partial(tiny.kaist, labels=labels), ("person",))
        for labels in ("annotations-xml-new-sanitized", "annotations_paired", "annotations")
    },
    "kaist, no lists": ("kaist", partial(tiny.kaist, lists=False), ("person",)),
    "coco2017": ("coco2017", tiny.coco2017, tuple(tiny.COCO.values())),
    "voc2007": ("voc2007", tiny.voc2007, ("aeroplane", "person", "tvmonitor")),
    "voc2012": ("voc2012", tiny.voc2012, ("aeroplane", "person", "tvmonitor")),
    "clipart1k": ("clipart1k", tiny.clipart1k, ("aeroplane", "person", "tvmonitor")),
    "watercolor2k": ("watercolor2k", tiny.watercolor2k, tiny.SIX),
    "comic2k": ("comic2k", tiny.comic2k, tiny.SIX),
}


def objects(split, i):
    """(category, corners) of an image's scored objects, and corners of its ignored regions."""
    rows = zip(split.boxes[i], split.labels[i], split.valid[i], split.ignore[i], strict=True)
    scored, ignored = [], []
    for box, label, valid, ignore in rows:
        if valid:
            scored.append((split.classes[label], *box.tolist()))
        elif ignore:
            ignored.append(box.tolist())
    return sorted(scored), sorted(ignored)


@pytest.mark.parametrize("case", WRITERS)
def test_all_splits_equal_the_drawn_objects(case, tmp_path):
    name, write, classes = WRITERS[case]
    drawn = write(tmp_path)
    assert sorted(find_layout(tmp_path, name).list_splits(tmp_path)) == sorted(drawn)
    for split_name, rows in drawn.items():
        split = load_detection(tmp_path, split_name, layout=name)
        assert split.names == tuple(sorted(rows))
        assert split.classes == classes
        for i, file in enumerate(split.names):
            scored = sorted(one for one in rows[file] if one[0] in classes)
            ignored = sorted(
                [*one[1:]] for one in rows[file] if one[0] in PUBLISHED_SETS[name].ignore_classes
            )
            assert objects(split, i) == (scored, ignored)


@pytest.mark.parametrize("name", DETECTION_SETS)
def test_all_sets_of_the_catalog_are_tested(name):
    assert name in {one for one, *_ in WRITERS.values()} | {"hit_uav_ir"}


@pytest.mark.parametrize("case", WRITERS)
@pytest.mark.parametrize("packed", [False, True])
def test_set_is_recognized(case, packed, tmp_path):
    name, write, _ = WRITERS[case]
    drawn = write(tmp_path / "a")
    (home,) = (tmp_path / "a").iterdir()
    source = source_files.zip_folder(tmp_path / "a", tmp_path / "set.zip") if packed else home
    with open_source(source) as root:
        assert published.recognize(root) == name
        if PUBLISHED_SETS[name].layout == "special":  # the others have a general layout
            assert sorted(find_layout(root, "auto").list_splits(root)) == sorted(drawn)
    first = next(iter(drawn))
    source_files.assert_same(
        load_detection(source, first, layout=name),
        load_detection(tmp_path / "a", first, layout=name),
    )


def test_repacked_hit_uav_is_recognized_and_other_coco_sets_are_not(data_root, tmp_path):
    with open_source(data_root / "hit_uav_ir" / "hit_uav_ir.zip") as root:
        assert published.recognize(root) == "hit_uav_ir"
        counts, problems = published.inspect_files(root, "hit_uav_ir")
    assert counts == {"train": 1449, "val": 270, "shift": 423}
    assert problems == []
    assert published.recognize(source_files.coco(tmp_path, {"train": 2, "val": 2})) == ""


def test_other_layouts_are_not_recognized_as_published_sets(tmp_path):
    for name in ("coco", "voc", "flat_voc", "yolo"):
        folder = getattr(source_files, name)(tmp_path / name, {"train": 2, "val": 2})
        assert published.recognize(folder) == "", name


def test_requested_set_is_read_from_a_devkit_with_several(tmp_path):
    drawn = {"voc2007": tiny.voc2007(tmp_path), "voc2012": tiny.voc2012(tmp_path)}
    for name, rows in drawn.items():
        for source in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / name.upper()):
            assert load_detection(source, "train", layout=name).names == tuple(
                sorted(rows["train"])
            )


def test_json_and_xml_of_hit_uav_give_the_same_arrays(tmp_path):
    for only in ("normal_json", "normal_xml"):
        tiny.hit_uav(tmp_path / only, only)
    for split in ("train", "val", "test"):
        a, b = (
            load_detection(tmp_path / file_format, split, layout="hit_uav")
            for file_format in ("normal_json", "normal_xml")
        )
        source_files.assert_same(a, b)


def test_kaist_prefers_corrected_labels(tmp_path):
    tiny.kaist(tmp_path, "annotations-xml-new")
    home = tmp_path / "kaist-rgbt"
    corrected = home / "annotations-xml-new-sanitized" / "set00" / "V000" / "I00000.xml"
    source_files.save(
        corrected, tiny.xml([("person?a", 1, 2, 3, 4), ("person", 5, 6, 9, 12)], corners=False)
    )
    split = load_detection(tmp_path, "lwir/train-all-02", layout="kaist")
    assert objects(split, 0) == ([("person", 5, 6, 9, 12)], [[1, 2, 3, 4]])
    assert objects(split, 1)[0] == [("person", 5, 5, 11, 20)]  # from the older folder
    source_files.save(
        home / "annotations_paired/set00/V000/lwir/I00000.txt",
        tiny.bbgt([("person", 1, 1, 9, 9)], 1),
    )
    split = load_detection(tmp_path, "lwir/train-all-02", layout="kaist")
    assert objects(split, 0) == ([], [[1, 1, 9, 9]])  # marked "ignore"


def test_complete_sets_have_no_missing_files(tmp_path):
    for k, (name, write, _) in enumerate(WRITERS.values()):
        if name in ("kaist", "hit_uav"):
            continue  # copies do not have all lists and formats
        write(tmp_path / str(k))
        assert published.inspect_files(tmp_path / str(k), name)[1] == [], name


# --- configs and commands -------------------------------------------------------------------------


def test_config_with_a_published_detection_set(tmp_path):
    tiny.flir_adas_v2(tmp_path)
    config = detector()
    config.data.format = "flir_adas_v2"
    config.data.common = {"source": str(tmp_path), "classes": ("person", "bicycle")}
    config.data.common.rename = {"bike": "bicycle"}
    config.data.train = {"split": "thermal/train", "min_height": {"bicycle": 20}}
    split = load_split(config.data, config.data.train)
    assert split.classes == ("person", "bicycle")
    assert [split.classes[k] for k in split.labels[split.valid]] == ["person", "person"]


def test_config_with_domainnet(tmp_path):
    drawn = tiny.domainnet(tmp_path)
    config = classifier()
    config.data.format = "domainnet"
    config.data.common = {"source": str(tmp_path), "size": (8, 8)}
    for name, rows in drawn.items():
        config.data.train = {"split": name}
        split = load_split(config.data, config.data.train, ("domainnet",))
        assert split.classes == ("aircraft_carrier", "zigzag")
        assert {n: split.classes[k] for n, k in zip(split.names, split.labels, strict=True)} == rows
    shutil.rmtree(tmp_path / "domainnet" / "sketch")
    config.data.train = {"split": "sketch_test"}
    with pytest.raises(UserError, match=r"DomainNet: sketch does not exist; unpack the zip of"):
        load_split(config.data, config.data.train, ("domainnet",))


def run(*argv):
    return errors.exit_code(lambda: prepare.main([str(a) for a in argv]))


def test_check_prints_terms_and_counts(tmp_path, capsys):
    tiny.llvip(tmp_path)
    assert run(tmp_path / "LLVIP", "--check", "--report", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    for words in (
        "LLVIP (llvip)\n  terms: Free for non-commercial use, academic or not;",
        "cite: Jia et al., LLVIP",
        "known issues: 2 xml files have no box",
        "  infrared/train: 3 images, published 12,025\n",
        "  visible/test: 2 images, published 3,463\n",
        "infrared/train: 3 images, person 4; 1 without objects",
    ):
        assert words in printed, words
    assert "terms: Free" in (tmp_path / "report" / "report.txt").read_text()
    assert (tmp_path / "report" / "infrared_train.png").is_file()
    shutil.rmtree(tmp_path / "LLVIP" / "visible" / "test")
    run(tmp_path / "LLVIP", "--check", "--report", tmp_path / "report", "--only", "visible/train")
    assert "LLVIP: visible/test does not exist; unpack" in capsys.readouterr().out


def test_check_of_a_classification_set(tmp_path, capsys):
    tiny.domainnet(tmp_path)
    assert run(tmp_path, "--check", "--format", "domainnet") == 0
    assert "clipart_train: 4 images, published 33,525" in capsys.readouterr().out
    next((tmp_path / "domainnet" / "real" / "zigzag").iterdir()).unlink()
    assert run(tmp_path, "--check") == 2
    assert "1 of" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["llvip", "kaist", "flir_adas_v1"])
def test_converted_set_loads_bit_identically(name, tmp_path, capsys):
    drawn = getattr(tiny, name)(tmp_path / "set")
    assert run(tmp_path / "set", "--to", tmp_path / "out", "--format", name) == 0
    for split in drawn:
        before = load_detection(tmp_path / "set", split, layout=name)
        after = load_detection(tmp_path / "out", split.replace("/", "_"))
        source_files.assert_same(before, after)
        assert before.truth["images"] == after.truth["images"]
        document = json.dumps(before.truth["annotations"])
        assert document == json.dumps(after.truth["annotations"])
