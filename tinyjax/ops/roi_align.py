"""RoIAlign (arXiv 1703.06870, section 3): features of boxes, sampled at a grid of P x P bins.

Interpolation is a gather on CPU and two matrix products on other platforms: on CPU the gather is up
to 200 times faster, while a TPU reads many times more memory for it than for the products.
"""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap


# custom_vjp must wrap platform_dependent and custom_vmap: the reverse order fails.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def roi_align(
    features: Array,
    boxes: Array,
    stride: int,
    size: int = 7,
    samples: int = 1,
    aligned: bool = True,
) -> Array:
    """Pool each box to `size` x `size` bins, by bilinear interpolation of the features.

    A bin is the mean of samples x samples points. A point more than one cell outside of the
    features is 0, and other points outside have the value at the border, as in torchvision's C++
    kernel. For a box of up to `size` cells per side, one aligned sample per bin equals detectron2's
    adaptive number of samples.

    Args:
        features: [B, H, W, C], float.
        boxes: [B, T, 4] xyxy, pixels of the image. They receive no gradient.
        stride: pixels per cell of the features.
        size: bins per side, P.
        samples: points per side of a bin.
        aligned: the center of cell i is at (i + 1/2) strides. If false, as in torchvision's
            detectors, it is at i strides, and boxes are enlarged to at least one cell per side.

    Returns:
        [B, T, P, P, C] in the dtype of `features`, rows before columns; the arithmetic is at least
        float32.
    """
    settings = {"stride": stride, "size": size, "samples": samples, "aligned": aligned}
    cpu = _fold_members(partial(_gather, **settings))
    default = partial(_matrix_products, **settings)
    return lax.platform_dependent(features, boxes, cpu=cpu, default=default)


def _roi_align_fwd(features, boxes, stride, size, samples, aligned):
    return roi_align(features, boxes, stride, size, samples, aligned), (features, boxes)


def _roi_align_bwd(stride, size, samples, aligned, residuals, dy):
    features, boxes = residuals
    settings = {"stride": stride, "size": size, "samples": samples, "aligned": aligned}

    def default(features, boxes, dy):
        pool = partial(_matrix_products, boxes=boxes, **settings)
        return jax.vjp(pool, features)[1](dy)[0]

    cpu = _fold_members(partial(_scatter, **settings))
    gradient = lax.platform_dependent(features, boxes, dy, cpu=cpu, default=default)
    return gradient, jnp.zeros_like(boxes)


roi_align.defvjp(_roi_align_fwd, _roi_align_bwd)


def _extent(boxes, *, stride, aligned):
    """Return corner and size of boxes in cells, see `align_cells`."""
    offset = 0.5 if aligned else 0.0
    low, high = boxes[..., :2] / stride - offset, boxes[..., 2:] / stride - offset
    return low, high - low if aligned else jnp.maximum(high - low, 1)


def _steps(size, samples):
    return (jnp.arange(size * samples) + 0.5) / (size * samples)


def _sample_points(low, extent, steps, shape):
    """Return coordinates of the points in cells, clipped to the features, and whether they count.

    Both are lists of rows and columns, [B, T, P * samples].
    """
    points = low[..., None] + extent[..., None] * steps.astype(low.dtype)
    axes = [(points[..., axis, :], n) for axis, n in ((1, shape[1]), (0, shape[2]))]
    inside = [(x >= -1) & (x <= n) for x, n in axes]
    return [jnp.clip(x, 0, n - 1) for x, n in axes], inside


# ---- matrix products


def _matrix_products(features, boxes, *, size, samples, **settings):
    """Interpolation as one matrix per box and axis, see `align_cells`."""
    return align_cells(features, *_extent(boxes, **settings), _steps(size, samples), size)


@partial(jax.jit, static_argnames="size")  # a call that ONNX files have an operator for
def align_cells(features: Array, low: Array, extent: Array, steps: Array, size: int) -> Array:
    """RoIAlign by matrix products: rows @ features @ columns^T.

    Args:
        features: [B, H, W, C].
        low, extent: [B, T, 2] (x, y), corner and size of each box in cells; the center of cell i is
            at i.
        steps: [P * samples] points of a side, from 0 to 1.
        size: P.

    Returns:
        [B, T, P, P, C], see `roi_align`.
    """
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    samples = len(steps) // size
    points, inside = _sample_points(low, extent, steps, features.shape)

    def matrix(x, inside, n):  # [B, T, P * samples] -> [B, T, P, n]
        weights = jax.nn.relu(1 - jnp.abs(x[..., None] - jnp.arange(n)))
        weights = jnp.where(inside[..., None], weights, 0)
        return weights.reshape(*x.shape[:2], size, samples, n).mean(3).astype(dtype)

    rows, columns = map(matrix, points, inside, features.shape[1:3])
    pooled = jnp.einsum(
        "btpi,btqj,bijc->btpqc", rows, columns, features.astype(dtype), precision="highest"
    )
    return pooled.astype(features.dtype)


