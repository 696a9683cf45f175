"""On-device augmentation of visible-infrared batches: for fine-tuning, and the task-oriented
augmentation of pretraining.

Pure functions of (key, sample). Each strength is an array, so it may differ between members. A
change that no member uses is left out of the program by leaving out its probability. Images are
float32 [H, W, C] of levels 0 to 1 until they are normalized; changes of color apply to images of
three channels only.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.data.augmentation import MEAN, STD, noise
from tinyjax.data.sampling import shard_rows
from tinyjax.recognition import color, texture

Strength = Mapping[str, Array]

# Strengths without which a change is not part of the program; the others are its ranges.
SWITCHES = (
    *("pad", "flip", "erasing", "jitter", "channel_exchange", "gray", "infrared_contrast"),
    *("infrared_brightness", "infrared_noise", "deform", "channel_shuffle", "rgb_shift"),
    *("infrared_gray", "sharpen", "defocus", "jpeg"),
)
DEFORM_CELLS = 5  # per axis, as in albumentations' GridDistortion
ERASED_AREA = 0.02, 0.4  # fraction of the image (Zhong et al., arXiv 1708.04896)
ERASED_ASPECT = 0.3  # smallest ratio of the rectangle's sides
DEFOCUS_SIDE, MAX_DEFOCUS = 224, 3.0  # largest radius, in an image of this side


def used_strengths(strength: Mapping[str, float]) -> list[str]:
    """The names of the strengths that are part of a program whose largest ones are given."""
    return [name for name, value in strength.items() if value or name not in SWITCHES]


@jax.named_scope("augmentation")
def augment_pairs(key: Array, images: Array, strength: Strength, axes: Sequence[str] = ()) -> Array:
    """Random views of a batch for fine-tuning.

    Both modalities: shift by up to `pad` pixels, horizontal flip, random erasing. Visible images:
    exchange of channels and gray (CAJ, ICCV 2021), color jitter. Infrared images: gain, offset,
    noise.

    Args:
        key: one typed PRNG key.
        images: uint8 [B, H, W, C]; the first half is visible, the second half infrared.
        strength: scalars, the `augment` fields of `config.recognition.RECOGNITION`.
        axes: mesh axes that the batch is sharded over, see `data.sampling.shard_rows`.

    Returns:
        float32 [B, H, W, C], normalized as by `data.augmentation.normalize`.
    """
    keys = _sample_keys(key, len(images), axes)
    half = len(images) // 2
    change = {"visible": _change_colors, "infrared": _change_gain}

    def augment(modality, key, image):
        k_geometry, k_change, k_erase = jax.random.split(key, 3)
        image = _shift_and_flip(k_geometry, _to_levels(image), strength)
        image = _normalize(change[modality](k_change, image, strength))
        return _erase(k_erase, image, strength) if "erasing" in strength else image

    visible = jax.vmap(partial(augment, "visible"))(keys[:half], images[:half])
    infrared = jax.vmap(partial(augment, "infrared"))(keys[half:], images[half:])
    return jnp.concatenate([visible, infrared])


@jax.named_scope("augmentation")
def augment_views(
    key: Array,
    images: Array,
    strength: Strength,
    size: tuple[int, int],
    shared_geometry: bool = True,
    axes: Sequence[str] = (),
) -> Array:
    """Two views of each image for task-oriented pretraining (TOPLight, CVPR 2023).

    Both views: random crop, deformed grid, horizontal flip. The visible view: color jitter, shuffle
    of the channels, offset of each channel. The infrared view: gray, sharpening, defocus, JPEG
    compression. Texture is that of the luminance, also in a view that is not gray.

    Args:
        key: one typed PRNG key.
        images: uint8 [N, H, W, C]. Crops are not filtered before they are resized, so images should
            not be much larger than `size`.
        strength: scalars, the `augment` fields of `config.recognition.PRETRAINING`.
        size: (h, w) of a view, pixels.
        shared_geometry: whether the views of an image have the same crop, grid and flip.
        axes: as in `augment_pairs`.

    Returns:
        float32 [2 N, h, w, C], normalized: the visible views, and then the infrared ones. Rows i
        and i + N are views of the same image.
    """
    keys = _sample_keys(key, len(images), axes)

    def augment(key, image):
        k_geometry, k_other, k_color, k_texture = jax.random.split(key, 4)
        image = _to_levels(image)
        visible = _crop(k_geometry, image, strength, size)
        infrared = visible if shared_geometry else _crop(k_other, image, strength, size)
        visible = _change_colors(k_color, visible, strength)
        return _normalize(visible), _normalize(_change_texture(k_texture, infrared, strength))

    return jnp.concatenate(jax.vmap(augment)(keys, images))


def _sample_keys(key, rows, axes):
    """The keys of this shard's rows, each a function of its position in the batch."""
    return shard_rows(jax.random.split(key, rows * jax.lax.axis_size(axes)), axes)


