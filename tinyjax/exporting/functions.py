"""The pure function that an exported file contains, made from a trained network.

    model = tinyjax.load("runs/mine")
    function = make_function(model, outputs="raw", dtype="uint8")
    function.call(images)  # [N, H, W, C] -> {"logits_4": f32[N, h, w, n], ..}

Every format writes `call`, which has the same network, weights and normalization as prediction:
`jax.make_jaxpr(function.call)` or `jax.export.export(jax.jit(function.call), platforms=["cuda"])`
of `function.shape_struct(batch)`. The weights are constants of the function.

    task                    outputs
    classify, pretrain      logits f32[N, classes]
    reid                    embedding f32[N, D], of the images of one modality
    detect, "raw"           <name>_<stride> f32[N, h, w, n] for each level and output of the head;
                            of a two-stage detector see `two_stage`
    detect, "boxes"         boxes f32[N, A, 4] (xyxy, pixels of the input) and scores
                            f32[N, A, classes] of all candidates, before suppression; boxes
                            f32[N, A, classes, 4] if each class has its box
    detect, "detections"    detections f32[N, K, 6]: x1, y1, x2, y2, score, label, as the run
                            predicts them; unused rows have a score of 0
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from tinyjax import config as configs
from tinyjax import models
from tinyjax.data.augmentation import MEAN, STD, normalize
from tinyjax.data.images import GRAY
from tinyjax.detectors.anchors import configured_levels
from tinyjax.errors import UserError, suggest
from tinyjax.exporting import two_stage
from tinyjax.exporting.runtimes import INPUT
from tinyjax.inference.model import Model
from tinyjax.tasks import detect

OUTPUTS = ("raw", "boxes", "detections")
DTYPES = ("uint8", "float32")


class ExportedFunction(NamedTuple):
    """What a file computes, and what its reader needs to know."""

    # image [N, H, W, C] of `dtype`, gray values from 0 to 255 -> outputs by name
    call: Callable[[Array], dict[str, Array]]
    input_shape: tuple[int, int, int]  # H, W, C
    dtype: str  # of the input, one of DTYPES
    metadata: dict[str, Any]  # JSON types, see `describe`
    # Of a box head: images -> its input [N rows, H, W, C].
    make_input: Callable[[Array], Array] | None = None
    rows_per_image: int = 1

    @property
    def input_name(self) -> str:
        """The name of the file's input."""
        return "rois" if self.make_input else INPUT

    def shape_struct(self, batch: int) -> jax.ShapeDtypeStruct:
        """The input of `call` for tracing."""
        return jax.ShapeDtypeStruct((batch, *self.input_shape), self.dtype)


def file_names(model: Model, outputs: str) -> tuple[str, ...]:
    """The names of the files that a network needs: "" for one file, else modalities or components,
    which are arguments of `make_function`.
    """
    if outputs == "raw" and two_stage.is_two_stage(model.config):
        return two_stage.components(model.config)
    return tuple(model.predict_functions)


