"""Ratios of `ops.conv.conv2d` to XLA's own convolution, forward and with both gradients.

    python -m benchmarks.conv

Contestants alternate; a figure is the median of 15 rounds. Sizes are those of a MobileNetV3-Small
detector on windows of 144 x 144, batch 16.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tinyjax.ops.conv import conv2d

ROUNDS = 15
SIZES = [  # height and width, channels in, out, kernel, stride, groups
    (144, 1, 16, 3, 2, 1),
    (72, 16, 16, 3, 2, 16),
    (36, 16, 48, 1, 1, 1),
    (36, 48, 48, 3, 2, 48),
    (36, 32, 32, 3, 1, 32),
    (18, 64, 24, 1, 1, 1),
    (9, 200, 200, 5, 2, 200),
    (5, 392, 392, 5, 1, 392),
]


def library(x, kernel, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(half, half)] * 2,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def contestants(side, c, d, k, stride, groups):
    """(name -> compiled call), forward and with gradients, on the same random data."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(16, side, side, c)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(k, k, c // groups, d)), jnp.float32)
    calls = {}
    for name, conv in (("ours", conv2d), ("library", library)):

        def forward(x, kernel, conv=conv):
            return conv(x, kernel, stride, groups)

        def gradients(x, kernel, forward=forward):
            y, back = jax.vjp(forward, x, kernel)
            return back(y)

        for what, fn in (("forward", forward), ("with gradients", gradients)):
            compiled = jax.jit(fn).lower(x, kernel).compile()
            calls[what, name] = lambda compiled=compiled: jax.block_until_ready(compiled(x, kernel))
    return calls


def medians(calls):
    """Seconds, name -> median over the rounds."""
    times: dict[tuple[str, str], list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def main():
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}; ms, and how many times faster")
    print(f"{'size':<28}{'forward':>9}{'library':>9}{'x':>7}{'grads':>9}{'library':>9}{'x':>7}")
    for size in SIZES:
        side, c, d, k, stride, groups = size
        kind = "depthwise" if groups > 1 else "dense" if k > 1 else "pointwise"
        row = f"{kind} {k}x{k}/{stride} {side}x{side} {c}->{d}"
        t = medians(contestants(*size))
        for what in ("forward", "with gradients"):
            ours, theirs = 1e3 * t[what, "ours"], 1e3 * t[what, "library"]
            row = f"{row:<28}" if what == "forward" else row
            row += f"{ours:>9.2f}{theirs:>9.2f}{theirs / ours:>7.1f}"
        print(row)


if __name__ == "__main__":
    main()
