"""Folders of this machine or in a bucket. A file of its own: commands know them before all else."""

from pathlib import Path

from tinyjax.errors import UserError


def path_of(text: str) -> Path:
    """A folder on this machine's disks or, as "gs://bucket/..", in a bucket. Raises UserError
    without what reads those.
    """
    if "://" not in text:
        return Path(text)
    from etils import epath  # like pathlib's paths in all that is asked of them here

    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise UserError(f"{text}: is in a bucket: pip install 'tinyjax[bucket]'") from error
    for name in ("gs", "gcs"):  # others write there: what was listed once is not what there is
        fsspec.config.conf[name] = {"use_listings_cache": False}
    return epath.Path(text)


def remote(path: Path) -> bool:
    """Whether it is in a bucket, where a file can be written whole but not added to."""
    return not isinstance(path, Path)
