"""The tensors of a torch checkpoint, without torch and without running what the file says.

`torch.save` writes a zip: <name>/data.pkl, a pickle in which a tensor is a call of one of torch's
functions on a storage, and the bytes of the storages as <name>/data/<key>. A pickle is a program,
and Python's unpickler imports and calls whatever it names. Here it is only acted out, on plain
values and with the few opcodes and names that tensors need; all others are refused. Torch's side of
it is torch/serialization.py (`_save`) and torch/_tensor.py (`_reduce_ex_internal`).
"""

import pickletools
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError

STATE_KEYS = ("state_dict", "model", "state_dict_ema", "model_ema")

_DTYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "<u2",  # the upper half of a float32, see `_numbers`
    "torch.ComplexDoubleStorage": "<c16",
    "torch.ComplexFloatStorage": "<c8",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
_OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files before torch 1.6 begin
_LITERALS = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
)  # fmt: skip
# OSError: a seek to before the file; RuntimeError: a zip encrypted, or packed by an unknown method
_BROKEN = (ValueError, TypeError, LookupError, EOFError, OSError, RuntimeError, zlib.error)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Storage(NamedTuple):
    kind: str
    key: str
    numel: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read(file: Path) -> dict[str, np.ndarray]:
    """The state dict of a .pth or .pt file: name -> read-only array, bfloat16 as float32.

    It is the whole of the file, or else what the file keeps under the first of `STATE_KEYS` that
    holds tensors alone: of a file with plain and averaged weights the plain ones. "module.", which
    DataParallel puts before every name, is dropped. Tensors that share a storage share memory.

    Raises:
        UserError: not a checkpoint by torch 1.6 or later, broken, big-endian, more in it than
            tensors and plain values, or no state dict.
        OSError: the file cannot be opened.
    """
    with file.open("rb") as stream:
        if stream.read(len(_OLD_MAGIC)) == _OLD_MAGIC:
            raise UserError(
                f"{file}: in the format before torch 1.6; convert it where torch is: "
                f"torch.save(torch.load({file.name!r}, weights_only=True), 'new.pth')"
            )
    try:
        with zipfile.ZipFile(file) as archive:
            folder = _folder(archive, file)
            tree = _act_out(archive.read(f"{folder}/data.pkl"))
            numbers = cache(lambda kind, key: _numbers(archive.read(f"{folder}/data/{key}"), kind))
            state = {}
            for name, tensor in _state_dict(tree).items():
                name = name.removeprefix("module.")
                if name in state:
                    raise ValueError(f"{name} is there twice, with and without 'module.'")
                state[name] = _array(name, tensor, numbers)
            return state
    except zipfile.BadZipFile as error:
        raise UserError(f"{file}: cut short, or not by torch.save ({error})") from error
    except _BROKEN as error:
        raise UserError(f"{file}: {error}") from error


def _folder(archive: zipfile.ZipFile, file: Path) -> str:
    """The one folder of the zip. torch.save packs nothing, so a zip may hold no more than it is."""
    if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
        raise ValueError("unpacks to more than its own size: not by torch.save, a bomb?")
    names = [name.split("/") for name in archive.namelist()]
    folders = [parts[0] for parts in names if parts[1:] == ["data.pkl"]]
    if len(folders) != 1:
        raise ValueError("a zip, but not a checkpoint of torch.save (no <name>/data.pkl)")
    order = f"{folders[0]}/byteorder"  # older files have none
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("written on a big-endian machine; load and save it on a common one")
    return folders[0]


def _state_dict(tree: Any) -> dict[str, _Tensor]:
    if isinstance(tree, dict):
        for state in (tree, *(tree.get(key) for key in STATE_KEYS)):
            if isinstance(state, dict) and state and all(map(_is_tensor, state.items())):
                return state
    found = ", ".join(map(str, list(tree)[:6])) if isinstance(tree, dict) else type(tree).__name__
    raise ValueError(
        f"no dict of tensors alone, neither the file itself nor under {', '.join(STATE_KEYS)} "
        f"(it holds: {found}): save model.state_dict()"
    )


