"""Rank the files of a gallery for query files: `tinyjax.predict` for recognition."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.data.prefetch import map_ahead
from tinyjax.errors import STOPPED, UserError
from tinyjax.inference.input_files import OutputPaths, is_video, output_paths
from tinyjax.inference.model import BATCH, PreprocessedImage
from tinyjax.inference.recognizer import TOP, Matches, Recognizer, rank
from tinyjax.run import progress
from tinyjax.run.csv_files import write_rows
from tinyjax.run.distributed import local_stop_requests
from tinyjax.run.files import atomic
from tinyjax.run.logs import log

COLUMNS = ("query", "rank", "gallery", "similarity")
MAX_DRAWN = 10  # matches in a picture


def rank_files(
    model: Recognizer,
    gallery: Sequence[Path],
    queries: Sequence[Path],
    output: Path,
    pictures: bool = True,
    query_modality: str = "infrared",
    gallery_modality: str = "visible",
    top: int = TOP,
) -> int:
    """Write the `top` matches of each query in the gallery: tables, and pictures if requested.

    A file that cannot be read is skipped with a warning. After a stop signal, the matches of the
    queries that were read until then are written.

    Returns the exit code of `tinyjax.predict`. Raises UserError for videos, `top` below 1, and if
    no file of the gallery or no query can be read.
    """
    if videos := [*filter(is_video, [*gallery, *queries])]:
        raise UserError(f"{videos[0]}: a video, which recognition does not read; give images")
    if top < 1:
        raise UserError(f"--top {top}: give 1 or more")
    start = time.time()
    blank = model.preprocess(np.zeros(model.input_shape, np.uint8))
    model.predict([blank], gallery_modality, BATCH)
    log.info(f"{model}, compiled in {time.time() - start:.0f} s")
    start = time.time()
    with (
        local_stop_requests() as stop,
        progress.progress_bar(total=len(gallery) + len(queries), unit="image") as bar,
    ):

        def embed(files: Sequence[Path], modality: str) -> tuple[list[Path], np.ndarray]:
            readable, rows = [], []
            remaining = takewhile(lambda _: not stop, files)
            for names, embeddings in _embed_files(model, remaining, modality):
                bar.update(len(names))
                readable += names
                rows.append(embeddings)
            return readable, np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

        candidates, gallery_embeddings = embed(gallery, gallery_modality)
        embedded, query_embeddings = embed(queries, query_modality)
    if not candidates and not stop:
        raise UserError(f"--input: none of {len(gallery)} files could be read; give other images")
    if not embedded and not stop:
        raise UserError(f"--query: none of {len(queries)} files could be read; give other images")
    rows = gallery_embeddings.astype(np.float64)
    matches = [rank(query, rows, top) for query in query_embeddings.astype(np.float64)]
    seconds = time.time() - start
    paths = output_paths(queries, output)
    _write_tables(embedded, candidates, matches, paths, output_paths(gallery, output))
    if pictures:
        _draw_all(embedded, candidates, matches, paths)
    log.info(
        f"{len(embedded)} queries ranked in a gallery of {len(candidates)} images, "
        f"{(len(embedded) + len(candidates)) / seconds:.1f} images per second; "
        f"{'pictures, ' if pictures else ''}ranks.json and ranks.csv in {output}"
    )
    if stop:
        log.info(f"stopped by a signal after {len(embedded)} of {len(queries)} queries")
        return STOPPED
    if unread := len(gallery) + len(queries) - len(candidates) - len(embedded):
        log.warning(f"not read: {unread} of {len(gallery) + len(queries)} files")
        return 2
    return 0


def _embed_files(
    model: Recognizer, files: Iterator[Path], modality: str
) -> Iterator[tuple[list[Path], np.ndarray]]:
    """Yield the files of each batch that can be read, and their embeddings."""
    threads = min(8, os.cpu_count() or 1)
    prepared = map_ahead(partial(_read, model=model, modality=modality), files, threads)
    while items := [*islice(prepared, BATCH)]:
        readable = {file: image for file, image in items if image}
        if readable:
            yield [*readable], model.predict([*readable.values()], modality, BATCH)


def _read(file: Path, model: Recognizer, modality: str) -> tuple[Path, PreprocessedImage | None]:
    try:
        return file, model.preprocess(file, modality)
    except UserError as error:
        log.warning(f"skipped: {error}")
        return file, None


def _write_tables(
    queries: Sequence[Path],
    gallery: Sequence[Path],
    matches: Sequence[Matches],
    query_names: OutputPaths,
    gallery_names: OutputPaths,
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "query": query_names.name(query),
            "rank": number,
            "gallery": gallery_names.name(gallery[index]),
            "similarity": round(similarity, 6),
        }
        for query, ranking in zip(queries, matches, strict=True)
        for number, (index, similarity) in enumerate(
            zip(ranking.indices.tolist(), ranking.similarities.tolist(), strict=True), start=1
        )
    ]
    with atomic(query_names.output / "ranks.json") as path:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    write_rows(query_names.output / "ranks.csv", rows, COLUMNS)


def _draw_all(
    queries: Sequence[Path], gallery: Sequence[Path], matches: Sequence[Matches], paths: OutputPaths
) -> None:
    def draw(item: tuple[Path, Matches]) -> None:
        query, ranking = item
        shown = Matches(ranking.indices[:MAX_DRAWN], ranking.similarities[:MAX_DRAWN])
        with atomic(paths.picture(query, ".png")) as path:
            shown.draw(query, gallery).save(path, "PNG", compress_level=1)

    for _ in map_ahead(draw, zip(queries, matches, strict=True), min(8, os.cpu_count() or 1)):
        pass
