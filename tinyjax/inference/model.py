"""What all trained networks share as functions of images: how images are read and predicted."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from tinyjax.core import Variables
from tinyjax.data.images import PERCENTILES, Range16, fit_image, read_image, read_pil, to_uint8
from tinyjax.errors import UserError, suggest
from tinyjax.population.prediction import predict_all
from tinyjax.tasks import get_task

BATCH = 16  # images per compiled call; 1 for a single image

# Modality -> `ModelFunctions.predict` and its first argument; "" if there are no modalities.
PredictFunctions = Mapping[str, tuple[Callable[..., Any], Any]]
ImageInput = np.ndarray | Image.Image | str | os.PathLike[str]  # see `api.Detector.__call__`


class PreprocessedImage(NamedTuple):
    """An image in the network's input size, and the geometry to map boxes back."""

    pixels: np.ndarray  # uint8 [H, W, C]
    shape: tuple[int, int]  # (h, w) of the given image
    scale: np.ndarray  # see `images.fit_image`
    offset: np.ndarray


class Model:
    """A trained network, ready to be called. Base of the classes that `tinyjax.load` returns."""

    noun = "objects"  # for log lines such as "3 objects"
    default_fit = "letterbox"  # rule of `fit_image`, unless data.common.fit is set

    def __init__(
        self, config: ConfigDict, metadata: Mapping[str, Any], functions: PredictFunctions
    ) -> None:
        """metadata: `inputs`, name -> shape of a sample, `classes`, and `trained_on` if the weights
        have identity records.
        """
        height, width, channels = metadata["inputs"]["image"]
        self.config: ConfigDict = config
        self.input_shape: tuple[int, int, int] = (height, width, channels)
        self.classes: tuple[str, ...] = tuple(metadata["classes"])
        self.trained_on: tuple[dict[str, Any], ...] = tuple(metadata.get("trained_on", ()))
        self.predict_functions: PredictFunctions = functions

    @classmethod
    def from_weights(
        cls, variables: Variables, config: ConfigDict, metadata: Mapping[str, Any]
    ) -> Self:
        """A network with these weights. metadata: as in the constructor."""
        inputs = {name: tuple(shape) for name, shape in metadata["inputs"].items()}
        classes = tuple(metadata["classes"])
        functions = get_task(config.task).model_functions(config, classes, inputs)
        return cls(config, metadata, {"": (functions.predict, jax.device_put(variables))})

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
        return predict_all(*self.predict_functions[""], {"image": pixels}, batch)[0]


def list_images(images: ImageInput | Sequence[ImageInput]) -> tuple[list[ImageInput], bool]:
    """The images of one image, an array [N, h, w, C] or a list; and whether it is one image."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images], True
    if not isinstance(images, list | tuple):
        images = np.asarray(images)
        if images.ndim != 4:
            return [images], True
    return [*images], False


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
