"""The task of image classification."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.core import ModelFunctions, Task, Variables
from tinyjax.data import sampling
from tinyjax.data.augmentation import augment_classification, normalize
from tinyjax.data.classification import make_view_source
from tinyjax.data.loading import CLASSIFICATION_FORMATS, load_split
from tinyjax.data.records import ClassificationSplit
from tinyjax.errors import UserError, shorten
from tinyjax.metrics import classification as metrics
from tinyjax.metrics.slices import ALL_IMAGES, Slice, SuiteResult
from tinyjax.models.classifier import Classifier
from tinyjax.models.scaling import Architecture
from tinyjax.run.text import text_table
from tinyjax.tasks import build_backbone

# ---- data


def load(
    data: ConfigDict,
    split: ConfigDict,
    classes: Sequence[str] = (),
    corruption: tuple[str, int] | None = None,
) -> ClassificationSplit:
    """Load a split by a config's `data`, with the arguments in `split` over the common ones.

    classes: those of the training split. If the config lists classes, images of other classes are
    left out. corruption: name and severity.

    Raises UserError as `load_split` does, and if the classes of the splits differ and the config
    lists none.
    """
    lists_classes = any(group.get("classes") for group in (data.common, data.train))
    selection = {"classes": classes} if classes and lists_classes else {}
    loaded = load_split(data, split, CLASSIFICATION_FORMATS, corruption, **selection)
    if classes and loaded.classes != tuple(classes):
        name = split.get("split", data.common.get("split"))
        extra = shorten(sorted({*loaded.classes} - {*classes}))
        missing = shorten(sorted({*classes} - {*loaded.classes}))
        raise UserError(
            f"data: split {name!r} has other classes than training (only in {name!r}: {extra}; "
            f"only in training: {missing}); list the classes to use in the config's data.common"
        )
    return loaded


def describe_data(
    training: ClassificationSplit,
    suites: Mapping[str, ClassificationSplit],
    config: ConfigDict,
    folder: Path,
) -> list[str]:
    """The lines that a run logs about its data. Raises UserError for a single class."""
    if len(training.classes) < 2:
        raise UserError(
            f"data.train: {training.classes[0]!r} is the only class; give two classes or more"
        )
    lines = []
    for name, split in {"data.train": training, **suites}.items():
        counts = np.bincount(split.labels, minlength=len(split.classes))
        height, width, channels = split.inputs["image"].shape[1:]
        lines.append(
            f"{name}: {len(split.names)} images of {width} x {height} x {channels}, "
            f"{len(split.classes)} classes of {counts.min()} to {counts.max()} images"
            + (f"; {split.left_out} of other classes left out" if split.left_out else "")
        )
    return lines


def device_arrays(split: ClassificationSplit) -> dict[str, jax.Array]:
    """The arrays [N, ...] that training batches are drawn from; images stay uint8.

    rarity: 1 / number of images of the same class.
    """
    image, labels = jnp.asarray(split.inputs["image"]), jnp.asarray(split.labels)
    rarity = subset_arrays(split, np.ones(len(split.labels), bool))["rarity"]
    return {"image": image, "labels": labels, "rarity": jnp.asarray(rarity)}


def subset_arrays(split: ClassificationSplit, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The device arrays [N] that change if only the images in `mask` are used."""
    counts = np.bincount(split.labels[mask], minlength=len(split.classes))
    return {"rarity": (1 / np.maximum(counts, 1)[split.labels]).astype(np.float32)}


def stream_source(split: ClassificationSplit, config: ConfigDict) -> Any:
    """Samples of a training set that stays on disk, see `streaming.batches`."""
    rarity = subset_arrays(split, np.ones(len(split.labels), bool))["rarity"]
    return make_view_source(
        split, rarity, tuple(config.crop_size), config.augment.area, config.augment.aspect
    )


def sample_labels(split: ClassificationSplit) -> list[np.ndarray]:
    """The class of each image, as an array of one."""
    return [*split.labels[:, None]]


def class_counts(split: ClassificationSplit, mask: np.ndarray) -> dict[str, tuple[int, int]]:
    """Class -> (images, objects) for training; the numbers are equal: an image is one object."""
    counts = np.bincount(split.labels[mask], minlength=len(split.classes)).tolist()
    return {name: (n, n) for name, n in zip(split.classes, counts, strict=True)}


def classes_present(split: ClassificationSplit) -> tuple[str, ...]:
    """The classes with at least one image in the split."""
    return tuple(split.classes[k] for k in np.unique(split.labels))


# ---- network


def build(config: ConfigDict, classes: int, supernet: Architecture | None = None) -> Classifier:
    """The network of a config. Raises UserError as `build_backbone` does."""
    return Classifier(build_backbone(config, classes, supernet))


