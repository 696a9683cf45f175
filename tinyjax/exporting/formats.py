"""The formats of exported files, and the runtimes that read them. Imports no JAX, which would slow
down the start of a process that only runs files.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tinyjax.exporting import runtimes, stablehlo
from tinyjax.exporting.runtimes import FileDescription, Runner


class FileFormat(NamedTuple):
    """How tinyjax reads files with a suffix."""

    describe: Callable[[Path], FileDescription]
    load: Callable[[Path, int], Runner]  # (file, threads)


class Runtime(NamedTuple):
    """A runtime whose latency is measured."""

    package: str  # its distribution
    suffix: str  # of the files that it reads
    load: Callable[[Path, int], Runner]  # (file, threads)


FORMATS = {  # by suffix
    ".onnx": FileFormat(runtimes.describe_onnx, runtimes.load_onnx),
    ".tflite": FileFormat(runtimes.describe_litert, runtimes.load_litert),
    ".stablehlo": FileFormat(stablehlo.describe, stablehlo.load),
}
RUNTIMES = {  # by name
    "ONNX Runtime": Runtime("onnxruntime", ".onnx", runtimes.load_onnx),
    "OpenVINO": Runtime("openvino", ".onnx", runtimes.load_openvino),
    "LiteRT": Runtime("ai-edge-litert", ".tflite", partial(runtimes.load_litert, xnnpack=True)),
    "JAX": Runtime("jax", ".stablehlo", partial(stablehlo.load, platform="cpu")),
}
