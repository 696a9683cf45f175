"""Video files, through OpenCV, which is an extra: pip install 'tinyjax[video]'."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4")
RATE = 25.0  # frames a second of a file that does not tell


class About(NamedTuple):
    frames: int  # as the file tells; some tell wrongly
    rate: float  # frames a second


def about(file: Path) -> About:
    """Raises UserError if OpenCV is missing or cannot read the file."""
    cv2, capture = _opened(file)
    frames, rate = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
    capture.release()
    return About(max(int(frames), 0), rate if 0 < rate < 1000 else RATE)


def frames(file: Path) -> Iterator[tuple[int, float, np.ndarray]]:
    """Number (from 0), time in seconds and pixels uint8 [h, w, 3] (RGB) of each frame.

    Raises UserError as `about` does.
    """
    cv2, capture = _opened(file)
    try:
        number = 0
        while (read := capture.read())[0]:
            # After a frame is read this is its own time, right for changing rates too.
            yield number, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, read[1][..., ::-1]
            number += 1
    finally:
        capture.release()


def write(file: Path, rate: float, pictures: Iterable[np.ndarray]) -> None:
    """An mp4 of pictures uint8 [H, W, 3] (RGB) of one size; none is no file.

    Raises UserError if OpenCV cannot write it.
    """
    cv2, writer = opencv(), None
    try:
        for picture in pictures:
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise UserError(f"{file}: OpenCV cannot write this video")
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
    finally:
        if writer is not None:
            writer.release()


def opencv() -> Any:
    """The module. Raises UserError if it is not installed."""
    try:
        return import_module("cv2")
    except ImportError as error:
        raise UserError("video needs OpenCV: pip install 'tinyjax[video]'") from error


def _opened(file: Path) -> Any:
    cv2 = opencv()
    capture = cv2.VideoCapture(str(file))
    if not capture.isOpened():
        raise UserError(f"{file}: not a video that OpenCV can read")
    return cv2, capture
