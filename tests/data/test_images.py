"""Reading images of all bit depths, and fitting them to a size."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from tinyjax.data.images import GRAY, fit_image, read_image, to_file, to_network, to_uint8
from tinyjax.data.sources import open_source
from tinyjax.errors import UserError


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def test_channels_are_converted(tmp_path, noise):
    (tmp_path / "gray.png").write_bytes(png(noise[..., 0]))
    (tmp_path / "color.png").write_bytes(png(noise))
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png", 1), noise[..., :1])
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png", 3), noise[..., [0, 0, 0]])
    np.testing.assert_array_equal(read_image(tmp_path / "color.png", 3), noise)
    luminance = noise @ np.array([0.299, 0.587, 0.114])
    gray = read_image(tmp_path / "color.png", 1)
    assert gray.shape == (12, 17, 1)
    assert gray.dtype == np.uint8
    assert np.abs(gray[..., 0] - luminance).max() <= 1


def test_sixteen_bits_are_mapped_by_range16(tmp_path):
    raw = np.linspace(20000, 30000, 35 * 20).reshape(20, 35).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(png(raw))
    fixed = read_image(tmp_path / "deep.png", 1, ("range", 20000, 25000))[..., 0]
    np.testing.assert_array_equal(fixed, np.rint(np.clip((raw - 20000.0) / 5000, 0, 1) * 255))
    percentiles = read_image(tmp_path / "deep.png", 3, ("percentiles", 10, 90))
    assert percentiles.shape == (20, 35, 3)
    assert percentiles.dtype == np.uint8
    assert np.mean(percentiles == 0) == pytest.approx(0.1, abs=0.01)
    assert np.mean(percentiles == 255) == pytest.approx(0.1, abs=0.01)


def test_percentiles_ignore_the_offset_and_accept_uniform_images():
    raw = np.random.default_rng(1).integers(0, 4000, (30, 40))
    rule = ("percentiles", 1.0, 99.0)
    np.testing.assert_array_equal(to_uint8(raw, rule), to_uint8(raw + 9000, rule))
    assert not to_uint8(np.full((4, 4), 7000, np.uint16), rule).any()


@pytest.mark.parametrize("rule", [("minmax", 0, 1), ("range", 5, 5), ("percentiles", 99, 1)])
def test_invalid_range16_is_an_error(rule):
    with pytest.raises(UserError, match=f"range16 = .*{rule[0]}.*low < high"):
        to_uint8(np.zeros((2, 2)), rule)


def test_invalid_channels_and_broken_files_are_errors(tmp_path, noise):
    (tmp_path / "a.png").write_bytes(png(noise))
    (tmp_path / "broken.png").write_bytes(png(noise)[:60])
    with pytest.raises(UserError, match="channels = 2"):
        read_image(tmp_path / "a.png", 2)
    with pytest.raises(UserError, match=r"broken\.png: not a readable image"):
        read_image(tmp_path / "broken.png")


def test_zip_is_read_in_place(tmp_path, noise):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("images/a.png", png(noise))
    with open_source(tmp_path / "a.zip") as root:
        np.testing.assert_array_equal(read_image(root / "images" / "a.png", 3), noise)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_source_that_is_neither_folder_nor_zip_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("no zip")
    with (
        pytest.raises(UserError, match=r"a\.txt: neither a folder nor a \.zip"),
        open_source(tmp_path / "a.txt"),
    ):
        pass
    with pytest.raises(UserError, match="missing: no such"), open_source(tmp_path / "missing"):
        pass


def test_letterbox_to_the_same_size_returns_the_image(noise):
    image, scale, offset = fit_image(noise, (12, 17))
    assert image is noise
    assert scale.tolist() == [1, 1]
    assert offset.tolist() == [0, 0]


@pytest.mark.parametrize("file", [(100, 180), (240, 60), (33, 47)])
@pytest.mark.parametrize("size", [(64, 64), (128, 160)])
@pytest.mark.parametrize("channels", [1, 3])
def test_letterboxed_box_matches_the_pixels(file, size, channels):
    h, w = file
    box = np.array([0.2 * w, 0.3 * h, 0.7 * w, 0.8 * h]).round()
    x1, y1, x2, y2 = box.astype(int)
    image = np.zeros((h, w, channels), np.uint8)
    image[y1:y2, x1:x2] = 255
    out, scale, offset = fit_image(image, size)
    assert out.shape == (*size, channels)
    assert out.dtype == np.uint8

    rows, columns = np.nonzero(out[..., 0] > 127)  # padding is below the threshold
    measured = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = to_network(box, scale, offset)
    assert np.abs(expected - measured).max() <= 1.0
    np.testing.assert_allclose(to_file(expected, scale, offset), box, atol=1e-4)

    frame = to_network(np.array([0, 0, w, h]), scale, offset).round().astype(int)
    outside = np.ones(size, bool)
    outside[frame[1] : frame[3], frame[0] : frame[2]] = False
    assert (out[outside] == GRAY).all()
    assert frame[0] == 0 or frame[1] == 0  # one axis is filled
    assert scale[0] == pytest.approx(scale[1], abs=0.5 / min(file))  # aspect kept, up to rounding
