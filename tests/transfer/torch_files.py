"""Files in the layout of torch.save, written without torch: right ones, and hostile ones."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def plain(value) -> bytes:
    """Opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]  # without the protocol and the stop


def tensor(shape, stride, offset=0, key="0", numel=None, storage=b"torch\nFloatStorage") -> bytes:
    """Opcodes that push a tensor; numel: of its storage, by default what the shape has."""
    numel = int(np.prod(shape)) if numel is None else numel
    identity = b"(" + plain("storage") + b"c" + storage + b"\n" + plain(key) + plain("cpu")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + plain(numel) + b"tQ"
        + plain(offset) + plain(shape) + plain(stride) + plain(False) + ORDERED_DICT + b"tR"
    )  # fmt: skip


def dictionary(entries: dict[str, bytes]) -> bytes:
    """Opcodes that push an OrderedDict, its values given as opcodes."""
    return ORDERED_DICT + b"(" + b"".join(plain(k) + v for k, v in entries.items()) + b"u"


def write(file: Path, program: bytes, storages: dict[str, bytes], **records: bytes) -> Path:
    """program: opcodes from which `data.pkl` is made. records: other entries beside it."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        for name, record in ({"byteorder": b"little", "version": b"3\n"} | records).items():
            archive.writestr(f"archive/{name}", record)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return file


def save(file: Path, state: dict[str, np.ndarray]) -> Path:
    """A state dict, as torch.save writes it."""
    entries = {}
    for key, (name, value) in enumerate(state.items()):
        stride = tuple(step // value.itemsize for step in value.strides)
        storage = b"torch\n" + STORAGES[value.dtype.name].encode()
        entries[name] = tensor(value.shape, stride, key=str(key), storage=storage)
    storages = {str(key): value.tobytes() for key, value in enumerate(state.values())}
    return write(file, dictionary(entries), storages)


class Reduced:
    """Pickled, it is a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Anything:
    """Takes any state."""


class OnNew:
    """Runs what it is made of."""

    def __new__(cls, command):
        os.system(command)
        return super().__new__(cls)
