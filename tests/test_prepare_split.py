"""python -m tinyjax.prepare --split: lists next to the images, which the loader reads."""

import json
import re
import shlex
import shutil

import pytest
import yaml

from tests.data.layouts import source_files
from tests.data.layouts.source_files import save
from tests.data.loaders import load_classification, load_detection
from tests.miniatures import write_noise_images
from tinyjax import errors, prepare

N = 12


def run(*argv):
    return errors.exit_code(lambda: prepare.main([str(a) for a in argv]))


def label_studio_yolo(folder):
    """images/, labels/, classes.txt, notes.json."""
    source_files.yolo(folder, {"train": N})
    for parent in ("images", "labels"):
        for file in (folder / parent / "train").iterdir():
            file.rename(folder / parent / file.name)
        (folder / parent / "train").rmdir()
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("person\ncar\n")
    (folder / "notes.json").write_text('{"categories": [], "info": {}}')
    return folder


def flat_yolo(folder):
    """A folder of labelImg."""
    label_studio_yolo(folder)
    for parent in ("images", "labels"):
        for file in (folder / parent).iterdir():
            file.rename(folder / file.name)
        (folder / parent).rmdir()
    return folder


def train_yolo(folder):
    return source_files.yolo(folder, {"train": N})


def cvat_yolo(folder):
    label_studio_yolo(folder)
    for parent in ("images", "labels"):
        for file in (folder / parent).iterdir():
            save(folder / "obj_train_data" / file.name, file.read_bytes())
        shutil.rmtree(folder / parent)
    images = sorted(file.name for file in (folder / "obj_train_data").glob("*.png"))
    for name in images:
        (folder / "obj_train_data" / name.replace(".png", ".txt")).touch()
    (folder / "classes.txt").rename(folder / "obj.names")
    (folder / "obj.data").write_text("names = data/obj.names\ntrain = data/train.txt\n")
    (folder / "train.txt").write_text("".join(f"data/obj_train_data/{n}\n" for n in images))
    return folder


def unsplit_voc(folder):
    """Label Studio's Pascal VOC: Annotations/ and images/."""
    source_files.voc(folder, {"train": N})
    shutil.rmtree(folder / "ImageSets")
    (folder / "JPEGImages").rename(folder / "images")
    return folder


def cvat_voc(folder):
    source_files.voc(folder, {"train": N})
    file = folder / "ImageSets" / "Main" / "train.txt"
    file.rename(file.with_name("default.txt"))
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nperson:0,0,0::\n")
    return folder


def flat_voc(folder):
    """Roboflow's Pascal VOC without a validation split."""
    return source_files.flat_voc(folder, {"train": N})


def train_coco(folder):
    return source_files.coco(folder, {"train": N})


def roboflow_coco(folder):
    source_files.roboflow_coco(folder, {"train": N})
    for file in (folder / "out").iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(folder / "plain")
    return folder


def cvat_coco(folder):
    train_coco(folder)
    file = folder / "annotations" / "instances_train.json"
    file.rename(file.with_name("instances_default.json"))
    (folder / "images").rename(folder / "default")
    (folder / "images").mkdir()
    (folder / "default").rename(folder / "images" / "default")
    return folder


def label_studio_coco(folder):
    """Ids as text, as some tools write them."""
    train_coco(folder)
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    for row in document["images"]:
        row["file_name"] = f"images/{row['file_name']}"
        row["id"] = str(row["id"])
    (folder / "result.json").write_text(json.dumps(document))
    shutil.rmtree(folder / "annotations")
    return folder


# writer: files that are written
WRITERS = {
    label_studio_yolo: ["train.txt", "val.txt", "data.yaml"],
    flat_yolo: ["train.txt", "val.txt", "data.yaml"],
    cvat_yolo: ["split_train.txt", "split_val.txt", "data.yaml"],
    train_yolo: ["split_train.txt", "split_val.txt", "split.yaml"],
    unsplit_voc: ["ImageSets/Main/train.txt", "ImageSets/Main/val.txt"],
    cvat_voc: ["ImageSets/Main/train.txt", "ImageSets/Main/val.txt"],
    flat_voc: ["ImageSets/Main/split_train.txt", "ImageSets/Main/split_val.txt"],
    train_coco: ["annotations/instances_split_train.json", "annotations/instances_split_val.json"],
    roboflow_coco: [
        "annotations/instances_split_train.json",
        "annotations/instances_split_val.json",
    ],
    cvat_coco: ["annotations/instances_train.json", "annotations/instances_val.json"],
    label_studio_coco: ["annotations/instances_train.json", "annotations/instances_val.json"],
}


