"""LiteRT files of trained networks: StableHLO to LiteRT by litert-converter.

    file = convert(function, batch=1)  # bytes
    run = runtimes.load_litert(file)
    run(images)  # {"logits_4": f32[N, h, w, n], ..}

litert-converter is young, so only this module knows its interface. It is optional:
pip install 'tinyjax[litert]'.
"""

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr
from typing import Any

import jax
import numpy as np

from tinyjax.exporting import flatbuffer, padding
from tinyjax.exporting.activations import Range
from tinyjax.exporting.flatbuffer import CHANNEL_AXES, import_package
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.runtimes import INPUT, SIGNATURE
from tinyjax.exporting.upsampling import resize_for_broadcast

# name -> method of the package's recipes, and its arguments
SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "float16": ("add_weight_only_config", {"num_bits": 16, "algorithm_key": "float_casting"}),
    "dynamic": ("add_dynamic_config", {"num_bits": 8}),
    "int8": ("add_static_config", {"activation_num_bits": 8, "weight_num_bits": 8}),
    "int16": ("add_static_config", {"activation_num_bits": 16, "weight_num_bits": 8}),
}

INTEGER_SCHEMES = {"int8": 255, "int16": 32767}  # name -> greatest value of the input's range


def import_packages() -> None:
    """Raise UserError if the packages are not installed."""
    # Else litert-converter, which does not use oneDNN, announces it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    for name in ("litert_converter", "ai_edge_litert", "ai_edge_quantizer"):
        import_package(name)


def convert(function: ExportedFunction, batch: int = 1) -> bytes:
    """A file of the function in float32, with its metadata.

    batch: number of images per call. Raises UserError if the packages are not installed.
    """
    model = flatbuffer.read(_convert(function, batch))
    resize_for_broadcast(model)
    padding.narrow_paddings(model)
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
        converter.set_signature(module.operation, SIGNATURE, [function.input_name], names)
        return converter.export_flatbuffer_to_bytes(module.operation)


def quantize(file: bytes, scheme: str, ranges: Mapping[str, Range] | None = None) -> bytes:
    """The file with the arithmetic of a scheme, one of SCHEMES.

    Args:
        file: of `convert`; for an integer scheme, of a function that reads float32.
        ranges: of all activations by the names of tensors, for an integer scheme. A file that reads
            an image then reads gray values uint8, any other one integers of the scheme.
    """
    quantizers = import_package("ai_edge_quantizer.quantizer")
    recipe_manager = import_package("ai_edge_quantizer.recipe_manager")
    method, arguments = SCHEMES[scheme]
    recipes = recipe_manager.RecipeManager()
    getattr(recipes, method)(".*", "*", **arguments)
    statistics, spans = None, dict(ranges or {})
    model = flatbuffer.read(file)
    reads_image = flatbuffer.input_name(model) == INPUT
    if scheme in INTEGER_SCHEMES:
        if padding.NAME in flatbuffer.operator_names(model):
            padding.fill_with_minimum(model, spans)
            file = flatbuffer.pack(model)
        if reads_image:
            # A gray value is then its integer, minus 128 in int8.
            spans[INPUT] = 0, INTEGER_SCHEMES[scheme]
        statistics = {
            name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
            for name, (low, high) in spans.items()
        }
        statistics |= _weight_ranges(model, spans, INTEGER_SCHEMES[scheme])
    quantizer = quantizers.Quantizer(bytearray(file))
    quantizer.load_quantization_recipe(recipes.get_quantization_recipe())
    with redirect_stderr(io.StringIO()):  # progress bars that cannot be disabled
        result = quantizer.quantize(statistics, enable_progress_report=False)
    model = flatbuffer.read(bytes(result.quantized_model))
    if scheme in INTEGER_SCHEMES and reads_image:
        _read_uint8(model)
    return flatbuffer.pack(model)


