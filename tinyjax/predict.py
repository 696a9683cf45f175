"""Predict: what a trained network finds in images and videos, or what it says they are of.

    python -m tinyjax.predict --workdir runs/hit_uav --input photos/ --output found/

--input takes images, folders of images, patterns such as 'photos/**/*.png' and videos (mp4, avi,
mov, mkv; they need `pip install 'tinyjax[video]'`). --workdir takes a run folder or a file of
weights, what `tinyjax.load` takes. Files are named by their path below the folder that all of them
share. The output folder holds

    <file>.png, or <file>.mp4 of a video   the boxes drawn
    predictions.json   a list in the COCO format of results; image_id counts images and frames in
                       order, bbox is x, y, width, height in pixels of the file
    predictions.csv    the same: file, frame (from 0), time (s), category, score, x1, y1, x2, y2

Of a classifier it is the classes that score at least the threshold, without boxes.

A file that cannot be read is named, and the rest goes on. Exit codes: 0 all is predicted, 2 some
file could not be read or there is something to mend in what was given, 75 told to stop (SIGTERM or
Ctrl-C): what was found until then is written.
"""

import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from glob import glob
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax import config as configs
from tinyjax.data import images, video
from tinyjax.data.detection import ahead
from tinyjax.errors import UserError, exit_code
from tinyjax.run import progress
from tinyjax.run.csv_files import write_rows
from tinyjax.run.distributed import local_stop_requests
from tinyjax.run.files import atomic
from tinyjax.run.logs import log, start_log

STOPPED = 75  # as of training
SUFFIXES = images.SUFFIXES + video.SUFFIXES
CUT_OFF = 0.9  # of the frames a video says it has; a few off is how such numbers are
COLUMNS = ("file", "frame", "time", "category", "score", "x1", "y1", "x2", "y2")
FLAGS = {
    "--input": {
        "required": True,
        "nargs": "+",
        "metavar": "PATH",
        "help": "images, folders, patterns, videos",
    },
    "--output": {
        "required": True,
        "type": Path,
        "metavar": "DIR",
        "help": "where pictures, json and csv go",
    },
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights of a run folder: the last, or the best",
    },
    "--threshold": {
        "type": float,
        "default": 0.3,
        "help": "lowest score that is kept (default 0.3)",
    },
    "--class": {
        "dest": "classes",
        "action": "append",
        "metavar": "NAME",
        "help": "only this class; may be given several times",
    },
    "--no-pictures": {"dest": "pictures", "action": "store_false", "help": "json and csv only"},
}


class Frame(NamedTuple):
    """An image file, or a frame of a video."""

    file: Path
    number: int | None = None  # of a video's frame, from 0
    time: float | None = None  # s
    pixels: np.ndarray | None = None  # uint8 [h, w, C]; of an image file, None until it is read
    error: str = ""  # why it cannot be read


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("predict", __doc__, argv, FLAGS, needs=("workdir",))
    files = find(options.input)
    refuse_mixing(options.output, files)
    start_log()
    movies, unread = look_at_videos(files)
    total = sum(movies[f].frames if f in movies else not is_video(f) for f in files)

    from tinyjax.api import BATCH, load
    from tinyjax.run import runtime

    runtime.tune_allocator()
    runtime.enable_compile_cache()

    # ---- the network, compiled before anything is written: a wrong threshold or class ends here
    model = load(options.workdir, options.weights, options.overrides)
    batch = 1 if total == 1 else BATCH
    detect = partial(
        model.predict, threshold=options.threshold, classes=options.classes, batch=batch
    )
    begin = time.time()
    detect([model.fit(np.zeros(model.frame, np.uint8))])
    log.info(f"{model}, compiled in {time.time() - begin:.0f} s")

    # ---- all frames: read and drawn in threads, beside the network
    root = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    rows: list[dict[str, Any]] = []
    done: Counter[Path] = Counter()  # frames of each file

    def name(file: Path) -> str:
        return Path(os.path.relpath(os.path.abspath(file), root)).as_posix()

    def place(file: Path, suffix: str) -> Path:
        return options.output / f"{name(file)}{suffix}"

    threads = min(8, os.cpu_count() or 1)
    begin = time.time()
    with (
        local_stop_requests() as stop,
        progress.progress_bar(total=total, unit="image") as bar,
    ):

        def record(number: int, frame: Frame, found: Any, picture: Any) -> Any:
            bar.update()
            if found is None:
                unread.append(frame.file)
                log.warning(f"left out: {frame.error}")
            else:
                done[frame.file] += 1
                rows.extend(describe(number, name(frame.file), frame, found))
            return picture

        going = takewhile(lambda _: not stop, frames(files, movies))
        prepared = ahead(partial(prepare, model=model), going, threads)
        found = in_batches(detect, prepared, batch)
        drawn = ahead(partial(draw, place=place if options.pictures else None), found, threads)
        numbered = ((i, *one) for i, one in enumerate(drawn))
        for file, own in groupby(numbered, key=lambda one: one[1].file):
            recorded = (record(*one) for one in own)
            if file in movies and options.pictures:
                place(file, "").parent.mkdir(parents=True, exist_ok=True)
                video.write(place(file, ".mp4"), movies[file].rate, recorded)
            deque(recorded, maxlen=0)  # goes through them
    seconds = time.time() - begin

    # ---- tables and the last lines
    with atomic(options.output / "predictions.json") as path:
        path.write_text(json.dumps(rows, indent=1))
    write_rows(options.output / "predictions.csv", map(in_columns, rows), COLUMNS)
    each = Counter(row["category"] for row in rows)
    of_each = ", ".join(f"{n} {category}" for category, n in each.most_common())
    log.info(
        f"{len(rows)} {model.finds}{f' ({of_each})' if each else ''} in {done.total()} images, "
        f"{done.total() / seconds:.1f} a second; {'pictures, ' if options.pictures else ''}"
        f"predictions.json and predictions.csv in {options.output}"
    )
    if stop:
        log.info(f"told to stop: {done.total()} of {total} images are done")
        return STOPPED
    for file, movie in movies.items():
        if done[file] < CUT_OFF * movie.frames:
            log.warning(f"{file}: ends after {done[file]} of {movie.frames} frames; is it cut off?")
            unread.append(file)
    if unread:
        log.warning(f"not read, or not all of it: {len(unread)} of {len(files)} files")
        return 2
    return 0


