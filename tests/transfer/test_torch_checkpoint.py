"""Torch checkpoints read without torch: real ones, broken ones, malicious ones."""

import copyreg
import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.models import make_references
from tests.transfer.torch_files import ORDERED_DICT, Reduced, dictionary, plain, save, tensor, write
from tinyjax.errors import UserError
from tinyjax.transfer import torch_checkpoint

REAL = Path(__file__).parent / "real"  # by make_real.py
FOUR = np.arange(4, dtype="<f4").tobytes()
DTYPES = ("float64", "float32", "float16", "complex64", "int64", "int32", "int16", "int8", "uint8")


def test_a_state_dict_by_torch_holds_what_was_put_into_it():
    state = torch_checkpoint.read(REAL / "s-6.half.pth")
    reference = np.load(make_references.FOLDER / "torchvision.mobilenetv3.s-6.npz")
    shapes = json.loads(str(reference["shapes"]))
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("classifier.")}
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert state.keys() - counters == shapes.keys()
    assert len(counters) == sum(name.endswith("running_mean") for name in shapes)
    assert all(state[name].dtype == np.int64 and state[name] == 0 for name in counters)
    for name, shape in shapes.items():
        drawn = make_references.draw(name, shape).astype(np.float16)
        np.testing.assert_array_equal(state[name], drawn, strict=True, err_msg=name)


def test_dtypes_strides_offsets_and_shared_storages_by_torch():
    counted = np.arange(24, dtype=np.float32)
    expected = {
        **{dtype: np.array([0, 1, 3], dtype) for dtype in DTYPES},
        "bfloat16": np.array([0, 1, 3], np.float32),
        "bool": np.array([False, True, True]),
        "whole": counted,
        "shared": counted[6:18].reshape(3, 4),
        "transposed": counted.reshape(2, 3, 4).transpose(2, 0, 1),
        "every_fifth": counted[1::5],
        "expanded": np.full((2, 3), 7, np.float32),
        "channels_last": counted.reshape(1, 2, 3, 4),
        "number": np.array(2.5, np.float32),
        "none": np.zeros((3, 0), np.float32),
        "parameter": np.array([1, -2], np.float32),
        # 3e38 to the 8 bits of bfloat16's fraction: 226 * 2^120
        "brain": np.array([[1.5], [-2], [226 * 2.0**120]], np.float32),
    }
    state = torch_checkpoint.read(REAL / "training.pth")
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
def test_other_files_by_torch_are_refused(name, message):
    with pytest.raises(UserError, match=f"^{re.escape(str(REAL / name))}: .*{message}"):
        torch_checkpoint.read(REAL / name)


def nested(**entries: bytes) -> bytes:
    opcodes = {name: b"}(" + plain("w") + value + b"u" for name, value in entries.items()}
    return dictionary(opcodes | {"epoch": plain(3)})


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (("state_dict",), 0),
        (("model",), 0),
        (("state_dict_ema", "optimizer"), 0),
        (("model_ema", "model"), 1),
        (("state_dict_ema", "state_dict"), 1),
    ],
)
def test_the_documented_one_of_several_state_dicts_is_taken(tmp_path, keys, taken):
    each = {key: tensor((1,), (1,), offset=i, numel=4) for i, key in enumerate(keys)}
    state = torch_checkpoint.read(write(tmp_path / "a.pth", nested(**each), {"0": FOUR}))
    assert {name: value.tolist() for name, value in state.items()} == {"w": [taken]}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_of_every_protocol(tmp_path, protocol):
    loss = [0.5, -1, 2**40, None, True, "\u00e9"]
    about = {"epoch": 3, "loss": loss, "again": loss, "shape": (1, 2, 3, 4), 7: ("a",)}
    plainly = pickle.dumps(about | {"model": 0}, protocol)
    # The state dict goes in behind the plain values, whose dict lies on the stack.
    program = plainly[:-1] + plain("model") + dictionary({"w": tensor((4,), (1,))}) + b"s"
    file = write(tmp_path / "a.pth", program, {"0": FOUR})
    assert torch_checkpoint.read(file)["w"].tolist() == [0, 1, 2, 3]