def rows(split):
    """Name of the image file -> its boxes and classes."""
    return {
        name.rpartition("/")[2]: sorted(
            (*box, split.classes[label])
            for box, label, valid in zip(boxes.tolist(), labels, flags, strict=True)
            if valid
        )
        for name, boxes, labels, flags in zip(
            split.names, split.boxes, split.labels, split.valid, strict=True
        )
    }


def drawn():
    return {
        name: sorted((*map(float, box), category) for category, box in objects)
        for name, _, objects in source_files.scenes("train", N)
    }


def next_config(printed):
    """Arguments of configs/own.py in the printed command."""
    (spec,) = [w for w in printed.split() if w.startswith("configs/own.py:")]
    return dict(item.split("=", 1) for item in spec.partition(":")[2].split(","))


@pytest.mark.parametrize("wrap", ["", "mine"])
@pytest.mark.parametrize("writer", WRITERS)
def test_new_splits_are_read(writer, wrap, tmp_path, capsys):
    folder = tmp_path / "set"
    writer(folder / wrap)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert run(folder, "--split", "0.75,0.25") == 0
    printed = capsys.readouterr().out
    new = {file for file in folder.rglob("*") if file.is_file()} - before.keys()
    assert {file.name for file in new} == {name.rpartition("/")[2] for name in WRITERS[writer]}
    assert all(file.read_bytes() == content for file, content in before.items())
    # All names are train_<number>: one sequence.
    assert "1 group of images" in printed
    assert "blocks of consecutive images" in printed
    config = next_config(printed)
    train = load_detection(config["source"], config.get("train", "train"), source_files.CLASSES)
    val = load_detection(config["source"], config.get("val", "val"), source_files.CLASSES)
    names = sorted(drawn())
    assert (sorted(rows(train)), sorted(rows(val))) == (names[:9], names[9:])
    assert rows(train) | rows(val) == drawn()
    assert run(config["source"], "--check", "--report", tmp_path / "report") == 0
    assert run(folder, "--split", "0.75,0.25") == 2
    assert re.search("already has the splits|exists; move or delete", capsys.readouterr().err)
    assert new == {file for file in folder.rglob("*") if file.is_file()} - before.keys()


def test_sequences_stay_together(tmp_path, capsys):
    folder = label_studio_yolo(tmp_path)
    for i in range(N):
        for parent, suffix in (("images", "png"), ("labels", "txt")):
            file = folder / parent / f"train_{i:02d}.{suffix}"
            if file.exists():
                file.rename(file.with_name(f"{'abcd'[i % 4]}_{i:02d}.{suffix}"))
    assert run(folder, "--split", "0.5,0.25,0.25", "--seed", 3) == 0
    assert "4 groups of images, by names up to their final number: each" in capsys.readouterr().out
    groups = [
        {name[0] for name in rows(load_detection(folder, split))}
        for split in ("train", "val", "test")
    ]
    assert [len(group) for group in groups] == [2, 1, 1]
    assert set.union(*groups) == set("abcd")


def test_yaml_keeps_names_and_key_points(tmp_path):
    folder = train_yolo(tmp_path)
    text = (folder / "data.yaml").read_text().partition("names:")[0]
    for file in (folder / "labels" / "train").iterdir():
        file.write_text("1 0.5 0.5 0.2 0.2 0.5 0.5 2 0.45 0.5 1\n")
    (folder / "data.yaml").write_text(f"{text}names: [no, 10]\nkpt_shape: [2, 3]\nnc: 2\n")
    assert run(folder / "data.yaml", "--split", "0.8,0.2") == 0
    assert yaml.safe_load((folder / "split.yaml").read_text()) == {
        "names": ["no", "10"],
        "kpt_shape": [2, 3],
        "train": "split_train.txt",
        "val": "split_val.txt",
    }
    assert load_detection(folder / "split.yaml", "train").classes == ("no", "10")


def test_json_as_source_is_divided(tmp_path, capsys):
    folder = source_files.coco(tmp_path, {"train": N, "val": 3})
    assert run(folder, "--split", "0.75,0.25") == 2
    assert "already has the splits train, val" in capsys.readouterr().err
    assert run(folder / "annotations" / "instances_train.json", "--split", "0.75,0.25") == 0
    config = next_config(capsys.readouterr().out)
    assert len(load_detection(config["source"], config["val"]).names) == 3
    assert sorted(rows(load_detection(folder, "split_val"))) == sorted(drawn())[9:]


