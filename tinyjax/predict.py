"""Predict: run a trained network on images and videos.

    python -m tinyjax.predict --workdir runs/hit_uav --input photos/ --output predictions/
    python -m tinyjax.predict --workdir runs/people --input day/ --query night/ --output matches/
    python -m tinyjax.predict --model mine.onnx --input photos/ --output predictions/

--input takes images, folders of images, patterns such as 'photos/**/*.png' and videos (mp4, avi,
mov, mkv; they need `pip install 'tinyjax[video]'`). --workdir takes a run folder or a file of
weights, as `tinyjax.load` does; --model a file of tinyjax.export, which needs no other file. An
output file has the input file's path, relative to the common parent folder of all inputs. The
output folder contains

    <file>.png, or <file>.mp4 for a video   the image with boxes drawn
    predictions.json   a list in the COCO results format; image_id counts images and frames in
                       order, bbox is x, y, width, height in pixels of the file
    predictions.csv    the same: file, frame (from 0), time (s), category, score, x1, y1, x2, y2

A classifier predicts classes with a score of at least the threshold, without boxes.

A network of visible-infrared recognition ranks the images of --input, the gallery, for each image
of --query. Its output folder contains

    <query>.png   the query, and to its right the first matches with their similarity
    ranks.csv     query, rank (from 1), gallery (the file), similarity (cosine, -1 to 1)
    ranks.json    the same

A file that cannot be read is skipped with a warning. In folders, files of other types are not read;
images among them, such as heic, are counted in a warning. Exit codes: 0 all files were predicted, 2
a file could not be read or the input is invalid, 75 stopped by SIGTERM or Ctrl-C; predictions made
until then are written.
"""

import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax import config as configs
from tinyjax.config.paths import parse_local_path
from tinyjax.data import images, video
from tinyjax.data.prefetch import map_ahead
from tinyjax.errors import STOPPED, UserError, run_command
from tinyjax.inference.input_files import (
    OutputPaths,
    check_output,
    find_files,
    is_video,
    output_paths,
)
from tinyjax.run import progress
from tinyjax.run.csv_files import write_rows
from tinyjax.run.distributed import local_stop_requests
from tinyjax.run.files import atomic
from tinyjax.run.logs import log, start_log

# A video with fewer frames than this fraction of its stated length is incomplete; stated lengths
# are often wrong by a few frames.
MIN_VIDEO_FRACTION = 0.9
THRESHOLD = 0.3
# Options of single tasks, by attribute.
SCORE_FLAGS = {"threshold": "--threshold", "classes": "--class"}
RANK_FLAGS = {
    name: f"--{name.replace('_', '-')}"
    for name in ("query", "query_modality", "gallery_modality", "top")
}
COLUMNS = ("file", "frame", "time", "category", "score", "x1", "y1", "x2", "y2")
FLAGS = {
    "--input": {
        "required": True,
        "nargs": "+",
        "type": parse_local_path,
        "metavar": "PATH",
        "help": "images, folders, patterns, videos",
    },
    "--output": {
        "required": True,
        "type": parse_local_path,
        "metavar": "DIR",
        "help": "folder of the pictures and tables",
    },
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights of the run folder: the last or the best ones",
    },
    "--threshold": {
        "type": float,
        "help": f"minimum score (default {THRESHOLD})",
    },
    "--class": {
        "dest": "classes",
        "action": "append",
        "metavar": "NAME",
        "help": "only this class; may be repeated",
    },
    "--query": {
        "nargs": "+",
        "type": parse_local_path,
        "metavar": "PATH",
        "help": "recognition: images, folders, patterns to find in --input",
    },
    "--query-modality": {
        "choices": ("infrared", "visible"),
        "help": "modality of --query (default infrared)",
    },
    "--gallery-modality": {
        "choices": ("visible", "infrared"),
        "help": "modality of --input (default visible)",
    },
    "--top": {
        "type": int,
        "metavar": "N",
        "help": "matches of each query (default 10)",
    },
    "--no-pictures": {"dest": "pictures", "action": "store_false", "help": "write only tables"},
}


class Frame(NamedTuple):
    """An image file, or a frame of a video."""

    file: Path
    number: int | None = None  # index of a frame in its video
    time: float | None = None  # s
    pixels: np.ndarray | None = None  # uint8 [h, w, C]; None until an image file is read
    error: str = ""  # why it cannot be read


