"""Visible-infrared recognition in torch: the network, losses and step of
`tinyjax_calls.recognition_step`.

All functions raise ImportError if a package is missing; the message tells what to install.
"""

import os
from collections.abc import Callable
from typing import Any

from benchmarks.common import IDENTITIES, MARGIN, random_pairs
from benchmarks.torch_calls import import_torchvision

STEM = 2  # modules of `features` in TOPLight's block 1: the first convolution, the first block


def recognizer(net: str, two_stems: bool) -> Any:
    """Build the network, images [B, 3, H, W] -> (pooled [B, D], logits [B, IDENTITIES]).

    net: "mobilenetv3/large", or one of our ladder, "mobilenetv3/s-1". two_stems: the second half of
    a batch has its own block 1, `infrared`.
    """
    torchvision = import_torchvision()
    import torch
    from torchvision.models import mobilenetv3

    def features():
        variant = net.rpartition("/")[2]
        if variant == "large":
            return torchvision.models.mobilenet_v3_large().features
        width = 1.46 ** -int(variant.removeprefix("s-"))
        conf = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=width)
        return torchvision.models.MobileNetV3(*conf).features

    class Recognizer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = features()
            self.infrared = features()[:STEM] if two_stems else None
            width = self.features[-1].out_channels
            self.neck = torch.nn.BatchNorm1d(width)
            self.neck.bias.requires_grad_(False)
            self.classifier = torch.nn.Linear(width, IDENTITIES, bias=False)

        def forward(self, x):
            if self.infrared is None:
                x = self.features(x)
            else:
                visible, infrared = x.chunk(2)
                x = torch.cat([self.features[:STEM](visible), self.infrared(infrared)])
                x = self.features[STEM:](x)
            pooled = x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)  # GeM
            return pooled, self.classifier(self.neck(pooled))

    torch.manual_seed(0)
    return Recognizer()


def four_way_triplet(features: Any, labels: Any) -> Any:
    """The mean of four batch-hard losses, as `tinyjax.recognition.triplets.four_way_triplet`."""
    import torch

    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    infrared = torch.arange(len(labels)) >= len(labels) // 2
    same_identity = labels[:, None] == labels
    same_modality = infrared[:, None] == infrared
    loss = torch.zeros(())
    for mask in (same_modality, ~same_modality):
        furthest = distance.masked_fill(~(same_identity & mask), -torch.inf).max(1).values
        closest = distance.masked_fill(same_identity | ~mask, torch.inf).min(1).values
        loss = loss + torch.relu(furthest - closest + MARGIN).mean()
    return loss / 2


def make_loss(model: Any, batch: int, size: tuple[int, int], layout: Any) -> Callable[[], Any]:
    """Return a function of the loss of random images, which it converts from uint8."""
    import torch

    from tinyjax.data.augmentation import MEAN, STD

    images, labels = (torch.from_numpy(array) for array in random_pairs(batch, size))
    labels = labels.long()

    def loss():
        # b h w c -> b c h w
        x = ((images.permute(0, 3, 1, 2) / 255 - MEAN) / STD).contiguous(memory_format=layout)
        pooled, logits = model(x)
        return torch.nn.functional.cross_entropy(logits, labels) + four_way_triplet(pooled, labels)

    return loss


def torch_step(
    net: str, two_stems: bool, batch: int, size: tuple[int, int], format_: str
) -> Callable[[], Any]:
    """Build a call of one step of SGD with momentum and weight decay, with as many threads as
    tinyjax has, one per core. format_: see `torch_calls.torch_step`.
    """
    model = recognizer(net, two_stems)
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)  # as XLA does
    layout = torch.contiguous_format if format_ == "contiguous" else torch.channels_last
    model = model.to(memory_format=layout)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.01, 0.9, weight_decay=5e-4)
    compiled = torch.compile(model) if format_ == "compiled" else model
    loss_of_batch = make_loss(compiled, batch, size, layout)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of_batch()
        loss.backward()
        optimizer.step()
        return loss.item()

    step()  # compiles the model if it is to be compiled
    return step
