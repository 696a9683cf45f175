"""Exported files in their runtimes: their outputs as a function of images, and their metadata.

All loaders have the arguments of `load_onnx`, all readers of metadata those of `describe_onnx`.
"""

import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError
from tinyjax.exporting import flatbuffer

SIGNATURE, INPUT = "serving_default", "image"  # names; SIGNATURE only in LiteRT files

Runner = Callable[[np.ndarray], dict[str, np.ndarray]]  # images [N, H, W, C] -> outputs by name


class FileDescription(NamedTuple):
    """What a file says about itself."""

    metadata: dict[str, Any]  # see `functions.describe`
    batch: int | None  # images per call; None: any number


def all_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # only on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def import_runtime() -> Any:
    """The package onnxruntime. Raises UserError if it is not installed."""
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise UserError("an ONNX file needs ONNX Runtime: pip install 'tinyjax[onnx]'") from error


def describe_onnx(file: Path) -> FileDescription:
    """The description of an ONNX file. Raises UserError as `load_onnx` does."""
    session = _open_session(file, 1, optimized=False)
    batch = session.get_inputs()[0].shape[0]
    metadata = _parse_values(session.get_modelmeta().custom_metadata_map)
    return FileDescription(metadata, batch if isinstance(batch, int) else None)


def load_onnx(file: Path | bytes, threads: int = 1) -> Runner:
    """An ONNX file, or its bytes, in ONNX Runtime, on CPU.

    Raises UserError if that is not installed, and for a file that it cannot read.
    """
    session = _open_session(file, threads)
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(outputs, session.run(outputs, {name: images}), strict=True))

    return run


def load_openvino(file: Path, threads: int = 1) -> Runner:
    """An ONNX file in OpenVINO, on CPU. Raises UserError if that is not installed."""
    try:
        openvino = import_module("openvino")
    except ImportError as error:
        raise UserError("OpenVINO is not installed: pip install openvino") from error
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 on some processors
    }
    model = openvino.Core().compile_model(file, "CPU", settings)
    request = model.create_infer_request()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = request.infer([images])
        return {output.any_name: results[output] for output in model.outputs}

    return run


def describe_litert(file: Path) -> FileDescription:
    """The description of a LiteRT file. Raises UserError as `load_litert` does, and for a file
    without metadata.
    """
    (image,) = _open_runner(file).get_input_details().values()
    try:
        metadata = flatbuffer.read_metadata(file.read_bytes())
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return FileDescription(metadata, int(image["shape"][0]))


def load_litert(file: Path | bytes, threads: int = 1, xnnpack: bool = False) -> Runner:
    """A LiteRT file, or its bytes, on CPU.

    Args:
        xnnpack: use the kernels of XNNPACK, as apps do. The others are those of the file's
            operators, one by one.

    Outputs are float32; those of integer files are dequantized by their scale and zero point.
    Features float32 that such a file reads are quantized by those of the input.
    Raises UserError if the interpreter is not installed, and for a file that it cannot read.
    """
    runner = _open_runner(file, threads, xnnpack)
    ((name, image),), outputs = runner.get_input_details().items(), runner.get_output_details()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        values = runner(**{name: quantize(images, image)})
        return {name: dequantize(value, outputs[name]) for name, value in values.items()}

    return run


def make_interpreter(
    file: bytes, threads: int = 1, xnnpack: bool = False, keep_tensors: bool = False
) -> Any:
    """The interpreter of a LiteRT file. xnnpack: see `load_litert`. keep_tensors: all tensors can
    be read after a call. Raises UserError if it is not installed.
    """
    litert = flatbuffer.import_package("ai_edge_litert.interpreter")
    kernels = litert.OpResolverType
    return litert.Interpreter(
        model_content=file,
        num_threads=threads,
        experimental_preserve_all_tensors=keep_tensors,
        experimental_op_resolver_type=kernels.BUILTIN
        if xnnpack
        else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )


def _open_runner(file: Path | bytes, threads: int = 1, xnnpack: bool = False) -> Any:
    name, content = ("", file) if isinstance(file, bytes) else (f"{file}: ", file.read_bytes())
    try:
        return make_interpreter(content, threads, xnnpack).get_signature_runner(SIGNATURE)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}not a LiteRT file that can be read ({reason})") from error


def quantize(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Values float32 as those that a LiteRT file reads. details: of its input."""
    dtype, (scale, zero) = details["dtype"], details["quantization"]
    if scale and dtype != np.uint8:  # uint8 are gray values, whatever the scale
        limits = np.iinfo(dtype)
        array = np.clip(np.round(array / scale + zero), limits.min, limits.max)
    return array.astype(dtype, copy=False)


def dequantize(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Values of a LiteRT file as float32. details: of the tensor."""
    scale, zero = details["quantization"]
    return ((array.astype(np.float32) - zero) * scale).astype(np.float32) if scale else array


def _open_session(file: Path | bytes, threads: int, optimized: bool = True) -> Any:
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 4  # fatal; errors are raised as well
    if not optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the only base class of the exceptions of ONNX Runtime
        name, reason = "" if isinstance(file, bytes) else f"{file}: ", " ".join(str(error).split())
        raise UserError(f"{name}not an ONNX file that can be read ({reason})") from error


def _parse_values(texts: Mapping[str, str]) -> dict[str, Any]:
    """The inverse of the texts of an ONNX file's metadata: JSON, except for strings."""

    def parse(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    return {name: parse(text) for name, text in texts.items()}
