"""A training step of visible-infrared recognition, compared with the same network in torch.

    python -m benchmarks.recognition [--rounds 9] [--net mobilenetv3/s-1 ..] [--size 288 144]

Networks with one path and with two stems (block 1 exists twice), 395 identities, batches of 64
images of 8 identities; GeM, BNNeck, cross-entropy and the four-way triplet loss, SGD with momentum.
First, both libraries compute the loss and the gradient of the same weights and images. Then steps
are timed: tinyjax runs its complete step (also gradient norm, clipping, EMA, divergence guard),
once without and once with its default augmentation, and torch runs forward, backward and SGD
without augmentation.
"""

import argparse
import multiprocessing
from typing import Any, NamedTuple

from benchmarks import timing, tinyjax_calls, torch_calls, torch_recognition
from benchmarks.common import IDENTITIES, IDENTITIES_PER_BATCH

NETS = ("mobilenetv3/large", "mobilenetv3/s-1")
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3  # absolute difference; relative difference


class Agreement(NamedTuple):
    """Loss and gradient norm in tinyjax and in torch, with the same weights and images."""

    loss: float
    torch_loss: float
    gradient_norm: float
    torch_gradient_norm: float


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--net", nargs="*", default=NETS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", nargs=2, type=int, default=(288, 144), metavar=("H", "W"))
    parser.add_argument("--formats", nargs="*", default=torch_calls.FORMATS)
    options = parser.parse_args(argv)
    batch, (height, width) = options.batch, options.size
    if batch % (2 * IDENTITIES_PER_BATCH):
        parser.error(f"--batch {batch}: give a multiple of {2 * IDENTITIES_PER_BATCH}")
    print(timing.describe_machine(*torch_calls.PACKAGES))
    print(
        f"recognition, batch {batch}, {height} x {width}, {IDENTITIES} identities; "
        "ratio: tinyjax / other"
    )
    print(timing.HEADER)
    for net in options.net:
        for path_blocks in (0, 1):
            compare(net, path_blocks, batch, (height, width), options.formats, options.rounds)


def compare(
    net: str, path_blocks: int, batch: int, size: tuple[int, int], formats: Any, rounds: int
) -> None:
    """Print whether both libraries agree on a network, then the times of a step."""
    title = f"{net.rpartition('/')[2]}, {'two stems' if path_blocks else 'one path'}"
    print(f"{title:<20}{check_agreement(net, path_blocks, batch, size)}", flush=True)
    setting = (net, path_blocks, batch, size)
    candidates: dict[str, timing.Candidate] = {
        "tinyjax": (tinyjax_calls.recognition_step, setting),
        "tinyjax augmented": (tinyjax_calls.recognition_step, (*setting, True)),
    }
    for format_ in formats:
        torch_setting = (net, bool(path_blocks), batch, size, format_)
        candidates[f"torch {format_}"] = (torch_recognition.torch_step, torch_setting)
    timing.print_comparison(title, candidates, rounds)


def check_agreement(net: str, path_blocks: int, batch: int, size: tuple[int, int]) -> str:
    """Describe the agreement, or say which package is missing. Exits if losses or gradients differ:
    the networks are then not the same.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # jax's memory ends with its process
        try:
            result = pool.apply(measure_agreement, (net, path_blocks, batch, size))
        except ImportError as error:
            return f"not compared: {error}"
    difference = abs(result.loss - result.torch_loss)
    ratio = result.gradient_norm / result.torch_gradient_norm
    text = (
        f"loss {result.loss:.5f}, torch {result.torch_loss:.5f}, difference {difference:.1e}; "
        f"ratio of gradient norms {ratio:.5f}"
    )
    if not (difference < LOSS_TOLERANCE and abs(ratio - 1) < GRADIENT_TOLERANCE):
        raise SystemExit(f"{net}: the networks are not the same: {text}")
    return text


def measure_agreement(net: str, path_blocks: int, batch: int, size: tuple[int, int]) -> Agreement:
    """Compute loss and gradient of torch's weights and the first batch in both libraries."""
    network = torch_recognition.recognizer(net, bool(path_blocks))
    import jax
    import torch

    from tinyjax.core import Weights, pack

    step, state, data, hyper = tinyjax_calls.make_recognition_step(
        net, path_blocks, batch, size, augmented=False
    )
    arrays = convert_weights(network, net, path_blocks)
    current = state.weights
    params, stats = (
        pack({path: arrays.pop(path).reshape(shape) for path, shape in packed.shapes})
        for packed in (current.params, current.stats)
    )
    if arrays:
        raise ValueError(f"torch's network has weights that ours lacks: {', '.join(arrays)}")
    _, metrics = jax.jit(step)(state._replace(weights=Weights(params, stats)), data, hyper)

    loss = torch_recognition.make_loss(network, batch, size, torch.contiguous_format)()
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.requires_grad]
    norm = torch.nn.utils.get_total_norm(gradients)
    return Agreement(
        float(metrics["loss"]), loss.item(), float(metrics["gradient_norm"]), norm.item()
    )


def convert_weights(network: Any, net: str, path_blocks: int) -> dict[str, Any]:
    """Return the weights of `torch_recognition.recognizer` by the paths of our network."""
    from tinyjax import models
    from tinyjax.models.path_blocks import INFRARED_PREFIX, block_of
    from tinyjax.transfer.pretrained import convert_state_dict

    def features(module):
        return {f"features.{name}": x.numpy() for name, x in module.state_dict().items()}

    visible = features(network.features)
    converted, *_ = convert_state_dict(visible, net)
    arrays = {f"backbone/{path}": x for path, x in converted.items()}
    if path_blocks:
        converted, *_ = convert_state_dict(visible | features(network.infrared), net)
        arch = models.architecture(net)
        arrays |= {
            f"backbone/{INFRARED_PREFIX}{path}": x
            for path, x in converted.items()
            if block_of(path, arch) <= path_blocks
        }
    neck = {name: x.numpy() for name, x in network.neck.state_dict().items()}
    return arrays | {
        "neck_bn/scale": neck["weight"],
        "neck_bn/mean": neck["running_mean"],
        "neck_bn/var": neck["running_var"],
        "classifier/kernel": network.classifier.weight.detach().numpy().T,
    }


if __name__ == "__main__":
    main()