# ---- CPU: gather and scatter

# Both are loops over images. The points are inputs of the loop, so the index and the weight of a
# cell are computed from the same numbers. Otherwise XLA computes the points once for each, and may
# round them differently: the index can then be that of one cell and the weight that of the next.


def _gather(features, boxes, *, size, samples, **settings):
    """Weighted sum of the corners. XLA fuses this sum with its gathers: it writes no corner, and
    would write all of them before a mean over an axis of samples.
    """
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    low, extent = _extent(boxes, **settings)
    points, inside = _sample_points(low, extent, _steps(size, samples), features.shape)

    def pool(image):
        features, points, inside = image
        cells = features.reshape(-1, features.shape[2])  # h w c -> (h w) c
        return sum(
            cells.at[index].get(mode="promise_in_bounds").astype(dtype)
            * weight[..., None].astype(dtype)
            for index, weight in _corners(points, inside, features.shape, samples)
        ).astype(features.dtype)

    return lax.map(pool, (features, points, inside))


def _scatter(features, boxes, dy, *, size, samples, **settings):
    """The gradient of `_gather`: for each image, one scatter of all corners.

    The updates of one image stay in the cache. With two samples per side, one scatter of a whole
    batch takes four times as long.
    """
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    low, extent = _extent(boxes, **settings)
    points, inside = _sample_points(low, extent, _steps(size, samples), features.shape)
    height, width, channels = shape = features.shape[1:]

    def image_gradient(image):
        points, inside, dy = image
        corners = [*_corners(points, inside, shape, samples)]
        index, weight = (jnp.stack(arrays) for arrays in zip(*corners, strict=True))
        updates = dy.astype(dtype) * weight[..., None].astype(dtype)
        gradient = jnp.zeros((height * width, channels), dtype)
        return gradient.at[index].add(updates, mode="promise_in_bounds")

    gradient = lax.map(image_gradient, (points, inside, dy))
    return gradient.reshape(features.shape).astype(features.dtype)


def _corners(points, inside, shape, samples) -> Iterator[tuple[Array, Array]]:
    """Yield index and weight [T, P, P] of each point's four cells, for each point of a bin.

    Args:
        points, inside: of one image, see `_sample_points`.
        shape: of its features [H, W, C]; indices are those of the first two axes flattened.
    """
    height, width, _ = shape

    def cells(x, inside, n):  # -> [(cell, weight)], the two cells next to each point of an axis
        cell = jnp.floor(x)
        upper = x - cell
        cell = cell.astype(jnp.int32)
        weights = (jnp.where(inside, weight / samples, 0) for weight in (1 - upper, upper))
        return [*zip((cell, jnp.minimum(cell + 1, n - 1)), weights, strict=True)]

    rows, columns = map(cells, points, inside, (height, width))
    for i, j in np.ndindex(samples, samples):
        of_row, of_column = np.s_[:, i::samples, None], np.s_[:, None, j::samples]
        for row, row_weight in rows:
            for column, column_weight in columns:
                index = row[of_row] * width + column[of_column]
                yield index, row_weight[of_row] * column_weight[of_column]


def _fold_members(function: Callable[..., Array]) -> Callable[..., Array]:
    """Vmap over members of a function of batches [B, ...] applies it to one batch [M * B, ...].

    With a vmap inside the loop over images, eight members take two to three times as long.
    """
    folded = custom_vmap(function)

    @folded.def_vmap
    def _fold(members, batched, *arrays):
        arrays = tuple(
            array if is_batched else jnp.broadcast_to(array, (members, *array.shape))
            for array, is_batched in zip(arrays, batched, strict=True)
        )
        out = folded(*(array.reshape(-1, *array.shape[2:]) for array in arrays))
        return out.reshape(members, -1, *out.shape[1:]), True

    return folded
