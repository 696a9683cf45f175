"""Small images, and miniatures of data sets."""

import io
import itertools
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed, shape=(60, 80)):
    """Smooth colors, which JPEG preserves."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    rng = np.random.default_rng(seed)
    waves = [np.sin(x * rng.uniform(0, 0.2) + y * rng.uniform(0, 0.2)) for _ in range(3)]
    return (127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def jpeg(pixels, **more):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **more)
    return stream.getvalue()


def write_noise_images(
    root: Path, count: int = 4, splits: tuple[str, ...] = ("train", "val")
) -> Path:
    """Write `count` images of noise for each of two classes and each split; returns `root`."""
    rng = np.random.default_rng(0)
    for split, name in itertools.product(splits, ("cat", "dog")):
        (root / split / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (32, 32), np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def prepare_imagenet2012(root: Path) -> Path:
    """Prepare a miniature of imagenet2012 as TensorFlow Datasets does: the same splits and
    features, JPEG files of various sizes, ArrayRecord.
    """
    import tensorflow_datasets as tfds

    names = ["n01440764", "n01443537", "n01484850"]

    class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("5.1.0")
        url_infos = {}  # noqa: RUF012

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=names),
                "file_name": tfds.features.Text(),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(
                builder=self, features=features, supervised_keys=("image", "label")
            )

        def _split_generators(self, _):
            return {"train": self._rows(14, 0), "validation": self._rows(5, 1)}

        def _rows(self, count, seed):
            for k in range(count):
                name = f"{names[k % 3]}_{k}.JPEG"
                data = jpeg(photo((k % 3, seed, k), (40 + 3 * k, 60 - k)))
                yield name, {"image": io.BytesIO(data), "label": names[k % 3], "file_name": name}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Imagenet2012(data_dir=root, file_format="array_record")
    builder.download_and_prepare(download_dir=root / "downloads")
    return builder.data_path
