"""Paths of files and folders on this machine, or in a bucket."""

import os
from pathlib import Path

from tinyjax.errors import UserError


def parse_path(path: str | Path) -> Path:
    """Return a local path, or the path of a bucket for "gs://bucket/..".

    "~" is the home folder: a shell replaces it in `--workdir ~/x`, but not in `--workdir=~/x`.

    Raises UserError for a bucket if the packages that access it are not installed.
    """
    if "://" not in (text := str(path)):
        return parse_local_path(text)
    from etils import epath  # its paths have the pathlib methods that are used here

    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise UserError(f"{text}: a bucket requires pip install 'tinyjax[bucket]'") from error
    for name in ("gs", "gcs"):  # because other processes write to the bucket
        fsspec.config.conf[name] = {"use_listings_cache": False}
    return epath.Path(text)


def parse_local_path(path: str | Path) -> Path:
    """Return a path on this machine; "~" is the home folder.

    Raises UserError for a bucket, and for "~" if this user has no home folder.
    """
    if "://" in (text := str(path)):
        raise UserError(f"{text}: give a path on this machine, not in a bucket")
    expanded = os.path.expanduser(text)
    if text.split("/")[0] == "~" and expanded == text:
        raise UserError(f"{text}: this user has no home folder; set HOME, or give another path")
    return Path(expanded)


def is_remote(path: Path) -> bool:
    """Return whether a path is in a bucket, where a file can be replaced but not appended to."""
    return not isinstance(path, Path)
