"""LiteRT files of trained networks: StableHLO to LiteRT by litert-converter.

    file = convert(function, batch=1)  # bytes
    run = load(file)
    run(images)  # {"logits_4": f32[N, h, w, n], ..}

litert-converter is young, so only this module knows its interface. It is optional:
pip install 'tinyjax[litert]'.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tinyjax.exporting import flatbuffer
from tinyjax.exporting.flatbuffer import import_package
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.runtimes import Runner
from tinyjax.exporting.upsampling import resize_for_broadcast

SIGNATURE = "serving_default"
INPUT = "image"


def import_packages() -> None:
    """Raise UserError if the packages are not installed."""
    for name in ("litert_converter", "ai_edge_litert"):
        import_package(name)


def convert(function: ExportedFunction, batch: int = 1) -> bytes:
    """A file of the function in float32, with its metadata.

    batch: number of images per call. Raises UserError if the packages are not installed.
    """
    model = flatbuffer.read(_convert(function, batch))
    resize_for_broadcast(model)
    flatbuffer.prune(model)
    flatbuffer.name_tensors(model)
    return flatbuffer.add_metadata(flatbuffer.pack(model), function.metadata)


def _convert(function: ExportedFunction, batch: int) -> bytes:
    converter = import_package("litert_converter.converter_api_ext")
    ir = import_package("litert_converter.mlir.ir")
    passmanager = import_package("litert_converter.mlir.passmanager")
    shape = function.shape_struct(batch)
    # For CUDA, convolutions are those of XLA; for CPU, they would be the forms of `ops/`.
    exported = jax.export.export(jax.jit(function.call), platforms=["cuda"])(shape)
    names = [*jax.tree.unflatten(exported.out_tree, range(len(exported.out_avals)))]
    with ir.Context() as context:
        converter.prepare_mlir_context(context)
        module = ir.Module.parse(exported.mlir_module())
        options = converter.ConvertToTFLConfig()
        converter.run_convert_to_tfl_passes(module, passmanager.PassManager(), options)
        converter.set_signature(module.operation, SIGNATURE, [INPUT], names)
        return converter.export_flatbuffer_to_bytes(module.operation)


def make_interpreter(file: bytes, threads: int = 1, keep_tensors: bool = False) -> Any:
    """The interpreter of a file, with the operators of the file: no delegate replaces them.

    keep_tensors: all tensors can be read after a call.

    Raises UserError if it is not installed.
    """
    litert = import_package("ai_edge_litert.interpreter")
    return litert.Interpreter(
        model_content=file,
        num_threads=threads,
        experimental_preserve_all_tensors=keep_tensors,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )


def load(file: Path | bytes, threads: int = 1) -> Runner:
    """A file, or its bytes, as a function of images in the file's batch size.

    Outputs are float32; those of integer files are dequantized by their scale and zero point.
    """
    content = file if isinstance(file, bytes) else file.read_bytes()
    interpreter = make_interpreter(content, threads)
    runner = interpreter.get_signature_runner(SIGNATURE)
    outputs = runner.get_output_details()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        values = runner(**{INPUT: images})
        return {name: _dequantize(value, outputs[name]) for name, value in values.items()}

    return run


def _dequantize(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    scale, zero = details["quantization"]
    return ((array.astype(np.float32) - zero) * scale).astype(np.float32) if scale else array