def test_a_name_with_and_without_its_prefix_is_refused(tmp_path):
    one = tensor((4,), (1,))
    file = write(tmp_path / "a.pth", dictionary({"w": one, "module.w": one}), {"0": FOUR})
    with pytest.raises(UserError, match="w is there twice"):
        torch_checkpoint.read(file)


BROKEN = {
    "reaches number 4 of a storage that has 4": tensor((5,), (1,), numel=4),
    "reaches number 7": tensor((2,), (4,), offset=3, numel=4),
    "reaches number 4 of": tensor((), (), offset=4, numel=4),
    "reaches number -?[0-9]{20,}": tensor((2**24, 2), (2**62, 1), numel=4),
    "cut short: 4 numbers of 5": tensor((5,), (1,)),
    "sizes are no natural numbers": tensor((4,), (-1,), offset=3),
    "are no natural numbers": tensor((4,), (1,), offset=-1, numel=4),
    "no natural numbers": tensor((4.0,), (1,)),
    "of two ranks": tensor((4,), (1, 1)),
    "allowed dimension exceeded": tensor((2**70,), (0,), numel=4),
    "too big": tensor((2**40, 2**40), (0, 0), numel=4),
    "Maximum allowed": tensor((1,), (2**70,), numel=4),
    "data/../data/9": tensor((4,), (1,), key="../data/9"),
    "no storage": tensor((4,), (1,), storage=b"torch._utils\n_rebuild_parameter"),
    "holds code .torch.UntypedStorage": tensor((4,), (1,), storage=b"torch\nUntypedStorage"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_tensors(tmp_path, message):
    file = write(tmp_path / "a.pth", dictionary({"w": BROKEN[message]}), {"0": FOUR})
    with pytest.raises(UserError, match=f"a.pth: .*({message})"):
        torch_checkpoint.read(file)


NO_STATE = {
    "holds: epoch": plain({"epoch": 3}),
    "holds: list": plain([1, 2]),
    "holds: w, n": dictionary({"w": tensor((4,), (1,)), "n": plain(3)}),
    r"holds: \)": plain({}),
    "items for a int": plain(3) + plain("key") + plain("value") + b"s",
    "a key that is neither": dictionary({}) + plain(()) + plain(1) + b"s",
    "expected 2147483647 bytes": b"X\xff\xff\xff\x7f",
    "pop from empty list": b"R",
}


@pytest.mark.parametrize("message", NO_STATE)
def test_files_without_a_state_dict(tmp_path, message):
    file = write(tmp_path / "a.pth", NO_STATE[message], {"0": FOUR})
    with pytest.raises(UserError, match=re.escape(f"{file}") + ": .*" + message):
        torch_checkpoint.read(file)


def test_broken_zips(tmp_path):
    good = save(tmp_path / "good.pth", {"w": np.arange(4, dtype=np.float32)})
    assert torch_checkpoint.read(good)["w"].tolist() == [0, 1, 2, 3]
    data, bad = good.read_bytes(), tmp_path / "bad.pth"

    def refused(message):
        with pytest.raises(UserError, match=f"^{re.escape(str(bad))}: .*{message}"):
            torch_checkpoint.read(bad)

    bad.write_bytes(data[:-40])
    refused("cut short, or not by torch.save")
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused("cut short, or not by torch.save")
    bad.write_bytes(data.replace(FOUR, FOUR[::-1]))
    refused("Bad CRC-32")
    bad.write_bytes(data[:-4] + b"\x7f" + data[-3:])
    refused(".")  # its entries begin before the file does
    directory = data.index(b"PK\1\2")
    bad.write_bytes(data[: directory + 8] + b"\1" + data[directory + 9 :])
    refused("encrypted")
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", np.random.default_rng(0).bytes(99))
    header, packed = bad.read_bytes().split(b"a/data.pkl", 1)
    bad.write_bytes(header + b"a/data.pkl\xff" + packed[1:])
    refused("invalid block type")
    write(bad, dictionary({"w": tensor((4,), (1,))}), {"0": FOUR}, byteorder=b"big")
    refused("big-endian")
    write(bad, dictionary({"w": tensor((4,), (1,))}), {})
    refused("archive/data/0")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("photos/1.png", b"")
    refused("a zip, but not a checkpoint")
    with pytest.raises(FileNotFoundError):
        torch_checkpoint.read(tmp_path / "none.pth")


def test_a_bomb_is_not_unpacked(tmp_path):
    file = tmp_path / "bomb.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + dictionary({"w": tensor((4,), (1,))}))
        archive.writestr("archive/data/0", bytes(10**6))
    with pytest.raises(UserError, match="unpacks to more than its own size"):
        torch_checkpoint.read(file)


def malicious(command: str) -> dict[str, bytes]:
    """Programs (without protocol and stop) that run `command` in Python's own unpickler."""
    text, system = plain(command), b"cos\nsystem\n"
    line = repr(command).encode() + b"\n"
    evil = Reduced(command)
    return {
        **{f"protocol {p}": pickle.dumps(evil, p)[:-1] for p in range(6)},
        "in a list in a dict": pickle.dumps({"state_dict": {"w": [1, (2, evil)]}}, 4)[:-1],
        "as a key": dictionary({}) + system + text + b"\x85R" + plain(0) + b"s",
        "beside a state dict": dictionary({"w": plain(0)}) + system + text + b"\x85R0",
        "stack global": plain("os") + plain("system") + b"\x93" + text + b"\x85R",
        "dotted": b"\x80\x04" + plain("collections") + plain("_sys.modules.__class__")
        + b"\x93" + b"0" + system + text + b"\x85R",
        "inst": b"(S" + line + b"ios\nsystem\n",
        "obj": b"(" + system + b"S" + line + b"o",
        "extension": b"\x82\xf0" + text + b"\x85R",
        "memo": system + b"q\x010" + b"h\x01" + text + b"\x85R",
        "setstate": b"ctests.transfer.torch_files\nAnything\n)R}" + plain("__setstate__") + system
        + b"sb" + text + b"b",
        "eval": b"cbuiltins\neval\n" + plain(f"__import__('os').system({command!r})") + b"\x85R",
        "newobj": b"ctests.transfer.torch_files\nOnNew\n" + text + b"\x85\x81",
        "getattr": b"cbuiltins\ngetattr\n" + b"cos\n__dict__\n" + plain("get") + b"\x86R"
        + plain("system") + b"\x85R" + text + b"\x85R",
    }  # fmt: skip


@pytest.fixture
def extension():
    """os.system as a registered extension, which Python's unpickler finds without asking."""
    copyreg.add_extension("os", "system", 0xF0)
    pickle.loads(b"\x80\x02\x82\xf0.")  # from now on it is cached
    yield
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("kind", malicious("true"))
def test_malicious_pickles_do_not_run(tmp_path, kind, extension):
    marker = tmp_path / "marker"
    program = malicious(f"mkdir {marker}")[kind]
    file = write(tmp_path / "a.pth", program, {"0": FOUR})
    with pytest.raises(UserError, match=r"a.pth: holds code \(.*\), not only tensors"):
        torch_checkpoint.read(file)
    assert not marker.exists()
    # The same bytes do run where a pickle is run.
    with zipfile.ZipFile(file) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert marker.exists()


@pytest.mark.parametrize(
    ("what", "program"),
    [
        ("os.system", tensor((4,), (1,), storage=b"os\nsystem")),
        ("os.system", tensor((4,), (1,)).replace(ORDERED_DICT, b"cos\nsystem\n)R")),
        ("torch._utils._eval", tensor((4,), (1,)).replace(b"rebuild_tensor_v2", b"eval")),
        ("a call of something", plain("os.system") + plain(("true",)) + b"R"),
        ("a call of something", b"ctorch\nFloatStorage\n" + plain((4,)) + b"R"),
    ],
)  # fmt: skip
def test_code_in_the_place_of_a_tensors_parts_is_refused(tmp_path, what, program):
    with pytest.raises(UserError, match=rf"holds code \({what}"):
        torch_checkpoint.read(write(tmp_path / "a.pth", dictionary({"w": program}), {"0": FOUR}))
