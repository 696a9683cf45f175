"""Paths of folders on this machine or in a bucket."""

from pathlib import Path

from tinyjax.errors import UserError


def parse_path(text: str) -> Path:
    """Return a local path, or the path of a bucket for "gs://bucket/..".

    Raises UserError for a bucket if the packages that access it are not installed.
    """
    if "://" not in text:
        return Path(text)
    from etils import epath  # its paths have the pathlib methods that are used here

    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise UserError(f"{text}: a bucket requires pip install 'tinyjax[bucket]'") from error
    for name in ("gs", "gcs"):  # because other processes write to the bucket
        fsspec.config.conf[name] = {"use_listings_cache": False}
    return epath.Path(text)


def is_remote(path: Path) -> bool:
    """Return whether a path is in a bucket, where a file can be replaced but not appended to."""
    return not isinstance(path, Path)
