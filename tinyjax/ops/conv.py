"""One convolution behind every layer, lowered to the form that is fast on the platform it is
compiled for.

XLA's CPU back end has no fast path for depthwise kernels, for kernels that are mapped over members
of a population, and for many a gradient: the forms below are up to 40 times faster there
(docs/performance.md). Elsewhere the library call is kept.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap


# custom_vjp is outside, choice of platform and custom_vmap inside: the other nesting fails.
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
    other = partial(_library, stride=stride, groups=groups)
    return lax.platform_dependent(
        x, kernel, cpu=partial(_cpu, stride=stride, groups=groups), default=other
    )


def _conv2d_fwd(x, kernel, stride, groups):
    return conv2d(x, kernel, stride, groups), (x, kernel)


def _conv2d_bwd(stride, groups, residuals, dy):
    def other(x, kernel, dy):
        return jax.vjp(partial(_library, stride=stride, groups=groups), x, kernel)[1](dy)

    cpu = partial(_cpu_gradients, stride=stride, groups=groups)
    return lax.platform_dependent(*residuals, dy, cpu=cpu, default=other)


conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _library(x, kernel, *, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2,
        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


FEW = 4  # channels of a picture, at most

# ---- CPU: which form


def _cpu(x, kernel, *, stride, groups):
    if _is_depthwise(x, kernel, groups):
        return _depthwise(x, kernel, stride)
    if groups > 1:
        form = partial(_cpu, stride=stride, groups=1)
        return _merge(jax.vmap(form)(_split(x, groups), _split(kernel, groups)))
    if kernel.shape[:2] == (1, 1):
        return _pointwise(x[:, ::stride, ::stride], kernel)
    return _dense(x, kernel, stride)


def _cpu_gradients(x, kernel, dy, *, stride, groups):
    if _is_depthwise(x, kernel, groups):
        dx = _depthwise_input_grad(x, kernel, dy, stride)
        return dx, _depthwise_kernel_grad(x, kernel, dy, stride)
    if groups > 1:
        form = partial(_cpu_gradients, stride=stride, groups=1)
        parts = jax.vmap(form)(*(_split(array, groups) for array in (x, kernel, dy)))
        return tuple(map(_merge, parts))
    if kernel.shape[:2] == (1, 1):
        return jax.vjp(partial(_cpu, stride=stride, groups=1), x, kernel)[1](dy)
    return _dense_input_grad(x, kernel, dy, stride), _dense_kernel_grad(x, kernel, dy, stride)


def _is_depthwise(x, kernel, groups):
    return kernel.shape[0] > 1 and groups == x.shape[3] == kernel.shape[3]


def _split(array, groups):
    # .. (g c) -> g .. c: groups are mapped over, as members of a population are
    return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, -1), -2, 0)


def _merge(array):
    array = jnp.moveaxis(array, 0, -2)  # g .. c -> .. (g c)
    return array.reshape(*array.shape[:-2], -1)


def _pad(x, half):
    return jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))


def _taps(padded, k, stride, height, width):
    """The k * k views of a padded [B, H, W, C] input that a k x k kernel's taps see, each [B,
    height, width, C].
    """
    for i in range(k):
        for j in range(k):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            yield padded[:, rows, columns]


# ---- 1 x 1, and dense


def _pointwise(x, kernel):
    b, h, w, c = x.shape
    # b h w c -> (b h w) c: one large matrix product, which the batched form of einsum is not
    return (x.reshape(b * h * w, c) @ kernel[0, 0]).reshape(b, h, w, -1)


def _dense(x, kernel, stride):
    """Of few channels, as an image has, shifted multiply-adds; else the library's.

    Where that is mapped over members of a population, it is a loop: a batch of them with kernels of
    their own would be a grouped one, its slow path.
    """
    k, (height, width) = kernel.shape[0], (-(-side // stride) for side in x.shape[1:3])
    if x.shape[3] <= FEW:
        taps = _taps(_pad(x, k // 2), k, stride, height, width)
        return sum(
            tap[..., c : c + 1] * weight[c]
            for tap, weight in zip(taps, kernel.reshape(k * k, *kernel.shape[2:]), strict=True)
            for c in range(x.shape[3])
        )
    alone = custom_vmap(partial(_library, stride=stride, groups=1))

    @alone.def_vmap
    def _members(size, mapped, *arrays):
        arrays = tuple(
            array if has else jnp.broadcast_to(array, (size, *array.shape))
            for array, has in zip(arrays, mapped, strict=True)
        )
        return lax.map(lambda member: alone(*member), arrays), True

    return alone(x, kernel)


def _dense_input_grad(x, kernel, dy, stride):
    """The same convolution of `dy`, spread by the stride, with the kernel turned over."""
    _, height, width, _ = x.shape
    ends = [
        side - (n - 1) * stride - 1 for side, n in zip((height, width), dy.shape[1:3], strict=True)
    ]
    spread = ((0, 0, 0), *((0, end, stride - 1) for end in ends), (0, 0, 0))
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), spread)
    return _dense(dy, kernel[::-1, ::-1].swapaxes(2, 3), 1)


def _dense_kernel_grad(x, kernel, dy, stride):
    """A matrix product for each row of the kernel, of the windows' rows with `dy`."""
    k, (b, height, width, d) = kernel.shape[0], dy.shape
    taps = [*_taps(_pad(x, k // 2), k, stride, height, width)]
    rows = (jnp.concatenate(taps[i * k : i * k + k], -1) for i in range(k))
    dy = dy.reshape(b * height * width, d)
    # b h w (j c), b h w d -> (j c) d, for each i
    return jnp.stack([row.reshape(len(dy), -1).T @ dy for row in rows]).reshape(kernel.shape)


# ---- depthwise


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
    """All k * k sums in one pass over the input and `dy`, in float32 at least.

    The sums run over the batch first where there is space enough to share among threads; else over
    everything at once.
    """
    k, (_, height, width, channels) = kernel.shape[0], dy.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    taps = _taps(_pad(x, k // 2), k, stride, height, width)
    products = [(tap * dy).astype(wide) for tap in taps]
    axes = (0,) if k == 3 else (0, 1, 2)
    zeros = [jnp.zeros((), wide)] * len(products)
    sums = lax.reduce(
        products, zeros, lambda a, b: [s + t for s, t in zip(a, b, strict=True)], axes
    )
    sums = [s.reshape(-1, channels).sum(0) for s in sums]
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
