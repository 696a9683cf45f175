"""The Python interface: a trained network as a function of images, and training.

model = tinyjax.load("runs/mine")
detections = model(image)  # a path, a PIL image, or uint8 [h, w] or [h, w, 3]; any size
detections.boxes, detections.scores, detections.labels  # a classifier returns names and scores
detections.draw(image).save("detections.png")
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from tinyjax import config as configs
from tinyjax.config.paths import parse_path
from tinyjax.core import Variables
from tinyjax.data.images import (
    PERCENTILES,
    Range16,
    fit_image,
    read_image,
    read_pil,
    to_file,
    to_uint8,
)
from tinyjax.errors import UserError, suggest
from tinyjax.models import flops
from tinyjax.population.options import SINGLE_RUN, select_members
from tinyjax.population.prediction import predict_all
from tinyjax.reporting import pictures
from tinyjax.run.run_folder import member_id
from tinyjax.run.weights import read_weights
from tinyjax.tasks import get_task

THRESHOLD = 0.3
MAX_DRAWN_CLASSES = 3  # in the caption of a classified image
BATCH = 16  # images per compiled call; 1 for a single image

ImageInput = np.ndarray | Image.Image | str | os.PathLike[str]  # see `Detector.__call__`


def train(config: Any, folder: str | Path) -> int:
    """Train one network, or all members of a sweep, into `folder`; a repeated call resumes.

    config: a ConfigDict, or the spec of a config file, "configs/x.py:args", which may describe a
    sweep. Returns 0, or `train.STOPPED`. Raises UserError for invalid input.
    """
    from tinyjax.train import train

    members = [SINGLE_RUN]
    if isinstance(config, str):
        spec, config = config, configs.load(config)
        members = select_members(spec, config)
    return train(config, parse_path(folder), members=members)


@dataclass(frozen=True, eq=False)  # not a NamedTuple, whose len() is its number of fields
class Detections:
    """The objects detected in one image, in descending order of score."""

    boxes: np.ndarray  # float32 [n, 4], xyxy in pixels of the given image
    scores: np.ndarray  # float32 [n], in (0, 1]
    labels: np.ndarray  # int32 [n], indices into `classes`
    classes: tuple[str, ...]  # all class names of the network

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.classes[label] for label in self.labels]

    def draw(self, image: ImageInput) -> Image.Image:
        """Draw the detections on the image that the model was called with, and a legend of the
        classes below it. Small images are enlarged, see `pictures.draw_boxes`.
        """
        picture = pictures.draw_boxes(to_pixels(image, 3), predictions=vars(self), threshold=0)
        return pictures.add_legend(picture, self.classes, ignored=False)

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Rows of COCO's result format: category_id 1 is the first class, bbox is x, y, width,
        height. For JSON, bbox is rounded to 3 digits and score to 6.
        """
        corners, sizes = self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]
        return [
            {
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": [round(v, 3) for v in box],
                "score": round(score, 6),
            }
            for box, score, label in zip(
                np.concatenate([corners, sizes], axis=1).tolist(),
                self.scores.tolist(),
                self.labels.tolist(),
                strict=True,
            )
        ]

    def to_rows(self, image_id: int = 0) -> list[dict[str, Any]]:
        """`to_coco` with the class name as "category"."""
        pairs = zip(self.names, self.to_coco(image_id), strict=True)
        return [{"category": name, **row} for name, row in pairs]

    def to_supervision(self) -> dict[str, Any]:
        """The arguments of supervision's container: `sv.Detections(**x.to_supervision())`.

        A dict, so that tinyjax does not depend on supervision. Tested with supervision 0.31.2.
        """
        return {
            "xyxy": self.boxes,
            "confidence": self.scores,
            "class_id": self.labels.astype(int),
            "data": {"class_name": np.array(self.names, dtype=str)},
        }


@dataclass(frozen=True, eq=False)
class Classification:
    """The classes of one image, in descending order of score."""

    names: tuple[str, ...]
    scores: np.ndarray  # float32 [n]; the scores of all classes sum to 1

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, image: ImageInput) -> Image.Image:
        """Draw the image with the highest-scoring classes and their scores above it."""
        picture = Image.fromarray(pictures.enlarge(to_pixels(image, 3), 960))
        pairs = [*zip(self.names, self.scores, strict=True)][:MAX_DRAWN_CLASSES]
        return pictures.add_caption(picture, *(f"{name} {score:.2f}" for name, score in pairs))

    def to_rows(self, image_id: int = 0) -> list[dict[str, Any]]:
        """Rows of image_id, category and score, rounded to 6 digits."""
        pairs = zip(self.names, self.scores.tolist(), strict=True)
        return [{"image_id": image_id, "category": n, "score": round(s, 6)} for n, s in pairs]


