"""Read torch checkpoints without torch, and without executing code in the file.

`torch.save` writes a zip: <name>/data.pkl, a pickle in which a tensor is a call of one of torch's
functions on a storage, and the bytes of the storages as <name>/data/<key>. A pickle is a program,
and Python's unpickler imports and calls whatever a pickle names. This module interprets the pickle
itself, with the few opcodes and names that tensors need, and rejects all others. The writer is
torch/serialization.py (`_save`) and torch/_tensor.py (`_reduce_ex_internal`).
"""

import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError

STATE_DICT_KEYS = ("state_dict", "model", "state_dict_ema", "model_ema")

_DTYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "<u2",  # the upper half of a float32, see `_decode_storage`
    "torch.ComplexDoubleStorage": "<c16",
    "torch.ComplexFloatStorage": "<c8",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
# torch.compile, DataParallel, and Lightning's usual attribute
_WRAPPERS = re.compile(r"^(_orig_mod\.)?(module\.)?(_orig_mod\.)?(model\.)?")
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes of files before torch 1.6
_LITERALS = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
)  # fmt: skip
# OSError: a seek before the file's start; RuntimeError: an encrypted zip, or unknown compression
_READ_ERRORS = (ValueError, TypeError, LookupError, EOFError, OSError, RuntimeError, zlib.error)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Storage(NamedTuple):
    type_name: str  # a key of `_DTYPES`
    key: str
    numel: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch_checkpoint(file: Path) -> dict[str, np.ndarray]:
    """Read the state dict of a .pth or .pt file: name -> read-only array, bfloat16 as float32.

    The state dict is the whole file, or else the entry under the first of `STATE_DICT_KEYS` that
    holds tensors only: in a file with both raw and averaged weights, the raw ones. Names are those
    of `strip_prefix`. Tensors that share a storage share memory.

    Raises:
        UserError: the file is not a checkpoint by torch 1.6 or later, is broken or big-endian,
            holds more than tensors and plain values, or holds no state dict.
        OSError: the file cannot be opened.
    """
    with file.open("rb") as stream:
        if stream.read(len(_LEGACY_MAGIC)) == _LEGACY_MAGIC:
            raise UserError(
                f"{file}: in the format before torch 1.6; convert it with torch: "
                f"torch.save(torch.load({file.name!r}, weights_only=True), 'new.pth')"
            )
    try:
        with zipfile.ZipFile(file) as archive:
            folder = _checkpoint_folder(archive, file)
            content = _interpret_pickle(archive.read(f"{folder}/data.pkl"))

            @cache
            def storage(type_name: str, key: str) -> np.ndarray:
                return _decode_storage(archive.read(f"{folder}/data/{key}"), type_name)

            tensors = strip_prefix(_find_state_dict(content))
            return {name: _to_array(name, tensor, storage) for name, tensor in tensors.items()}
    except zipfile.BadZipFile as error:
        raise UserError(f"{file}: truncated, or not by torch.save ({error})") from error
    except _READ_ERRORS as error:
        raise UserError(f"{file}: {error}") from error


