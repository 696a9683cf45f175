"""Video files, through OpenCV, an optional dependency: pip install 'tinyjax[video]'."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4")
DEFAULT_FRAME_RATE = 25.0  # frames per second, for a file without one


class VideoInfo(NamedTuple):
    frames: int  # from the header, which may be wrong
    rate: float  # frames per second


def read_info(file: Path) -> VideoInfo:
    """The header of a video. Raises UserError if OpenCV is missing or cannot read the file."""
    cv2, capture = _open(file)
    frames, rate = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
    capture.release()
    return VideoInfo(max(int(frames), 0), rate if 0 < rate < 1000 else DEFAULT_FRAME_RATE)


def read_frames(file: Path) -> Iterator[tuple[int, float, np.ndarray]]:
    """Number (from 0), time in seconds and pixels uint8 [h, w, 3] (RGB) of each frame.

    Raises UserError as `read_info` does.
    """
    cv2, capture = _open(file)
    try:
        number = 0
        while (frame := capture.read())[0]:
            # After a read, the position is the time of the frame just read, also at variable rates.
            yield number, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, frame[1][..., ::-1]
            number += 1
    finally:
        capture.release()


def write_video(file: Path, rate: float, frames: Iterable[np.ndarray]) -> None:
    """Write frames uint8 [H, W, 3] (RGB) of one size as mp4; without frames no file is written.

    Raises UserError if OpenCV cannot write it.
    """
    cv2, writer = import_opencv(), None
    try:
        for frame in frames:
            if writer is None:
                size = (frame.shape[1], frame.shape[0])
                writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise UserError(f"{file}: OpenCV cannot write this video")
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
    finally:
        if writer is not None:
            writer.release()


def import_opencv() -> Any:
    """The module cv2. Raises UserError if it is not installed."""
    try:
        return import_module("cv2")
    except ImportError as error:
        raise UserError("video needs OpenCV: pip install 'tinyjax[video]'") from error


def _open(file: Path) -> Any:
    cv2 = import_opencv()
    capture = cv2.VideoCapture(str(file))
    if not capture.isOpened():
        raise UserError(f"{file}: not a video that OpenCV can read")
    return cv2, capture
