"""The task of object detection, with any detector of `tinyjax.detectors`."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.config.detectors import DETECTORS
from tinyjax.config.parsing import leaves_with_path
from tinyjax.core import ModelFunctions, Task, Variables
from tinyjax.data import sampling
from tinyjax.data.augmentation import augment_detection, normalize
from tinyjax.data.detection import FrameSource
from tinyjax.data.images import to_file
from tinyjax.data.loading import load_split
from tinyjax.data.records import DetectionSplit
from tinyjax.detectors import long_tail
from tinyjax.errors import UserError, shorten, suggest
from tinyjax.metrics import class_frequency, lvis, protocols
from tinyjax.metrics.detection import run_in_processes
from tinyjax.metrics.slices import Slice, SuiteResult, slices_by_field
from tinyjax.models.scaling import Architecture
from tinyjax.run.text import text_table
from tinyjax.tasks import build_backbone

TOTALS = ("AP", "AP50", "AP75", "APr", "APc", "APf", "AP fixed")  # columns of `score_table`
MAX_TABLE_ROWS = 100  # COCO has 80 classes
LABELS = ("boxes", "labels", "valid", "ignore")  # fields of a split that training reads


# ---- data


def load(
    data: ConfigDict,
    split: ConfigDict,
    classes: Sequence[str] = (),
    corruption: tuple[str, int] | None = None,
) -> DetectionSplit:
    """Load a split by a config's `data`, with the arguments in `split` over the common ones.

    classes: those of the training split; a suite from another source may lack some of them.
    corruption: name and severity. Raises UserError as `load_split` does.
    """
    sources = [{**data.common, **arguments}.get("source") for arguments in (data.train, split)]
    selection: dict[str, Any] = {}
    if classes:
        selection = {"classes": classes, "allow_missing": sources[0] != sources[1]}
    return load_split(data, split, corruption=corruption, **selection)


def describe_data(
    training: DetectionSplit,
    suites: Mapping[str, DetectionSplit],
    config: ConfigDict,
    folder: Path,
) -> list[str]:
    """Return the log lines about a run's data, and draw label statistics into `folder`.

    Raises UserError if the training set, or the suite that selects the best weights, has no object,
    and if `score.protocol` is lvis and the labels of a suite are not federated.
    """
    from tinyjax.data import statistics
    from tinyjax.reporting import label_statistics

    if not training.valid.any():
        raise UserError("data.train: this split has no objects to learn from")
    if not suites[config.monitor].valid.any():
        raise UserError(f"monitor = {config.monitor!r}: this suite has no objects to score")
    if config.score.protocol == "lvis":
        for split in suites.values():
            lvis.check_labels(split.truth)
    label_statistics.draw(training, config.model.strides, folder / "figures" / "labels.png")
    check_duplicates = not config.data.stream
    lines = statistics.data_report(training, suites, min(config.model.strides), check_duplicates)
    if config.score.protocol != "coco":
        lines.append(f"scores: {'; '.join(metrics(config).values())}")
    return lines


def device_arrays(split: DetectionSplit) -> dict[str, jax.Array]:
    """The arrays [N, ...] that training batches are drawn from; images stay uint8."""
    labels = {name: jnp.asarray(getattr(split, name)) for name in LABELS}
    return {"image": jnp.asarray(split.inputs["image"]), **labels}


def stream_source(split: DetectionSplit, config: ConfigDict) -> FrameSource:
    """Samples of a training set that stays on disk, see `streaming.batches`."""
    return FrameSource(split.inputs["image"].read, {name: getattr(split, name) for name in LABELS})


def sample_labels(split: DetectionSplit) -> list[np.ndarray]:
    """The classes of each image's objects."""
    return [labels[valid] for labels, valid in zip(split.labels, split.valid, strict=True)]


def loss_arrays(
    split: DetectionSplit, mask: np.ndarray, config: ConfigDict
) -> dict[str, np.ndarray]:
    """The class weights and counts of the images in `mask`, see `long_tail.loss_arrays`."""
    counts = class_frequency.class_counts(split, mask).values()
    images, objects = zip(*counts, strict=True)
    return long_tail.loss_arrays(images, objects, config)


def classes_present(split: DetectionSplit) -> tuple[str, ...]:
    """The classes with at least one object in the split."""
    return tuple(split.classes[k] for k in np.unique(split.labels[split.valid]))


