"""Tiny copies of the published sets, with the folders and file names of their archives.

Each writer returns the drawn objects: split -> file name of the image -> objects (category, x1, y1,
x2, y2) in pixels of the file, continuous.
"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.layouts.source_files import save

HEIGHT, WIDTH = 48, 64
Objects = list[tuple[str, float, float, float, float]]
Drawn = dict[str, dict[str, Objects]]


def jpeg(seed: int, color: bool = False) -> bytes:
    shape = (HEIGHT, WIDTH, 3) if color else (HEIGHT, WIDTH)
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def boxes(k: int, names: tuple[str, ...]) -> Objects:
    """One object of each name; none in each third image."""
    rows_out = [
        (name, 4 + 8 * i + k, 5 + i, 10 + 8 * i + k, 20 + i) for i, name in enumerate(names)
    ]
    return [] if k % 3 == 2 else rows_out[:6]


def xml(objects: Objects, first_pixel: int = 0, corners: bool = True) -> str:
    rows = []
    for name, x1, y1, x2, y2 in objects:
        fields = dict(zip("xywh", (x1, y1, x2 - x1, y2 - y1), strict=True))
        if corners:
            start = x1 + first_pixel, y1 + first_pixel
            fields = dict(zip(("xmin", "ymin", "xmax", "ymax"), (*start, x2, y2), strict=True))
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in fields.items())
        rows.append(f"<object><name>{name}</name><bndbox>{box}</bndbox></object>")
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<annotation>{size}{''.join(rows)}</annotation>"


def document(
    drawn: dict[str, Objects],
    ids: dict[int, str],
    name: str = "file_name",
    rows: str = "annotations",
) -> str:
    number = {category: k for k, category in ids.items()}
    images, rows_out = [], []
    for k, (file, objects) in enumerate(drawn.items()):
        images.append({"id": 10 + k, name: file, "width": WIDTH, "height": HEIGHT})
        for category, x1, y1, x2, y2 in objects:
            box = [x1, y1, x2 - x1, y2 - y1]
            row = {"id": len(rows_out), "image_id": 10 + k, "category_id": number[category]}
            rows_out.append({**row, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": k, "name": category} for k, category in ids.items()]
    return json.dumps({"images": images, rows: rows_out, "categories": categories})


def llvip(root: Path) -> Drawn:
    """LLVIP/{visible,infrared}/{train,test}, with known issues: an xml without a box (010002) and a
    box without area (in 010003, next to a valid one).
    """
    drawn: Drawn = {}
    for split, stems in (("train", ["010001", "010002", "010003"]), ("test", ["190001", "190002"])):
        for k, stem in enumerate(stems):
            objects = (
                [] if stem == "010002" else [("person", 0, 3 + k, 9, 30), ("person", 40, 8, 41, 12)]
            )
            for camera in ("visible", "infrared"):
                save(root / "LLVIP" / camera / split / f"{stem}.jpg", jpeg(k, camera == "visible"))
                drawn.setdefault(f"{camera}/{split}", {})[f"{stem}.jpg"] = objects
            broken = [("person", 20, 20, 20, 31)] if stem == "010003" else []
            save(root / "LLVIP" / "Annotations" / f"{stem}.xml", xml(objects + broken))
    return drawn


def flir_aligned(root: Path, suffix: str = "_PreviewData") -> Drawn:
    home, drawn = root / "align", {}
    for split, file, stems in (
        ("train", "align_train", ["FLIR_00002", "FLIR_00003"]),
        ("val", "align_validation", ["FLIR_08864", "FLIR_08865"]),
    ):
        save(home / f"{file}.txt", "".join(f"{stem}{suffix}\n" for stem in stems))
        for k, stem in enumerate(stems):
            names = ("person", "bicycle", "car", *(("dog",) if stem == "FLIR_00002" else ()))
            objects = boxes(k, names)
            save(home / "Annotations" / f"{stem}_PreviewData.xml", xml(objects))
            for camera, ending in (("rgb", "RGB.jpg"), ("thermal", "PreviewData.jpeg")):
                save(home / "JPEGImages" / f"{stem}_{ending}", jpeg(k, camera == "rgb"))
                drawn.setdefault(f"{camera}/{split}", {})[f"{stem}_{ending}"] = objects
    return drawn


FLIR_V1 = {1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 18: "dog", 91: "other vehicle"}


def flir_adas_v1(root: Path) -> Drawn:
    """FLIR_ADAS_1_3; its json lists COCO's names, most of them without boxes."""
    drawn: Drawn = {}
    for split, first in (("train", 1), ("val", 8863), ("video", 1)):
        home = root / "FLIR_ADAS_1_3" / split
        drawn[f"thermal/{split}"] = rows = {}
        for k in range(3):
            file = f"FLIR_{'video_' if split == 'video' else ''}{first + k:05}.jpeg"
            save(home / "thermal_8_bit" / file, jpeg(k))
            save(home / "RGB" / file.replace("jpeg", "jpg"), jpeg(k, True))
            rows[f"thermal_8_bit/{file}"] = boxes(k, ("person", "bicycle", "car", "other vehicle"))
        save(home / "thermal_annotations.json", document(rows, FLIR_V1))
    return drawn


