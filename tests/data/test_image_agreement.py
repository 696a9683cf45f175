"""All ways to read an image agree with numpy: for any mode, format and orientation, in memory and
streamed, as a file, a path and an image of Pillow.
"""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

import tinyjax
from tests.data.image_files import RANGE, counts, pgm, save, tiff, to_8_bits, turn_upright
from tests.data.loaders import load_classification, load_detection
from tests.untrained import write_untrained_run
from tinyjax import predict
from tinyjax.data import images
from tinyjax.data.layouts.arrayrecord import ImageBytes

ORIENTATION = 0x0112

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
    _, prepared = predict.prepare(predict.Frame(file), model)
    (first,) = model.predict([prepared], threshold=0)
    assert len(first) > 0
    with Image.open(file) as image:
        for given_image in (image, file, str(file)):
            assert model.preprocess(given_image).shape == prepared.shape
            np.testing.assert_array_equal(model.preprocess(given_image).pixels, prepared.pixels)
            result = model(given_image, threshold=0)
            np.testing.assert_array_equal(result.boxes, first.boxes)
            np.testing.assert_array_equal(result.scores, first.scores)
        assert [len(r) for r in model([image, str(file)], threshold=0)] == [len(first)] * 2
        pictures = [np.asarray(first.draw(each)) for each in (image, file)]
    np.testing.assert_array_equal(*pictures)
