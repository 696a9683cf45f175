"""ONNX files of trained networks.

    write(function, Path("mine.onnx"), batch=None)

The function's jaxpr is reduced to some twenty operations of ONNX (`lowering`), simplified
(`simplify`) and written with the builders of the package onnx, an optional dependency:
pip install 'tinyjax[onnx]'.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.errors import UserError
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.graph import BATCH, Graph, Unsupported
from tinyjax.exporting.lowering import lower
from tinyjax.exporting.simplify import simplify
from tinyjax.exporting.suppression import suppress
from tinyjax.run.files import atomic

OPSET = 18  # of the standard's default operators; the one of onnx 1.13 and ONNX Runtime 1.14


def convert(
    function: ExportedFunction, batch: int | None = None, nms: dict[str, Any] | None = None
) -> Any:
    """Return a function as an `onnx.ModelProto`.

    Args:
        function: of `functions.make_function`.
        batch: number of images per call; None: any.
        nms: `config.nms`: the only output is then "detections", see `suppression.suppress`; the
            function must have the outputs "boxes" and "scores".

    Raises UserError if onnx is not installed, and for a network with an operation that ONNX lacks.
    """
    import_onnx()
    try:
        graph = lower(function)
    except Unsupported as error:
        raise UserError(f"ONNX has no form of {error}, which this network needs") from error
    if nms:
        suppress(graph, **nms)
    simplify(graph)
    return build(graph, function.metadata, batch)


def write(
    function: ExportedFunction,
    file: Path,
    batch: int | None = None,
    nms: dict[str, Any] | None = None,
) -> Any:
    """Write the result of `convert`, and return it. Raises UserError as `convert` does."""
    model = convert(function, batch, nms)
    with atomic(file) as path:
        path.write_bytes(model.SerializeToString())
    return model


def import_onnx() -> Any:
    """The package onnx. Raises UserError if it is not installed."""
    try:
        return import_module("onnx")
    except ImportError as error:
        raise UserError("ONNX files need the package onnx: pip install 'tinyjax[onnx]'") from error


def build(graph: Graph, metadata: dict[str, Any], batch: int | None) -> Any:
    """The `onnx.ModelProto` of a graph. metadata: JSON types, each stored under its name."""
    from onnx import checker, helper, numpy_helper

    element_type = helper.np_dtype_to_tensor_dtype

    def info(name: str, tensor: str) -> Any:
        sizes = [_size(n, batch, "batch") for n in graph.shapes[tensor]]
        return helper.make_tensor_value_info(name, element_type(graph.dtypes[tensor]), sizes)

    names = _tensor_names(graph)
    nodes = []
    for number, node in enumerate(graph.nodes):
        attributes = dict(node.attributes)
        if node.op == "Cast":
            attributes["to"] = element_type(attributes["to"])
        nodes.append(
            helper.make_node(
                node.op,
                [names.get(x, x) for x in node.inputs],
                [names.get(x, x) for x in node.outputs],
                name=f"{node.op}_{number}",
                **attributes,
            )
        )
    shapes = {node.inputs[1] for node in graph.nodes if node.op == "Reshape"}
    tensors = []
    for name, array in graph.constants.items():
        if name in shapes:
            array = np.array([_size(n, batch, -1) for n in array.tolist()], np.int64)
        tensors.append(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        )
    inputs = [info(name, name) for name in graph.inputs]
    outputs = [info(name, tensor) for name, tensor in graph.outputs.items()]
    proto = helper.make_graph(nodes, "tinyjax", inputs, outputs, initializer=tensors)
    opset = helper.make_opsetid("", OPSET)
    version = helper.find_min_ir_version_for([opset])
    model = helper.make_model(
        proto, opset_imports=[opset], ir_version=version, producer_name="tinyjax"
    )
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    helper.set_model_props(model, texts)
    checker.check_model(model, full_check=True)
    return model


def _tensor_names(graph: Graph) -> dict[str, str]:
    """Tensor -> its name in the file: operation and number, or that of an output."""
    names = {
        tensor: f"{node.op}_{number}" + (f"_{i}" if i else "")
        for number, node in enumerate(graph.nodes)
        for i, tensor in enumerate(node.outputs)
    }
    return names | {tensor: name for name, tensor in graph.outputs.items()}


def _size(n: int, batch: int | None, any_size: Any) -> Any:
    """A dimension of the file: a multiple of BATCH is one of the batch size."""
    if n == 0 or n % BATCH:
        return n
    return any_size if batch is None else n // BATCH * batch