def flir_adas_first(root: Path) -> Drawn:
    """The first release of v1: one json per image."""
    number = {category: k for k, category in FLIR_V1.items()}
    drawn: Drawn = {}
    for split, folder in (("train", "training"), ("val", "validation"), ("video", "video")):
        home = root / "FLIR_ADAS" / folder
        drawn[f"thermal/{split}"] = rows = {}
        for k in range(2):
            stem = f"FLIR_{k + 1:05}"
            save(home / "PreviewData" / f"{stem}.jpeg", jpeg(k))
            rows[f"{stem}.jpeg"] = boxes(k, ("person", "car", "dog"))
            rows_out = [
                {"bbox": [a, b, c - a, d - b], "category_id": str(number[name])}
                for name, a, b, c, d in rows[f"{stem}.jpeg"]
            ]
            text = json.dumps({"annotation": rows_out, "image": {"file_name": stem}})
            save(home / "Annotations" / f"{stem}.json", text)
    return drawn


FLIR_V2 = {1: "person", 2: "bike", 3: "car", 4: "motor", 5: "airplane", 10: "light", 91: "deer"}


def flir_adas_v2(root: Path) -> Drawn:
    drawn: Drawn = {}
    for camera in ("rgb", "thermal"):
        for split, folder in (
            ("train", f"images_{camera}_train"),
            ("val", f"images_{camera}_val"),
            ("test", f"video_{camera}_test"),
        ):
            home = root / "FLIR_ADAS_v2" / folder
            drawn[f"{camera}/{split}"] = rows = {}
            for k in range(2):
                file = f"data/video-{camera}-frame-{k:06}-{split}.jpg"
                save(home / file, jpeg(k, camera == "rgb"))
                rows[file] = boxes(k, ("person", "bike", "car", "light"))
            save(home / "coco.json", document(rows, FLIR_V2))
            save(home / "index.json", json.dumps({"frames": []}))
    return drawn


HIT_UAV = {0: "Person", 1: "Car", 2: "Bicycle", 3: "OtherVehicle", 4: "DontCare"}


def hit_uav(root: Path, only: str = "") -> Drawn:
    """The official release, with the same boxes as json and as xml. only: one of these."""
    drawn: Drawn = {}
    for split in ("train", "val", "test"):
        drawn[split] = {
            f"0_{60 + 10 * k}_30_0_0{len(split)}{k:03}.jpg": boxes(k, tuple(HIT_UAV.values()))
            for k in range(3)
        }
        if only != "normal_xml":
            home = root / "HIT-UAV" / "normal_json"
            name = "instances_val" if split == "val" else split
            text = document(drawn[split], HIT_UAV, "filename", "annotation")
            save(home / "annotations" / f"{name}.json", text)
            for k, file in enumerate(drawn[split]):
                save(home / split / file, jpeg(k))
        if only != "normal_json":
            home = root / "HIT-UAV" / "normal_xml"
            stems = [file.removesuffix(".jpg") for file in drawn[split]]
            save(home / "ImageSets" / "Main" / f"{split}.txt", "\n".join(stems))
            for k, (file, objects) in enumerate(drawn[split].items()):
                save(home / "JPEGImages" / file, jpeg(k))
                save(home / "Annotations" / file.replace(".jpg", ".xml"), xml(objects))
    return drawn


def kaist(root: Path, labels: str = "annotations-xml-new-sanitized", lists: bool = True) -> Drawn:
    """labels: one of `kaist.LABEL_FOLDERS`. Boxes of `annotations_paired` differ by a pixel."""
    home, drawn = root / "kaist-rgbt", {}
    for split, frames in (
        ("train-all-02", ["set00/V000/I00000", "set00/V000/I00002", "set03/V001/I00004"]),
        ("test-all-20", ["set06/V000/I00019", "set11/V001/I00039"]),
    ):
        if lists:
            save(home / "imageSets" / f"{split}.txt", "\n".join(frames) + "\n")
        name = split if lists else split[: split.index("-")]
        for k, frame in enumerate(frames):
            video, number = frame.rsplit("/", 1)
            objects = boxes(k, ("person", "people", "cyclist", "person?"))
            for camera in ("visible", "lwir"):
                save(home / f"images/{video}/{camera}/{number}.jpg", jpeg(k, camera == "visible"))
                camera_objects = objects
                if labels == "annotations_paired":
                    move = camera == "lwir"
                    camera_objects = [(n, a + move, b, c + move, d) for n, a, b, c, d in objects]
                    save(home / labels / video / camera / f"{number}.txt", bbgt(camera_objects))
                drawn.setdefault(f"{camera}/{name}", {})[f"{video}/{camera}/{number}.jpg"] = (
                    camera_objects
                )
            if "xml" in labels:
                save(home / labels / f"{frame}.xml", xml(objects, corners=False))
            elif labels == "annotations":
                save(home / labels / f"{frame}.txt", bbgt(objects))
    return drawn