def class_mismatch(suites: Mapping[str, DetectionSplit]) -> list[str]:
    """A table of classes and suites if some suite lacks a class, see `statistics.class_table`."""
    from tinyjax.data import statistics

    return statistics.class_table(
        [(name, statistics.summarize(split)) for name, split in suites.items()]
    )


def slices(split: DetectionSplit, fields: Mapping[str, Sequence[float]]) -> dict[str, Slice]:
    """The slices of a suite by fields of its images, see `slices_by_field`."""
    return slices_by_field(split.truth["images"], fields)


# ---- network


def get_detector(config: ConfigDict) -> ModuleType:
    """The module of a config's detector, with `build`, `loss` and `decode`.

    Raises UserError if it is unknown, and if the config has the fields of another detector.
    """
    name = config.model.detector
    if name not in DETECTORS:
        raise UserError(f"model.detector = {name!r}: {suggest(name, DETECTORS)}")
    fields = {path for path, _ in leaves_with_path(config.to_dict())}
    if missing := [path for path in DETECTORS[name] if path not in fields]:
        raise UserError(
            f"model.detector = {name!r}: this config has the fields of another detector, not "
            f"{shorten(missing)}; give detector={name} as an argument of the config file, or call "
            f"detector({name!r}) in it. The detector cannot vary within a sweep"
        )
    return import_module(f"tinyjax.detectors.{name}")


def build(config: ConfigDict, classes: int, supernet: Architecture | None = None) -> nn.Module:
    """The network of a config. Raises UserError as `build_backbone` and the detector do."""
    backbone = build_backbone(config, supernet=supernet)
    return get_detector(config).build(backbone, config, classes)


def model_functions(
    config: ConfigDict,
    classes: Sequence[str],
    inputs: Mapping[str, tuple[int, ...]],
    supernet: Architecture | None = None,
    axes: Sequence[str] = (),
) -> ModelFunctions:
    """Training on windows of `config.crop_size`, prediction on whole images.

    Args:
        inputs: {"image": (H, W, C)}, the shape of a sample.
        supernet: see `build_backbone`.
        axes: mesh axes that training batches are spread over; loss and metrics are then a shard's
            partial sums.

    Raises UserError as `build` does, and for transposition of windows that are not square.
    """
    detector, model = get_detector(config), build(config, len(classes), supernet)
    window = tuple(config.crop_size)
    if config.augment.transpose > 0 and window[0] != window[1]:
        raise UserError(
            f"augment.transpose = {config.augment.transpose}: crop_size = {window} is not square; "
            "give a square crop_size, or transpose = 0"
        )

    def init(seed):
        return Variables(*models.init(model, seed, (1, *window, inputs["image"][-1])))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        batch = augment_detection(key, batch, hyper["augment"], window, axes)

        def apply(*inputs, method=None):
            return models.apply(
                model, *variables, *inputs, train=True, frozen_batchnorm=frozen_batchnorm,
                axes=axes, momentum=hyper.get("momentum"), method=method,
            )  # fmt: skip

        return detector.loss(apply, batch, key, hyper["loss"], config, axes)

    @jax.jit
    def predict(variables, inputs):
        """image uint8 [B, H, W, C] -> boxes, scores and labels, in pixels of the image."""
        image = inputs["image"]
        outputs, _ = models.apply(model, *variables, normalize(image), train=False)
        return detector.decode(outputs, image.shape[1:3], config)

    return ModelFunctions(init, loss, predict)


# ---- results


