"""LightCNN in torch, with the names of its authors' state dicts; no library contains it.

The layers, their order and their names are those of light_cnn.py in AlfredXiangWu/LightCNN.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = (48, 96, 192, 128, 128)  # of the stem and of the four groups


class MaxFeatureMap(nn.Module):
    def __init__(self, filter: nn.Module):
        super().__init__()
        self.filter = filter

    def forward(self, x):
        return torch.maximum(*self.filter(x).chunk(2, dim=1))


class Pool(nn.Module):
    def __init__(self, add_mean: bool):
        super().__init__()
        self.add_mean = add_mean

    def forward(self, x):
        y = F.max_pool2d(x, 2, ceil_mode=True)
        return y + F.avg_pool2d(x, 2) if self.add_mean else y


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = conv(width, width, 3), conv(width, width, 3)

    def forward(self, x):
        return x + self.conv2(self.conv1(x))


class Group(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv_a, self.conv = conv(inputs, inputs, 1), conv(inputs, outputs, 3)

    def forward(self, x):
        return self.conv(self.conv_a(x))


class LightCNN(nn.Module):
    """Variant "9", "29" or "29v2": images [B, 1, 128, 128] -> logits [B, classes]."""

    def __init__(self, variant: str, classes: int):
        super().__init__()
        version2 = variant == "29v2"
        layers: dict[str, Any] = {"conv1": conv(1, WIDTHS[0], 5)}
        for n in range(1, 5):
            if n < 4:
                layers[f"pool{n}"] = Pool(version2)
            if variant != "9":
                layers[f"block{n}"] = nn.Sequential(*(Residual(WIDTHS[n - 1]) for _ in range(n)))
            layers[f"group{n}"] = Group(WIDTHS[n - 1], WIDTHS[n])
        layers["pool4"] = Pool(version2)
        self.sequence = [*layers.values()]  # a list, so that torch does not name its entries
        if variant == "9":
            self.features = nn.Sequential(*layers.values())
        else:
            for name, layer in layers.items():
                setattr(self, name, layer)
        linear = nn.Linear(8 * 8 * WIDTHS[-1], 256 if version2 else 512)
        hidden = linear if version2 else MaxFeatureMap(linear)
        self.hidden_name = "fc1" if variant == "9" else "fc"
        setattr(self, self.hidden_name, hidden)
        self.fc2 = nn.Linear(256, classes, bias=not version2)

    def levels(self) -> list[nn.Module]:
        return self.sequence

    def forward(self, x):
        for layer in self.sequence:
            x = layer(x)
        return self.fc2(getattr(self, self.hidden_name)(x.flatten(1)))


def conv(inputs: int, outputs: int, size: int) -> nn.Module:
    return MaxFeatureMap(nn.Conv2d(inputs, 2 * outputs, size, padding=size // 2))
