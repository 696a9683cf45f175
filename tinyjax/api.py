"""A trained network as a function: images in, detections or classes out.

model = tinyjax.load("runs/mine")
found = model(image)                     # uint8 [h, w] or [h, w, 3]; any size
found.boxes, found.scores, found.labels  # of a classifier: found.names, found.scores
found.draw(image).save("found.png")
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from tinyjax import config as configs
from tinyjax import tasks
from tinyjax.data.images import PERCENTILES, Rule, fit, to_file, to_uint8
from tinyjax.errors import UserError, suggest
from tinyjax.models import flops
from tinyjax.reporting import pictures
from tinyjax.run import run_folder
from tinyjax.run.weights import read_weights
from tinyjax.step import Variables

THRESHOLD = 0.3
DRAWN = 3  # classes above a picture
BATCH = 16  # images of a call of the compiled program when there are several: only two are compiled


@dataclass(frozen=True, eq=False)  # a NamedTuple's len() would be that of its fields
class Detections:
    """What was found in one image, in descending order of score; `len` tells how many."""

    boxes: np.ndarray  # float32 [n, 4], x1, y1, x2, y2 in pixels of the image that was given
    scores: np.ndarray  # float32 [n], above 0, at most 1
    labels: np.ndarray  # int32 [n], the first class is 0
    classes: tuple[str, ...]  # what the labels stand for

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class of every detection, by name."""
        return [self.classes[label] for label in self.labels]

    def draw(self, image: np.ndarray) -> Image.Image:
        """A picture of the detections, with the classes' colors named below; small images are
        enlarged, see `pictures.draw`. `image`: the one that was given to the model.
        """
        gray = np.ndim(image) == 2 or np.shape(image)[-1] == 1
        pixels = to_pixels(image, 1 if gray else 3)
        return pictures.legend(
            pictures.draw(pixels, found=vars(self), threshold=0), self.classes, ignore_classes=False
        )

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Rows of COCO's format of results: category_id 1 is the first class, bbox is x, y, width,
        height. Rounded, which is what JSON is for: bbox to 3 digits, score to 6.
        """
        corner, side = self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]
        return [
            {
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": [round(v, 3) for v in box],
                "score": round(score, 6),
            }
            for box, score, label in zip(
                np.concatenate([corner, side], axis=1).tolist(),
                self.scores.tolist(),
                self.labels.tolist(),
                strict=True,
            )
        ]

    def to_rows(self, image_id: int = 0) -> list[dict[str, Any]]:
        """`to_coco` with the class's name, as "category"."""
        pairs = zip(self.names, self.to_coco(image_id), strict=True)
        return [{"category": name, **row} for name, row in pairs]

    def to_supervision(self) -> dict[str, Any]:
        """The arguments of supervision's container: `sv.Detections(**found.to_supervision())`.

        A dict and not the container, so that this needs no supervision, and none of its versions
        in particular. Checked against supervision 0.31.2.
        """
        return {
            "xyxy": self.boxes,
            "confidence": self.scores,
            "class_id": self.labels.astype(int),
            "data": {"class_name": np.array(self.names, dtype=str)},
        }


