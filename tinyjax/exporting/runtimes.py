"""Exported files as functions of images, to compare them with the network that they came from."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.errors import UserError

Runner = Callable[[np.ndarray], dict[str, np.ndarray]]  # images [N, H, W, C] -> outputs by name


def import_runtime() -> Any:
    """The package onnxruntime. Raises UserError if it is not installed."""
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise UserError(
            "the proof of an ONNX file needs ONNX Runtime: pip install 'tinyjax[onnx]'"
        ) from error


def load_onnx(file: Path, threads: int = 1) -> Runner:
    """An ONNX file in ONNX Runtime, on CPU. Raises UserError if that is not installed."""
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(outputs, session.run(outputs, {name: images}), strict=True))

    return run
