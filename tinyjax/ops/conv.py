"""The convolution of all layers; it has a faster implementation for CPU.

XLA's CPU backend is slow for depthwise kernels, for kernels that are vmapped over the members of a
population, and for many gradients. The CPU functions below are up to 40 times faster
(docs/performance.md). Other platforms use XLA's convolution.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap


# custom_vjp must wrap platform_dependent and custom_vmap: the reverse order fails.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """2-D convolution with zero padding k // 2 on every side, as in torch's `Conv2d`.

    Args:
        x: [B, H, W, C], float.
        kernel: [k, k, C / groups, D], k odd, the same dtype as `x`.
        stride: stride of both axes.
        groups: number of feature groups; `groups == C == D` is a depthwise convolution.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), D] in the dtype of `x`.
    """
    default = partial(_xla_conv, stride=stride, groups=groups)
    cpu = partial(_cpu_conv, stride=stride, groups=groups)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _conv2d_fwd(x, kernel, stride, groups):
    return conv2d(x, kernel, stride, groups), (x, kernel)


def _conv2d_bwd(stride, groups, residuals, dy):
    def default(x, kernel, dy):
        return jax.vjp(partial(_xla_conv, stride=stride, groups=groups), x, kernel)[1](dy)

    cpu = partial(_cpu_gradients, stride=stride, groups=groups)
    return lax.platform_dependent(*residuals, dy, cpu=cpu, default=default)


conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _xla_conv(x, kernel, *, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2,
        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


@jax.jit  # a call that exports know by its name
def patch_conv(x: Array, kernel: Array) -> Array:
    """Convolution whose stride is the kernel's size: one matrix product of all patches.

    Args:
        x: [B, H, W, C], float; padded with zeros at the bottom and right to a multiple of k.
        kernel: [k, k, C, D], the same dtype as `x`.

    Returns:
        [B, ceil(H / k), ceil(W / k), D] in the dtype of `x`.
    """
    k, _, c, d = kernel.shape
    b, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % k), (0, -width % k), (0, 0)))
    rows, columns = x.shape[1] // k, x.shape[2] // k
    patches = x.reshape(b, rows, k, columns, k, c).swapaxes(2, 3)  # b h i w j c -> b h w i j c
    y = patches.reshape(b * rows * columns, k * k * c) @ kernel.reshape(k * k * c, d)
    return y.reshape(b, rows, columns, d)


MAX_IMAGE_CHANNELS = 4  # inputs with more channels are not treated as images in `_dense`
MIN_STEM_FEATURES = 32  # outputs of a stem larger than 3 x 3 that XLA computes faster
MIN_LOOP = 7  # smallest depthwise kernel that is applied `_by_halves`
SUMMED_IMAGES = 8  # at a time, in the gradient of a depthwise kernel

# ---- CPU: dispatch by kernel


def _cpu_conv(x, kernel, *, stride, groups):
    if _is_depthwise(x, kernel, groups):
        return _depthwise(x, kernel, stride)
    if groups > 1:
        conv = partial(_cpu_conv, stride=stride, groups=1)
        return _merge_groups(
            jax.vmap(conv)(_split_groups(x, groups), _split_groups(kernel, groups))
        )
    if kernel.shape[:2] == (1, 1):
        return _pointwise(x[:, ::stride, ::stride], kernel)
    return _dense(x, kernel, stride)


def _cpu_gradients(x, kernel, dy, *, stride, groups):
    if _is_depthwise(x, kernel, groups):
        dx = _depthwise_input_grad(x, kernel, dy, stride)
        return dx, _depthwise_kernel_grad(x, kernel, dy, stride)
    if groups > 1:
        gradients = partial(_cpu_gradients, stride=stride, groups=1)
        grouped = jax.vmap(gradients)(*(_split_groups(array, groups) for array in (x, kernel, dy)))
        return tuple(map(_merge_groups, grouped))
    if kernel.shape[:2] == (1, 1):
        return jax.vjp(partial(_cpu_conv, stride=stride, groups=1), x, kernel)[1](dy)
    return _dense_input_grad(x, kernel, dy, stride), _dense_kernel_grad(x, kernel, dy, stride)


def _is_depthwise(x, kernel, groups):
    return kernel.shape[0] > 1 and groups == x.shape[3] == kernel.shape[3]


def _split_groups(array, groups):
    # .. (g c) -> g .. c: groups are vmapped over, like members of a population
    return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, -1), -2, 0)


def _merge_groups(array):
    array = jnp.moveaxis(array, 0, -2)  # g .. c -> .. (g c)
    return array.reshape(*array.shape[:-2], -1)


def _pad(x, half):
    return jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))


def shifted_taps(padded, k, stride, height, width):
    """Yield, for each of the k * k kernel positions, the slice [B, height, width, C] of the padded
    input that this position is multiplied with.
    """
    for i in range(k):
        for j in range(k):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            yield padded[:, rows, columns]


def sum_of_taps(tap_grad, k, stride, input_shape, output_shape):
    """Sum the gradients of an input over the k * k taps, for one phase of its grid at a time.

    Input row s * m + a (stride s, phase a) receives gradients only through the taps
    t = a + k // 2 (mod s), from output row m + (a + k // 2 - t) / s. Dilating the outputs'
    gradient by the stride, the alternative, wastes operations on zeros.

    Args:
        tap_grad: function of tap i, j and the window of the outputs, padded by k // 2; it returns
            the gradient [B, h, w, C] through this tap.
        input_shape, output_shape: [B, H, W, C] and [B, h, w, D].
    """
    half, (height, width) = k // 2, output_shape[1:3]

    def taps_of_phase(phase):  # -> [(tap, first row of the padded outputs)]
        return [
            (t, half + (phase + half - t) // stride)
            for t in range(k)
            if (phase + half - t) % stride == 0
        ]

    def phase_grad(a, b):
        return sum(
            tap_grad(i, j, np.s_[:, top : top + height, left : left + width])
            for i, top in taps_of_phase(a)
            for j, left in taps_of_phase(b)
        )

    if stride == 1:
        return phase_grad(0, 0)
    rows = [jnp.stack([phase_grad(a, b) for b in range(stride)], 3) for a in range(stride)]
    dx = jnp.stack(rows, 2)  # b h a w b c -> b (h a) (w b) c
    dx = dx.reshape(dx.shape[0], height * stride, width * stride, dx.shape[-1])
    return dx[:, : input_shape[1], : input_shape[2]]


# ---- 1 x 1, and dense


def _pointwise(x, kernel):
    b, h, w, c = x.shape
    # b h w c -> (b h w) c: one large product; einsum would compute a batch of small ones
    return (x.reshape(b * h * w, c) @ kernel[0, 0]).reshape(b, h, w, -1)


def _dense(x, kernel, stride):
    """Shifted multiply-adds if the input has few channels, as images do; else XLA's convolution.

    XLA also computes the stem of a ResNet, 7 x 7 to 64 features: multiply-adds take twice the time.
    Vmap over members turns XLA's convolution into a loop. By default, vmap would make it a grouped
    convolution, which is slow in XLA.
    """
    k, (height, width) = kernel.shape[0], (-(-side // stride) for side in x.shape[1:3])
    if x.shape[3] <= MAX_IMAGE_CHANNELS and (k == 3 or kernel.shape[3] < MIN_STEM_FEATURES):
        taps = shifted_taps(_pad(x, k // 2), k, stride, height, width)
        return sum(
            tap[..., c : c + 1] * weight[c]
            for tap, weight in zip(taps, kernel.reshape(k * k, *kernel.shape[2:]), strict=True)
            for c in range(x.shape[3])
        )
    conv = custom_vmap(partial(_xla_conv, stride=stride, groups=1))

    @conv.def_vmap
    def _loop_over_members(size, batched, *arrays):
        arrays = tuple(
            array if is_batched else jnp.broadcast_to(array, (size, *array.shape))
            for array, is_batched in zip(arrays, batched, strict=True)
        )
        return lax.map(lambda member_arrays: conv(*member_arrays), arrays), True

    return conv(x, kernel)


def _dense_input_grad(x, kernel, dy, stride):
    """Convolve `dy` with the flipped and transposed kernel; with a stride, one matrix product for
    each tap. In XLA's convolution of `dy`, dilated by the stride, most products are with zeros.
    """
    if stride == 1:
        return _dense(dy, kernel[::-1, ::-1].swapaxes(2, 3), 1)
    padded = _pad(dy, kernel.shape[0] // 2)

    def tap_grad(i, j, window):
        b, h, w, d = padded[window].shape
        return (padded[window].reshape(b * h * w, d) @ kernel[i, j].T).reshape(b, h, w, -1)

    return sum_of_taps(tap_grad, kernel.shape[0], stride, x.shape, dy.shape)


def _dense_kernel_grad(x, kernel, dy, stride):
    """One matrix product per kernel row: that row's taps of the input, times `dy`."""
    k, (b, height, width, d) = kernel.shape[0], dy.shape
    taps = [*shifted_taps(_pad(x, k // 2), k, stride, height, width)]
    rows = (jnp.concatenate(taps[i * k : i * k + k], -1) for i in range(k))
    dy = dy.reshape(b * height * width, d)
    # b h w (j c), b h w d -> (j c) d, for each i
    return jnp.stack([row.reshape(len(dy), -1).T @ dy for row in rows]).reshape(kernel.shape)


# ---- depthwise


def _depthwise(x, kernel, stride):
    """Sum over taps of shifted input times weight per channel: k * k fused multiply-adds."""
    k, (height, width) = kernel.shape[0], (-(-side // stride) for side in x.shape[1:3])
    weights = kernel.reshape(k * k, -1)

    def multiply_add(x):
        taps = shifted_taps(_pad(x, k // 2), k, stride, height, width)
        return sum(tap * weight for tap, weight in zip(taps, weights, strict=True))

    return _by_halves(multiply_add, x) if k >= MIN_LOOP else multiply_add(x)


def _by_halves(function, batch):
    """Apply `function` to the two halves of the batch in a loop.

    XLA copies the multiply-adds of a convolution into every operation that reads its output, e.g.
    three of a LayerNorm. It does not fuse operations with those inside a loop, nor does a barrier
    prevent fusion on CPU. A batch of unknown size, as in an exported file, is not halved.
    """
    if not isinstance(batch.shape[0], int) or len(batch) % 2:
        return function(batch)
    halves = lax.map(function, batch.reshape(2, -1, *batch.shape[1:]))
    return halves.reshape(-1, *halves.shape[2:])


def _depthwise_input_grad(x, kernel, dy, stride):
    k = kernel.shape[0]

    def transposed(dy):
        padded = _pad(dy, k // 2)

        def tap_grad(i, j, window):
            return padded[window] * kernel[i, j, 0]

        return sum_of_taps(tap_grad, k, stride, x.shape, dy.shape)

    return _by_halves(transposed, dy) if k >= MIN_LOOP else transposed(dy)


def _depthwise_kernel_grad(x, kernel, dy, stride):
    """Sums over all positions of input times `dy`, in at least float32.

    A few images are summed first, for one kernel row at a time. These loops are short enough for
    the compiler to unroll them, so that it vectorizes the loop over channels.
    """
    k, (b, height, width, channels) = kernel.shape[0], dy.shape
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    images = min(b, SUMMED_IMAGES)

    def split_batch(array):  # (n images) .. -> n images ..
        array = jnp.pad(array, ((0, -b % images), *[(0, 0)] * 3))
        return array.reshape(-1, images, *array.shape[1:])

    dy = split_batch(dy)
    taps = [split_batch(tap) for tap in shifted_taps(_pad(x, k // 2), k, stride, height, width)]
    sums = []
    for i in range(k):
        products = [(tap * dy).astype(dtype) for tap in taps[i * k : i * k + k]]
        sums += lax.reduce(products, [jnp.zeros((), dtype)] * k, _add_all, (1,))
    sums = [s.reshape(-1, channels).sum(0) for s in sums]
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


def _add_all(terms, others):
    return [a + b for a, b in zip(terms, others, strict=True)]