@dataclass(frozen=True, eq=False)
class Classes:
    """What an image is of, in descending order of score; `len` tells how many classes."""

    names: tuple[str, ...]
    scores: np.ndarray  # float32 [n]; those of all classes sum to 1

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, image: np.ndarray) -> Image.Image:
        """A picture of the image with the first classes and their scores above it."""
        gray = np.ndim(image) == 2 or np.shape(image)[-1] == 1
        picture = Image.fromarray(pictures.enlarged(to_pixels(image, 1 if gray else 3), 960))
        pairs = [*zip(self.names, self.scores, strict=True)][:DRAWN]
        return pictures.captioned(picture, *(f"{name} {score:.2f}" for name, score in pairs))

    def to_rows(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Rows of image_id, category and score, which is rounded to 6 digits."""
        pairs = zip(self.names, self.scores.tolist(), strict=True)
        return [{"image_id": image_id, "category": n, "score": round(s, 6)} for n, s in pairs]


class Fitted(NamedTuple):
    """An image brought to the network's input, and the way back."""

    pixels: np.ndarray  # uint8 [H, W, C]
    shape: tuple[int, int]  # (h, w) of the image
    scale: np.ndarray  # see `images.fit`
    offset: np.ndarray


class Model:
    """A trained network, ready to be called: what detectors and classifiers share."""

    finds = "objects"
    fit_by = "letterbox"  # the rule by which its task fits images, unless the config has another

    def __init__(self, variables: Variables, config: ConfigDict, about: dict[str, Any]) -> None:
        """about: `frame` (H, W, C) and `classes`."""
        height, width, channels = about["frame"]
        self.config: ConfigDict = config
        self.frame: tuple[int, int, int] = (height, width, channels)
        self.classes: tuple[str, ...] = tuple(about["classes"])
        self._task = tasks.module(config.task).make_task(config, self.classes, channels)
        self._variables = jax.device_put(variables)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.frame))
        return f"<tinyjax model: {self.config.model.backbone}, {size}, {', '.join(self.classes)}>"

    @property
    def range16(self) -> Rule:
        """How deep pixels come to 8 bits, see `images.to_uint8`."""
        return self.config.data.common.get("range16", PERCENTILES)

    def fit(self, image: np.ndarray) -> Fitted:
        """Bring one image to the network's input. Safe to call from several threads."""
        pixels = to_pixels(image, self.frame[2], self.range16)
        how = self.config.data.common.get("fit", self.fit_by)
        fitted, scale, offset = fit(pixels, self.frame[:2], how)
        return Fitted(fitted, pixels.shape[:2], scale, offset)

    def fit_all(self, images: np.ndarray | Sequence[np.ndarray]) -> tuple[list[Fitted], bool]:
        """Images as `__call__` takes them, brought to the network's input; whether it was one."""
        if not isinstance(images, list | tuple):
            images = np.asarray(images)
            if images.ndim != 4:
                return [self.fit(images)], True
        return [self.fit(one) for one in images], False

    def _wanted(self, threshold: float, classes: str | Iterable[str] | None) -> list[int]:
        """The labels of `classes`. Raises UserError for an unknown one, or a threshold that is
        none."""
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold = {threshold}: give a score from 0 to 1")
        wanted = self.classes if classes is None else classes
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        for name in names:
            if name not in self.classes:
                raise UserError(f"class {name!r}: {suggest(name, self.classes)}")
        return [self.classes.index(name) for name in names]

    def _outputs(self, images: Sequence[Fitted], batch: int | None) -> dict[str, np.ndarray]:
        """What the task predicts for some images.

        batch: images of a call of the compiled program, of which there is one for each number; by
        default 1 for one image and `BATCH` for more.
        """
        pixels = np.stack([one.pixels for one in images])
        batch = batch or (1 if len(images) == 1 else BATCH)
        return tasks.predict_all(self._task.predict, self._variables, pixels, batch)[0]


class Classifier(Model):
    """A trained classifier. Made by `load`."""

    finds = "classes"
    fit_by = "resize"

    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        threshold: float = 0,
        classes: str | Iterable[str] | None = None,
    ) -> Classes | list[Classes]:
        """Say what images are of.

        images: as a `Detector` takes them. threshold: lowest score that is kept. classes: the only
        ones that are kept, by name; by default all. Returns Classes for one image, a list of them
        for an array [N, h, w, C] or a list. Raises UserError as a `Detector` does.
        """
        fitted, one = self.fit_all(images)
        found = self.predict(fitted, threshold, classes)
        return found[0] if one else found

    def predict(
        self,
        images: Sequence[Fitted],
        threshold: float = 0,
        classes: str | Iterable[str] | None = None,
        batch: int | None = None,
    ) -> list[Classes]:
        """`__call__` on images that `fit` has prepared. batch: images of a call, by default 1 for
        one image and `BATCH` for more."""
        wanted = self._wanted(threshold, classes)
        if not images:
            return []
        logits = self._outputs(images, batch)["logits"]
        each = np.exp(logits - logits.max(1, keepdims=True))
        each /= each.sum(1, keepdims=True)
        found = []
        for scores in each:
            order = np.argsort(-scores, kind="stable")
            order = order[np.isin(order, wanted) & (scores[order] >= threshold)]
            found.append(Classes(tuple(self.classes[k] for k in order), scores[order]))
        return found


