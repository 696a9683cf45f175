"""Torch checkpoints read without torch: real, broken and malicious ones."""

import copyreg
import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.models import make_references
from tests.transfer.torch_files import (
    ORDERED_DICT,
    RunsCommand,
    push_dict,
    push_tensor,
    push_value,
    save_state_dict,
    write_checkpoint,
)
from tinyjax.errors import UserError
from tinyjax.transfer import torch_checkpoint

REAL = Path(__file__).parent / "real"  # by make_real.py
FOUR = np.arange(4, dtype="<f4").tobytes()
DTYPES = ("float64", "float32", "float16", "complex64", "int64", "int32", "int16", "int8", "uint8")


def test_state_dict_by_torch():
    state = torch_checkpoint.read_torch_checkpoint(REAL / "s-6.half.pth")
    reference = np.load(make_references.FOLDER / "torchvision.mobilenetv3.s-6.npz")
    shapes = json.loads(str(reference["shapes"]))
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("classifier.")}
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert state.keys() - counters == shapes.keys()
    assert len(counters) == sum(name.endswith("running_mean") for name in shapes)
    assert all(state[name].dtype == np.int64 and state[name] == 0 for name in counters)
    for name, shape in shapes.items():
        expected = make_references.draw(name, shape).astype(np.float16)
        np.testing.assert_array_equal(state[name], expected, strict=True, err_msg=name)


def test_dtypes_strides_offsets_and_shared_storages_by_torch():
    counter = np.arange(24, dtype=np.float32)
    expected = {
        **{dtype: np.array([0, 1, 3], dtype) for dtype in DTYPES},
        "bfloat16": np.array([0, 1, 3], np.float32),
        "bool": np.array([False, True, True]),
        "whole": counter,
        "shared": counter[6:18].reshape(3, 4),
        "transposed": counter.reshape(2, 3, 4).transpose(2, 0, 1),
        "every_fifth": counter[1::5],
        "expanded": np.full((2, 3), 7, np.float32),
        "channels_last": counter.reshape(1, 2, 3, 4),
        "number": np.array(2.5, np.float32),
        "none": np.zeros((3, 0), np.float32),
        "parameter": np.array([1, -2], np.float32),
        # 3e38 to the 8 bits of bfloat16's fraction: 226 * 2^120
        "brain": np.array([[1.5], [-2], [226 * 2.0**120]], np.float32),
    }
    state = torch_checkpoint.read_torch_checkpoint(REAL / "training.pth")
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, strict=True, err_msg=name)
    assert np.shares_memory(state["whole"], state["shared"])
    assert [name for name, value in state.items() if value.flags.writeable and value.size] == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module.pth", r"holds code \(torch.nn.modules.linear.Linear\).*model.state_dict\(\)"),
        ("script.pt", r"holds code \(__torch__.torch.nn.modules.linear.Linear\), not only tensors"),
        ("old.pth", r"before torch 1.6; convert .*torch.load\('old.pth', weights_only=True\)"),
    ],
)
def test_other_files_by_torch_are_rejected(name, message):
    with pytest.raises(UserError, match=f"^{re.escape(str(REAL / name))}: .*{message}"):
        torch_checkpoint.read_torch_checkpoint(REAL / name)


def push_nested(**entries: bytes) -> bytes:
    opcodes = {name: b"}(" + push_value("w") + value + b"u" for name, value in entries.items()}
    return push_dict(opcodes | {"epoch": push_value(3)})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("state_dict",), 0),
        (("model",), 0),
        (("state_dict_ema", "optimizer"), 0),
        (("model_ema", "model"), 1),
        (("state_dict_ema", "state_dict"), 1),
    ],
)
def test_first_documented_state_dict_is_read(tmp_path, keys, expected):
    each = {key: push_tensor((1,), (1,), offset=i, numel=4) for i, key in enumerate(keys)}
    state = torch_checkpoint.read_torch_checkpoint(
        write_checkpoint(tmp_path / "a.pth", push_nested(**each), {"0": FOUR})
    )
    assert {name: value.tolist() for name, value in state.items()} == {"w": [expected]}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_of_every_pickle_protocol(tmp_path, protocol):
    loss = [0.5, -1, 2**40, None, True, "\u00e9"]
    metadata = {"epoch": 3, "loss": loss, "again": loss, "shape": (1, 2, 3, 4), 7: ("a",)}
    pickled = pickle.dumps(metadata | {"model": 0}, protocol)
    # The dict of plain values is on the stack; the state dict is set as one more item.
    program = pickled[:-1] + push_value("model") + push_dict({"w": push_tensor((4,), (1,))}) + b"s"
    file = write_checkpoint(tmp_path / "a.pth", program, {"0": FOUR})
    assert torch_checkpoint.read_torch_checkpoint(file)["w"].tolist() == [0, 1, 2, 3]