class PreprocessedImage(NamedTuple):
    """An image in the network's input size, and the geometry to map boxes back."""

    pixels: np.ndarray  # uint8 [H, W, C]
    shape: tuple[int, int]  # (h, w) of the given image
    scale: np.ndarray  # see `images.fit_image`
    offset: np.ndarray


class Model:
    """A trained network, ready to be called. Base of `Detector` and `Classifier`."""

    noun = "objects"  # for log lines such as "3 objects"
    default_fit = "letterbox"  # rule of `fit_image`, unless data.common.fit is set

    def __init__(self, variables: Variables, config: ConfigDict, metadata: dict[str, Any]) -> None:
        """metadata: `inputs`, name -> shape of a sample, and `classes`."""
        inputs = {name: tuple(shape) for name, shape in metadata["inputs"].items()}
        height, width, channels = inputs["image"]
        self.config: ConfigDict = config
        self.input_shape: tuple[int, int, int] = (height, width, channels)
        self.classes: tuple[str, ...] = tuple(metadata["classes"])
        functions = get_task(config.task).model_functions(config, self.classes, inputs)
        self._predict = functions.predict
        self._variables = jax.device_put(variables)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.input_shape))
        return f"<tinyjax model: {self.config.model.backbone}, {size}, {', '.join(self.classes)}>"

    @property
    def range16(self) -> Range16:
        """The rule that maps 16-bit pixels to 8 bits, see `images.to_uint8`."""
        return self.config.data.common.get("range16", PERCENTILES)

    def preprocess(self, image: ImageInput) -> PreprocessedImage:
        """Fit one image to the network's input. Safe to call from several threads."""
        pixels = to_pixels(image, self.input_shape[2], self.range16)
        rule = self.config.data.common.get("fit", self.default_fit)
        fitted, scale, offset = fit_image(pixels, self.input_shape[:2], rule)
        return PreprocessedImage(fitted, pixels.shape[:2], scale, offset)

    def _preprocess_all(
        self, images: ImageInput | Sequence[ImageInput]
    ) -> tuple[list[PreprocessedImage], bool]:
        """Preprocess the `images` of `__call__`; also return whether it is a single image."""
        if isinstance(images, str | os.PathLike | Image.Image):
            return [self.preprocess(images)], True
        if not isinstance(images, list | tuple):
            images = np.asarray(images)
            if images.ndim != 4:
                return [self.preprocess(images)], True
        return [self.preprocess(image) for image in images], False

    def _selected_labels(self, threshold: float, classes: str | Iterable[str] | None) -> list[int]:
        """The labels of `classes`. Raises UserError for an unknown class, or a threshold outside
        [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold = {threshold}: give a score from 0 to 1")
        selected = self.classes if classes is None else classes
        names = [selected] if isinstance(selected, str) else list(selected)
        for name in names:
            if name not in self.classes:
                raise UserError(f"class {name!r}: {suggest(name, self.classes)}")
        return [self.classes.index(name) for name in names]

    def _run_network(
        self, images: Sequence[PreprocessedImage], batch: int | None
    ) -> dict[str, np.ndarray]:
        """The network's outputs. batch: images per compiled call, by default 1 for a single image,
        else `BATCH`.
        """
        pixels = np.stack([image.pixels for image in images])
        batch = batch or (1 if len(images) == 1 else BATCH)
        return predict_all(self._predict, self._variables, {"image": pixels}, batch)[0]


class Classifier(Model):
    """A trained classifier. Made by `load`."""

    noun = "classes"
    default_fit = "resize"

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        threshold: float = 0,
        classes: str | Iterable[str] | None = None,
    ) -> Classification | list[Classification]:
        """Classify images.

        images: see `Detector.__call__`. threshold: lowest score to keep. classes: names of the
        classes to keep; by default all. Returns a Classification for one image, a list of them
        for an array [N, h, w, C] or a list. Raises UserError as `Detector.__call__` does.
        """
        inputs, single = self._preprocess_all(images)
        results = self.predict(inputs, threshold, classes)
        return results[0] if single else results

    def predict(
        self,
        images: Sequence[PreprocessedImage],
        threshold: float = 0,
        classes: str | Iterable[str] | None = None,
        batch: int | None = None,
    ) -> list[Classification]:
        """`__call__` for the results of `preprocess`. batch: images per compiled call."""
        labels = self._selected_labels(threshold, classes)
        if not images:
            return []
        logits = self._run_network(images, batch)["logits"]
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        results = []
        for scores in probabilities:
            order = np.argsort(-scores, kind="stable")
            order = order[np.isin(order, labels) & (scores[order] >= threshold)]
            results.append(Classification(tuple(self.classes[k] for k in order), scores[order]))
        return results


class Detector(Model):
    """A trained detector. Made by `load`."""

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput],
        threshold: float = THRESHOLD,
        classes: str | Iterable[str] | None = None,
    ) -> Detections | list[Detections]:
        """Detect objects.

        Args:
            images: one image, an array [N, h, w, C], or a list of images that may differ in size.
                An image is an array [h, w] or [h, w, C], a PIL image, or the path of a file. The
                last two are read as `tinyjax.predict` reads files: EXIF orientation and palettes
                are applied. Arrays are uint8, or uint16, which is mapped to 8 bits as in training.
                C is 1 (gray) or 3 (RGB; from OpenCV give image[..., ::-1]) and may differ from the
                network's.
            threshold: lowest score to keep; 0 keeps all detections that survive suppression.
            classes: names of the classes to keep; by default all.

        Returns:
            Detections for one image, a list of them for an array [N, h, w, C] or a list. Boxes are
            clipped to the image.

        Raises UserError for images of another shape or dtype, for files that cannot be read, and
        for an invalid threshold or class.
        """
        inputs, single = self._preprocess_all(images)
        results = self.predict(inputs, threshold, classes)
        return results[0] if single else results

    def predict(
        self,
        images: Sequence[PreprocessedImage],
        threshold: float = THRESHOLD,
        classes: str | Iterable[str] | None = None,
        batch: int | None = None,
    ) -> list[Detections]:
        """`__call__` for the results of `preprocess`. batch: images per compiled call."""
        selected = self._selected_labels(threshold, classes)
        if not images:
            return []
        outputs = self._run_network(images, batch)
        rows = zip(images, outputs["boxes"], outputs["scores"], outputs["labels"], strict=True)
        return [self._select(*row, threshold, selected) for row in rows]

    def _select(self, image, boxes, scores, labels, threshold, selected) -> Detections:
        height, width = image.shape
        limits = np.array([width, height, width, height], np.float32)
        boxes = np.clip(to_file(boxes, image.scale, image.offset), 0, limits).astype(np.float32)
        # A box without area after clipping lies in the letterbox's border.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(-1)
        # Unused rows of the outputs, whose number is fixed, have a score of 0.
        keep = inside & (scores > 0) & (scores >= threshold) & np.isin(labels, selected)
        return Detections(boxes[keep], scores[keep], labels[keep], self.classes)


def load(
    path: str | Path, weights: str = "last", overrides: Iterable[str] = ()
) -> Detector | Classifier:
    """Load a trained network. Nothing is compiled until it is called.

    Args:
        path: the folder of a finished run, or the path of its weights: "<name>.safetensors",
            "<name>.json" or "<name>". Another machine needs only the two files.
        weights: "last" or "best", which averaged weights of a run folder to load.
        overrides: changes of the run's config, such as "nms.iou_threshold=0.6".

    Raises UserError if the weights are missing or broken.
    """
    if weights not in ("last", "best"):
        raise UserError(f"weights = {weights!r}: {suggest(weights, ('last', 'best'))}")
    file = parse_path(path)
    if file.is_dir():
        file = file / "weights" / (member_id({}) + ("-best" if weights == "best" else ""))
    elif file.suffix in (".safetensors", ".json"):
        file = file.with_suffix("")
    arrays, metadata = read_weights(file)
    if (count := flops.count_parameters(arrays["params"])) != metadata["parameters"]:
        raise UserError(
            f"{file}.safetensors: {count:,} parameters, but {file.name}.json describes "
            f"{metadata['parameters']:,}; give the two files of the same run"
        )
    config = configs.override(configs.from_run(metadata["config"]), overrides)
    model_class: type[Detector | Classifier] = Classifier if config.task == "classify" else Detector
    return model_class(Variables(**arrays), config, metadata)


def to_pixels(image: ImageInput, channels: int, range16: Range16 = PERCENTILES) -> np.ndarray:
    """A file, a PIL image or an array [h, w] or [h, w, 1 or 3] of 8 or 16 bits, as uint8
    [h, w, channels].

    Color becomes gray by luminance (ITU-R 601), gray becomes color by replication, as in
    `images.read_image`. Raises UserError for a file that cannot be read, and for an array of
    another shape or dtype.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image).expanduser(), channels, range16)
    if isinstance(image, Image.Image):
        return read_pil(image, channels, range16)
    image = np.asarray(image)
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        hint = ""
        if image.dtype.kind == "f":
            hint = "; for values from 0 to 1, give (255 * image).round().astype(np.uint8)"
        raise UserError(f"image of {image.dtype}: give uint8, or uint16{hint}")
    shape = image.shape
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in shape:
        raise UserError(
            f"image of shape {shape}: give [h, w], [h, w, 1] or [h, w, 3]; several images as a "
            "list, or [N, h, w, 1 or 3]"
        )
    if image.dtype.itemsize == 2:
        image = to_uint8(image, range16)
    if image.shape[-1] > channels:
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return np.repeat(image, channels // image.shape[-1], axis=-1)