def find(sources: Iterable[str]) -> list[Path]:
    """Image and video files: named ones, those in a folder by name, those a pattern matches.

    Raises UserError for a source without any.
    """
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_file():
            files.append(path)
            continue
        inside = path.iterdir() if path.is_dir() else map(Path, glob(source, recursive=True))
        own = (f for f in inside if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if not (found := sorted(f for f in own if f.is_file())):
            what = "no images" if path.is_dir() else "no such file or folder, and no images match"
            raise UserError(f"--input {source}: {what}; known are {', '.join(SUFFIXES)}")
        files += found
    once: dict[str, Path] = {}  # a file named twice would be drawn by two threads into one picture
    for file in files:
        once.setdefault(os.path.abspath(file), file)
    return list(once.values())


def refuse_mixing(output: Path, files: Iterable[Path]) -> None:
    """Raise UserError if images would be among the pictures drawn of them."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: not a folder")
    for file in files:
        if output.resolve() in file.resolve().parents:
            raise UserError(f"--output {output}: {file} is in it; name another folder")


def is_video(file: Path) -> bool:
    return file.suffix.lower() in video.SUFFIXES


def look_at_videos(files: Iterable[Path]) -> tuple[dict[Path, video.About], list[Path]]:
    """Length and rate of every video, and those that cannot be read, which are named in the log.

    Raises UserError if there is a video and OpenCV is not installed.
    """
    movies: dict[Path, video.About] = {}
    unread: list[Path] = []
    for file in filter(is_video, files):
        video.opencv()
        try:
            movies[file] = video.about(file)
        except UserError as error:
            unread.append(file)
            log.warning(f"left out: {error}")
    return movies, unread


def frames(files: Iterable[Path], movies: dict[Path, video.About]) -> Iterator[Frame]:
    """Every image file, and every frame of the videos that can be read, in order."""
    for file in files:
        if file in movies:
            for number, seconds, pixels in video.frames(file):
                yield Frame(file, number, seconds, pixels)
        elif not is_video(file):
            yield Frame(file)


def prepare(frame: Frame, model: Any) -> tuple[Frame, Any]:
    """The frame, read, and its Fitted, or None if it cannot be read."""
    try:
        if frame.pixels is None:
            pixels = images.read(frame.file, model.frame[2], model.range16)
            frame = frame._replace(pixels=pixels)
        return frame, model.fit(frame.pixels)
    except UserError as error:
        return frame._replace(error=str(error)), None


def in_batches(detect: Callable, prepared: Iterator, size: int) -> Iterator[tuple[Frame, Any]]:
    """Frames and their Detections, None for those that could not be read."""
    while some := list(islice(prepared, size)):
        found = iter(detect([fitted for _, fitted in some if fitted]))
        yield from ((frame, fitted and next(found)) for frame, fitted in some)


def draw(one: tuple[Frame, Any], place: Callable | None) -> tuple[Frame, Any, np.ndarray | None]:
    """Write the picture of an image file; that of a video's frame is handed on."""
    frame, found = one
    frame, pixels = frame._replace(pixels=None), frame.pixels  # nobody needs them any more
    if found is None or place is None:
        return frame, found, None
    picture = found.draw(pixels)
    if frame.number is not None:
        return frame, found, np.asarray(picture)
    with atomic(place(frame.file, ".png")) as path:
        picture.save(path, "PNG", compress_level=1)  # in half the time, a quarter larger
    return frame, found, None


def describe(number: int, name: str, frame: Frame, found: Any) -> list[dict[str, Any]]:
    """What predictions.json says of a frame."""
    where: dict[str, Any] = {"file_name": name}
    if frame.time is not None:
        where |= {"frame": frame.number, "time": round(frame.time, 3)}
    return [{**where, **row} for row in found.to_rows(number)]


def in_columns(row: dict[str, Any]) -> dict[str, Any]:
    """What predictions.csv says of a row of predictions.json."""
    box: dict[str, float] = {}
    if "bbox" in row:
        x, y, width, height = row["bbox"]
        box = {"x1": x, "y1": y, "x2": round(x + width, 3), "y2": round(y + height, 3)}
    same = {name: row.get(name, "") for name in ("frame", "time", "category", "score")}
    return {"file": row["file_name"], **same, **box}


if __name__ == "__main__":
    sys.exit(exit_code(main))
