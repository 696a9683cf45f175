"""Miniatures of prepared data sets."""

import io
from pathlib import Path

from tests.data.test_streaming import jpeg, photo


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