class Results:
    """Rows of predictions.json, and the number of predicted frames of each file."""

    def __init__(self, paths: OutputPaths, unreadable: list[Path]):
        self.rows: list[dict[str, Any]] = []
        self.num_frames: Counter[Path] = Counter()
        self.unreadable = unreadable  # files that could not be read, at least in part
        self._paths = paths

    def add(self, image_id: int, frame: Frame, prediction: Any) -> None:
        """Record the prediction for a frame, or None if it could not be read."""
        if prediction is None:
            self.unreadable.append(frame.file)
            log.warning(f"skipped: {frame.error}")
            return
        self.num_frames[frame.file] += 1
        self.rows.extend(json_rows(image_id, self._paths.name(frame.file), frame, prediction))

    def write(self, folder: Path) -> None:
        """Write predictions.json and predictions.csv."""
        with atomic(folder / "predictions.json") as path:
            path.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")
        write_rows(folder / "predictions.csv", map(csv_row, self.rows), COLUMNS)


def main(argv: list[str] | None = None) -> int:
    """Run the command. Raises UserError for invalid input."""
    options = configs.parse_options(
        "predict", __doc__, argv, FLAGS, required=(), optional=("workdir", "model")
    )
    source = configs.given_source(options)
    start_log()
    files = find_files(options.input)
    check_output(options.output, files)
    queries = find_files(options.query, "--query") if options.query else []
    check_output(options.output, queries)
    videos, unreadable = probe_videos(files)

    from tinyjax.api import load
    from tinyjax.inference.recognizer import Recognizer
    from tinyjax.run import runtime

    runtime.tune_allocator()
    runtime.enable_compile_cache()
    if options.model:
        from tinyjax.exporting.network_files import check_suffix

        check_suffix(options.model)
    model = load(source, options.weights, options.overrides)
    check_flags(options, isinstance(model, Recognizer))
    if isinstance(model, Recognizer):
        from tinyjax.inference.rank_files import rank_files

        names = ("query_modality", "gallery_modality", "top")
        given = {name: value for name in names if (value := getattr(options, name)) is not None}
        return rank_files(model, files, queries, options.output, options.pictures, **given)
    return predict_files(model, files, videos, unreadable, options)


def check_flags(options: Any, recognizes: bool) -> None:
    """Raise UserError for flags that the network of the run needs, or has no use for."""
    if recognizes and not options.query:
        raise UserError("--query: give the images to find in --input")
    excluded = SCORE_FLAGS if recognizes else RANK_FLAGS
    task = "recognition" if recognizes else "detection or classification"
    source = configs.given_source(options)
    mistakes = [
        f"{flag}: not an option of {task}, the task of {source}; leave it out"
        for name, flag in excluded.items()
        if getattr(options, name) is not None
    ]
    if mistakes:
        raise UserError(*mistakes)


def predict_files(
    model: Any,
    files: Sequence[Path],
    videos: dict[Path, video.VideoInfo],
    unreadable: list[Path],
    options: Any,
) -> int:
    """Write the predictions of a detector or classifier. Returns the exit code."""
    from tinyjax.inference.model import BATCH

    # ---- compile the network before anything is written, so that an invalid threshold or class is
    # reported at once
    total = sum(videos[f].frames if f in videos else not is_video(f) for f in files)
    batch = 1 if total == 1 else BATCH
    threshold = THRESHOLD if options.threshold is None else options.threshold
    predict = partial(model.predict, threshold=threshold, classes=options.classes, batch=batch)
    start = time.time()
    predict([model.preprocess(np.zeros(model.input_shape, np.uint8))])
    log.info(f"{model}, compiled in {time.time() - start:.0f} s")

    # ---- predict all frames: threads read and draw while the network computes
    paths = output_paths(files, options.output)
    results = Results(paths, unreadable)
    threads = min(8, os.cpu_count() or 1)
    start = time.time()
    with (
        local_stop_requests() as stop,
        progress.progress_bar(total=total, unit="image") as bar,
    ):
        frames = takewhile(lambda _: not stop, read_frames(files, videos))
        prepared = map_ahead(partial(prepare, model=model), frames, threads)
        predicted = predict_batches(predict, prepared, batch)
        draw = partial(draw_frame, paths=paths if options.pictures else None)

        def record(image_id: int, drawn: tuple[Frame, Any, np.ndarray | None]) -> Any:
            frame, prediction, picture = drawn
            bar.update()
            results.add(image_id, frame, prediction)
            return picture

        numbered = enumerate(map_ahead(draw, predicted, threads))
        for file, group in groupby(numbered, key=lambda item: item[1][0].file):
            pictures = (record(image_id, drawn) for image_id, drawn in group)
            if file in videos and options.pictures:
                paths.picture(file, "").parent.mkdir(parents=True, exist_ok=True)
                video.write_video(paths.picture(file, ".mp4"), videos[file].rate, pictures)
            deque(pictures, maxlen=0)  # consumes the rest
    seconds = time.time() - start

    # ---- tables and summary
    results.write(options.output)
    num_images = results.num_frames.total()
    counts = Counter(row["category"] for row in results.rows).most_common()
    categories = ", ".join(f"{n} {category}" for category, n in counts)
    log.info(
        f"{len(results.rows)} {model.noun}{f' ({categories})' if counts else ''} in {num_images} "
        f"images, {num_images / seconds:.1f} per second; "
        f"{'pictures, ' if options.pictures else ''}"
        f"predictions.json and predictions.csv in {options.output}"
    )
    if stop:
        log.info(f"stopped by a signal after {num_images} of {total} images")
        return STOPPED
    for file, info in videos.items():
        if (count := results.num_frames[file]) < MIN_VIDEO_FRACTION * info.frames:
            log.warning(f"{file}: ends after {count} of {info.frames} frames; is it incomplete?")
            unreadable.append(file)
    if unreadable:
        log.warning(f"not read completely: {len(unreadable)} of {len(files)} files")
        return 2
    return 0