def test_name_with_and_without_prefix_is_rejected(tmp_path):
    one = push_tensor((4,), (1,))
    file = write_checkpoint(tmp_path / "a.pth", push_dict({"w": one, "module.w": one}), {"0": FOUR})
    with pytest.raises(UserError, match="duplicate name w"):
        torch_checkpoint.read_torch_checkpoint(file)


BROKEN = {
    "reaches number 4 of a storage that has 4": push_tensor((5,), (1,), numel=4),
    "reaches number 7": push_tensor((2,), (4,), offset=3, numel=4),
    "reaches number 4 of": push_tensor((), (), offset=4, numel=4),
    "reaches number -?[0-9]{20,}": push_tensor((2**24, 2), (2**62, 1), numel=4),
    "truncated: 4 of 5 numbers": push_tensor((5,), (1,)),
    "sizes are not natural numbers": push_tensor((4,), (-1,), offset=3),
    "are not natural numbers": push_tensor((4,), (1,), offset=-1, numel=4),
    "not natural numbers": push_tensor((4.0,), (1,)),
    "with different ranks": push_tensor((4,), (1, 1)),
    "allowed dimension exceeded": push_tensor((2**70,), (0,), numel=4),
    "too big": push_tensor((2**40, 2**40), (0, 0), numel=4),
    "Maximum allowed": push_tensor((1,), (2**70,), numel=4),
    "data/../data/9": push_tensor((4,), (1,), key="../data/9"),
    "not a storage": push_tensor((4,), (1,), storage=b"torch._utils\n_rebuild_parameter"),
    "holds code .torch.UntypedStorage": push_tensor((4,), (1,), storage=b"torch\nUntypedStorage"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_tensors_are_rejected(tmp_path, message):
    file = write_checkpoint(tmp_path / "a.pth", push_dict({"w": BROKEN[message]}), {"0": FOUR})
    with pytest.raises(UserError, match=f"a.pth: .*({message})"):
        torch_checkpoint.read_torch_checkpoint(file)


NO_STATE_DICT = {
    "holds: epoch": push_value({"epoch": 3}),
    "holds: list": push_value([1, 2]),
    "holds: w, n": push_dict({"w": push_tensor((4,), (1,)), "n": push_value(3)}),
    r"holds: \)": push_value({}),
    "items for a int": push_value(3) + push_value("key") + push_value("value") + b"s",
    "a key that is neither": push_dict({}) + push_value(()) + push_value(1) + b"s",
    "expected 2147483647 bytes": b"X\xff\xff\xff\x7f",
    "pop from empty list": b"R",
}


@pytest.mark.parametrize("message", NO_STATE_DICT)
def test_files_without_a_state_dict_are_rejected(tmp_path, message):
    file = write_checkpoint(tmp_path / "a.pth", NO_STATE_DICT[message], {"0": FOUR})
    with pytest.raises(UserError, match=re.escape(f"{file}") + ": .*" + message):
        torch_checkpoint.read_torch_checkpoint(file)


def test_broken_zips_are_rejected(tmp_path):
    good = save_state_dict(tmp_path / "good.pth", {"w": np.arange(4, dtype=np.float32)})
    assert torch_checkpoint.read_torch_checkpoint(good)["w"].tolist() == [0, 1, 2, 3]
    data, bad = good.read_bytes(), tmp_path / "bad.pth"

    def assert_rejected(message):
        with pytest.raises(UserError, match=f"^{re.escape(str(bad))}: .*{message}"):
            torch_checkpoint.read_torch_checkpoint(bad)

    bad.write_bytes(data[:-40])
    assert_rejected("truncated, or not by torch.save")
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert_rejected("truncated, or not by torch.save")
    bad.write_bytes(data.replace(FOUR, FOUR[::-1]))
    assert_rejected("Bad CRC-32")
    bad.write_bytes(data[:-4] + b"\x7f" + data[-3:])
    assert_rejected(".")  # the directory points to before the file
    directory = data.index(b"PK\1\2")
    bad.write_bytes(data[: directory + 8] + b"\1" + data[directory + 9 :])
    assert_rejected("encrypted")
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", np.random.default_rng(0).bytes(99))
    header, packed = bad.read_bytes().split(b"a/data.pkl", 1)
    bad.write_bytes(header + b"a/data.pkl\xff" + packed[1:])
    assert_rejected("invalid block type")
    write_checkpoint(bad, push_dict({"w": push_tensor((4,), (1,))}), {"0": FOUR}, byteorder=b"big")
    assert_rejected("big-endian")
    write_checkpoint(bad, push_dict({"w": push_tensor((4,), (1,))}), {})
    assert_rejected("archive/data/0")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("photos/1.png", b"")
    assert_rejected("a zip, but not a checkpoint")
    with pytest.raises(FileNotFoundError):
        torch_checkpoint.read_torch_checkpoint(tmp_path / "none.pth")


def test_zip_bomb_is_not_unpacked(tmp_path):
    file = tmp_path / "bomb.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "archive/data.pkl", b"\x80\x02" + push_dict({"w": push_tensor((4,), (1,))})
        )
        archive.writestr("archive/data/0", bytes(10**6))
    with pytest.raises(UserError, match="unpacks to more than its own size"):
        torch_checkpoint.read_torch_checkpoint(file)


def malicious(command: str) -> dict[str, bytes]:
    """Return programs, without protocol and stop, that run `command` in Python's unpickler."""
    text, system = push_value(command), b"cos\nsystem\n"
    line = repr(command).encode() + b"\n"
    evil = RunsCommand(command)
    return {
        **{f"protocol {p}": pickle.dumps(evil, p)[:-1] for p in range(6)},
        "in a list in a dict": pickle.dumps({"state_dict": {"w": [1, (2, evil)]}}, 4)[:-1],
        "as a key": push_dict({}) + system + text + b"\x85R" + push_value(0) + b"s",
        "next to a state dict": push_dict({"w": push_value(0)}) + system + text + b"\x85R0",
        "stack global": push_value("os") + push_value("system") + b"\x93" + text + b"\x85R",
        "dotted": b"\x80\x04" + push_value("collections") + push_value("_sys.modules.__class__")
        + b"\x93" + b"0" + system + text + b"\x85R",
        "inst": b"(S" + line + b"ios\nsystem\n",
        "obj": b"(" + system + b"S" + line + b"o",
        "extension": b"\x82\xf0" + text + b"\x85R",
        "memo": system + b"q\x010" + b"h\x01" + text + b"\x85R",
        "setstate": b"ctests.transfer.torch_files\nAnything\n)R}" + push_value("__setstate__")
        + system + b"sb" + text + b"b",
        "eval": b"cbuiltins\neval\n" + push_value(f"__import__('os').system({command!r})")
        + b"\x85R",
        "newobj": b"ctests.transfer.torch_files\nOnNew\n" + text + b"\x85\x81",
        "getattr": b"cbuiltins\ngetattr\n" + b"cos\n__dict__\n" + push_value("get") + b"\x86R"
        + push_value("system") + b"\x85R" + text + b"\x85R",
    }  # fmt: skip


@pytest.fixture
def extension():
    """Register os.system as an extension, which Python's unpickler looks up without a check."""
    copyreg.add_extension("os", "system", 0xF0)
    pickle.loads(b"\x80\x02\x82\xf0.")  # caches it
    yield
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("name", malicious("true"))
def test_malicious_pickles_do_not_run(tmp_path, name, extension):
    marker = tmp_path / "marker"
    program = malicious(f"mkdir {marker}")[name]
    file = write_checkpoint(tmp_path / "a.pth", program, {"0": FOUR})
    with pytest.raises(UserError, match=r"a.pth: holds code \(.*\), not only tensors"):
        torch_checkpoint.read_torch_checkpoint(file)
    assert not marker.exists()
    # Python's unpickler does run the same bytes.
    with zipfile.ZipFile(file) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert marker.exists()


@pytest.mark.parametrize(
    ("code", "program"),
    [
        ("os.system", push_tensor((4,), (1,), storage=b"os\nsystem")),
        ("os.system", push_tensor((4,), (1,)).replace(ORDERED_DICT, b"cos\nsystem\n)R")),
        ("torch._utils._eval", push_tensor((4,), (1,)).replace(b"rebuild_tensor_v2", b"eval")),
        ("a call that does not", push_value("os.system") + push_value(("true",)) + b"R"),
        ("a call that does not", b"ctorch\nFloatStorage\n" + push_value((4,)) + b"R"),
    ],
)  # fmt: skip
def test_code_inside_a_tensor_is_rejected(tmp_path, code, program):
    with pytest.raises(UserError, match=rf"holds code \({code}"):
        torch_checkpoint.read_torch_checkpoint(
            write_checkpoint(tmp_path / "a.pth", push_dict({"w": program}), {"0": FOUR})
        )
