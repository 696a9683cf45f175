"""Mistakes in data and config: one message, exit code 2, nothing compiled."""

import json
import re
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import recognition_sets, source_files
from tinyjax import errors, prepare
from tinyjax.train import main as train_main

OWN = str(Path(__file__).parents[1] / "configs" / "own.py")
SPLITS = {"train": 3, "val": 2}


def coco(folder):
    return source_files.coco(folder / "set", SPLITS)


def edit(change, split="train"):
    """A COCO set with a modified json."""

    def build(folder):
        source = coco(folder)
        file = source / "annotations" / f"instances_{split}.json"
        document = json.loads(file.read_text())
        document = change(document) or document
        file.write_text(json.dumps(document))
        return source

    return build


def two_modalities(folder):
    recognition_sets.pairs(folder / "set", 3)
    return folder / "set"


def bbox(value):
    return edit(lambda d: d["annotations"][0].update(bbox=value))


def broken(path, data, layout="coco"):
    """A set with one file replaced, cut to `data` bytes, or removed (None)."""

    def build(folder):
        source = getattr(source_files, layout)(folder / "set", SPLITS)
        file = source / path
        if data is None:
            file.unlink()
        elif isinstance(data, int):
            file.write_bytes(file.read_bytes()[:data])
        else:
            source_files.save(file, data)
        return source

    return build


def replaced(path, old, new, layout):
    """A set with one modified text file."""

    def build(folder):
        source = getattr(source_files, layout)(folder / "set", SPLITS)
        text = (source / path).read_text()
        assert old in text
        (source / path).write_text(text.replace(old, new, 1))
        return source

    return build


def png_of(width, height):
    """A PNG header that states this size."""

    def chunk(name, data):
        sum_of = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + sum_of

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0" * 99))


def small_image(folder):
    source = coco(folder)
    Image.fromarray(np.zeros((32, 96), np.uint8)).save(source / "images" / "train_01.png")
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    for image in document["images"]:
        del image["width"], image["height"]
    document["annotations"] = []
    file.write_text(json.dumps(document))
    return source


def zip_with(name, data, **options):
    def build(folder):
        file = source_files.zip_folder(coco(folder), folder / "set.zip")
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(name, data, **options)
        return file

    return build


def damaged_zip(folder):
    """A zip with one modified byte in the json, so that its checksum is wrong."""
    file = source_files.zip_folder(coco(folder), folder / "set.zip")
    data = bytearray(file.read_bytes())
    data[data.index(b'"categories"') + 3] ^= 1
    file.write_bytes(data)
    return file


def cut_zip(folder):
    file = source_files.zip_folder(coco(folder), folder / "set.zip")
    file.write_bytes(file.read_bytes()[:-40])
    return file


def prepared(damage):
    def build(folder):
        target = folder / "prepared"
        assert prepare.main([str(coco(folder)), "--to", str(target)]) == 0
        damage(next(target.rglob("detection-train*")))
        return target

    return build


def prepared_zip(folder):
    prepared(lambda file: None)(folder)
    return source_files.zip_folder(folder / "prepared", folder / "prepared.zip")


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x0 "ha">'
    + "".join(f'<!ENTITY x{i + 1} "{f"&x{i};" * 10}">' for i in range(9))
    + "]><annotation>&x9;</annotation>"
)


def renamed(source, name, new="elsewhere"):
    (source / name).rename(source / new)
    return source


def zip_in_zip(folder):
    inner = source_files.zip_folder(coco(folder), folder / "inner.zip")
    with zipfile.ZipFile(folder / "outer.zip", "w") as file:
        file.write(inner, "inner.zip")
    return folder / "outer.zip"


def deep_color(folder):
    """Color with 16 bits per channel, of which Pillow would keep 8."""
    source = coco(folder)
    assert cv2.imwrite(str(source / "images" / "train_01.png"), np.ones((64, 96, 3), np.uint16))
    return source


def not_finite(folder):
    source = coco(folder)
    pixels = np.ones((64, 96), np.float32)
    pixels[3, 3] = np.nan
    Image.fromarray(pixels).save(source / "images" / "train_01.png", "TIFF")
    return source


