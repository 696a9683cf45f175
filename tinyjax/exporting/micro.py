"""LiteRT files in TensorFlow Lite Micro, the runtime of microcontrollers.

    run = load(file)
    run(images)  # as `runtimes.load_litert(file)`, with the kernels of microcontrollers
    python -m tinyjax.exporting.micro mine.tflite  # logs its memory

The kernels are the portable ones, which are slow on a computer, and round differently than those of
LiteRT. The package is optional: pip install 'tinyjax[edge]'.
"""

import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.exporting import flatbuffer, resources, runtimes
from tinyjax.exporting.runtimes import Runner

KEY = "tflite_micro"  # in a record
PACKAGE = "tflite_micro"
TOTAL = re.compile(r"Arena allocation total (\d+) bytes")


def estimate(file: bytes) -> dict[str, Any]:
    """{KEY: {"arena_bytes": .., "version": ..}}, or {} if the package is not installed or has no
    kernel for an operator of the file.

    arena_bytes: all memory but the file, of a build for 64 bits: activations, scratch memory of
    kernels and tables of tensors. Those for 32 bits are smaller.
    """
    if find_spec(PACKAGE) is None:
        return {}
    with tempfile.NamedTemporaryFile(suffix=".tflite") as temporary:
        Path(temporary.name).write_bytes(file)
        # In its own process, because it writes to the log of C++ and may end the process.
        command = [sys.executable, "-m", "tinyjax.exporting.micro", temporary.name]
        done = subprocess.run(command, capture_output=True, text=True)
    total = TOTAL.search(done.stdout + done.stderr)
    if done.returncode or total is None:
        return {}
    return {KEY: {"arena_bytes": int(total[1]), "version": version("tflite-micro")}}


def load(file: bytes) -> Runner:
    """A LiteRT file that reads as many images as are given. Raises UserError if the package is not
    installed.
    """
    model, interpreter = flatbuffer.read(file), _make_interpreter(file)
    source, outputs = interpreter.get_input_details(0), _output_names(model)
    image = {"dtype": source["dtype"], "quantization": _quantization(source)}
    quantized = [_quantization(interpreter.get_output_details(i)) for i in range(len(outputs))]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.set_input(runtimes.quantize(images, image), 0)
        interpreter.invoke()
        return {
            name: runtimes.dequantize(interpreter.get_output(i), {"quantization": quantized[i]})
            for i, name in enumerate(outputs)
        }

    return run


def _make_interpreter(file: bytes) -> Any:
    runtime = flatbuffer.import_package(f"{PACKAGE}.python.{PACKAGE}.runtime")
    # What the tables need is not known before; memory that is not used costs nothing here.
    arena = 2 * resources.estimate(file)["arena_bytes"] + (4 << 20)
    return runtime.Interpreter.from_bytes(file, arena_size=arena)


def _output_names(model: Any) -> list[str]:
    """The names of the outputs of a `ModelT`, in the order of its graph."""
    names = {output.tensorIndex: output.name.decode() for output in model.signatureDefs[0].outputs}
    return [names[index] for index in model.subgraphs[0].outputs]


def _quantization(details: dict[str, Any]) -> tuple[float, int]:
    """Scale and zero point of a tensor; (0, 0) if it has none."""
    parameters = details["quantization_parameters"]
    pairs = zip(parameters["scales"], parameters["zero_points"], strict=True)
    return next(((float(scale), int(zero)) for scale, zero in pairs), (0.0, 0))


if __name__ == "__main__":
    interpreter = _make_interpreter(Path(sys.argv[1]).read_bytes())
    image = interpreter.get_input_details(0)
    interpreter.set_input(np.zeros(image["shape"], image["dtype"]), 0)
    interpreter.invoke()  # some types are only refused here
    interpreter.print_allocations()
