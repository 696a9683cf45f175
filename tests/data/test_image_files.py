"""Images as cameras write them: a file is read right, or refused with a message."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.image_files import RANGE, counts, pgm, save, tiff, to_8_bits
from tests.data.loaders import load_detection
from tinyjax.data import images
from tinyjax.data.layouts.arrayrecord import ImageBytes
from tinyjax.errors import UserError


def read(data, channels=1, range16=RANGE):
    return images.read_image(ImageBytes("x.tif", data), channels, range16)


def assert_gray(data, expected, range16=RANGE):
    np.testing.assert_array_equal(read(data, 1, range16)[..., 0], expected)
    np.testing.assert_array_equal(read(data, 3, range16), np.stack([expected] * 3, -1))


def assert_refused(data, message):
    for call in (
        lambda: read(data),
        lambda: images.image_shape(ImageBytes("x.tif", data)),
        lambda: images.read_pil(Image.open(io.BytesIO(data))),
    ):
        with pytest.raises(UserError, match=message):
            call()


# ---- bits and channels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_color_tiff_is_refused_as_the_png_is(order, deflate, planar, channels):
    pixels = np.stack([counts()] * channels, -1)
    extra = {"t338": 2} if channels == 4 else {}
    data = tiff(pixels, order=order, deflate=deflate, planar=planar, **extra)
    assert_refused(data, r"(x\.tif|image of mode .*): color with 16 bits per channel")


@pytest.mark.parametrize("maximum", [256, 1023, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_16_bit_color_ppm_is_refused(maximum, plain):
    assert_refused(pgm(np.stack([counts() % 257] * 3, -1), maximum, plain), "16 bits per channel")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4"])
def test_deep_tiff_of_one_channel_is_mapped_by_range16(order, deflate, dtype):
    values = counts().astype(dtype)
    assert_gray(tiff(values, order=order, deflate=deflate), to_8_bits(values))
    if dtype != "u2":
        below_zero = (counts().astype(int) - 3300).astype(dtype)  # as degrees
        expected = to_8_bits(below_zero, -300, 300)
        data = tiff(below_zero, order=order, deflate=deflate)
        assert_gray(data, expected, ("range", -300, 300))


def test_unsigned_32_bits_and_large_offsets_are_exact():
    for offset in (0, 2**24 + 1, 2**31, 2**32 - 4000):
        values = (counts().astype(np.int64) + offset).astype(np.uint32)
        expected = to_8_bits(values, 3000 + offset, 3600 + offset)
        assert_gray(tiff(values), expected, ("range", 3000 + offset, 3600 + offset))
        gray = read(tiff(values), range16=images.PERCENTILES)
        np.testing.assert_array_equal(gray, read(tiff(counts()), range16=images.PERCENTILES))


@pytest.mark.parametrize("deflate", [False, True])
def test_white_is_zero_is_inverted(deflate):
    gray = (counts() % 256).astype(np.uint8)
    assert_gray(tiff(gray, t262=0, deflate=deflate), 255 - gray)
    assert_gray(tiff(65535 - counts(), t262=0, deflate=deflate), to_8_bits(counts()))
    floats = counts().astype(np.float32)
    assert_refused(tiff(floats, t262=0, deflate=deflate), "WhiteIsZero, but neither 8 nor 16")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("pixels", "tags"),
    [
        (counts().astype("f8"), {}),
        (counts().astype("f2"), {}),
        (np.stack([counts()] * 2, -1), {"t338": 2}),
        (np.stack([counts()] * 3, -1).astype("f4"), {}),
        (np.zeros((4, 4, 5), np.uint8), {"t262": 1}),
    ],
    ids=["float64", "float16", "16-bit gray and alpha", "float color", "five channels"],
)
def test_tiff_variants_that_pillow_does_not_read_are_refused(order, pixels, tags):
    data = tiff(pixels, order=order, **tags)
    with pytest.raises(UserError, match=r"x\.tif: not a readable image \(unknown format"):
        read(data)


def test_signed_8_bits_are_refused():
    assert_refused(tiff(counts().astype(np.int8)), "signed pixels of 8 bits")


@pytest.mark.parametrize("maximum", [4095, 16383, 65534, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_16_bit_pgm_keeps_its_counts(maximum, plain):
    assert_gray(pgm(counts(), maximum, plain), to_8_bits(counts()))
    for rule in (RANGE, images.PERCENTILES):
        png = save(Image.fromarray(counts()), "PNG")
        np.testing.assert_array_equal(
            read(pgm(counts(), maximum, plain), 1, rule), read(png, 1, rule)
        )


def test_8_bit_pgm_and_ppm():
    color = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    for plain in (False, True):
        assert_gray(pgm(color[..., 0], 255, plain), color[..., 0])
        np.testing.assert_array_equal(read(pgm(color, 255, plain), 3), color)


def test_modes_of_pillow():
    """Alpha is left out, palettes are applied, 1 bit is black and white."""
    color = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    gray = color[..., 0]
    alpha = Image.fromarray(color[..., 1])
    picture = Image.fromarray(color)
    for target in ("PNG", "TIFF"):
        transparent = Image.merge("RGBA", [*picture.split(), alpha])
        np.testing.assert_array_equal(read(save(transparent, target), 3), color)
        faint = Image.merge("LA", [Image.fromarray(gray), alpha])
        assert_gray(save(faint, target), gray)
        binary = Image.fromarray(gray > 99)
        assert_gray(save(binary, target), np.where(gray > 99, 255, 0))
        palette = picture.quantize(8)
        expected = np.reshape(palette.getpalette(), (-1, 3))[np.asarray(palette)]
        np.testing.assert_array_equal(read(save(palette, target), 3), expected)
    cmyk = Image.fromarray(np.stack([gray, gray * 0, gray * 0, gray * 0], -1), "CMYK")
    expected = np.stack([255 - gray, gray * 0 + 255, gray * 0 + 255], -1)
    np.testing.assert_array_equal(read(save(cmyk, "TIFF"), 3), expected)
    white = Image.new("CMYK", (16, 16))  # Adobe stores its inks inverted
    np.testing.assert_array_equal(read(save(white, "JPEG"), 3), np.full((16, 16, 3), 255))


# ---- pages and frames


def frames(count=3):
    return [Image.fromarray(counts(seed=k).astype(np.uint8)) for k in range(count)]


@pytest.mark.parametrize("file_format", ["TIFF", "GIF", "WEBP", "PNG"])
def test_several_pages_are_refused_with_their_number(file_format):
    first, *others = frames()
    several = save(first, file_format, save_all=True, append_images=others)
    assert_refused(several, "3 pages or frames")
    one = save(first, file_format, save_all=True, lossless=True)
    np.testing.assert_array_equal(read(one)[..., 0], np.asarray(first))


def test_thumbnails_and_masks_of_a_tiff_are_skipped():
    """By NewSubfileType of TIFF 6.0: 1 is a reduced version, 4 a transparency mask."""
    picture = counts((24, 36))
    thumbnail, mask = picture[::4, ::4], counts((24, 36), seed=1)
    expected = to_8_bits(picture)
    assert_gray(tiff(thumbnail, picture, t254=[1, 0]), expected)
    assert_gray(tiff(picture, thumbnail, mask, t254=[0, 1, 4]), expected)
    file = ImageBytes("x.tif", tiff(thumbnail, picture, t254=[1, 0], t274=6))
    assert images.image_shape(file) == (36, 24)
    assert_refused(tiff(thumbnail, picture), "2 pages or frames")
    assert_refused(tiff(thumbnail, thumbnail, t254=1), "2 pages or frames")


def test_first_picture_of_mpo_is_read():
    """Phones and thermal cameras (FLIR) put previews and depth after the picture."""
    color = np.full((32, 48, 3), (200, 40, 90), np.uint8)
    preview = Image.fromarray(255 - color)
    data = save(Image.fromarray(color), "MPO", save_all=True, append_images=[preview])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert np.abs(read(data, 3).astype(int) - color).max() <= 3


# ---- broken files


@pytest.mark.parametrize("file_format", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_empty_truncated_and_misnamed_files(file_format, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80)).astype(np.uint8)
    data = save(Image.fromarray(pixels), file_format)
    for suffix in (".png", ".jpg"):  # the content counts
        (tmp_path / f"a{suffix}").write_bytes(data)
        np.testing.assert_array_equal(images.read_image(tmp_path / f"a{suffix}"), read(data))
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.png: an empty file"):
        images.read_image(tmp_path / "empty.png")
    for end in (3, 40, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(UserError, match=r"x\.tif: not a readable image"):
            read(data[:end])
    with pytest.raises(UserError, match=r"missing\.png: no such file"):
        images.read_image(tmp_path / "missing.png")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", r"1\.png: not a readable image"),
        (b"", r"1\.png: an empty file"),
        (tiff(counts(), counts()), r"1\.png: 2 pages"),
        (tiff(np.stack([counts()] * 3, -1)), r"1\.png: color with 16 bits"),
    ],
)
def test_loader_reports_an_invalid_image(stream, content, message, tmp_path):
    """In memory and streamed alike: YOLO has no sizes, so the header is read."""
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    good = save(Image.fromarray(counts((8, 8)).astype(np.uint8)), "PNG")
    for k, data in enumerate([good, content]):
        (tmp_path / "images" / "train" / f"{k}.png").write_bytes(data)
        (tmp_path / "labels" / "train" / f"{k}.txt").write_text("0 0.5 0.25 0.5 0.5\n")
    with pytest.raises(UserError, match=message):
        load_detection(tmp_path, "train", size=(8, 8), stream=stream)
    problems = []
    options = {"on_error": lambda *problem: problems.append(problem), "min_area": 1}
    split = load_detection(tmp_path, "train", size=(8, 8), stream=stream, **options)
    assert split.names == ("0.png",)
    assert [problem for problem, _ in problems] == ["unreadable image"]
