"""The score of a file on the suite that selects the run's best weights, beside the run's own.

    split = load_monitor(model)
    record = score_file(model, split, {"": make_predict(model, run, "raw")})
    reasons(record)  # () if the file is as good as the run

Both are predictions of the whole suite, scored by the task. A file leaves decoding and suppression
to its reader; here they are those of the run.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.core import Split
from tinyjax.data.modality import MODALITIES
from tinyjax.detectors.nms import class_wise_nms
from tinyjax.errors import UserError
from tinyjax.exporting.runtimes import Runner
from tinyjax.inference.model import BATCH, Model
from tinyjax.population.prediction import predict_all
from tinyjax.run.logs import log
from tinyjax.tasks import get_task
from tinyjax.tasks.detect import get_detector
from tinyjax.tasks.suites import load_suite

MAX_LOSS = 0.01  # of the main score, by which a quantized file may be worse than the run

Predict = Callable[[np.ndarray], Mapping[str, Any]]  # images uint8 [N, H, W, C] -> predictions


def load_monitor(model: Model) -> Split | None:
    """The suite `config.monitor`; None, and a warning, if it is not on this machine or has images
    of another size than the network's.
    """
    config, shape = model.config, model.input_shape
    name = config.monitor
    try:
        split: Any = load_suite(config.task, config.data, name, model.classes, [("image", shape)])
    except (UserError, OSError) as error:
        log.warning(f"not compared on images of the suite {name!r}: {error}")
        return None
    if (other := split.inputs["image"].shape[1:]) != shape:
        log.warning(f"not compared on images of the suite {name!r}: {other}, not {shape}")
        return None
    return split


def score_file(
    model: Model, split: Split, predicts: Mapping[str, Predict], batch: int = BATCH
) -> dict[str, Any]:
    """The scores of run and file on the suite `config.monitor`, as JSON types:
    {"suite", "metric", "run", "file"}.

    predicts: the function of the file of each modality. batch: images per call of the file.
    """
    task = get_task(model.config.task)
    predictions = [
        predict_suite(_network_predicts(model), split, BATCH),
        predict_suite(predicts, split, batch),
    ]
    run, file = (float(s[task.monitor]) for s in task.score(predictions, split, model.config))
    return {"suite": model.config.monitor, "metric": task.monitor, "run": run, "file": file}


def reasons(score: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Why a quantized file is not accepted. score: a result of `score_file`; None: not known."""
    if score is None:
        return ("its score is not known: the suite that selects the best weights is missing",)
    metric, run, file = score["metric"], score["run"], score["file"]
    if run - file <= MAX_LOSS:
        return ()
    return (
        f"{metric} on {score['suite']} is {100 * file:.2f}, that of the run {100 * run:.2f}; "
        f"{100 * MAX_LOSS:g} less is accepted",
    )


def predict_suite(
    predicts: Mapping[str, Predict], split: Split, batch: int
) -> dict[str, np.ndarray]:
    """The predictions for all samples of a split, each by the function of its modality."""
    images = split.inputs["image"]
    if "" in predicts:
        return _predict(predicts[""], images, batch)
    modality = np.asarray(split.inputs["modality"])
    results: dict[str, np.ndarray] = {}
    for name, value in MODALITIES.items():
        rows = np.flatnonzero(modality == value)
        if len(rows):
            for key, array in _predict(predicts[name], images[rows], batch).items():
                shape = (len(modality), *array.shape[1:])
                results.setdefault(key, np.zeros(shape, array.dtype))[rows] = array
    return results


def _predict(predict: Predict, images: Any, batch: int) -> dict[str, np.ndarray]:
    def call(_, inputs):
        return predict(inputs["image"])

    return predict_all(call, None, {"image": images}, batch)[0]  # type: ignore[arg-type]


def _network_predicts(model: Model) -> dict[str, Predict]:
    def make(predict, variables):
        # A network with one path ignores the modality.
        return lambda images: predict(
            variables, {"image": images, "modality": jnp.zeros(len(images), "u1")}
        )

    return {name: make(*functions) for name, functions in model.predict_functions.items()}


# ---- from outputs to predictions


def make_predict(model: Model, run: Runner, outputs: str, dtype: str = "uint8") -> Predict:
    """A file as the function of the task's predictions.

    Args:
        run: the file's outputs for images of `dtype`.
        outputs: of a detector, "raw", "boxes" or "detections", see `export`.
    """
    decode = make_decode(model, outputs)
    return lambda images: decode(run(images.astype(dtype)))


def make_decode(model: Model, outputs: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The function from a file's outputs to predictions, with the run's rules."""
    config = model.config
    if config.task != "detect":
        return dict
    if outputs == "detections":
        return _split_detections
    if outputs == "boxes":
        return jax.jit(lambda x: class_wise_nms(x["scores"], x["boxes"], **config.nms))
    detector, size = get_detector(config), model.input_shape[:2]
    flatten = partial(flatten_levels, strides=config.model.strides, classes=len(model.classes))
    return jax.jit(lambda x: detector.decode(flatten(x), size, config))


def flatten_levels(
    outputs: Mapping[str, Array], strides: tuple[int, ...], classes: int
) -> tuple[Array, ...]:
    """Raw outputs <name>_<stride> f32[N, h, w, A n] -> the outputs f32[N, all anchors, n] of a
    detector's network: logits, n = classes, and then those with n = 4.
    """
    names = {name.rpartition("_")[0] for name in outputs}
    widths = {"logits": classes} | dict.fromkeys(sorted(names - {"logits"}), 4)
    return tuple(
        jnp.concatenate(
            [outputs[f"{name}_{s}"].reshape(len(outputs[f"{name}_{s}"]), -1, n) for s in strides],
            axis=1,
        )
        for name, n in widths.items()
    )


def _split_detections(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = outputs["detections"]
    return {"boxes": rows[..., :4], "scores": rows[..., 4], "labels": rows[..., 5].astype(np.int32)}
