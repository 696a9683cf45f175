"""A trained network of visible-infrared recognition: embeddings of images, and matches in a
gallery.

model = tinyjax.load("runs/people")
gallery = model.embed(visible_images, modality="visible")  # float32 [N, D]
matches = model.match("night.png", gallery)
matches.indices, matches.similarities  # of the gallery, most similar first
matches.draw("night.png", visible_images).save("matches.png")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from tinyjax import config as configs
from tinyjax.core import Variables
from tinyjax.data.images import fit_image
from tinyjax.data.modality import INFRARED, MODALITIES
from tinyjax.errors import UserError, suggest
from tinyjax.inference.model import (
    BATCH,
    ImageInput,
    Model,
    PreprocessedImage,
    list_images,
    to_pixels,
)
from tinyjax.models.path_blocks import select_path
from tinyjax.population.prediction import predict_all
from tinyjax.reporting import pictures
from tinyjax.tasks import get_task

TOP = 10  # matches by default
DRAWN_HEIGHT = 256  # of each image in a picture of matches, pixels


@dataclass(frozen=True, eq=False)
class Matches:
    """The images of a gallery that are most similar to one query, in descending order."""

    indices: np.ndarray  # int32 [n], of the gallery
    similarities: np.ndarray  # float32 [n], cosine of the embeddings, -1 to 1

    def __len__(self) -> int:
        return len(self.indices)

    def draw(self, query_image: ImageInput, gallery_images: Sequence[ImageInput]) -> Image.Image:
        """Draw the query and, to its right, its matches with rank and similarity.

        gallery_images: all images of the gallery; only those of the matches are read.

        Raises UserError if the gallery lacks a match, and for images as `Recognizer.embed` does.
        """
        size = len(gallery_images)
        if len(self) and (last := int(self.indices.max())) >= size:
            raise UserError(f"gallery_images: {size} images, without {last}; give the gallery's")
        matched = [gallery_images[k] for k in self.indices.tolist()]
        captions = (f"{k} ({s:.2f})" for k, s in enumerate(self.similarities, start=1))
        panels = [
            pictures.add_caption(_scaled(image), caption)
            for image, caption in zip([query_image, *matched], ["query", *captions], strict=True)
        ]
        return pictures.tile([panels])


class Recognizer(Model):
    """A trained network that finds an identity in images of the other modality. Made by `load`."""

    noun = "matches"
    default_fit = "resize"

    @classmethod
    def from_weights(
        cls, variables: Variables, config: ConfigDict, metadata: Mapping[str, Any]
    ) -> Self:
        """A network with these weights. metadata: as in `Model`."""
        # The images of a call have one modality, so the path of the other need not be computed.
        inputs = {name: tuple(shape) for name, shape in metadata["inputs"].items()}
        single_path = configs.with_fields(config, {"model.path_blocks": 0})
        task, classes = get_task(config.task), tuple(metadata["classes"])
        predict = task.model_functions(single_path, classes, inputs).predict
        variables = jax.device_put(variables)
        paths = {
            name: (predict, select_path(variables, modality == INFRARED))
            for name, modality in MODALITIES.items()
        }
        return cls(config, metadata, paths)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.input_shape))
        identities = f"trained on {len(self.classes)} identities"
        return f"<tinyjax model: {self.config.model.backbone}, {size}, {identities}>"

    def __call__(self, *_: Any) -> Any:
        raise UserError(
            "a network of recognition has no predictions of single images: use "
            "model.embed(images, modality) or model.match(query, gallery)"
        )

    def preprocess(self, image: ImageInput, modality: str = "visible") -> PreprocessedImage:
        """Fit one image to the network's input. An infrared image is read as gray, as in training.

        Raises UserError for an unknown modality, and as `to_pixels` does.
        """
        check_modality(modality)
        channels = self.input_shape[2]
        infrared = MODALITIES[modality] == INFRARED
        pixels = to_pixels(image, 1 if infrared else channels, self.range16)
        rule = self.config.data.common.get("fit", self.default_fit)
        fitted, scale, offset = fit_image(pixels, self.input_shape[:2], rule)
        fitted = np.broadcast_to(fitted, (*fitted.shape[:2], channels))
        return PreprocessedImage(fitted, pixels.shape[:2], scale, offset)

    def embed(self, images: ImageInput | Sequence[ImageInput], modality: str) -> np.ndarray:
        """Embeddings of images of one modality, "visible" or "infrared".

        images: see `Detector.__call__`.

        Returns float32 [N, D] with rows of unit length; [D] for one image. Raises UserError as
        `preprocess` does.
        """
        check_modality(modality)
        items, single = list_images(images)
        embedding = self.predict([self.preprocess(image, modality) for image in items], modality)
        return embedding[0] if single else embedding

    def predict(
        self, images: Sequence[PreprocessedImage], modality: str, batch: int | None = None
    ) -> np.ndarray:
        """`embed` for the results of `preprocess`: float32 [N, D].

        batch: images per compiled call, by default 1 for a single image, else `BATCH`.
        """
        if not images:
            raise UserError("no images; give one or more")
        pixels = np.stack([image.pixels for image in images])
        modalities = np.full(len(images), MODALITIES[modality], np.uint8)
        inputs = {"image": pixels, "modality": modalities}
        batch = batch or (1 if len(images) == 1 else BATCH)
        (outputs,) = predict_all(*self.predict_functions[modality], inputs, batch)
        return _unit_rows(outputs["embedding"]).astype(np.float32)

    def match(
        self,
        queries: ImageInput | Sequence[ImageInput],
        gallery: ImageInput | Sequence[ImageInput],
        query_modality: str = "infrared",
        gallery_modality: str = "visible",
        top: int = TOP,
    ) -> Matches | list[Matches]:
        """Find the images of a gallery that are most similar to each query.

        Args:
            queries, gallery: images as in `embed`; or embeddings, float [D] or [N, D], which need
                not have unit length.
            query_modality, gallery_modality: "visible" or "infrared"; not used for embeddings.
            top: number of matches; a smaller gallery has fewer.

        Returns:
            Matches for one query (an image, or an embedding [D]), else a list of them.

        Raises UserError for an unknown modality, an empty gallery, embeddings of another length,
        and as `embed` does.
        """
        check_modality(query_modality, "query_modality")
        check_modality(gallery_modality, "gallery_modality")
        if top < 1:
            raise UserError(f"top = {top}: give 1 or more")
        candidates, _ = self._to_rows(gallery, gallery_modality)
        if not len(candidates):
            raise UserError("gallery: no images; give one or more")
        rows, single = self._to_rows(queries, query_modality)
        if not len(rows):
            return []
        if rows.shape[1] != candidates.shape[1]:
            raise UserError(
                f"queries have embeddings of length {rows.shape[1]}, the gallery of length "
                f"{candidates.shape[1]}; give those of one network (images are uint8 or uint16)"
            )
        results = [rank(row, candidates, top) for row in rows]
        return results[0] if single else results

    def _to_rows(self, images: Any, modality: str) -> tuple[np.ndarray, bool]:
        """float64 [N, D] of images or embeddings, and whether it is a single one."""
        if isinstance(images, np.ndarray) and images.dtype.kind == "f" and images.ndim in (1, 2):
            return _unit_rows(np.atleast_2d(images)), images.ndim == 1
        items, single = list_images(images)
        if not items:
            return np.zeros((0, 0)), False
        return self.embed(items, modality).astype(np.float64), single


def check_modality(modality: str, name: str = "modality") -> None:
    """Raise UserError for an unknown modality; name: of the argument."""
    if modality not in MODALITIES:
        raise UserError(f"{name} = {modality!r}: {suggest(modality, MODALITIES)}")


def rank(query: np.ndarray, gallery: np.ndarray, top: int) -> Matches:
    """The `top` most similar rows of a gallery; equally similar ones keep its order.

    query: float64 [D], gallery: float64 [N, D], of unit length. Rows with NaN come last.
    """
    # Rounded, so that equal rows are equally similar, whatever the order of summation.
    similarity = np.clip(gallery @ query, -1, 1).astype(np.float32)
    order = np.argsort(-similarity, kind="stable")[:top].astype(np.int32)
    return Matches(order, similarity[order])


def _unit_rows(embedding: np.ndarray) -> np.ndarray:
    """float64 [N, D]; a row of zeros stays."""
    rows = embedding.astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _scaled(image: ImageInput) -> Image.Image:
    picture = Image.fromarray(to_pixels(image, 3))
    width = max(1, round(picture.width * DRAWN_HEIGHT / picture.height))
    return picture.resize((width, DRAWN_HEIGHT), Image.Resampling.BILINEAR)