def metrics(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The main scores of the config's protocol, see `protocols.METRICS`."""
    return protocols.METRICS[config.get("score", {}).get("protocol", "coco")]


def size_bins(config: ConfigDict) -> dict[str, tuple[float, float]]:
    return {name: tuple(sides) for name, sides in config.score.size_bins.items()}


def score(
    predictions: Sequence[Mapping[str, np.ndarray]], split: DetectionSplit, config: ConfigDict
) -> list[dict[str, float]]:
    """Each member's scores, see `metrics.protocols.score`."""
    rules = size_bins(config), config.score.protocol
    jobs = [(to_file_pixels(p, split), split.truth, *rules) for p in predictions]
    return run_in_processes(jobs, "tinyjax.metrics.protocols:score")


def evaluate_slices(
    predictions: Sequence[Mapping[str, np.ndarray]],
    split: DetectionSplit,
    config: ConfigDict,
    slices: Mapping[str, Slice],
    counts: np.ndarray,
) -> list[SuiteResult]:
    """Evaluate each member on a suite and its slices, see `detection_slices.evaluate_slices`."""
    suite, protocol = (split.truth, size_bins(config), slices, counts), config.score.protocol
    jobs = [(to_file_pixels(p, split), *suite, protocol) for p in predictions]
    return run_in_processes(jobs, "tinyjax.metrics.detection_slices:evaluate_slices")


def to_file_pixels(predictions: Mapping[str, Any], split: DetectionSplit) -> dict[str, np.ndarray]:
    """Predictions [N, K, ...] with boxes mapped from the network's input to the files' pixels and
    clipped to the images.
    """
    boxes = [
        np.clip(to_file(boxes, scale, offset), 0, (info["width"], info["height"]) * 2)
        for boxes, scale, offset, info in zip(
            predictions["boxes"], split.scale, split.offset, split.truth["images"], strict=True
        )
    ]
    return {**predictions, "boxes": np.stack(boxes).astype(np.float32)}


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Scores as text: a row per suite, and for each suite a row per class and size bin, unless
    there are more than `MAX_TABLE_ROWS` of them.
    """
    rows: list[dict[str, Any]] = []
    for suite, values in scores.items():
        counts = {"images": f"{values['images']:.0f}", "boxes": f"{values['boxes']:.0f}"}
        totals = {name: values[name] for name in TOTALS if name in values}
        rows.append({"suite": suite, "slice": "all", **totals, **counts})
        names = [key.removeprefix("AP/") for key in values if key.startswith("AP/")]
        for name in names if len(names) <= MAX_TABLE_ROWS else ():
            row = {"AP": values[f"AP/{name}"], "AP50": values[f"AP50/{name}"]}
            rows.append({"suite": suite, "slice": name, **row})
    columns = [name for name in TOTALS if any(name in values for values in scores.values())]
    return text_table(rows, ("suite", "slice", *columns, "images", "boxes"))


def plot_samples(split: DetectionSplit, predictions: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw a sheet of images with truth and prediction, see `pictures.save_samples`."""
    from tinyjax.reporting import pictures

    pictures.save_samples(split, predictions, path)


def write_report(
    folder: Path,
    suites: Mapping[str, DetectionSplit],
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    scores: Mapping[str, Mapping[str, float]],
    class_counts: Mapping[str, tuple[int, int]],
    config: ConfigDict,
) -> None:
    """Write tables and figures of a single run, see `reporting.detection.write_report`."""
    from tinyjax.reporting import detection
    from tinyjax.reporting.transfer_figures import draw_class_frequency

    detection.write_report(folder, suites, predictions, scores, config.score.protocol)
    if class_counts:
        label = metrics(config)["AP"]
        draw_class_frequency(class_counts, scores, label, folder / "figures" / "tail.png")


def draw_gallery(
    suite: str,
    split: DetectionSplit,
    members: Sequence[Any],
    detections: Sequence[Mapping[str, np.ndarray]],
    config: ConfigDict,
) -> Any:
    """The worst images of one or two members, see `galleries.make_gallery`."""
    from tinyjax.reporting import galleries

    return galleries.make_gallery(suite, split, members, detections)


TASK = Task(
    name="detect",
    inputs=("image",),
    monitor="AP50",
    metrics=metrics,
    compile_seconds=45.0,
    pixel_seconds=1e-7,
    load=load,
    describe_data=describe_data,
    sample=sampling.shuffled_epochs,
    device_arrays=device_arrays,
    stream_source=stream_source,
    sample_labels=sample_labels,
    class_counts=class_frequency.class_counts,
    classes_present=classes_present,
    build=build,
    model_functions=model_functions,
    score=score,
    evaluate_slices=evaluate_slices,
    score_table=score_table,
    plot_samples=plot_samples,
    write_report=write_report,
    loss_arrays=loss_arrays,
    to_file_pixels=to_file_pixels,
    slices=slices,
    class_mismatch=class_mismatch,
    scores_by_frequency=class_frequency.scores_by_frequency,
    draw_gallery=draw_gallery,
)
