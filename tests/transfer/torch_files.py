"""Files in the layout of torch.save, written without torch: valid and hostile ones."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def push_value(value) -> bytes:
    """Return opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]  # without the protocol and the stop


def push_tensor(
    shape, stride, offset=0, key="0", numel=None, storage=b"torch\nFloatStorage"
) -> bytes:
    """Return opcodes that push a tensor. numel: of its storage; by default that of the shape."""
    numel = int(np.prod(shape)) if numel is None else numel
    persistent_id = (
        b"(" + push_value("storage") + b"c" + storage + b"\n" + push_value(key) + push_value("cpu")
    )
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent_id + push_value(numel) + b"tQ"
        + push_value(offset) + push_value(shape) + push_value(stride) + push_value(False)
        + ORDERED_DICT + b"tR"
    )  # fmt: skip


def push_dict(entries: dict[str, bytes]) -> bytes:
    """Return opcodes that push an OrderedDict, given its values as opcodes."""
    return ORDERED_DICT + b"(" + b"".join(push_value(k) + v for k, v in entries.items()) + b"u"


def write_checkpoint(
    file: Path, program: bytes, storages: dict[str, bytes], **records: bytes
) -> Path:
    """Write a zip. program: opcodes of `data.pkl`. records: further entries, or replaced ones."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        for name, record in ({"byteorder": b"little", "version": b"3\n"} | records).items():
            archive.writestr(f"archive/{name}", record)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return file


def save_state_dict(file: Path, state: dict[str, np.ndarray], key: str = "") -> Path:
    """Write a state dict as torch.save does. key: of a dict that holds the state dict."""
    entries = {}
    for i, (name, value) in enumerate(state.items()):
        stride = tuple(step // value.itemsize for step in value.strides)
        storage = b"torch\n" + STORAGES[value.dtype.name].encode()
        entries[name] = push_tensor(value.shape, stride, key=str(i), storage=storage)
    storages = {str(i): value.tobytes() for i, value in enumerate(state.values())}
    program = push_dict(entries)
    return write_checkpoint(file, push_dict({key: program}) if key else program, storages)


class RunsCommand:
    """Its pickle is a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Anything:
    """An object that accepts any state."""


class OnNew:
    """A class that runs its argument when it is instantiated."""

    def __new__(cls, command):
        os.system(command)
        return super().__new__(cls)