def bbgt(objects: Objects, ignore: int = 0) -> str:
    lines = [f"{name} {a} {b} {c - a} {d - b} 0 0 0 0 0 {ignore} 0" for name, a, b, c, d in objects]
    return "\n".join(["% bbGt version=3", *lines, ""])


def _voc(home: Path, names: tuple[str, ...], splits: dict[str, list[str]]) -> Drawn:
    drawn: Drawn = {}
    for split, stems in splits.items():
        save(home / "ImageSets" / "Main" / f"{split}.txt", "\n".join(stems) + "\n")
        lines = "".join(f"{stem} {1 - 2 * (k % 2):2}\n" for k, stem in enumerate(stems))
        save(home / "ImageSets" / "Main" / f"{names[0]}_{split}.txt", lines)
        drawn[split] = {f"{stem}.jpg": boxes(int(stem[-1]), names) for stem in stems}
        for file, objects in drawn[split].items():
            save(home / "JPEGImages" / file, jpeg(int(file[-5]), True))
            save(home / "Annotations" / file.replace("jpg", "xml"), xml(objects, 1))
    return drawn


def voc2007(root: Path) -> Drawn:
    train, val = ["000012", "000017"], ["000005", "000007"]
    splits = {"train": train, "val": val, "trainval": val + train, "test": ["000001", "000002"]}
    return _voc(root / "VOCdevkit" / "VOC2007", ("aeroplane", "person", "tvmonitor"), splits)


def voc2012(root: Path) -> Drawn:
    train, val = ["2008_000008", "2008_000015"], ["2008_000002", "2008_000003"]
    splits = {"train": train, "val": val, "trainval": val + train}
    return _voc(root / "VOCdevkit" / "VOC2012", ("aeroplane", "person", "tvmonitor"), splits)


def clipart1k(root: Path) -> Drawn:
    splits = {"train": ["107654450", "108304081"], "test": ["110019423", "110097114"]}
    return _voc(root / "clipart", ("aeroplane", "person", "tvmonitor"), splits)


SIX = ("bicycle", "bird", "car", "cat", "dog", "person")


def watercolor2k(root: Path) -> Drawn:
    drawn = _voc(root / "watercolor", SIX, {"train": ["10", "21"], "test": ["34", "41"]})
    _extra(root / "watercolor")
    return drawn


def comic2k(root: Path) -> Drawn:
    drawn = _voc(root / "comic", SIX, {"train": ["10", "21"], "test": ["34", "41"]})
    _extra(root / "comic")
    return drawn


def _extra(home: Path) -> None:
    """An image with an image-level label: its box is a placeholder."""
    save(home / "ImageSets" / "Main" / "extra.txt", "77\n")
    save(home / "JPEGImages" / "77.jpg", jpeg(7))
    save(home / "Annotations" / "77.xml", xml([("cat", 0, 0, 1, 1)], 1))


COCO = {1: "person", 2: "bicycle", 3: "car", 90: "toothbrush"}


def coco2017(root: Path) -> Drawn:
    drawn: Drawn = {}
    for split, first in (("train2017", 9), ("val2017", 139)):
        drawn[split] = {f"{first + k:012}.jpg": boxes(k, tuple(COCO.values())) for k in range(3)}
        for k, file in enumerate(drawn[split]):
            save(root / "coco" / split / file, jpeg(k, True))
        text = document(drawn[split], COCO)
        save(root / "coco" / "annotations" / f"instances_{split}.json", text)
        save(root / "coco" / "annotations" / f"captions_{split}.json", json.dumps({"images": []}))
    return drawn


DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


def domainnet(root: Path) -> dict[str, dict[str, str]]:
    """split -> "<class>/<file>" -> class."""
    drawn: dict[str, dict[str, str]] = {}
    for domain in DOMAINS:
        for split, count in (("train", 2), ("test", 1)):
            drawn[f"{domain}_{split}"] = rows = {}
            lines = []
            for label, name in enumerate(("aircraft_carrier", "zigzag")):
                for k in range(count):
                    file = f"{domain}_{label + 1:03}_{10 * (split == 'test') + k:06}.jpg"
                    save(root / "domainnet" / domain / name / file, jpeg(k, True))
                    rows[f"{name}/{file}"] = name
                    lines.append(f"{domain}/{name}/{file} {label}")
            save(root / "domainnet" / f"{domain}_{split}.txt", "\n".join(lines) + "\n")
    return drawn
