"""Videos, written and read through OpenCV itself."""

import numpy as np
import pytest

from tinyjax.data import video
from tinyjax.errors import UserError


def pictures(n):
    """A red ground, a bright square that moves one pixel a frame."""
    for i in range(n):
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[..., 0] = 120
        frame[16:48, 8 + i : 40 + i] = 220
        yield frame


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "a.mp4"
    video.write(file, 12.5, pictures(15))
    assert video.about(file) == (15, 12.5)
    read = list(video.frames(file))
    assert [number for number, _, _ in read] == list(range(15))
    np.testing.assert_allclose([time for _, time, _ in read], np.arange(15) / 12.5, atol=1e-3)
    for (_, _, pixels), expected in zip(read, pictures(15), strict=True):
        assert pixels.shape == (64, 96, 3)
        error = np.abs(pixels.astype(int) - expected)  # the codec loses a little at the edges
        assert error.mean() < 6
        assert pixels[4, 4, 0] > 100 > pixels[4, 4, 2]  # red, not blue


def test_no_pictures_no_file(tmp_path):
    video.write(tmp_path / "a.mp4", 10.0, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [video.about, lambda file: list(video.frames(file))])
def test_not_a_video(read, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a.mp4: not a video that OpenCV can read"):
        read(tmp_path / "a.mp4")


def test_where_it_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="OpenCV cannot write this video"):
        video.write(tmp_path / "nowhere" / "a.mp4", 10.0, pictures(2))
