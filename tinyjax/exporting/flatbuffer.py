"""LiteRT files (.tflite) as objects: reading, writing, and the metadata in them.

The objects are those of the schema that ai-edge-litert ships: a `ModelT` has `subgraphs[0]` with
`tensors` and `operators`, and `buffers` with the bytes of constants. The package is optional:
pip install 'tinyjax[litert]'.
"""

import json
from collections.abc import Sequence
from copy import copy, deepcopy
from importlib import import_module
from typing import Any

import numpy as np

from tinyjax.errors import UserError

METADATA = "tinyjax"  # name of the entry in the file's list of metadata
ALIGNMENT = 16  # bytes, of constants: kernels of microcontrollers read them in place
IDENTIFIER = b"TFL3"
# layers -> the axis of the output channels of their kernels
CHANNEL_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3}


def import_package(name: str) -> Any:
    """A module of the packages for LiteRT. Raises UserError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"LiteRT files need {name}: pip install 'tinyjax[litert]'") from error


def import_schema() -> Any:
    """The generated classes of the file format. Raises UserError if they are not installed."""
    return import_package("ai_edge_litert.schema_py_generated")


def read(file: bytes) -> Any:
    """The `ModelT` of a file. Constants that a file stores behind its tables are read, too."""
    tools = import_package("ai_edge_litert.tools.flatbuffer_utils")
    return tools.read_model_from_bytearray(bytearray(file))


def pack(model: Any) -> bytes:
    """The file of a `ModelT`, with all constants inside its tables: TensorFlow Lite Micro and
    older runtimes read no others.
    """
    flatbuffers = import_package("flatbuffers")
    schema = import_schema()

    class Buffer(schema.BufferT):  # type: ignore[name-defined]
        """Generated code aligns bytes to 1; the schema asks for ALIGNMENT."""

        def Pack(self, builder: Any) -> Any:
            if self.data is not None:
                data = np.asarray(self.data, np.uint8)
                builder.StartVector(1, len(data), ALIGNMENT)
                builder.head -= len(data)
                builder.Bytes[builder.head : builder.head + len(data)] = data.tobytes()
                data = builder.EndVector()
            schema.BufferStart(builder)
            if self.data is not None:
                schema.BufferAddData(builder, data)
            return schema.BufferEnd(builder)

    model.buffers = [Buffer(data=buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def add_metadata(file: bytes, metadata: dict[str, Any]) -> bytes:
    """The file with metadata, JSON types, as JSON text."""
    schema = import_schema()
    model = read(file)
    text = json.dumps(metadata).encode()
    model.buffers.append(schema.BufferT(data=np.frombuffer(text, np.uint8)))
    entry = schema.MetadataT(name=METADATA, buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or ()), entry]
    return pack(model)


def read_metadata(file: bytes) -> dict[str, Any]:
    """The metadata of a file that tinyjax has written. Raises UserError for another file."""
    model = read(file)
    for entry in model.metadata or ():
        if entry.name in (METADATA, METADATA.encode()):
            return json.loads(bytes(model.buffers[entry.buffer].data))
    raise UserError(f"a LiteRT file without metadata of the name {METADATA!r}")


def operator_names(model: Any) -> list[str]:
    """The operators of a `ModelT` in order of computation, such as CONV_2D."""
    schema = import_schema()
    codes = schema.BuiltinOperator
    names = {code: name for name, code in vars(codes).items() if not name.startswith("_")}
    builtin = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return [names[builtin[op.opcodeIndex]] for op in model.subgraphs[0].operators]


def add_operator_code(model: Any, name: str, version: int = 1) -> int:
    """Add the code of an operator, such as RELU, to a `ModelT`. Returns its index."""
    schema = import_schema()
    code = getattr(schema.BuiltinOperator, name)
    # Readers of older schemas know codes up to 127 only, and those in their own field.
    code = schema.OperatorCodeT(
        deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version
    )
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def add_tensor(
    model: Any,
    name: str,
    shape: Sequence[int],
    type: str,
    data: np.ndarray | None = None,
    scale: float | None = None,
    zero_point: int = 0,
) -> int:
    """Add a tensor to a `ModelT`: a constant, if it has data. Returns its index.

    type: such as "INT8". scale, zero_point: of a quantized tensor, value = scale (q - zero_point).
    """
    schema, graph = import_schema(), model.subgraphs[0]
    quantization = scale and schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero_point])
    if data is not None:
        model.buffers.append(schema.BufferT(data=data.ravel().view(np.uint8)))
    tensor = schema.TensorT(
        shape=[*shape],
        type=getattr(schema.TensorType, type),
        buffer=0 if data is None else len(model.buffers) - 1,
        name=name,
        quantization=quantization,
    )
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def find_layers(model: Any) -> list[int]:
    """The numbers of a `ModelT`'s convolutions and linear layers with constant kernel and bias."""
    graph, numbers = model.subgraphs[0], []
    for number, (op, name) in enumerate(zip(graph.operators, operator_names(model), strict=True)):
        constants = [i for i in op.inputs[1:] if i != -1 and is_constant(model, i)]
        if name in CHANNEL_AXES and len(constants) == 2:
            numbers.append(number)
    return numbers


