"""The Python interface: a trained network as a function of images, and training.

model = tinyjax.load("runs/mine")
detections = model(image)  # a path, a PIL image, or uint8 [h, w] or [h, w, 3]; any size
detections.boxes, detections.scores, detections.labels  # a classifier returns names and scores
detections.draw(image).save("detections.png")

model = tinyjax.load("mine.onnx")  # a file of tinyjax.export, called in the same way

model = tinyjax.load("runs/people")  # of visible-infrared recognition
matches = model.match("night.png", gallery)  # see `Recognizer`
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinyjax import config as configs
from tinyjax.config.paths import parse_path
from tinyjax.core import Variables
from tinyjax.data.images import to_file
from tinyjax.errors import UserError, suggest
from tinyjax.exporting import formats, network_files
from tinyjax.inference.model import ImageInput, Model, PreprocessedImage, list_images, to_pixels
from tinyjax.inference.recognizer import Recognizer
from tinyjax.models import flops
from tinyjax.population.options import SINGLE_RUN, select_members
from tinyjax.reporting import pictures
from tinyjax.run.run_folder import member_id
from tinyjax.run.weights import read_weights

THRESHOLD = 0.3
MAX_DRAWN_CLASSES = 3  # in the caption of a classified image


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
        items, single = list_images(images)
        inputs = [self.preprocess(image) for image in items]
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
        items, single = list_images(images)
        inputs = [self.preprocess(image) for image in items]
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


MODELS: dict[str, type[Detector | Classifier | Recognizer]] = {  # by task
    "detect": Detector,
    "classify": Classifier,
    "pretrain": Classifier,
    "reid": Recognizer,
}


def load(
    path: str | Path, weights: str = "last", overrides: Iterable[str] = ()
) -> Detector | Classifier | Recognizer:
    """Load a trained network. Nothing is compiled until it is called.

    Args:
        path: the folder of a finished run; or the path of its weights: "<name>.safetensors",
            "<name>.json" or "<name>", and another machine needs only the two files; or a file of
            `tinyjax.export`, whose runtime then computes the outputs.
        weights: "last" or "best", which averaged weights of a run folder to load.
        overrides: changes of the run's config, such as "nms.iou_threshold=0.6".

    Raises UserError if the weights are missing or broken, and as `open_network` does.
    """
    if weights not in ("last", "best"):
        raise UserError(f"weights = {weights!r}: {suggest(weights, ('last', 'best'))}")
    file = parse_path(path)
    if file.suffix in formats.FORMATS:
        if weights != "last":
            raise UserError(f"weights = {weights!r}: {file} has one set of weights; leave it out")
        network = network_files.open_network(file, overrides)
        return MODELS[network.config.task](network.config, network.metadata, network.functions)
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
    return MODELS[config.task].from_weights(Variables(**arrays), config, metadata)
