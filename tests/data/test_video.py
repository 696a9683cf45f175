"""Videos, written and read through OpenCV."""

import numpy as np
import pytest

from tinyjax.data import video
from tinyjax.errors import UserError


def frames(n):
    """A red background and a bright square that moves one pixel per frame."""
    for i in range(n):
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[..., 0] = 120
        frame[16:48, 8 + i : 40 + i] = 220
        yield frame


def test_written_video_is_read_back(tmp_path):
    file = tmp_path / "a.mp4"
    video.write_video(file, 12.5, frames(15))
    assert video.read_info(file) == (15, 12.5)
    read = list(video.read_frames(file))
    assert [number for number, _, _ in read] == list(range(15))
    np.testing.assert_allclose([time for _, time, _ in read], np.arange(15) / 12.5, atol=1e-3)
    for (_, _, pixels), expected in zip(read, frames(15), strict=True):
        assert pixels.shape == (64, 96, 3)
        error = np.abs(pixels.astype(int) - expected)  # the codec loses a little at the edges
        assert error.mean() < 6
        assert pixels[4, 4, 0] > 100 > pixels[4, 4, 2]  # red, not blue


def test_no_frames_write_no_file(tmp_path):
    video.write_video(tmp_path / "a.mp4", 10.0, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [video.read_info, lambda file: list(video.read_frames(file))])
def test_file_that_is_not_a_video_is_an_error(read, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a.mp4: not a video that OpenCV can read"):
        read(tmp_path / "a.mp4")


def test_unwritable_path_is_an_error(tmp_path):
    with pytest.raises(UserError, match="OpenCV cannot write this video"):
        video.write_video(tmp_path / "nowhere" / "a.mp4", 10.0, frames(2))
