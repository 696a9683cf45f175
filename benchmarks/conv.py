"""Speed of `ops.conv.conv2d` relative to XLA's convolution: forward pass, forward pass with both
gradients, and the same vmapped over 8 members.

    python -m benchmarks.conv

The two are timed in turn; times are medians of 7 rounds. Sizes are those of a MobileNetV3-Small
detector on windows of 144 x 144, batch 16, plus a dense and a grouped 3 x 3 convolution.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import timing
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
MODES = ("forward", "with gradients", "8 members")


def main():
    runtime.tune_allocator()
    print(timing.describe_machine())
    print("ms, and the speedup over XLA; 8 members: gradients of all of them, vmapped")
    print(f"{'size':<28}" + "".join(f"{mode:>15}{'XLA':>10}{'x':>6}" for mode in MODES))
    for size in SIZES:
        side, c, d, k, stride, groups = size
        form = "depthwise" if groups == c > 1 else "grouped" if groups > 1 else "dense"
        form = "pointwise" if k == 1 else form
        row = f"{f'{form} {k}x{k}/{stride} {side}x{side} {c}->{d}':<28}"
        seconds = median_seconds(make_calls(*size))
        for mode in MODES:
            ms, xla_ms = 1e3 * seconds[mode, "tinyjax"], 1e3 * seconds[mode, "XLA"]
            row += f"{ms:>15.2f}{xla_ms:>10.2f}{xla_ms / ms:>6.1f}"
        print(row, flush=True)


def xla_conv(x, kernel, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2,
        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def make_calls(side, c, d, k, stride, groups):
    """Return (mode, "tinyjax" or "XLA") -> compiled call, on the same random data."""
    rng = np.random.default_rng(0)
    shapes = (16, side, side, c), (k, k, c // groups, d)
    stacked = [jnp.asarray(rng.normal(size=(MEMBERS, *shape)), jnp.float32) for shape in shapes]
    single = [array[0] for array in stacked]
    calls = {}
    for name, conv in (("tinyjax", conv2d), ("XLA", xla_conv)):

        def forward(x, kernel, conv=conv):
            return conv(x, kernel, stride, groups)

        def gradients(x, kernel, forward=forward):
            if c == 1:  # an image, whose gradient is not needed
                y, vjp = jax.vjp(lambda kernel: forward(x, kernel), kernel)
            else:
                y, vjp = jax.vjp(forward, x, kernel)
            return vjp(y)

        functions = (forward, single), (gradients, single), (jax.vmap(gradients), stacked)
        for mode, (function, arrays) in zip(MODES, functions, strict=True):
            compiled = jax.jit(function).lower(*arrays).compile()

            def call(compiled=compiled, arrays=arrays):
                jax.block_until_ready(compiled(*arrays))

            calls[mode, name] = call
    return calls


def median_seconds(calls):
    """Return the median seconds of each call over the rounds, after one warm-up round."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(1 + ROUNDS):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    return {key: statistics.median(times[1:]) for key, times in seconds.items()}


if __name__ == "__main__":
    main()