def _to_levels(image):
    return image.astype(jnp.float32) / 255


def _normalize(image):
    return (image - MEAN) / STD


def _maybe(key, probability, changed, image):
    return jnp.where(jax.random.uniform(key) < probability, changed, image)


# ---- geometry


def _shift_and_flip(key, image, strength):
    k_shift, k_flip = jax.random.split(key)
    height, width, _ = image.shape
    limit = jnp.floor(strength.get("pad", 0.0))
    shift = jnp.floor(jax.random.uniform(k_shift, (2,)) * (2 * limit + 1)) - limit
    rows, columns = (jnp.arange(n) + s for n, s in zip((height, width), shift, strict=True))
    return resample(image, rows, _maybe(k_flip, strength.get("flip", 0.0), columns[::-1], columns))


def _crop(key, image, strength, size):
    k_area, k_aspect, k_position, k_deform, k_cells, k_flip = jax.random.split(key, 6)
    area = jax.random.uniform(k_area, minval=strength.get("area", 1.0), maxval=1)
    half_log_aspect = strength.get("aspect", 0.0) / 2 * _symmetric(k_aspect)
    stretch = jnp.exp(jnp.stack([-half_log_aspect, half_log_aspect]))
    side = jnp.minimum(jnp.sqrt(area) * stretch, 1)  # fraction of the image's height and width
    corner = jax.random.uniform(k_position, (2,)) * (1 - side)
    positions = [(jnp.arange(n) + 0.5) / n for n in size]
    if "deform" in strength:
        limit = _maybe(k_deform, strength["deform"], strength["deform_limit"], 0.0)
        cells = 1 + limit * _symmetric(k_cells, (2, DEFORM_CELLS))
        positions = [*map(_deform, positions, cells)]
    rows, columns = (
        n * (corner[axis] + side[axis] * positions[axis]) - 0.5
        for axis, n in enumerate(image.shape[:2])
    )
    return resample(image, rows, _maybe(k_flip, strength.get("flip", 0.0), columns[::-1], columns))


def _deform(position, cells):
    """Map positions in (0, 1) so that equal cells get widths in proportion to `cells`."""
    edges = jnp.concatenate([jnp.zeros(1), jnp.cumsum(cells)]) / cells.sum()
    return jnp.interp(position, jnp.linspace(0, 1, len(edges)), edges)


def resample(image: Array, rows: Array, columns: Array) -> Array:
    """Interpolate `image` [H, W, C] linearly at `rows` [h] and `columns` [w]: [h, w, C].

    Positions are those of pixels: 0 is the center of the first. The image ends half a pixel beyond
    the centers of its outer pixels; outside there is 0. Gathering two rows and two columns takes a
    fifth of the time of `jax.image.scale_and_translate` on CPU.
    """
    for axis, position in enumerate((rows, columns)):
        last = image.shape[axis] - 1
        inside = (position >= -0.5) & (position <= last + 0.5)
        position = jnp.clip(position, 0, last)
        index = position.astype(jnp.int32)
        shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        fraction, inside = (x.reshape(shape) for x in (position - index, inside))
        low, high = (jnp.take(image, i, axis) for i in (index, jnp.minimum(index + 1, last)))
        image = jnp.where(inside, low + fraction * (high - low), 0)
    return image


def _erase(key, image, strength):
    """Replace a rectangle by 0, the mean."""
    k_draw, k_area, k_aspect, k_position = jax.random.split(key, 4)
    height, width, _ = image.shape
    area = jax.random.uniform(k_area, minval=ERASED_AREA[0], maxval=ERASED_AREA[1])
    half_log_aspect = jnp.log(ERASED_ASPECT) / 2 * _symmetric(k_aspect)
    side = jnp.sqrt(area * height * width) * jnp.exp(jnp.stack([half_log_aspect, -half_log_aspect]))
    limit = jnp.array([height, width], jnp.float32)
    side = jnp.minimum(jnp.round(side), limit)
    start = jnp.floor(jax.random.uniform(k_position, (2,)) * (limit - side + 1))
    rows, columns = (
        (jnp.arange(n) >= start[axis]) & (jnp.arange(n) < start[axis] + side[axis])
        for axis, n in enumerate((height, width))
    )
    erased = jnp.where((rows[:, None] & columns)[:, :, None], 0, image)
    return _maybe(k_draw, strength["erasing"], erased, image)