def strip_prefix(state: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the prefixes that wrappers of networks add to every name, see `_WRAPPERS`.

    Raises ValueError if a name occurs with and without them.
    """
    stripped = {}
    for wrapped_name, value in state.items():
        name = _WRAPPERS.sub("", wrapped_name)
        if name in stripped:
            raise ValueError(f"duplicate name {name}, with and without 'module.' or 'model.'")
        stripped[name] = value
    return stripped


def _checkpoint_folder(archive: zipfile.ZipFile, file: Path) -> str:
    """Return the name of the zip's only folder. Raises ValueError for a zip not by torch.save.

    torch.save does not compress, so the contents cannot be larger than the file.
    """
    if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
        raise ValueError("unpacks to more than its own size: not by torch.save, maybe a zip bomb")
    names = [name.split("/") for name in archive.namelist()]
    folders = [first for first, *rest in names if rest == ["data.pkl"]]
    if len(folders) != 1:
        raise ValueError("a zip, but not a checkpoint of torch.save (no <name>/data.pkl)")
    byte_order = f"{folders[0]}/byteorder"  # missing in older files
    if byte_order in archive.namelist() and archive.read(byte_order) != b"little":
        raise ValueError("written on a big-endian machine; save it again on a little-endian one")
    return folders[0]


def _find_state_dict(content: Any) -> dict[str, _Tensor]:
    if isinstance(content, dict):
        for state in (content, *(content.get(key) for key in STATE_DICT_KEYS)):
            if isinstance(state, dict) and state and all(map(_is_tensor, state.items())):
                return state
        summary = ", ".join(map(str, list(content)[:6]))
    else:
        summary = type(content).__name__
    raise ValueError(
        f"no dict of tensors only, neither the file itself nor under {', '.join(STATE_DICT_KEYS)} "
        f"(it holds: {summary}): save model.state_dict()"
    )


def _is_tensor(entry: tuple[Any, Any]) -> bool:
    name, value = entry
    return isinstance(name, str) and isinstance(value, _Tensor)


def _decode_storage(data: bytes, type_name: str) -> np.ndarray:
    """Return the bytes of a storage as a read-only vector."""
    dtype = np.dtype(_DTYPES[type_name])
    flat = np.ndarray(len(data) // dtype.itemsize, dtype, data)
    if type_name == "torch.BFloat16Storage":
        flat = (flat.astype("<u4") << 16).view("<f4")
        flat.flags.writeable = False
    return flat


def _to_array(name: str, tensor: _Tensor, storage: Callable[[str, str], np.ndarray]) -> np.ndarray:
    """Return a view into the tensor's storage. Bounds are checked in Python's unbounded integers.

    storage: (type name, key) -> the storage as a vector.
    """
    (type_name, key, numel), offset, shape, stride = tensor
    flat = storage(type_name, key)
    if numel > flat.size:
        raise ValueError(f"storage {key} of {name} is truncated: {flat.size} of {numel} numbers")
    if 0 in shape:
        return np.zeros(shape, flat.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if last >= numel:
        raise ValueError(f"{name} reaches number {last} of a storage that has {numel}")
    size = flat.itemsize
    return np.ndarray(shape, flat.dtype, flat, offset * size, [step * size for step in stride])


def _interpret_pickle(program: bytes) -> Any:
    """Return what a pickle of torch.save builds: dicts, lists, tuples, plain values, `_Tensor`s.

    A global is represented by its dotted name. Raises ValueError, TypeError or LookupError.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []  # the stacks below each mark
    memo: dict[int, Any] = {}
    arg: Any
    for opcode, arg, _ in pickletools.genops(program):
        match opcode.name:
            case name if name in _LITERALS:
                stack.append(arg)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                n = int(name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE" | "APPENDS" | "SETITEMS" as name:
                items, stack = stack, marked.pop()
                if name == "TUPLE":
                    stack.append(tuple(items))
                else:
                    _extend(stack[-1], items)
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _extend(stack[-1], [key, value])
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_check_global(*arg.split(" ")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_check_global(module, name))
            case "BINPERSID":
                stack.append(_make_storage(stack.pop()))
            case "REDUCE":
                args, function = stack.pop(), stack.pop()
                stack.append(_call(function, args))
            case "BUILD":
                stack.pop()  # attributes, such as a state dict's `_metadata`, are ignored
            case "STOP":
                return stack.pop()
            case "PROTO" | "FRAME":
                pass
            case name:
                raise ValueError(_code_error(f"a pickle's {name}"))


def _code_error(code: str) -> str:
    return f"holds code ({code}), not only tensors: save model.state_dict() only"


def _check_global(module: Any, name: Any) -> str:
    """Return the dotted name of an allowed global."""
    if not (isinstance(module, str) and isinstance(name, str)):
        raise TypeError("a broken pickle: a global without a name")
    dotted_name = f"{module}.{name}"
    if dotted_name not in _DTYPES and dotted_name not in _CALLS:
        raise ValueError(_code_error(dotted_name))
    return dotted_name


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, dict):
        keys = items[::2]
        if not all(isinstance(key, str | int) for key in keys):  # hashing others could recurse
            raise TypeError("a broken pickle: a key that is neither a string nor an integer")
        target.update(zip(keys, items[1::2], strict=True))
    else:
        raise TypeError(f"a broken pickle: items for a {type(target).__name__}")


def _make_storage(persistent_id: Any) -> _Storage:
    match persistent_id:
        case ("storage", str(type_name), str(key), _, int(numel)) if type_name in _DTYPES:
            return _Storage(type_name, key, numel)
    raise ValueError("a broken pickle: a persistent id that is not a storage")


def _call(function: Any, args: Any) -> Any:
    if not (isinstance(function, str) and function in _CALLS and isinstance(args, tuple)):
        raise ValueError(_code_error("a call that does not build a tensor"))
    return _CALLS[function](*args)


def _ordered_dict() -> dict[Any, Any]:
    return {}


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any
) -> _Tensor:
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or len(shape) != len(stride):
        raise TypeError("a broken pickle: a tensor without storage, or with different ranks")
    if not all(type(n) is int and n >= 0 for n in sizes):
        raise TypeError("a broken pickle: a tensor whose sizes are not natural numbers")
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> Any:
    return data


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}