def encrypted(folder):
    """A zip whose entries have the encryption flag set."""
    file = source_files.zip_folder(coco(folder), folder / "set.zip")
    data = bytearray(file.read_bytes())
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = data.find(mark)
        while start >= 0:
            data[start + at] |= 1
            start = data.find(mark, start + 4)
    file.write_bytes(data)
    return file


XML = "Annotations/train_00.xml"
TXT, YAML = "labels/train/train_00.txt", "data.yaml"

# mistake: (function of a folder that makes the source, arguments of the config, message)
CASES = {
    # the source
    "no such source": (lambda f: f / "nowhere", "nowhere: no such folder or .zip"),
    "a text file": (lambda f: broken("a.txt", "hello")(f) / "a.txt", "neither a folder nor a .zip"),
    "zip cut off": (cut_zip, "a truncated or broken zip; copy or download it again"),
    "zip with a flipped bit": (damaged_zip, "instances_train.json: cannot be read .*CRC"),
    "zip entry leaves": (zip_with("../evil.png", b""), r"entry '\.\./evil.png' leaves the folder"),
    "zip entry is absolute": (zip_with("/etc/evil", b""), "entry '/etc/evil' leaves the folder"),
    "zip bomb": (
        zip_with("images/x.png", bytes(2**25), compress_type=zipfile.ZIP_DEFLATED),
        r"'images/x.png' unpacks [\d,]+ bytes to 33,554,432, like a decompression bomb",
    ),
    "encrypted zip": (encrypted, "cannot be read .*encrypted"),
    "a zip in a zip": (zip_in_zip, "inner.zip: a zip within .*give the inner zip as the source"),
    "two modalities": (two_modalities, r"own\.py:source=.*/set; see docs/recognition\.md"),
    "empty folder": (lambda f: f, "no known layout: COCO has"),
    "no such split": (coco, ",val=vall", "no images of a split 'vall'; did you mean 'val'"),
    # COCO
    "json cut off": (broken("annotations/instances_train.json", 200), "train.json: not JSON"),
    "json is a list": (edit(lambda d: [1]), "not COCO: no list 'images'"),
    "no annotations": (edit(lambda d: d.pop("annotations") and None), "no list 'annotations'"),
    "row is no dict": (
        edit(lambda d: d["images"].append(3)),
        "an entry of 'images' has no",
    ),
    "no bbox": (edit(lambda d: d["annotations"][0].pop("bbox") and None), "has no 'bbox'"),
    "unknown category": (
        edit(lambda d: d["annotations"][0].update(category_id=9)),
        "annotation 0: category_id 9; known: 1, 2",
    ),
    "unknown image": (
        edit(lambda d: d["annotations"][0].update(image_id=99)),
        "annotation 0: image_id 99 is not the id of an image",
    ),
    "one image, two ids": (
        edit(lambda d: d["images"][0].update(file_name="train_01.png")),
        "images/train_01.png is listed 2 times, as the images with the ids 9, 8; merge",
    ),
    "two images, one id": (edit(lambda d: d["images"][0].update(id=8)), "images share an id"),
    "an id is a list": (edit(lambda d: d["images"][0].update(id=[8])), r"id \[8\] in 'images'"),
    "three numbers": (bbox([1, 2, 3]), r"annotation 0: bbox \[1, 2, 3\]; give four numbers"),
    "words": (bbox(["a", 1, 2, 3]), "annotation 0: bbox .*; give four numbers"),
    "NaN": (bbox([1, float("nan"), 3, 4]), "annotation 0: box .* is not finite"),
    "infinite": (bbox([1, 2, float("inf"), 4]), "annotation 0: box .* is not finite"),
    "negative": (bbox([9, 9, -3, 4]), "annotation 0: box x 9 to 6, .* is empty"),
    "flat": (bbox([9, 9, 3, 0]), "annotation 0: box .* is empty"),
    "outside": (bbox([96, 9, 3, 4]), "annotation 0: .* outside its image of 96 x 64 px"),
    "leaves the set": (
        edit(lambda d: d["images"][0].update(file_name="../../etc/passwd")),
        "file name '../../etc/passwd' leaves the data set",
    ),
    "image missing": (
        broken("images/train_01.png", None),
        r"train_01.png: no such image \(1 of 3 images in",
    ),
    "image cut off": (broken("images/train_01.png", 300), "train_01.png: not a readable image"),
    "image is text": (
        broken("images/train_01.png", "hi"),
        r"train_01.png: not a readable image \(unknown format\)",
    ),
    "image bomb": (
        broken("images/train_01.png", png_of(60000, 60000)),
        "train_01.png: not a readable image .*bomb",
    ),
    "image too large": (
        broken("images/train_01.png", png_of(20000, 5000)),
        "train_01.png: 20000 x 5000 pixels; the limit is",
    ),
    "16 bit color": (deep_color, "train_01.png: color with 16 bits per channel"),
    "a pixel is NaN": (not_finite, "train_01.png: some pixels are not finite"),
    "other size": (
        edit(lambda d: d["images"][0].update(width=100)),
        "the image is 64 x 96 .* 64 x 100 in its label file",
    ),
    "mixed sizes": (small_image, r"images of 2 sizes, from \(32, 96\) .*; give size"),
    "no images": (
        edit(lambda d: {**d, "images": [], "annotations": []}),
        "split 'train' has no images",
    ),
    "no categories": (
        edit(lambda d: {**d, "categories": [], "annotations": []}),
        "no category to learn",
    ),
    "nothing to score": (
        edit(lambda d: d.update(annotations=[]), "val"),
        "monitor = 'val': this suite has no objects",
    ),
    "val lacks a class": (
        edit(lambda d: d["categories"].pop() and d.update(annotations=[]), "val"),
        "instances_val.json: no category 'car'; known: person",
    ),
    "no such class": (coco, ",classes=persn", "no category 'persn'; did you mean 'person'"),
    "a class twice": (coco, ",classes=car+car", "'car' is named twice"),
    "scored and ignored": (coco, ",classes=car,ignore_classes=car", "'car' is named twice"),
    # options
    "no such format": (coco, ",format=coc", "data.format = 'coc': did you mean 'coco'"),
    "another format": (coco, ",format=voc", "of a split 'train'; no split in this format"),
    "no such rule": (coco, ",height=32,width=32,fit=crop", "fit = 'crop': known: letterbox"),
    "height alone": (coco, ",height=64", "give both height and width, or neither"),
    "for files, not scenes": (
        coco,
        ",format=synthetic",
        "no arguments .* of a synthetic set",
    ),
    "nothing to learn": (edit(lambda d: d.update(annotations=[])), "no objects to learn from"),
    "two channels": (coco, ",channels=2", "channels = 2: give 1"),
    "no source": (lambda f: "", "give source, as in configs/own.py:source=mine.zip"),
    "no such argument": (coco, ",clases=car", "config argument 'clases': did you mean 'classes'"),
    # YOLO
    "no names": (broken(YAML, "train: images/train\n", "yolo"), "names: None; give the classes"),
    "names with a gap": (replaced(YAML, "1: car", "2: car", "yolo"), "names: .*give the classes"),
    "broken yaml": (broken(YAML, "names: [a, b\n", "yolo"), "data.yaml: not YAML"),
    "yaml leaves": (
        lambda f: renamed(replaced(YAML, "images/train", "../../../etc", "yolo")(f), "images"),
        r"data.yaml: no images next to it; train: \.\./\.\./\.\./etc; val: .*; put them into",
    ),
    "path of another machine": (
        lambda f: renamed(replaced(YAML, "images/train", "D:\\x", "yolo")(f), "images/train"),
        r"data.yaml: train: D:\\x: no trailing part of that path exists next to the yaml",
    ),
    "two yaml": (
        lambda f: renamed(broken("b.yaml", "names: [a]", "yolo")(f), "data.yaml", "a.yaml"),
        "a.yaml, b.yaml all have names; keep one of them",
    ),
    "class 7": (broken(TXT, "7 .5 .5 .1 .1", "yolo"), "line 1: class 7; give 0 to 1"),
    "class -1": (broken(TXT, "-1 .5 .5 .1 .1", "yolo"), "line 1: class -1; give 0 to 1"),
    "class 0.5": (broken(TXT, "0.5 .5 .5 .1 .1", "yolo"), "line 1: class 0.5"),
    "pixels": (broken(TXT, "0 40 30 6 9", "yolo"), "line 1: .*is in pixels; give fractions"),
    "a word": (broken(TXT, "\ncar .5 .5 .1 .1", "yolo"), "line 2: .*give numbers"),
    "too few": (
        broken(TXT, "0 .5 .5 .1", "yolo"),
        "line 1: .* has 4 numbers; give class x y width",
    ),
    "not a number": (broken(TXT, "0 nan .5 .1 .1", "yolo"), "line 1: .*give numbers"),
    "no width": (broken(TXT, "0 .5 .5 0 .1", "yolo"), "line 1: box .* is empty"),
    "not text": (broken(TXT, b"\xff\xfe\x00", "yolo"), "train_00.txt: not text"),
    "labels elsewhere": (
        lambda f: renamed(source_files.yolo(f / "set", SPLITS), "labels"),
        r"no label files .*for the images in",
    ),
    "no image for it": (
        broken("labels/train/stray.txt", "0 .5 .5 .1 .1", "yolo"),
        "stray.txt: no image stray in",
    ),
    # VOC
    "xml cut off": (broken(XML, 50, "voc"), "train_00.xml: not XML"),
    "another xml": (broken(XML, "<html></html>", "voc"), "its root is <html>, not <annotation>"),
    "billion laughs": (broken(XML, LAUGHS, "voc"), "train_00.xml: not XML .*amplification"),
    "no name": (replaced(XML, "<name>person</name>", "", "voc"), "an <object> has no <name>"),
    "no xmax": (replaced(XML, "<xmax>", "<xmx>", "voc"), "not XML"),
    "xmax is a word": (
        replaced(XML, "<ymin>", "<ymin>x", "voc"),
        "object 1: <bndbox>: .*give xmin",
    ),
    "counted from 0": (
        broken(XML, source_files.voc_xml("train_00.png", [("car", [0, 3, 9, 9])], 0), "voc"),
        ",first_pixel=1",
        "object 1: xmin 0, ymin 3: this file counts pixels from 0; give first_pixel=0",
    ),
    "first pixel is 2": (
        lambda f: source_files.voc(f / "set", SPLITS),
        ",first_pixel=2",
        "first_pixel = 2: VOC files count pixels from 1, or from 0",
    ),
    "corners swapped": (replaced(XML, "<xmin>", "<xmin>9", "voc"), "object 1: box .* is empty"),
    "no lists": (
        lambda f: renamed(source_files.voc(f / "set", SPLITS), "ImageSets"),
        "Annotations: VOC files without splits; write the names",
    ),
    "no xml": (broken(XML, None, "voc"), "train_00.xml: no such file; it is listed in .*train.txt"),
    "listed, missing": (
        broken("ImageSets/Main/train.txt", "train_00\nghost\n", "voc"),
        "ghost",
    ),
    # prepared
    "prepared, cut off": (
        prepared(lambda file: file.write_bytes(file.read_bytes()[:100])),
        "split 'train' cannot be read .*; prepare it again",
    ),
    "prepared, removed": (prepared(lambda file: file.unlink()), "prepare it again"),
    "prepared, in a zip": (prepared_zip, "cannot be read from a zip; unpack it"),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_input_is_a_one_line_error_before_compilation(case, tmp_path, capsys, compiled):
    build, *arguments, message = CASES[case]
    spec = "".join([f"{OWN}:source={build(tmp_path)}", *arguments])
    argv = ["--config", spec, "--workdir", str(tmp_path / "run"), "--config.batch=2"]
    capsys.readouterr()
    code = errors.exit_code(lambda: train_main(argv))
    printed = capsys.readouterr().err
    assert code == 2
    first, *mistakes = printed.splitlines()
    assert first.startswith(f"error: {len(mistakes)} mistakes:" if mistakes else "error: ")
    assert re.search(message, printed), printed
    assert compiled == []


def test_number_of_cases():
    assert len(CASES) >= 40