class Detector(Model):
    """A trained detector. Made by `load`."""

    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        threshold: float = THRESHOLD,
        classes: str | Iterable[str] | None = None,
    ) -> Detections | list[Detections]:
        """Find objects.

        Args:
            images: one image [h, w] or [h, w, C], an array [N, h, w, C], or a list of images that
                may differ in size. uint8, or uint16, which comes to 8 bits as in training; C is 1
                (gray) or 3 (RGB; from OpenCV give image[..., ::-1]), and need not be the network's.
            threshold: lowest score that is kept; 0 keeps all that survive the suppression.
            classes: the only ones that are kept, by name; by default all.

        Returns:
            Detections for one image, a list of them for an array [N, h, w, C] or a list. What lies
            beyond the image's border is cut off.

        Raises UserError for images of another shape or type, and a threshold or class that is none.
        """
        fitted, one = self.fit_all(images)
        found = self.predict(fitted, threshold, classes)
        return found[0] if one else found

    def predict(
        self,
        images: Sequence[Fitted],
        threshold: float = THRESHOLD,
        classes: str | Iterable[str] | None = None,
        batch: int | None = None,
    ) -> list[Detections]:
        """`__call__` on images that `fit` has prepared. batch: images of a call, by default 1 for
        one image and `BATCH` for more."""
        labels = self._wanted(threshold, classes)
        if not images:
            return []
        found = self._outputs(images, batch)
        rows = zip(images, found["boxes"], found["scores"], found["labels"], strict=True)
        return [self._kept(*row, threshold, labels) for row in rows]

    def _kept(self, image, boxes, scores, labels, threshold, wanted) -> Detections:
        height, width = image.shape
        limits = np.array([width, height, width, height], np.float32)
        boxes = np.clip(to_file(boxes, image.scale, image.offset), 0, limits).astype(np.float32)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(
            -1
        )  # else all of it is in the letterbox's border
        # Slots that suppression left empty have a score of 0.
        keep = inside & (scores > 0) & (scores >= threshold) & np.isin(labels, wanted)
        return Detections(boxes[keep], scores[keep], labels[keep], self.classes)


def load(
    path: str | Path, weights: str = "last", overrides: Iterable[str] = ()
) -> Detector | Classifier:
    """A trained network, ready to be called. Nothing is compiled until then.

    Args:
        path: the folder of a finished run; or weights alone, "<name>.safetensors" beside its
            "<name>.json", named by either or without suffix: these two files are all that another
            machine needs.
        weights: of a run folder, the averaged weights "last" or "best".
        overrides: of the run's config, such as "nms.iou_threshold=0.6".

    Raises UserError if there are no such weights, or they are broken.
    """
    if weights not in ("last", "best"):
        raise UserError(f"weights = {weights!r}: {suggest(weights, ('last', 'best'))}")
    file = Path(path)
    if file.is_dir():
        file = (
            file / "weights" / (run_folder.member_id({}) + ("-best" if weights == "best" else ""))
        )
    elif file.suffix in (".safetensors", ".json"):
        file = file.with_suffix("")
    trees, about = read_weights(file)
    if (held := flops.parameters(trees["params"])) != about["parameters"]:
        raise UserError(
            f"{file}.safetensors: {held:,} parameters, but {file.name}.json tells of "
            f"{about['parameters']:,}; give the two files of one training"
        )
    config = configs.override(configs.from_run(about["config"]), overrides)
    kind: type[Detector | Classifier] = Classifier if config.task == "classify" else Detector
    return kind(Variables(**trees), config, about)


def to_pixels(image: np.ndarray, channels: int, range16: Rule = PERCENTILES) -> np.ndarray:
    """An image [h, w] or [h, w, 1 or 3] of 8 or 16 bits as uint8 [h, w, channels].

    As `images.read` does for files: color becomes gray by luminance (ITU-R 601), gray becomes
    color by replication. Raises UserError for another shape or type.
    """
    image = np.asarray(image)
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        hint = ""
        if image.dtype.kind == "f":
            hint = "; if its values are 0 to 1, give (255 * image).round().astype(np.uint8)"
        if image.dtype.kind == "U":
            hint = f"; a file is read by np.asarray(PIL.Image.open({str(image)!r}))"
        raise UserError(f"image of {image.dtype}: give uint8, or uint16{hint}")
    shape = image.shape
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in shape:
        raise UserError(
            f"image of shape {shape}: give [h, w], [h, w, 1] or [h, w, 3]; several as a "
            "list, or [N, h, w, 1 or 3]"
        )
    if image.dtype.itemsize == 2:
        image = to_uint8(image, range16)
    if image.shape[-1] > channels:
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return np.repeat(image, channels // image.shape[-1], axis=-1)
