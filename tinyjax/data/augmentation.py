"""On-device augmentation of a batch with boxes or labels: flip, scale and crop, gain, offset,
noise, polarity, mixup, cutmix.

Pure functions of (key, sample). Each strength is an array, so it may differ between members.
Geometry is one `scale_and_translate`: no pixel is resampled twice, and the boxes follow by the same
affine map.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.data.sampling import shard_rows
from tinyjax.ops.hash import hash_uint32

MEAN, STD = 0.45, 0.25  # of gray levels in [0, 1]; our own choice, between the infrared sets' means
# An object with a shorter side, or a smaller fraction of its area inside the window, becomes an
# ignored region.
MIN_SIDE = 2.0  # pixels
MIN_VISIBLE = 0.4


def normalize(images: Array) -> Array:
    """uint8 [..., H, W, C] -> float32 of roughly zero mean and unit variance.

    Areas outside an image are filled with 0.
    """
    return (images.astype(jnp.float32) / 255 - MEAN) / STD


# ---- detection


@jax.named_scope("augmentation")
def augment_detection(
    key: Array, batch: dict, strength: dict, size: tuple[int, int], axes: Sequence[str] = ()
) -> dict:
    """Random views of a batch with boxes; each sample has its own key.

    Args:
        key: one typed PRNG key.
        batch: image uint8 [B, H, W, C]; boxes float32 [B, G, 4] xyxy pixels; labels int32 [B, G];
            valid, ignore bool [B, G].
        strength: scalars, see `tinyjax.config.defaults`: probabilities `flip`, `flip_vertical`,
            `transpose` (of square windows only), `object_crop`, `invert`; log-uniform zoom between
            `scale_low` and `scale_high`; `aspect`, the largest |log(width / height)|; `contrast`,
            the largest |log gain|; `brightness` and `noise`, in units of the full gray range.
        size: (h, w) of the window, pixels.
        axes: mesh axes that the batch is sharded over, see `shard_rows`.

    Returns:
        The batch with image float32 [B, h, w, C], normalized. Boxes are clipped to the window. An
        object with less than `MIN_VISIBLE` of its area inside, or a side below `MIN_SIDE`, becomes
        an ignored region.
    """
    batch_size = len(batch["image"]) * jax.lax.axis_size(axes)
    keys = shard_rows(jax.random.split(key, batch_size), axes)
    return jax.vmap(partial(_augment_sample, strength=strength, size=size))(keys, batch)


def _augment_sample(key, sample, *, strength, size):
    k_window, k_flip, k_photometric = jax.random.split(key, 3)
    zoom, shift = _draw_window(k_window, sample, strength, size)
    image = jax.image.scale_and_translate(
        normalize(sample["image"]), (*size, sample["image"].shape[2]), (0, 1), zoom, -shift,
        "linear", antialias=True,
    )  # fmt: skip
    boxes = sample["boxes"] * jnp.tile(zoom[::-1], 2) - jnp.tile(shift[::-1], 2)
    image, boxes = _flip(k_flip, image, boxes, strength)

    h, w = size
    clipped = jnp.clip(boxes, 0, jnp.array([w, h, w, h], jnp.float32))
    side = clipped[:, 2:] - clipped[:, :2]
    visible = side.prod(-1) / jnp.maximum((boxes[:, 2:] - boxes[:, :2]).prod(-1), 1e-6)
    detectable = (visible >= MIN_VISIBLE) & (side.min(-1) >= MIN_SIDE)
    inside = side.min(-1) > 0
    return {
        **sample,
        "image": _augment_photometric(k_photometric, image, strength),
        "boxes": clipped,
        "valid": sample["valid"] & detectable,
        "ignore": inside & (sample["ignore"] | (sample["valid"] & ~detectable)),
    }


def _draw_window(key, sample, strength, size):
    """Zoom and shift, both f32[2] (y, x): x_out = zoom * x_in - shift, in pixels."""
    k_zoom, k_aspect, k_crop, k_object, k_position = jax.random.split(key, 5)
    min_log, max_log = jnp.log(strength["scale_low"]), jnp.log(strength["scale_high"])
    half_log_aspect = strength["aspect"] / 2 * jax.random.uniform(k_aspect, minval=-1, maxval=1)
    log_zoom = jax.random.uniform(k_zoom, minval=min_log, maxval=max_log)
    zoom = jnp.exp(log_zoom + jnp.stack([-half_log_aspect, half_log_aspect]))

    window = jnp.array(size, jnp.float32)
    # Negative if the zoomed image is smaller than the window.
    margin = zoom * jnp.array(sample["image"].shape[:2], jnp.float32) - window
    min_shift, max_shift = jnp.minimum(margin, 0), jnp.maximum(margin, 0)
    # Object crop: an object's center is in the window's inner 80 %, as far as the image permits.
    picked = jax.random.categorical(k_object, jnp.where(sample["valid"], 0.0, -1e9))
    center = zoom * (sample["boxes"][picked, :2] + sample["boxes"][picked, 2:])[::-1] / 2
    object_crop = sample["valid"].any() & (jax.random.uniform(k_crop) < strength["object_crop"])
    low, high = (jnp.clip(center - f * window, min_shift, max_shift) for f in (0.9, 0.1))
    min_shift = jnp.where(object_crop, low, min_shift)
    max_shift = jnp.where(object_crop, high, max_shift)
    return zoom, min_shift + jax.random.uniform(k_position, (2,)) * (max_shift - min_shift)


def _flip(key, image, boxes, strength):
    """Flip image and boxes along either axis and, if the window is square, transpose them."""
    h, w, _ = image.shape
    flip, flip_vertical, transpose = jax.random.uniform(key, (3,)) < jnp.stack(
        [strength["flip"], strength["flip_vertical"], strength["transpose"]]
    )
    x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
    image = jnp.where(flip, image[:, ::-1], image)
    x1, x2 = jnp.where(flip, w - x2, x1), jnp.where(flip, w - x1, x2)
    image = jnp.where(flip_vertical, image[::-1], image)
    y1, y2 = jnp.where(flip_vertical, h - y2, y1), jnp.where(flip_vertical, h - y1, y2)
    boxes = jnp.stack([x1, y1, x2, y2], -1)
    if h == w:
        image = jnp.where(transpose, image.swapaxes(0, 1), image)
        boxes = jnp.where(transpose, boxes[:, jnp.array([1, 0, 3, 2])], boxes)
    return image, boxes


# ---- classification


@jax.named_scope("augmentation")
def augment_classification(
    key: Array,
    images: Array,
    targets: Array,
    strength: dict,
    size: tuple[int, int] | None,
    axes: Sequence[str] = (),
) -> tuple[Array, Array]:
    """Random views of images, and their targets after mixing.

    Args:
        key: one typed PRNG key.
        images: uint8 [B, H, W, C].
        targets: float32 [B, classes], the weight of each class in an image.
        strength: scalars, see `config.defaults`: `flip`; `area`, the minimum of a crop's
            fraction of the image (RandomResizedCrop; sides are clipped to the image where
            torchvision draws again); `aspect`, the crop's largest |log(width / height)|;
            `contrast`, `brightness`, `noise` and `invert` as in `augment_detection`. Optional:
            `mixup` and `cutmix`, the parameters of their Beta distributions.
        size: (h, w) of a view, pixels; None: the images are cropped already.
        axes: as in `augment_detection`.

    Returns:
        images float32 [B, h, w, C], normalized, and their targets.
    """
    keys = jax.random.split(key, 1 + len(images) * jax.lax.axis_size(axes))
    sample_keys = shard_rows(keys[1:], axes)
    views = jax.vmap(partial(_augment_image, strength=strength, size=size))(sample_keys, images)
    return mix(keys[0], views, targets, strength)


def _augment_image(key, image, *, strength, size):
    k_area, k_aspect, k_position, k_flip, k_photometric = jax.random.split(key, 5)
    view = normalize(image)
    if size:
        view = _random_resized_crop(k_area, k_aspect, k_position, view, strength, size)
    view = jnp.where(jax.random.uniform(k_flip) < strength["flip"], view[:, ::-1], view)
    return _augment_photometric(k_photometric, view, strength)


def _random_resized_crop(k_area, k_aspect, k_position, image, strength, size):
    image_size = jnp.array(image.shape[:2], jnp.float32)
    area = jax.random.uniform(k_area, minval=strength["area"], maxval=1)
    half_log_aspect = strength["aspect"] / 2 * jax.random.uniform(k_aspect, minval=-1, maxval=1)
    stretch = jnp.exp(jnp.stack([-half_log_aspect, half_log_aspect]))
    side = jnp.minimum(jnp.sqrt(area) * stretch, 1) * image_size
    corner = jax.random.uniform(k_position, (2,)) * (image_size - side)
    zoom = jnp.array(size, jnp.float32) / side
    return jax.image.scale_and_translate(
        image, (*size, image.shape[2]), (0, 1), zoom, -zoom * corner, "linear", antialias=True
    )


def mix(key: Array, images: Array, targets: Array, strength: dict) -> tuple[Array, Array]:
    """Mix each image i of the batch with its opposite B - 1 - i.

    mixup (arXiv 1710.09412) blends the two, cutmix (arXiv 1905.04899) pastes a window of one into
    the other; if both are in `strength`, each step picks one with equal probability. As in timm,
    the batch shares one draw.
    """
    k_choice, k_mixup, k_cutmix, k_position = jax.random.split(key, 4)
    opposite, mixed = images[::-1], []
    if "mixup" in strength:
        fraction = jax.random.beta(k_mixup, strength["mixup"], strength["mixup"])
        mixed.append((fraction * images + (1 - fraction) * opposite, fraction))
    if "cutmix" in strength:
        fraction = jax.random.beta(k_cutmix, strength["cutmix"], strength["cutmix"])
        pasted = _window_mask(k_position, images.shape[1:3], 1 - fraction)
        # The fraction is counted in pixels, since the border may clip the window.
        mixed.append((jnp.where(pasted[:, :, None], opposite, images), 1 - pasted.mean()))
    if not mixed:
        return images, targets
    use_first = len(mixed) < 2 or jax.random.bernoulli(k_choice)
    images, fraction = (
        jnp.where(use_first, a, b) for a, b in zip(mixed[0], mixed[-1], strict=True)
    )
    return images, fraction * targets + (1 - fraction) * targets[::-1]


def _window_mask(key, size, fraction):
    """bool [h, w]: a window with `fraction` of the area, around a random center."""
    rows, columns = (
        jnp.abs((jnp.arange(length) + 0.5) / length - center) < jnp.sqrt(fraction) / 2
        for length, center in zip(size, jax.random.uniform(key, (2,)), strict=True)
    )
    return rows[:, None] & columns[None, :]


# ---- gray levels


def _augment_photometric(key, image, strength):
    """Apply random gain, offset, noise and polarity to one sample, see `augment_detection`."""
    k_gain, k_offset, k_sigma, k_noise, k_invert = jax.random.split(key, 5)
    gain = jnp.exp(strength["contrast"] * jax.random.uniform(k_gain, minval=-1, maxval=1))
    gain = jnp.where(jax.random.uniform(k_invert) < strength["invert"], -gain, gain)
    offset = strength["brightness"] / STD * jax.random.uniform(k_offset, minval=-1, maxval=1)
    sigma = strength["noise"] / STD * jax.random.uniform(k_sigma)
    return gain * image + offset + sigma * noise(k_noise, image.shape)


def noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Approximately normal noise of mean 0 and standard deviation 1: sums of the four bytes of 32
    random bits.

    Exact normal noise took 10 % of a detector's step time on CPU, threefry bits took 18 % of a
    small classifier's (docs/performance.md).
    """
    counter = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    bits = hash_uint32(counter, jax.random.bits(key, (), jnp.uint32))
    pairs = (bits & 0x00FF00FF) + ((bits >> 8) & 0x00FF00FF)
    total = (pairs & 0xFFFF) + (pairs >> 16)  # 0 to 1020
    return (total.astype(jnp.float32) - 510) / math.sqrt((256**2 - 1) / 3)
