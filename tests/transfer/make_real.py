"""Checkpoints by torch itself, stored under real/.

test_torch_checkpoint.py lists their contents. Run as `python -m tests.transfer.make_real` with
torch 2.13.0, torchvision 0.28.0 (CPU builds suffice).
"""

from pathlib import Path

from tests.models.make_references import draw

FOLDER = Path(__file__).parent / "real"


def main() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operation in (
        "nms",
        "qnms",
    ):  # compiled operations that torchvision lacks with a CPU build of torch
        library.define(f"{operation}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    from torchvision.models import mobilenetv3

    FOLDER.mkdir(exist_ok=True)
    conf = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=1.46**-6)
    state = mobilenetv3.MobileNetV3(*conf).half().state_dict()
    for name, value in list(state.items()):
        if name.startswith("classifier."):
            del state[name]  # in place, because torch's dict carries `_metadata`
        elif not name.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(draw(name, value.shape)))
    torch.save(state, FOLDER / "s-6.half.pth")

    counter = torch.arange(24, dtype=torch.float32)
    dtypes = {
        str(dtype).removeprefix("torch."): torch.tensor([0, 1, 3]).to(dtype)
        for dtype in (
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
            *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        )
    }
    views = {
        "whole": counter,
        "shared": counter[6:18].view(3, 4),  # an offset into the same storage
        "transposed": counter.view(2, 3, 4).permute(2, 0, 1),
        "every_fifth": counter[1::5],
        "expanded": counter[7].expand(2, 3),
        "channels_last": counter.view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "number": torch.tensor(2.5),
        "none": torch.zeros(3, 0),
        "parameter": torch.nn.Parameter(torch.tensor([1.0, -2.0])),
        "brain": torch.tensor([[1.5, -2.0, 3e38]]).bfloat16().T,
    }
    state = {f"module.{name}": value for name, value in (dtypes | views).items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1).state_dict()
    metadata = {"epoch": 7, "loss": 0.25, "names": ["a", None, True], "optimizer": optimizer}
    torch.save({**metadata, "state_dict": state}, FOLDER / "training.pth")

    layer = torch.nn.Linear(2, 1)
    torch.save(layer, FOLDER / "module.pth")
    torch.save(layer.state_dict(), FOLDER / "old.pth", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(layer), FOLDER / "script.pt")
    for file in sorted(FOLDER.iterdir()):
        print(file.name, file.stat().st_size)


if __name__ == "__main__":
    main()