def _weight_ranges(
    model: Any, ranges: Mapping[str, Range], levels: int
) -> dict[str, dict[str, np.ndarray]]:
    """Ranges of kernels of which a channel has small weights and a large bias, as a dead one has.

    A bias is an integer of 32 bits in units of input scale * kernel scale: with the range of such a
    channel's weights, it would overflow. It has a wider range here, in which it needs 27 bits.
    """
    graph, result = model.subgraphs[0], {}
    names = flatbuffer.operator_names(model)
    for number in flatbuffer.find_layers(model):
        op, axis = graph.operators[number], CHANNEL_AXES[names[number]]
        source, kernel = (graph.tensors[index] for index in op.inputs[:2])
        if (span := ranges.get(source.name.decode())) is None:
            continue
        weights, biases = (flatbuffer.constant(model, index) for index in op.inputs[1:3])
        others = tuple(other for other in range(weights.ndim) if other != axis)
        largest = np.abs(weights).max(others, keepdims=True)
        input_scale = max(span[1] - span[0], 1e-9) / levels
        least = np.abs(biases).reshape(largest.shape) * 127 / input_scale / 2**27
        if (least > largest).any():
            limit = np.maximum(largest, least)
            result[kernel.name.decode()] = {"min": -limit, "max": limit}
    return result


def _read_uint8(model: Any) -> None:
    """Let an integer `ModelT` read gray values uint8, in place: its first operator makes integers
    of its first tensor of them.
    """
    schema, graph = flatbuffer.import_schema(), model.subgraphs[0]
    (integers,) = graph.inputs
    is_int8 = graph.tensors[integers].type == schema.TensorType.INT8
    scale, zero_point = 1.0, 0
    if is_int8:
        count, scale, zero_point = _leading_affine(model)
        if count:
            (integers,) = graph.operators[count - 1].outputs
            del graph.operators[:count]
    # Without a QUANTIZE from uint8 to int16; a CAST is the same, because the scale is 1.
    code = flatbuffer.add_operator_code(model, "QUANTIZE" if is_int8 else "CAST", 1)
    image = flatbuffer.add_tensor(
        model, INPUT, graph.tensors[integers].shape, "UINT8", scale=scale, zero_point=zero_point
    )
    graph.tensors[integers].name = f"{INPUT}_integers"
    graph.operators.insert(0, flatbuffer.make_operator(code, [image], integers))
    graph.inputs = [image]
    for signature in model.signatureDefs:
        signature.inputs[0].tensorIndex = image
    flatbuffer.prune(model)


def _leading_affine(model: Any) -> tuple[int, float, int]:
    """The normalization of an int8 `ModelT`, as scale and zero point of its gray values.

    Returns the number of its operators, scale and zero point: (0, 1.0, 0) if there are none. They
    are products with scalars and sums, which the integers of the image can stand for: a gray value
    q is then scale * (q - zero_point). On an Ethos-U these operators need more memory than the
    network, because it stores 16 channels for one.
    """
    graph, count, factor, offset = model.subgraphs[0], 0, 1.0, 0.0
    (tensor,) = graph.inputs
    for op, name in zip(graph.operators, flatbuffer.operator_names(model), strict=True):
        readers = sum(tensor in other.inputs for other in graph.operators)
        if name not in ("MUL", "ADD", "SUB") or op.inputs[0] != tensor or readers > 1:
            break
        constant = _dequantized_scalar(model, graph.tensors[op.inputs[1]])
        if constant is None:
            break
        if name == "MUL":
            factor, offset = factor * constant, offset * constant
        else:
            offset += constant if name == "ADD" else -constant
        (tensor,) = op.outputs
        count += 1
    zero_point = round(-offset / factor) if factor else -1
    return (count, factor, zero_point) if 0 <= zero_point <= 255 and factor > 0 else (0, 1.0, 0)


def _dequantized_scalar(model: Any, tensor: Any) -> float | None:
    """The value of a constant int8 `TensorT` with one element; else None."""
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) != 1:
        return None
    (q,) = np.frombuffer(bytes(data), np.int8)
    return float(tensor.quantization.scale[0] * (float(q) - tensor.quantization.zeroPoint[0]))
