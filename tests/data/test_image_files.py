"""Images as cameras write them: a file is read right, or refused with a message."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

import tinyjax
from tests.data.image_files import pgm, tiff, turn_upright
from tests.data.loaders import load_classification, load_detection
from tests.untrained import write_untrained_run
from tinyjax.data import images
from tinyjax.data.layouts.arrayrecord import ImageBytes
from tinyjax.errors import UserError

RANGE = ("range", 3000, 3600)
ORIENTATION = 0x0112


def counts(shape=(6, 9), seed=0):
    """Counts of a thermal camera, uint16."""
    return np.random.default_rng(seed).integers(2900, 3700, shape).astype(np.uint16)


def to_8_bits(values, low=3000, high=3600):
    unit = (values.astype(np.float64) - low) / (high - low)
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def save(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def read(data, channels=1, range16=RANGE):
    return images.read_image(ImageBytes("x.tif", data), channels, range16)


def assert_gray(data, expected, range16=RANGE):
    np.testing.assert_array_equal(read(data, 1, range16)[..., 0], expected)
    np.testing.assert_array_equal(read(data, 3, range16), np.stack([expected] * 3, -1))


def refused(data, message):
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
    refused(data, r"x\.tif: color with 16 bits per channel|image of mode .*16 bits per channel")


@pytest.mark.parametrize("maximum", [256, 1023, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_16_bit_color_ppm_is_refused(maximum, plain):
    refused(pgm(np.stack([counts() % 257] * 3, -1), maximum, plain), "16 bits per channel")


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
    refused(tiff(counts().astype("f4"), t262=0, deflate=deflate), "floating-point.*WhiteIsZero")


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
    refused(tiff(counts().astype(np.int8)), "signed pixels of 8 bits")


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
    refused(save(first, file_format, save_all=True, append_images=others), "3 pages or frames")
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
    refused(tiff(thumbnail, picture), "2 pages or frames")
    refused(tiff(thumbnail, thumbnail, t254=1), "2 pages or frames")


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


# ---- any mode, format, orientation and number of pages

GRAY_8, GRAY_16, COLOR = (
    lambda shape, rng: rng.integers(0, 256, shape).astype(np.uint8),
    lambda shape, rng: rng.integers(2900, 3700, shape).astype(np.uint16),
    lambda shape, rng: rng.integers(0, 256, (*shape, 3)).astype(np.uint8),
)


def write_png(stored, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return save(Image.fromarray(stored), "PNG", exif=exif)


def write_webp(stored, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return save(Image.fromarray(stored), "WEBP", lossless=True, exif=exif)


def write_xmp_png(stored, orientation):
    metadata = PngInfo()
    metadata.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
    return save(Image.fromarray(stored), "PNG", pnginfo=metadata)


def write_xmp_tiff(stored, orientation):
    xmp = f'<x tiff:Orientation="{orientation}"/>'.encode()
    return save(Image.fromarray(stored), "TIFF", tiffinfo={700: xmp})


def write_tiff(order, deflate):
    return lambda stored, orientation: tiff(stored, order=order, deflate=deflate, t274=orientation)


WRITERS = {
    "png": (write_png, (GRAY_8, GRAY_16, COLOR)),
    "png, xmp": (write_xmp_png, (GRAY_8, GRAY_16, COLOR)),
    "webp": (write_webp, (COLOR,)),
    "tiff, xmp": (write_xmp_tiff, (GRAY_8, GRAY_16, COLOR)),
    **{
        f"tiff {order}{deflate}": (write_tiff(order, deflate), (GRAY_8, GRAY_16, COLOR))
        for order in "<>"
        for deflate in (False, True)
    },
}


@st.composite
def files(draw):
    """(name of the writer, bytes, upright pixels as stored by the camera)."""
    name = draw(st.sampled_from(sorted(WRITERS)))
    write, modes = WRITERS[name]
    make = draw(st.sampled_from(modes))
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stored, orientation = make(shape, rng), draw(st.integers(1, 8))
    return name, write(stored, orientation), turn_upright(stored, orientation)


@settings(max_examples=150, deadline=None)
@given(files(), st.sampled_from([1, 3]))
def test_file_is_read_as_viewers_show_it(tmp_path_factory, written, channels):
    """`read_image`, `image_shape`, `read_region` and `read_pil` agree with numpy."""
    _, data, upright = written
    eight = to_8_bits(upright) if upright.dtype == np.uint16 else upright
    expected = np.asarray(Image.fromarray(np.ascontiguousarray(eight)).convert("L"))[..., None]
    if channels == 3:
        gray = eight.ndim == 2
        expected = np.stack([eight] * 3, -1) if gray else eight
    file = ImageBytes("x", data)
    np.testing.assert_array_equal(images.read_image(file, channels, RANGE), expected)
    assert images.image_shape(file) == upright.shape[:2]
    region = images.read_region(file, (7, 5), lambda shape: (0, 0, *shape), channels, RANGE)
    source = Image.fromarray(expected[..., 0] if channels == 1 else np.ascontiguousarray(expected))
    resized = np.asarray(source.resize((5, 7), Image.Resampling.BILINEAR)).reshape(7, 5, channels)
    np.testing.assert_array_equal(region, resized)
    path = tmp_path_factory.getbasetemp() / "x"
    path.write_bytes(data)
    for source_of_pil in (path, io.BytesIO(data)):  # Pillow maps some files into memory
        with Image.open(source_of_pil) as image:
            np.testing.assert_array_equal(images.read_pil(image, channels, RANGE), expected)
            np.testing.assert_array_equal(images.read_pil(image, channels, RANGE), expected)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        np.testing.assert_array_equal(images.read_pil(image, channels, RANGE), expected)
        turned = ImageOps.exif_transpose(image)  # as users do it: nothing is left to turn
    np.testing.assert_array_equal(images.read_pil(turned, channels, RANGE), expected)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_streamed_and_in_memory_splits_are_equal(tmp_path_factory, data):
    """Of images in any format: for detection with YOLO boxes, for classification by folders."""
    root = tmp_path_factory.mktemp("set")
    written = data.draw(st.lists(files(), min_size=1, max_size=3))
    for folder in ("images/train", "labels/train", "folders/train/cat"):
        (root / folder).mkdir(parents=True)
    (root / "data.yaml").write_text("train: images/train\nnames: [cat]\n")
    for k, (name, content, _) in enumerate(written):
        suffix = name.split()[0].strip(",")
        (root / "images" / "train" / f"{k}.{suffix}").write_bytes(content)
        (root / "folders" / "train" / "cat" / f"{k}.{suffix}").write_bytes(content)
        (root / "labels" / "train" / f"{k}.txt").write_text("0 0.5 0.25 0.5 0.5\n")
    for load, source in ((load_detection, root), (load_classification, root / "folders")):
        common = {"size": (8, 8), "channels": 3, "range16": RANGE}
        memory = load(source, "train", **common)
        streamed = load(source, "train", **common, stream=True)
        np.testing.assert_array_equal(
            streamed.inputs["image"][np.arange(len(written))], memory.inputs["image"]
        )
        if load is load_detection:
            np.testing.assert_array_equal(streamed.boxes, memory.boxes)
            shapes = [(info["height"], info["width"]) for info in memory.truth["images"]]
            assert shapes == [upright.shape[:2] for _, _, upright in written]


# ---- the Python interface


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run"
    return tinyjax.load(write_untrained_run(folder, range16=RANGE))


def palette_png():
    color = np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    return save(Image.fromarray(color).quantize(16), "PNG")


def turned_jpeg():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return save(Image.fromarray(counts((40, 64)).astype(np.uint8)), "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        palette_png(),
        turned_jpeg(),
        tiff(counts((40, 64)), t274=8, order=">"),
        tiff(counts((10, 16)), counts((40, 64)), t254=[1, 0]),
        pgm(counts((40, 64)), 16383),
    ],
    ids=["palette", "EXIF", "TIFF 274", "thumbnail", "PGM"],
)
def test_model_reads_pil_images_and_paths_as_predict_does(model, tmp_path, data):
    file = tmp_path / "x.png"
    file.write_bytes(data)
    expected = images.read_image(file, 1, RANGE)  # as tinyjax.predict reads a file
    first = model(expected, threshold=0)
    assert len(first) > 0
    with Image.open(file) as image:
        for given_image in (image, file, str(file)):
            np.testing.assert_array_equal(
                model.preprocess(given_image).pixels, model.preprocess(expected).pixels
            )
            result = model(given_image, threshold=0)
            np.testing.assert_array_equal(result.boxes, first.boxes)
            np.testing.assert_array_equal(result.scores, first.scores)
        assert [len(r) for r in model([image, str(file)], threshold=0)] == [len(first)] * 2
        pictures = [np.asarray(first.draw(each)) for each in (image, file)]
    np.testing.assert_array_equal(*pictures)