# ---- levels


def _change_colors(key, image, strength):
    """Visible images: each change whose probability is in `strength`."""
    if image.shape[-1] != 3:
        return image
    k_jitter, k_shuffle, k_shift, k_exchange, k_gray = jax.random.split(key, 5)
    if "jitter" in strength:
        k_draw, k_factors = jax.random.split(k_jitter)
        image = _maybe(k_draw, strength["jitter"], _jitter(k_factors, image, strength), image)
    if "rgb_shift" in strength:
        k_draw, k_offset = jax.random.split(k_shift)
        offset = strength["rgb_shift_limit"] * _symmetric(k_offset, (3,))
        image = jnp.clip(image + _maybe(k_draw, strength["rgb_shift"], offset, 0.0), 0, 1)
    # The others are linear: one product with a matrix [3 old channels, 3 new channels].
    mixing, identity = [], jnp.eye(3)
    if "channel_shuffle" in strength:
        k_draw, k_order = jax.random.split(k_shuffle)
        shuffle = identity[jax.random.permutation(k_order, 3)]
        mixing.append(_maybe(k_draw, strength["channel_shuffle"], shuffle, identity))
    if "channel_exchange" in strength:
        k_draw, k_channel = jax.random.split(k_exchange)
        exchange = identity[jax.random.randint(k_channel, (), 0, 3)][:, None]
        mixing.append(_maybe(k_draw, strength["channel_exchange"], exchange, identity))
    if "gray" in strength:
        mixing.append(_maybe(k_gray, strength["gray"], color.LUMA[:, None], identity))
    if not mixing:
        return image
    return color.mix_channels(image, reduce(partial(jnp.matmul, precision="highest"), mixing))


def _jitter(key, image, strength):
    """Brightness, contrast, saturation and hue, in this order; torchvision draws the order."""
    draws = _symmetric(key, (4,))
    for draw, name, adjust in (
        (draws[0], "brightness", color.adjust_brightness),
        (draws[1], "contrast", color.adjust_contrast),
        (draws[2], "saturation", color.adjust_saturation),
    ):
        image = adjust(image, 1 + draw * strength[name])
    return color.adjust_hue(image, draws[3] * strength["hue"])


def _change_texture(key, image, strength):
    """The infrared view: each change whose probability is in `strength`."""
    k_gray, k_sharpen, k_defocus, k_jpeg = jax.random.split(key, 4)
    luminance = gray = color.luminance(image)
    if "sharpen" in strength:
        k_draw, k_amount = jax.random.split(k_sharpen)
        amount = _between(k_amount, strength["sharpen_low"], strength["sharpen_high"])
        gray = _maybe(k_draw, strength["sharpen"], texture.sharpen(gray, amount), gray)
    if "defocus" in strength:
        k_draw, k_radius = jax.random.split(k_defocus)
        scale = (image.shape[0] * image.shape[1]) ** 0.5 / DEFOCUS_SIDE
        radius = _between(k_radius, strength["defocus_low"], strength["defocus_high"])
        blurred = texture.defocus(gray, scale * radius, scale * MAX_DEFOCUS)
        gray = _maybe(k_draw, strength["defocus"], blurred, gray)
    if "jpeg" in strength:
        k_draw, k_quality = jax.random.split(k_jpeg)
        quality = _between(k_quality, strength["quality_low"], strength["quality_high"])
        gray = _maybe(k_draw, strength["jpeg"], texture.jpeg(gray, quality), gray)
    colored = jnp.clip(image + gray - luminance, 0, 1)
    return _maybe(k_gray, strength.get("infrared_gray", 0.0), gray, colored)


def _change_gain(key, image, strength):
    """Infrared images: gain, offset and noise, equal in all channels, in units of the range."""
    k_gain, k_offset, k_sigma, k_noise = jax.random.split(key, 4)
    if "infrared_contrast" in strength:
        gain = jnp.exp(strength["infrared_contrast"] * _symmetric(k_gain))
        image = MEAN + gain * (image - MEAN)
    if "infrared_brightness" in strength:
        image = image + strength["infrared_brightness"] * _symmetric(k_offset)
    if "infrared_noise" in strength:
        sigma = strength["infrared_noise"] * jax.random.uniform(k_sigma)
        image = image + sigma * noise(k_noise, (*image.shape[:2], 1))
    return image


def _symmetric(key, shape=()):
    return jax.random.uniform(key, shape, minval=-1, maxval=1)


def _between(key, low, high):
    return low + (high - low) * jax.random.uniform(key)
