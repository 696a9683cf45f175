"""Ratios of `ops.conv.conv2d` to XLA's own convolution: forward, with both gradients, and with both
gradients of 8 members that are vmapped.

    python -m benchmarks.conv

Contestants alternate; a figure is the median of 7 rounds. Sizes are those of a MobileNetV3-Small
detector on windows of 144 x 144, batch 16, and a dense and a grouped 3 x 3.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import contest
from tinyjax.ops.conv import conv2d
from tinyjax.run import runtime

ROUNDS, MEMBERS = 7, 8
SIZES = [  # height and width, channels in, out, kernel, stride, groups
    (144, 1, 16, 3, 2, 1),
    (72, 16, 16, 3, 2, 16),
    (36, 16, 48, 1, 1, 1),
    (36, 48, 48, 3, 2, 48),
    (36, 32, 32, 3, 1, 32),
    (36, 32, 32, 3, 1, 1),
    (36, 32, 32, 3, 1, 4),
    (18, 64, 24, 1, 1, 1),
    (9, 200, 200, 5, 2, 200),
    (5, 392, 392, 5, 1, 392),
]
WAYS = ("forward", "with gradients", "8 members")


def main():
    runtime.tune_allocator()
    print(contest.machine())
    print("ms, and how many times faster; of 8 members the gradients of all of them, vmapped")
    print(f"{'size':<28}" + "".join(f"{way:>15}{'library':>10}{'x':>6}" for way in WAYS))
    for size in SIZES:
        side, c, d, k, stride, groups = size
        kind = "depthwise" if groups == c > 1 else "grouped" if groups > 1 else "dense"
        kind = "pointwise" if k == 1 else kind
        row = f"{f'{kind} {k}x{k}/{stride} {side}x{side} {c}->{d}':<28}"
        times = medians(contestants(*size))
        for way in WAYS:
            ours, theirs = 1e3 * times[way, "ours"], 1e3 * times[way, "library"]
            row += f"{ours:>15.2f}{theirs:>10.2f}{theirs / ours:>6.1f}"
        print(row, flush=True)


def library(x, kernel, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2,
        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def contestants(side, c, d, k, stride, groups):
    """(way, name) -> compiled call, on the same random data."""
    rng = np.random.default_rng(0)
    shapes = (16, side, side, c), (k, k, c // groups, d)
    many = [jnp.asarray(rng.normal(size=(MEMBERS, *shape)), jnp.float32) for shape in shapes]
    one = [array[0] for array in many]
    calls = {}
    for name, conv in (("ours", conv2d), ("library", library)):

        def forward(x, kernel, conv=conv):
            return conv(x, kernel, stride, groups)

        def gradients(x, kernel, forward=forward):
            if c == 1:  # of an image, which has no gradient
                y, back = jax.vjp(lambda kernel: forward(x, kernel), kernel)
            else:
                y, back = jax.vjp(forward, x, kernel)
            return back(y)

        functions = (forward, one), (gradients, one), (jax.vmap(gradients), many)
        for way, (function, arrays) in zip(WAYS, functions, strict=True):
            compiled = jax.jit(function).lower(*arrays).compile()

            def call(compiled=compiled, arrays=arrays):
                jax.block_until_ready(compiled(*arrays))

            calls[way, name] = call
    return calls


def medians(calls):
    """Seconds, name -> median over the rounds, of which a first one is not counted."""
    times: dict[tuple[str, str], list[float]] = {name: [] for name in calls}
    for _ in range(1 + ROUNDS):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


if __name__ == "__main__":
    main()
