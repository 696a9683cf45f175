"""One tiny detection set, written in all layouts."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("person", "car")
HEIGHT, WIDTH = 64, 96


def scenes(split: str, n: int) -> list[tuple[str, np.ndarray, list[tuple[str, list[int]]]]]:
    """Name, image uint8 [H, W] and objects (class, [x1, y1, x2, y2]) of each; the last has none."""
    rng = np.random.default_rng(len(split))
    out = []
    for i in range(n):
        image = rng.integers(20, 60, (HEIGHT, WIDTH)).astype(np.uint8)
        objects = []
        for k in range(0 if i == n - 1 else 1 + i % 3):
            w, h = (6, 12) if k % 2 == 0 else (20, 10)
            x, y = int(rng.integers(0, WIDTH - w)), int(rng.integers(0, HEIGHT - h))
            image[y : y + h, x : x + w] = 200 + 20 * (k % 2)
            objects.append((CLASSES[k % 2], [x, y, x + w, y + h]))
        out.append((f"{split}_{i:02d}.png", image, objects))
    return out


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def save(file: Path, data: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())


def coco(folder: Path, splits: dict[str, int]) -> Path:
    for split, n in splits.items():
        images, annotations = [], []
        for i, (name, image, objects) in enumerate(scenes(split, n)):
            save(folder / "images" / name, png(image))
            images.append({"id": 7 + i, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for category, (x1, y1, x2, y2) in objects:
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": 7 + i,
                        "category_id": 1 + CLASSES.index(category),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                    }
                )
        categories = [{"id": 1 + i, "name": name} for i, name in enumerate(CLASSES)]
        document = {"images": images[::-1], "annotations": annotations, "categories": categories}
        save(folder / "annotations" / f"instances_{split}.json", json.dumps(document))
    return folder


def roboflow_coco(folder: Path, splits: dict[str, int]) -> Path:
    plain = coco(folder / "plain", splits)
    for split, n in splits.items():
        document = (plain / "annotations" / f"instances_{split}.json").read_text()
        target = folder / "out" / roboflow(split)
        save(target / "_annotations.coco.json", document)
        for name, image, _ in scenes(split, n):
            save(target / name, png(image))
    return folder / "out"


def roboflow(split: str) -> str:
    """Roboflow's folder name of a split."""
    return {"val": "valid"}.get(split, split)


def voc(folder: Path, splits: dict[str, int]) -> Path:
    for split, n in splits.items():
        for name, image, objects in scenes(split, n):
            stem = name.removesuffix(".png")
            save(folder / "JPEGImages" / name, png(image))
            save(folder / "Annotations" / f"{stem}.xml", voc_xml(name, objects, 1))
        stems = [name.removesuffix(".png") for name, *_ in scenes(split, n)]
        save(folder / "ImageSets" / "Main" / f"{split}.txt", "\n".join(stems) + "\n")
    return folder


def voc_xml(name: str, objects, first_pixel: int, more: str = "") -> str:
    parts = [
        f"<object><name>{category}</name><difficult>0</difficult><bndbox>"
        f"<xmin>{x1 + first_pixel}</xmin><ymin>{y1 + first_pixel}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for category, (x1, y1, x2, y2) in objects
    ]
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>1</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{''.join(parts)}{more}</annotation>"


def flat_voc(folder: Path, splits: dict[str, int]) -> Path:
    for split, n in splits.items():
        for name, image, objects in scenes(split, n):
            save(folder / roboflow(split) / name, png(image))
            file = folder / roboflow(split) / name.replace(".png", ".xml")
            save(file, voc_xml(name, objects, 0))
    return folder


def yolo(folder: Path, splits: dict[str, int]) -> Path:
    for split, n in splits.items():
        for name, image, objects in scenes(split, n):
            save(folder / "images" / split / name, png(image))
            if objects:  # by convention an image without objects has no file
                text = "\n".join(yolo_line(*one) for one in objects)
                save(folder / "labels" / split / name.replace(".png", ".txt"), text)
    folders = "".join(f"{split}: images/{split}\n" for split in splits)
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES))
    save(folder / "data.yaml", f"path: /home/someone/else/{folder.name}\n{folders}names:\n{names}")
    return folder


def yolo_line(category: str, box) -> str:
    x1, y1, x2, y2 = box
    values = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
    return " ".join([str(CLASSES.index(category)), *(f"{v:.6f}" for v in values)])


def roboflow_yolo(folder: Path, splits: dict[str, int]) -> Path:
    plain = yolo(folder / "plain", splits)
    for split in splits:
        for subfolder in ("images", "labels"):
            for file in (plain / subfolder / split).iterdir():
                save(folder / "out" / roboflow(split) / subfolder / file.name, file.read_bytes())
    paths = "".join(f"{split}: ../{roboflow(split)}/images\n" for split in splits)
    save(folder / "out" / "data.yaml", f"{paths}nc: 2\nnames: [{', '.join(CLASSES)}]\n")
    return folder / "out"


WRITERS = {
    "coco": coco,
    "roboflow coco": roboflow_coco,
    "voc": voc,
    "flat voc": flat_voc,
    "yolo": yolo,
    "roboflow yolo": roboflow_yolo,
}


def zip_folder(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def assert_same(a, b):
    """Assert that two splits are identical."""
    assert np.array_equal(a.inputs["image"], b.inputs["image"])
    for name in ("boxes", "labels", "valid", "ignore", "scale", "offset"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert (a.names, a.classes) == (b.names, b.classes)
    for x, y in zip(a.truth["annotations"], b.truth["annotations"], strict=True):
        assert x == y
