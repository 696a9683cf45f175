"""Values and gradients of attention and resizing in torch, for test_attention.py and test_fdr.py.

Run as `python -m tests.recognition.make_references` with torch 2.13.0. The modules are our own
torch code after the papers. Inputs and weights are not stored: both sides draw them by name.
"""

import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "references" / "torch.attention.npz"
SHAPE, GROUPS = (2, 5, 4, 32), 4  # of the map, NHWC, and of shuffle attention
REDUCED = 2  # channels of CBAM's hidden layer, 1/16
STRIPES = {"rows": (9, 6), "columns": (5, 3), "few": (2, 3)}  # size of the side, stripes


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float64 values that depend on name and shape only."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def shuffle_params() -> dict[str, np.ndarray]:
    names = ("channel_scale", "channel_bias", "norm_scale", "norm_bias")
    names += ("spatial_scale", "spatial_bias")
    return {name: draw(name, (SHAPE[-1] // (2 * GROUPS),)) for name in names}


def cbam_params() -> dict[str, np.ndarray]:
    """Arrays by path, in our layout."""
    c = SHAPE[-1]
    shapes = {
        "reduce/kernel": (c, REDUCED), "reduce/bias": (REDUCED,),
        "expand/kernel": (REDUCED, c), "expand/bias": (c,), "kernel": (7, 7, 2, 1),
    }  # fmt: skip
    return {path: 0.3 * draw(path, shape) for path, shape in shapes.items()}


def main() -> None:
    import torch
    import torch.nn.functional as F

    def shuffle_attention(x, p, shuffle):
        b, c, height, width = x.shape
        x = x.reshape(b * GROUPS, c // GROUPS, height, width)
        first, second = x.chunk(2, dim=1)
        p = {name: value.reshape(1, -1, 1, 1) for name, value in p.items()}
        means = F.adaptive_avg_pool2d(first, 1)
        first = first * torch.sigmoid(p["channel_scale"] * means + p["channel_bias"])
        normalized = F.group_norm(
            second, second.shape[1], p["norm_scale"].ravel(), p["norm_bias"].ravel()
        )
        second = second * torch.sigmoid(p["spatial_scale"] * normalized + p["spatial_bias"])
        y = torch.cat([first, second], 1).reshape(b, c, height, width)
        return F.channel_shuffle(y, 2) if shuffle else y

    def cbam(x, p):
        def gate(vector):
            hidden = F.relu(vector @ p["reduce/kernel"] + p["reduce/bias"])
            return hidden @ p["expand/kernel"] + p["expand/bias"]

        channels = gate(x.mean((2, 3))) + gate(F.adaptive_max_pool2d(x, 1)[:, :, 0, 0])
        x = x * torch.sigmoid(channels)[:, :, None, None]
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
        return x * torch.sigmoid(F.conv2d(maps, p["kernel"].permute(3, 2, 0, 1), padding=3))

    def resize(x, stripes, mode):
        pooled = F.adaptive_avg_pool2d(x, (stripes, 1))
        options = {"align_corners": False} if mode == "bilinear" else {}
        return F.interpolate(pooled, size=x.shape[2:], mode=mode, **options)

    def tensor(array):
        return torch.from_numpy(array).requires_grad_()

    arrays = {}

    def store(name, function, shape, params):
        x, tensors = tensor(draw("x", shape)), {path: tensor(a) for path, a in params.items()}
        y = function(x.permute(0, 3, 1, 2), tensors).permute(0, 2, 3, 1)
        (y * torch.from_numpy(draw("dy", shape))).sum().backward()
        arrays[f"{name}.y"], arrays[f"{name}.dx"] = y.detach().numpy(), x.grad.numpy()
        arrays.update({f"{name}.d{path}": t.grad.numpy() for path, t in tensors.items()})

    store("shuffle", lambda x, p: shuffle_attention(x, p, True), SHAPE, shuffle_params())
    store("grouped", lambda x, p: shuffle_attention(x, p, False), SHAPE, shuffle_params())
    store("cbam", cbam, SHAPE, cbam_params())
    for name, (size, stripes) in STRIPES.items():
        for mode in ("bilinear", "nearest"):
            store(
                f"{name}.{mode}",
                lambda x, p, stripes=stripes, mode=mode: resize(x, stripes, mode),
                (2, size, 4, 3),
                {},
            )
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