def make_function(
    model: Model, outputs: str = "raw", dtype: str = "uint8", name: str = ""
) -> ExportedFunction:
    """Return the function of a network.

    Args:
        model: a result of `tinyjax.load`.
        outputs: of a detector, one of OUTPUTS; see above. Other tasks have one form of outputs.
        dtype: of the images, one of DTYPES. Both have gray values from 0 to 255.
        name: one of `file_names`: "visible" or "infrared" for recognition, "rpn" or "head1" for the
            raw outputs of a two-stage detector; else "".

    Raises UserError for invalid arguments.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype = {dtype!r}: {suggest(dtype, DTYPES)}")
    if outputs not in OUTPUTS:
        raise UserError(f"outputs = {outputs!r}: {suggest(outputs, OUTPUTS)}")
    names = file_names(model, outputs)
    if name not in names:
        problem = suggest(name, names) if "" not in names else "this network has none"
        raise UserError(f"name = {name!r}: {problem}")
    functions = model.predict_functions
    predict, variables = functions[name if name in functions else ""]
    if variables is None:
        raise UserError("an exported file cannot be exported again; give the run that it is from")
    if name not in functions:
        return _component(model, variables, dtype, name)
    metadata = describe(model, outputs, dtype, name)
    if model.config.task == "detect":
        call = _detector_function(model, variables, outputs)
    else:

        def call(image):
            # A network with one path ignores the modality.
            return predict(
                variables, {"image": image, "modality": jnp.zeros(image.shape[:1], "u1")}
            )

    return ExportedFunction(call, model.input_shape, dtype, metadata)


def _detector_function(model: Model, variables: Any, outputs: str) -> Callable[..., Any]:
    config, image_size = model.config, model.input_shape[:2]
    detector = detect.get_detector(config)
    network = detect.build(config, len(model.classes))

    def apply(image, method=None):
        x = normalize(image)
        return models.apply(network, *variables, x, train=False, method=method)[0]

    def raw(image):
        named = apply(image, "level_outputs")
        return {
            f"{name}_{stride}": _to_map(level, image_size, stride)
            for name, levels in named.items()
            for stride, level in zip(config.model.strides, levels, strict=True)
        }

    def boxes(image):
        scores, boxes = detector.candidates(apply(image), image_size, config)
        return {"boxes": boxes, "scores": scores}

    def detections(image):
        result = detector.decode(apply(image), image_size, config)
        columns = [result[name][..., None] for name in ("scores", "labels")]
        return {"detections": jnp.concatenate([result["boxes"], *columns], -1)}

    return {"raw": raw, "boxes": boxes, "detections": detections}[outputs]


def _component(model: Model, variables: Any, dtype: str, name: str) -> ExportedFunction:
    """The function of one of several files, see `two_stage`."""
    config, network = model.config, detect.build(model.config, len(model.classes))

    def apply(*inputs, method):
        return models.apply(network, *variables, *inputs, train=False, method=method)[0]

    def apply_to_image(image, method):
        return apply(normalize(image), method=method)

    metadata = {**describe(model, "raw", dtype), "component": name}
    if name == two_stage.RPN:
        call = two_stage.rpn_function(apply_to_image, config)
        return ExportedFunction(call, model.input_shape, dtype, metadata)
    pool = two_stage.head_inputs(apply, network, name)
    make_input = jax.jit(lambda image: pool(normalize(image)))
    image = jax.ShapeDtypeStruct((1, *model.input_shape), dtype)
    rows, *shape = jax.eval_shape(make_input, image).shape
    height, width, channels = shape
    metadata["input"] = {
        "height": height,
        "width": width,
        "channels": channels,
        "layout": "NHWC",
        "dtype": "float32",
        "rows_per_image": rows,
    }
    call = two_stage.head_function(apply, name)
    return ExportedFunction(call, (height, width, channels), "float32", metadata, make_input, rows)


def _to_map(level: Array, image_size: tuple[int, int], stride: int) -> Array:
    """[N, h w A, n] -> [N, h, w, A n]."""
    h, w = (-(-side // stride) for side in image_size)
    return level.reshape(level.shape[0], h, w, -1)


def describe(model: Model, outputs: str, dtype: str, modality: str = "") -> dict[str, Any]:
    """The metadata of a file, as JSON types: how to prepare its input and to read its outputs."""
    config = model.config
    height, width, channels = model.input_shape
    metadata = {
        "task": config.task,
        "backbone": config.model.backbone,
        "classes": list(model.classes),
        "input": {
            "height": height,
            "width": width,
            "channels": channels,
            "layout": "NHWC",
            "dtype": dtype,
            "range": [0, 255],
            "order": "RGB" if channels == 3 else "gray",
        },
        # (x / 255 - mean) / deviation is part of the file.
        "normalization": {"inside": True, "mean": MEAN, "deviation": STD},
        "fit": config.data.common.get("fit", model.default_fit),
        "letterbox_fill": GRAY,
        "range16": list(model.range16),
        # For tinyjax as the reader: suites to evaluate on, and fields that decoding needs.
        "config": json.loads(configs.to_json(config)),
    }
    if model.trained_on:
        metadata["trained_on"] = list(model.trained_on)
    if config.task == "detect":
        detector = detect.get_detector(config)
        metadata |= {
            "detector": config.model.detector,
            "outputs": outputs,
            "strides": list(config.model.strides),
            "nms": config.nms.to_dict(),
            "box_format": "xyxy, pixels of the input",
            "box_formula": getattr(detector, "BOX_FORMULA", ""),
            "score_formula": "sigmoid(logit)",
        }
        if "anchors" in config.model:
            levels = configured_levels(config, (height, width))
            metadata["anchors"] = [level.cell.tolist() for level in levels]
    if modality:
        metadata |= {"modality": modality, "similarity": "cosine of two embeddings"}
    return metadata