def model_functions(
    config: ConfigDict,
    classes: Sequence[str],
    inputs: Mapping[str, tuple[int, ...]],
    supernet: Architecture | None = None,
    axes: Sequence[str] = (),
) -> ModelFunctions:
    """Training on random views of `config.crop_size`, prediction on whole images.

    Args:
        inputs: {"image": (H, W, C)}, the shape of a sample.
        supernet: see `build_backbone`.
        axes: mesh axes that training batches are spread over; loss and metrics are then a shard's
            partial sums.
    """
    model, num_classes = build(config, len(classes), supernet), len(classes)
    window = tuple(config.crop_size)
    # An augmentation that no member uses is not part of the program.
    augmentations = [
        name for name in config.augment if name not in ("mixup", "cutmix") or config.augment[name]
    ]

    def init(seed):
        return Variables(*models.init(model, seed, (1, *window, inputs["image"][-1])))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        strength = {name: hyper["augment"][name] for name in augmentations}
        # An image has the weight of its class; in a mixed image each class keeps its weight.
        weight = batch["rarity"] ** hyper["loss"]["class_balance"]
        targets = weight[:, None] * jax.nn.one_hot(batch["labels"], num_classes)
        crop = None if config.data.stream else window  # streamed views are cropped at decoding
        images, targets = augment_classification(key, batch["image"], targets, strength, crop, axes)
        logits, stats = models.apply(
            model, *variables, images, train=True, frozen_batchnorm=frozen_batchnorm, axes=axes,
            momentum=hyper.get("momentum"),
        )  # fmt: skip
        value = cross_entropy(logits, targets, hyper["loss"]["label_smoothing"], axes)
        correct = logits.argmax(1) == targets.argmax(1)
        return value, (stats, {"accuracy": correct.mean() / jax.lax.axis_size(axes)})

    @jax.jit
    def predict(variables, inputs):
        """image uint8 [B, H, W, C] -> logits f32[B, classes]."""
        x, size = normalize(inputs["image"]), inputs["image"].shape[0]
        if flip := config.predict.flip:
            x = jnp.concatenate([x, x[:, :, ::-1]])
        logits, _ = models.apply(model, *variables, x, train=False)
        return {"logits": (logits[:size] + logits[size:]) / 2 if flip else logits}

    return ModelFunctions(init, loss, predict)


@jax.named_scope("loss")
def cross_entropy(
    logits: Array, targets: Array, label_smoothing: Array, axes: Sequence[str] = ()
) -> Array:
    """Mean cross-entropy, in nats, of logits [B, classes] with targets [B, classes].

    The fraction `label_smoothing` of a target is spread evenly over all classes (arXiv 1512.00567).
    A row of targets sums to the image's weight in the mean, above 0. axes: mesh axes that the batch
    is spread over; the result is then this shard's term of the mean.
    """
    weight = targets.sum(1, keepdims=True)
    targets = (1 - label_smoothing) * targets + label_smoothing * weight / logits.shape[1]
    return -(targets * jax.nn.log_softmax(logits)).sum() / jax.lax.psum(weight.sum(), axes)


# ---- results


def score(
    predictions: Sequence[Mapping[str, np.ndarray]], split: ClassificationSplit, config: ConfigDict
) -> list[dict[str, float]]:
    """Each member's scores, see `metrics.classification.score`."""
    return [metrics.score(p["logits"], split.labels) for p in predictions]


def evaluate_slices(
    predictions: Sequence[Mapping[str, np.ndarray]],
    split: ClassificationSplit,
    config: ConfigDict,
    slices: Mapping[str, Slice],
    counts: np.ndarray,
) -> list[SuiteResult]:
    """Evaluate each member on a suite as a whole; classification has no slices."""

    def evaluate_member(logits):
        calibration = metrics.classifier_calibration_error(logits, split.labels)
        scores = {**metrics.score(logits, split.labels), "ECE": calibration}
        return SuiteResult(
            {ALL_IMAGES: scores},
            {ALL_IMAGES: metrics.resampled_scores(logits, split.labels, counts)},
            {},
        )

    return [evaluate_member(p["logits"]) for p in predictions]


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores as text: a row per suite."""
    rows = [
        {"suite": suite, **values, "images": f"{values['images']:.0f}"}
        for suite, values in scores.items()
    ]
    return text_table(rows, ("suite", "mean_class", "top1", "top5", "images"))


def plot_samples(
    split: ClassificationSplit, predictions: Mapping[str, np.ndarray], path: Path
) -> None:
    """Draw a sheet of images with their true and predicted classes."""
    from tinyjax.reporting import classification

    classification.save_samples(split, predictions["logits"], path)


def write_report(
    folder: Path,
    suites: Mapping[str, ClassificationSplit],
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    scores: Mapping[str, Mapping[str, float]],
    class_counts: Mapping[str, tuple[int, int]],
    config: ConfigDict,
) -> None:
    """Write tables and figures of a single run, see `reporting.classification.write_report`."""
    from tinyjax.reporting import classification

    logits = {name: p["logits"] for name, p in predictions.items()}
    classification.write_report(folder, suites, logits)


TASK = Task(
    name="classify",
    inputs=("image",),
    monitor="mean_class",
    metrics=lambda config: {"mean_class": "mean per-class accuracy", "top1": "top-1 accuracy"},
    compile_seconds=25.0,
    pixel_seconds=5e-8,
    load=load,
    describe_data=describe_data,
    sample=sampling.shuffled_epochs,
    device_arrays=device_arrays,
    stream_source=stream_source,
    sample_labels=sample_labels,
    class_counts=class_counts,
    classes_present=classes_present,
    build=build,
    model_functions=model_functions,
    score=score,
    evaluate_slices=evaluate_slices,
    score_table=score_table,
    plot_samples=plot_samples,
    write_report=write_report,
    subset_arrays=subset_arrays,
)