def probe_videos(files: Iterable[Path]) -> tuple[dict[Path, video.VideoInfo], list[Path]]:
    """Return the length and rate of each readable video, and the others, with a warning for each.

    Raises UserError if there is a video and OpenCV is not installed.
    """
    videos: dict[Path, video.VideoInfo] = {}
    unreadable: list[Path] = []
    for file in filter(is_video, files):
        video.import_opencv()
        try:
            videos[file] = video.read_info(file)
        except UserError as error:
            unreadable.append(file)
            log.warning(f"skipped: {error}")
    return videos, unreadable


def read_frames(files: Iterable[Path], videos: dict[Path, video.VideoInfo]) -> Iterator[Frame]:
    """Yield all image files, without pixels, and all frames of the readable videos, in order."""
    for file in files:
        if file in videos:
            for number, seconds, pixels in video.read_frames(file):
                yield Frame(file, number, seconds, pixels)
        elif not is_video(file):
            yield Frame(file)


def prepare(frame: Frame, model: Any) -> tuple[Frame, Any]:
    """Return the frame with its pixels, and the preprocessed image, None if it cannot be read."""
    try:
        if frame.pixels is None:
            pixels = images.read_image(frame.file, model.input_shape[2], model.range16)
            frame = frame._replace(pixels=pixels)
        return frame, model.preprocess(frame.pixels)
    except UserError as error:
        return frame._replace(error=str(error)), None


def predict_batches(
    predict: Callable, prepared: Iterator, batch: int
) -> Iterator[tuple[Frame, Any]]:
    """Yield frames and their predictions, None for frames that could not be read."""
    while items := list(islice(prepared, batch)):
        predictions = iter(predict([image for _, image in items if image]))
        yield from ((frame, image and next(predictions)) for frame, image in items)


def draw_frame(
    item: tuple[Frame, Any], paths: OutputPaths | None
) -> tuple[Frame, Any, np.ndarray | None]:
    """Write the picture of an image file, or return the picture of a video frame as an array.

    paths: None to draw nothing.
    """
    frame, prediction = item
    frame, pixels = frame._replace(pixels=None), frame.pixels  # free the pixels
    if prediction is None or paths is None:
        return frame, prediction, None
    picture = prediction.draw(pixels)
    if frame.number is not None:
        return frame, prediction, np.asarray(picture)
    with atomic(paths.picture(frame.file, ".png")) as path:
        picture.save(path, "PNG", compress_level=1)  # half the time, a quarter larger
    return frame, prediction, None


def json_rows(image_id: int, name: str, frame: Frame, prediction: Any) -> list[dict[str, Any]]:
    """Return the rows of predictions.json for a frame."""
    source: dict[str, Any] = {"file_name": name}
    if frame.time is not None:
        source |= {"frame": frame.number, "time": round(frame.time, 3)}
    return [{**source, **row} for row in prediction.to_rows(image_id)]


def csv_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of predictions.csv for a row of predictions.json."""
    box: dict[str, float] = {}
    if "bbox" in row:
        x, y, width, height = row["bbox"]
        box = {"x1": x, "y1": y, "x2": round(x + width, 3), "y2": round(y + height, 3)}
    columns = {name: row.get(name, "") for name in ("frame", "time", "category", "score")}
    return {"file": row["file_name"], **columns, **box}


if __name__ == "__main__":
    sys.exit(run_command(main))