def is_constant(model: Any, index: int) -> bool:
    """Whether a tensor of a `ModelT` has its values in the file."""
    return model.buffers[model.subgraphs[0].tensors[index].buffer].data is not None


def constant(model: Any, index: int) -> np.ndarray:
    """The values of a constant float32 tensor of a `ModelT`."""
    tensor = model.subgraphs[0].tensors[index]
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def make_operator(code: int, inputs: Sequence[int], output: int) -> Any:
    """An `OperatorT` without options. code: its index in the list of operator codes."""
    return import_schema().OperatorT(opcodeIndex=code, inputs=[*inputs], outputs=[output])


def name_tensors(model: Any) -> None:
    """Give the tensors of a `ModelT` short names, in place: those of JAX take 50 KB. Outputs of
    operators are called CONV_2D_7 and so on, inputs and outputs as in the signature.
    """
    graph = model.subgraphs[0]
    names = {
        index: f"{name}_{number}"
        for number, (op, name) in enumerate(
            zip(graph.operators, operator_names(model), strict=True)
        )
        for index in op.outputs
    }
    for signature in model.signatureDefs:
        names |= {t.tensorIndex: t.name for t in [*signature.inputs, *signature.outputs]}
    for index, tensor in enumerate(graph.tensors):
        tensor.name = names.get(index, f"c{index}")


def input_name(model: Any) -> str:
    """The name of the only input of a `ModelT` with named tensors."""
    graph = model.subgraphs[0]
    return graph.tensors[graph.inputs[0]].name.decode()


def copy_model(model: Any) -> Any:
    """A `ModelT` with the same constants, of which graph, signatures and lists may be changed."""
    result, graph = copy(model), copy(model.subgraphs[0])
    graph.operators = [copy(op) for op in graph.operators]
    graph.tensors = [copy(tensor) for tensor in graph.tensors]
    result.subgraphs, result.signatureDefs = [graph], deepcopy(model.signatureDefs)
    result.buffers, result.operatorCodes = [*model.buffers], [*model.operatorCodes]
    result.metadata = [copy(entry) for entry in model.metadata or ()]
    return result


def single_operator(model: Any, number: int) -> tuple[bytes, list[int]]:
    """A file with one operator of a `ModelT`, and the tensors of `model` that are its inputs."""
    result = copy_model(model)
    (graph,) = result.subgraphs
    op = graph.operators[number]
    inputs = [i for i in dict.fromkeys(op.inputs) if i != -1 and not is_constant(model, i)]
    graph.operators, graph.inputs, graph.outputs = [op], inputs, [*op.outputs]
    result.signatureDefs, result.metadata = [], []
    prune(result)
    return pack(result), inputs


def prune(model: Any) -> None:
    """Remove operator codes and tensors that no operator uses from a `ModelT`, in place. A runtime
    needs the kernel of each operator code.
    """
    graph = model.subgraphs[0]
    codes = sorted({op.opcodeIndex for op in graph.operators})
    model.operatorCodes = [model.operatorCodes[code] for code in codes]
    used = {*graph.inputs, *graph.outputs}.union(
        *(op.inputs for op in graph.operators), *(op.outputs for op in graph.operators)
    )
    tensors = sorted(used - {-1})
    new = {old: index for index, old in enumerate(tensors)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in tensors]
    for op in graph.operators:
        op.opcodeIndex = codes.index(op.opcodeIndex)
        op.inputs, op.outputs = ([new[i] for i in indices] for indices in (op.inputs, op.outputs))
    graph.inputs, graph.outputs = ([new[i] for i in ids] for ids in (graph.inputs, graph.outputs))
    for signature in model.signatureDefs or ():
        for tensor in [*signature.inputs, *signature.outputs]:
            tensor.tensorIndex = new[tensor.tensorIndex]
    _prune_buffers(model)


def _prune_buffers(model: Any) -> None:
    """Remove buffers that neither a tensor nor an entry of metadata uses. The first one is empty
    by convention.
    """
    readers = [*model.subgraphs[0].tensors, *(model.metadata or ())]
    used = sorted({0, *(reader.buffer for reader in readers)})
    model.buffers = [model.buffers[index] for index in used]
    for reader in readers:
        reader.buffer = used.index(reader.buffer)
