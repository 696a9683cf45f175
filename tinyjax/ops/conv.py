"""One convolution behind every layer, lowered to the form that is fast on the platform it is
compiled for.

XLA's CPU back end has no fast path for depthwise kernels and a slow gradient for 1x1 ones: the
forms below are 10 to 40 and up to 5 times faster there (docs/performance.md). Elsewhere the library
call is kept.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """2-D convolution with symmetric zero padding k // 2, as torch's `Conv2d(k, stride, padding=k
    // 2)`.

    Args:
        x: [B, H, W, C], float.
        kernel: [k, k, C / groups, D], k odd, the same dtype as `x`.
        stride: of both axes.
        groups: feature groups; `groups == C == D` is a depthwise convolution.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), D] in the dtype of `x`.
    """
    return _by_platform(_forward, stride, groups)(x, kernel)


def _conv2d_fwd(x, kernel, stride, groups):
    return conv2d(x, kernel, stride, groups), (x, kernel)


def _conv2d_bwd(stride, groups, residuals, dy):
    return _by_platform(_backward, stride, groups)(*residuals, dy)


conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _by_platform(fn, stride: int, groups: int):
    """`fn(form, ...)` with the CPU's form or the library's, chosen when the program is lowered."""
    cpu = partial(fn, partial(_cpu, stride=stride, groups=groups), stride, groups, True)
    other = partial(fn, partial(_library, stride=stride, groups=groups), stride, groups, False)
    return lambda *args: lax.platform_dependent(*args, cpu=cpu, default=other)


def _forward(form, stride, groups, on_cpu, x, kernel):
    return form(x, kernel)


def _backward(form, stride, groups, on_cpu, x, kernel, dy):
    if on_cpu and _is_depthwise(x, kernel, groups):
        return _depthwise_input_grad(x, kernel, dy, stride), _depthwise_kernel_grad(
            x, kernel, dy, stride
        )
    return jax.vjp(form, x, kernel)[1](dy)


def _library(x, kernel, *, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2,
        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _cpu(x, kernel, *, stride, groups):
    if _is_depthwise(x, kernel, groups):
        return _depthwise(x, kernel, stride)
    if kernel.shape[:2] == (1, 1) and groups == 1:
        x = x[:, ::stride, ::stride]
        b, h, w, c = x.shape
        # b h w c -> (b h w) c: one large matrix product, which the batched form of einsum is not
        return (x.reshape(b * h * w, c) @ kernel[0, 0]).reshape(b, h, w, -1)
    return _library(x, kernel, stride=stride, groups=groups)


def _is_depthwise(x, kernel, groups):
    return kernel.shape[0] > 1 and groups == x.shape[3] == kernel.shape[3]


def _pad(x, half):
    return jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))


def _taps(padded, k, stride, height, width):
    """The k * k views of a padded [.., H, W, C] input that a k x k kernel's taps see, each [..,
    height, width, C].
    """
    for i in range(k):
        for j in range(k):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            yield padded[..., rows, columns, :]


def _depthwise(x, kernel, stride):
    """Sum over taps of shifted input times a weight per channel: k * k fused multiply-adds."""
    k, (height, width) = kernel.shape[0], (-(-side // stride) for side in x.shape[1:3])
    taps = _taps(_pad(x, k // 2), k, stride, height, width)
    return sum(tap * weight for tap, weight in zip(taps, kernel.reshape(k * k, -1), strict=True))


def _depthwise_input_grad(x, kernel, dy, stride):
    """The transposed convolution, one phase of the input grid at a time: row s * m + a meets only
    the taps t = a + k // 2 (mod s), in output row m + (a + k // 2 - t) / s. Spreading `dy` by the
    stride would multiply zeros.
    """
    k, half, (height, width) = kernel.shape[0], kernel.shape[0] // 2, dy.shape[1:3]
    padded = _pad(dy, half)

    def taps_of(phase):  # -> [(tap, first row of the padded dy)]
        return [
            (t, half + (phase + half - t) // stride)
            for t in range(k)
            if (phase + half - t) % stride == 0
        ]

    def phase(a, b):
        return sum(
            padded[:, top : top + height, left : left + width] * kernel[i, j, 0]
            for i, top in taps_of(a)
            for j, left in taps_of(b)
        )

    if stride == 1:
        return phase(0, 0)
    rows = [jnp.stack([phase(a, b) for b in range(stride)], 3) for a in range(stride)]
    dx = jnp.stack(rows, 2)  # b h a w b c -> b (h a) (w b) c
    dx = dx.reshape(dx.shape[0], height * stride, width * stride, dx.shape[-1])
    return dx[:, : x.shape[1], : x.shape[2]]


def _depthwise_kernel_grad(x, kernel, dy, stride):
    """k * k running products over the batch at full [H, W, C] resolution, then one sum over space.

    Reducing each product to [C] at once makes XLA:CPU walk memory by columns without vectorising: 3
    to 6 times slower.
    """
    k, (height, width, channels) = kernel.shape[0], dy.shape[1:]

    def add_image(sums, image):
        padded, dy = image
        return tuple(
            s + tap * dy
            for s, tap in zip(sums, _taps(padded, k, stride, height, width), strict=True)
        ), None

    wide = jnp.promote_types(x.dtype, jnp.float32)
    zeros = tuple(jnp.zeros((height, width, channels), wide) for _ in range(k * k))
    sums, _ = lax.scan(add_image, zeros, (_pad(x, k // 2), dy))
    return jnp.stack([s.sum((0, 1)) for s in sums]).reshape(kernel.shape).astype(kernel.dtype)
