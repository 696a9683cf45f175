"""Detection: the four functions the rest of the system needs."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.data.augment import augment, normalise
from tinyjax.data.images import to_file
from tinyjax.data.records import Split
from tinyjax.detect.grid import make_grid
from tinyjax.detect.losses import detection_loss
from tinyjax.detect.network import Detector
from tinyjax.detect.postprocess import detections
from tinyjax.detect.score import score
from tinyjax.errors import UserError, suggest
from tinyjax.step import Task, Variables

STRIDES = (4, 8, 16, 32)
DTYPES = ("float32", "bfloat16")
FIELDS = ("images", "boxes", "labels", "valid", "ignore")


def make_model(config: ConfigDict, classes: int) -> Detector:
    """The network of a config, for so many classes.

    Raises UserError if `model.strides` or `model.dtype` is none that it can have.
    """
    strides, dtype = tuple(config.model.strides), config.model.dtype
    if strides not in {STRIDES[i:j] for i in range(4) for j in range(i + 1, 5)}:
        raise UserError(f"model.strides = {strides}: give one or more of {STRIDES}, in a row")
    if dtype not in DTYPES:
        raise UserError(f"model.dtype = {dtype!r}: {suggest(dtype, DTYPES)}")
    backbone = models.build(config.model.backbone, dtype=jnp.dtype(dtype))
    return Detector(backbone, classes, strides, config.model.width)


def make_task(config: ConfigDict, classes: tuple[str, ...], channels: int) -> Task:
    """Task of a config: training on windows of `config.crop`, prediction on whole frames.

    Raises UserError as `make_model` does, and for a transposition of windows that are not square.
    """
    model = make_model(config, len(classes))
    window = tuple(config.crop)
    if config.augment.transpose > 0 and window[0] != window[1]:
        raise UserError(
            f"augment.transpose = {config.augment.transpose}: crop = {window} is not square; "
            "give a square crop, or transpose = 0"
        )
    grid = make_grid(window[0], window[1], model.strides)

    def init(seed):
        return Variables(*models.init(model, seed, (1, *window, channels)))

    def loss(variables, batch, key, hyper):
        batch = augment(key, batch, hyper["augment"], window)
        (logits, offsets), stats = models.apply(
            model, variables.params, variables.stats, batch["images"], train=True
        )
        value, parts = detection_loss(logits, offsets, batch, hyper["loss"], grid)
        return value, (stats, parts)

    @jax.jit
    def predict(variables, images):
        """uint8 [B, H, W, C] -> boxes, scores, labels of `detections`, in pixels of `images`."""
        (logits, offsets), _ = models.apply(
            model, variables.params, variables.stats, normalise(images), train=False
        )
        frame = make_grid(images.shape[1], images.shape[2], model.strides)
        return detections(logits, offsets, frame, **config.nms)

    def score_split(predictions, split):
        bins = {name: tuple(sides) for name, sides in config.score.bins.items()}
        return score(in_file_pixels(predictions, split), split.truth, bins)

    return Task(init, loss, predict, score_split)


def on_device(split: Split) -> dict[str, jax.Array]:
    """What training reads of a split, as arrays [N, ...] on the device; images stay uint8."""
    return {name: jnp.asarray(getattr(split, name)) for name in FIELDS}


def hyper_of(config: ConfigDict) -> dict:
    """The numbers of a config that a population may vary, as arrays."""
    numbers = {
        "seed": config.seed,
        "lr": config.optimiser.lr,
        "weight_decay": config.optimiser.weight_decay,
        "ema": config.ema,
        "augment": config.augment.to_dict(),
        "loss": config.loss.to_dict(),
    }
    return jax.tree.map(jnp.asarray, numbers)


def in_file_pixels(predictions: dict, split: Split) -> dict[str, np.ndarray]:
    """Predictions for a split [N, K, ...], boxes mapped from the network's input back to the files'
    pixels and cut off at the images' borders, as labels are.
    """
    boxes = [
        np.clip(to_file(b, s, o), 0, (info["width"], info["height"]) * 2)
        for b, s, o, info in zip(
            predictions["boxes"], split.scale, split.offset, split.truth["images"], strict=True
        )
    ]
    return {**predictions, "boxes": np.stack(boxes).astype(np.float32)}


def predict_all(
    task: Task, variables: Variables, images: np.ndarray, batch: int = 32
) -> dict[str, np.ndarray]:
    """Predictions for N images of the network's size, in batches of one compiled shape.

    The last batch is filled up with its own last image, so that nothing is compiled for a
    remainder.
    """
    parts = []
    for start in range(0, len(images), batch):
        rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
        parts.append(jax.device_get(task.predict(variables, images[rows])))
    return {name: np.concatenate([p[name] for p in parts])[: len(images)] for name in parts[0]}
