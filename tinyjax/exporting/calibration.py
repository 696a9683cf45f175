"""Integer files of which the score is that of the network: the ranges of their activations.

    inputs = make_inputs(model, function, count=200, batch=1)
    file, record = quantize(file, "int8", inputs)

An int8 tensor has 256 values between the ends of its range. A few large activations make the steps
between them so wide that the others are lost: one or two tensors then cause most of the error of
the outputs. Some steps help, none of which needs labels:

- Channels between layers without an activation get similar ranges (`equalization`).
- What enters hard-swish or SiLU needs no values below which the activation is 0, or almost.
- Ranges are fitted to the values of each tensor (`ranges`).
- The ranges of the most harmful tensors are clipped where this reduces the error of the outputs
  (`clipping`).
- Biases absorb the mean error of each channel, where this reduces the error of all outputs
  (`bias_correction`).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from tinyjax.data.modality import MODALITIES
from tinyjax.errors import UserError
from tinyjax.exporting import litert
from tinyjax.exporting.activations import Inputs, Range, measure
from tinyjax.exporting.bias_correction import correct_biases
from tinyjax.exporting.clipping import MIN_GAIN, TensorError, clip, tensor_errors
from tinyjax.exporting.equalization import equalize
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.output_error import output_errors, run_file
from tinyjax.exporting.ranges import fit_ranges, raise_floors
from tinyjax.inference.model import Model
from tinyjax.run.text import text_table
from tinyjax.tasks import get_task

ERROR_IMAGES = 8  # batches on which errors of files are compared
SCREENING_IMAGES = 2  # batches on which the errors of single tensors are compared
MAX_RECORDED = 16  # tensors, the most harmful ones
CORRECTION_IMAGES = 40  # batches on which means are compared, and ranges fitted


def make_inputs(
    model: Model, function: ExportedFunction, count: int, batch: int, name: str = ""
) -> Inputs:
    """What a file reads of `count` training images: the images, or the features of their RoIs.

    batch: images per call. name: see `functions.make_function`. Raises UserError as
    `training_images` does.
    """
    images = training_images(model, count, batch, name if name in MODALITIES else "")
    if function.make_input is None:
        return images
    return [np.asarray(function.make_input(jnp.asarray(pixels))) for pixels in images]


def training_images(model: Model, count: int, batch: int, modality: str = "") -> Inputs:
    """Batches of about `count` training images, spread evenly over the training set: its first ones
    may be one video. The last one is repeated to fill a batch.

    Raises UserError if the training set is not on this machine.
    """
    config = model.config
    try:
        split: Any = get_task(config.task).load(config.data, config.data.train)
    except OSError as error:
        raise UserError(f"data.train: {error}; int8 and int16 need training images") from error
    rows = np.arange(len(split.names))
    if modality:
        rows = rows[np.asarray(split.inputs["modality"]) == MODALITIES[modality]]
    count = min(count, len(rows))
    rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    rows = np.append(rows, np.repeat(rows[-1:], -count % batch))
    images = np.asarray(split.inputs["image"][rows]).astype(np.float32)
    if images.shape[1:] != model.input_shape:
        raise UserError(
            f"data.train: images of {images.shape[1:]}, but the network reads {model.input_shape}"
        )
    return [images[i : i + batch] for i in range(0, len(images), batch)]


def quantize(file: bytes, scheme: str, inputs: Inputs) -> tuple[bytes, dict[str, Any]]:
    """An integer file, and fields of its record, as JSON types.

    file: in float32, of a function that reads float32. scheme: int8 or int16.
    """
    few = spread(inputs, CORRECTION_IMAGES)
    file = equalize(file, few)
    ranges = measure(file, inputs)
    record: dict[str, Any] = {"scheme": scheme, "calibration": sum(map(len, inputs))}
    if scheme == "int8":
        ranges, errors = reduce_error(file, raise_floors(file, ranges), inputs)
        record["tensors"] = [
            {"tensor": name, "range": list(span), "error": error, "chosen": list(ranges[name])}
            for name, span, error in errors[:MAX_RECORDED]
        ]
    integers = litert.quantize(file, scheme, ranges)
    corrected = correct_biases(integers, file, few)
    record["corrected_biases"] = reduces_errors(file, integers, corrected, inputs)
    return corrected if record["corrected_biases"] else integers, {"quantization": record}


def reduces_errors(file: bytes, before: bytes, after: bytes, inputs: Inputs) -> bool:
    """Whether an integer file has a lower error than another one in each output, by MIN_GAIN.

    On images that biases were not corrected on. Detectors of which only the boxes gain lose AP.
    """
    others = spread(inputs[1:], CORRECTION_IMAGES) or inputs
    expected = run_file(file, others)
    old, new = (output_errors(expected, run_file(each, others)) for each in (before, after))
    return all(new[name] <= (1 - MIN_GAIN) * old[name] for name in old)


def reduce_error(
    file: bytes, ranges: Mapping[str, Range], inputs: Inputs
) -> tuple[dict[str, Range], list[TensorError]]:
    """Fitted and clipped ranges of an int8 file, and the errors of tensors before, in descending
    order.
    """
    errors = tensor_errors(file, ranges, spread(inputs, SCREENING_IMAGES))
    fitted = fit_ranges(file, ranges, spread(inputs, CORRECTION_IMAGES))
    few = spread(inputs, ERROR_IMAGES)
    return clip(file, fitted, errors, few, partial(litert.quantize, file, "int8")), errors


def spread(inputs: Inputs, count: int) -> Inputs:
    """At most `count` batches, at equal distances."""
    return inputs[:: max(1, -(-len(inputs) // count))]


def table(record: Mapping[str, Any]) -> str:
    """The tensors that cause most of the error of a file's outputs, as text."""
    rows = [
        {
            "tensor": row["tensor"],
            "range": f"{row['range'][0]:.3g} to {row['range'][1]:.3g}",
            "error": f"{row['error']:.4f}",
            "chosen": f"{row['chosen'][0]:.3g} to {row['chosen'][1]:.3g}",
        }
        for row in record["quantization"]["tensors"]
    ]
    return "error of the outputs if only this tensor has integers\n" + text_table(
        rows, ("tensor", "range", "error", "chosen")
    )