def test_images_without_xml_cannot_be_listed(tmp_path, capsys):
    folder = unsplit_voc(tmp_path)
    (folder / "Annotations" / "train_11.xml").unlink()
    assert run(folder, "--split", "0.75,0.25") == 2
    message = "no xml for 1 images, which lists require: train_11; save an xml without objects"
    assert message in capsys.readouterr().err
    assert not (folder / "ImageSets").exists()


def test_folders_of_classes(tmp_path, capsys):
    images = write_noise_images(tmp_path, count=5)
    shutil.rmtree(images / "val")
    for source, prefix in ((images, "train/"), (images / "train", "")):
        assert run(source, "--split", "0.6,0.4", "--format", "folder") == 0
        printed = capsys.readouterr().out
        assert "train: 6 images, cat 3, dog 3" in printed
        assert f"format=list,source={source},images=6" in printed
        lines = (source / "val.txt").read_text().splitlines()
        assert lines == [
            f"{prefix}{name}/{i}.png {number}"
            for number, name in enumerate(("cat", "dog"))
            for i in (3, 4)
        ]
        split = load_classification(source, "val", (8, 8), layout="list")
        assert (split.classes, split.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
        assert len(load_classification(source, "train", (8, 8), layout="list").names) == 6


def test_loader_names_the_command_for_folders_of_classes(tmp_path):
    folder = write_noise_images(tmp_path) / "train"
    with pytest.raises(errors.UserError, match=r"cat, dog\) without splits; .*--format folder"):
        load_classification(folder, "train", (8, 8))


def nested_classes(folder):
    write_noise_images(folder)
    shutil.rmtree(folder / "val")
    (folder / "train" / "cat" / "more").mkdir()
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "more" / "0.png")
    return folder


def few_images(folder):
    write_noise_images(folder, count=1)
    return folder / "train"


def existing_list(folder):
    (label_studio_yolo(folder) / "val.txt").write_text("mine")
    return folder


def two_jsons(folder):
    source_files.coco(folder, {"night": 3, "day": 3})
    return folder


def zipped(folder):
    return source_files.zip_folder(label_studio_yolo(folder / "a"), folder / "a.zip")


def prepared(folder):
    assert run(train_coco(folder / "a"), "--to", folder / "b") == 0
    return folder / "b"


@pytest.mark.parametrize(
    ("write", "argv", "message"),
    [
        (zipped, ["--split", "0.8,0.2"], "nothing is written into a zip; unpack it first"),
        (existing_list, ["--split", "0.8,0.2"], "val.txt: exists; move or delete it"),
        (two_jsons, ["--split", "0.8,0.2"], "day, night are separate jsons; give the json"),
        (prepared, ["--split", "0.8,0.2"], "has splits of its own"),
        (train_coco, ["--split", "0.8,0.3"], "--split 0.8,0.3: give the fractions of train, val"),
        (train_coco, ["--split", "val", "--check"], "--split FRACTIONS, to divide it, --to"),
        (train_coco, ["--check", "--format", "folder"], "only --split reads folders of classes"),
        (train_coco, ["--split", "0.8,0.2", "--format", "folder"], "no folders of classes: <clas"),
        (nested_classes, ["--split", "0.5,0.5", "--format", "folder"], "more/0.png in subfolders"),
        (few_images, ["--split", "0.5,0.5", "--format", "folder"], "cat: 1 images cannot be div"),
        (
            write_noise_images,
            ["--split", "0.5,0.5", "--format", "folder"],
            "already has the splits train and val",
        ),
    ],
)
def test_what_cannot_be_divided(write, argv, message, tmp_path, capsys):
    source = write(tmp_path)
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert run(source, *argv) == 2
    assert message in capsys.readouterr().err
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == before


def test_commands_to_run_next_quote_names_with_spaces(tmp_path, capsys):
    source = source_files.coco(tmp_path / "my set", {"default": 4})
    capsys.readouterr()
    assert run(source, "--split", "0.5,0.5") == 0
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).splitlines()
    commands = [shlex.split(line.removeprefix("next: ")) for line in lines if "-m tinyjax" in line]
    assert commands[0][3:] == [str(source), "--check"]
    assert commands[1][3:5] == ["--config", f"configs/own.py:source={source}"]