def _is_tensor(entry: tuple[Any, Any]) -> bool:
    name, value = entry
    return isinstance(name, str) and isinstance(value, _Tensor)


def _numbers(data: bytes, kind: str) -> np.ndarray:
    """The bytes of a storage as a vector."""
    dtype = np.dtype(_DTYPES[kind])
    flat = np.ndarray(len(data) // dtype.itemsize, dtype, data)
    if kind == "torch.BFloat16Storage":
        flat = (flat.astype("<u4") << 16).view("<f4")
        flat.flags.writeable = False
    return flat


def _array(name: str, tensor: _Tensor, numbers: Callable[[str, str], np.ndarray]) -> np.ndarray:
    """A view into the tensor's storage, its bounds checked in integers that cannot overflow."""
    (kind, key, numel), offset, shape, stride = tensor
    flat = numbers(kind, key)
    if numel > flat.size:
        raise ValueError(f"storage {key} of {name} is cut short: {flat.size} numbers of {numel}")
    if 0 in shape:
        return np.zeros(shape, flat.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if last >= numel:
        raise ValueError(f"{name} reaches number {last} of a storage that has {numel}")
    size = flat.itemsize
    return np.ndarray(shape, flat.dtype, flat, offset * size, [step * size for step in stride])


def _act_out(program: bytes) -> Any:
    """What a pickle of torch.save builds: dicts, lists, tuples, plain values and `_Tensor`s.

    A global is nothing but its dotted name. Raises ValueError, TypeError or LookupError.
    """
    stack: list[Any] = []
    marked: list[list[Any]] = []  # stacks that wait below a mark
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
                    _fill(stack[-1], items)
            case "APPEND":
                item = stack.pop()
                _fill(stack[-1], [item])
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _fill(stack[-1], [key, value])
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_admitted(*arg.split(" ")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_admitted(module, name))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                args, call = stack.pop(), stack.pop()
                stack.append(_reduced(call, args))
            case "BUILD":
                stack.pop()  # attributes: a state dict's `_metadata`, of no use here
            case "STOP":
                return stack.pop()
            case "PROTO" | "FRAME":
                pass
            case name:
                raise ValueError(_refusal(f"a pickle's {name}"))


def _refusal(what: str) -> str:
    return f"holds code ({what}), not only tensors: save model.state_dict() alone"


def _admitted(module: Any, name: Any) -> str:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise TypeError("a broken pickle: a global without a name")
    full = f"{module}.{name}"
    if full not in _DTYPES and full not in _CALLS:
        raise ValueError(_refusal(full))
    return full


def _fill(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, dict):
        keys = items[::2]
        if not all(isinstance(key, str | int) for key in keys):  # hashing others could go deep
            raise TypeError("a broken pickle: a key that is neither text nor an integer")
        target.update(zip(keys, items[1::2], strict=True))
    else:
        raise TypeError(f"a broken pickle: items for a {type(target).__name__}")


def _storage(identity: Any) -> _Storage:
    match identity:
        case ("storage", str(kind), str(key), _, int(numel)) if kind in _DTYPES:
            return _Storage(kind, key, numel)
    raise ValueError("a broken pickle: a persistent id that is no storage")


def _reduced(call: Any, args: Any) -> Any:
    if not (isinstance(call, str) and call in _CALLS and isinstance(args, tuple)):
        raise ValueError(_refusal("a call of something else than a tensor"))
    return _CALLS[call](*args)


def _ordered_dict() -> dict[Any, Any]:
    return {}


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any
) -> _Tensor:
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or len(shape) != len(stride):
        raise TypeError("a broken pickle: a tensor without its storage, or of two ranks")
    if not all(type(n) is int and n >= 0 for n in sizes):
        raise TypeError("a broken pickle: a tensor whose sizes are no natural numbers")
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(data: Any, requires_grad: Any, hooks: Any) -> Any:
    return data


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}
