"""Classification sets: folders, zips, sets of TensorFlow Datasets."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.data.loaders import load_classification
from tinyjax.config import classifier
from tinyjax.data.loading import load_split
from tinyjax.errors import UserError

COUNTS = {"train": {"cat": 3, "dog": 2, "owl": 1}, "val": {"cat": 1, "dog": 1, "owl": 2}}


def picture(seed, shape=(20, 30, 3)):
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for split, classes in COUNTS.items():
        for name, count in classes.items():
            class_folder = root / split / name
            class_folder.mkdir(parents=True)
            for k in range(count):
                Image.fromarray(picture((len(split), len(name), ord(name[0]), k))).save(
                    class_folder / f"{k}.png"
                )
            (class_folder / "notes.txt").write_text("not an image")
    return root


@pytest.fixture
def packed(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        for path in sorted(folder.rglob("*.*")):
            file.write(path, f"set/{path.relative_to(folder)}")
    return tmp_path / "set.zip"


def test_folder_and_zip_give_the_same_split(folder, packed):
    split = load_classification(folder, "train", (20, 30))
    assert split.classes == ("cat", "dog", "owl")
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert split.names == (
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "dog/0.png",
        "dog/1.png",
        "owl/0.png",
    )
    np.testing.assert_array_equal(
        split.inputs["image"][3], np.asarray(Image.open(folder / "train" / "dog" / "0.png"))
    )
    zipped = load_classification(packed, "train", (20, 30))
    np.testing.assert_array_equal(zipped.inputs["image"], split.inputs["image"])
    np.testing.assert_array_equal(zipped.labels, split.labels)
    assert (zipped.names, zipped.classes) == (split.names, split.classes)


def test_subfolders_belong_to_their_class(folder):
    (folder / "train" / "cat" / "more").mkdir()
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "more" / "0.png")
    split = load_classification(folder, "train", (20, 30))
    assert split.classes == ("cat", "dog", "owl")
    assert split.names[:3] == ("cat/1.png", "cat/2.png", "cat/more/0.png")


def test_size_fit_channels_and_classes(folder):
    split = load_classification(folder, "val", (8, 8), classes=("owl", "cat"), channels=1)
    assert split.inputs["image"].shape == (3, 8, 8, 1)
    assert split.labels.tolist() == [1, 0, 0]  # in order of folder; numbers as given
    assert split.left_out == 1
    boxed = load_classification(folder, "val", (8, 8), fit="letterbox")
    assert (boxed.inputs["image"][:, 0] == 114).all()
    assert (split.inputs["image"][:, 0] != 114).any()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"split": "test"}, r"no images of a split 'test'; .*known: train, val"),
        ({"classes": ("cat", "dogs")}, r"no class 'dogs'; did you mean 'dog'"),
        ({"source": "nowhere"}, "nowhere: no such folder or .zip"),
        ({"layout": "folders"}, "did you mean 'folder'"),
        ({"size": (0, 8)}, r"size = \(0, 8\): give \(height, width\)"),
        ({"size": None}, r"size = None: give data\.common\.size"),
        ({"fit": "crop"}, "fit = 'crop': known: letterbox"),
        ({"range16": ("range", 0)}, r"range16 = \('range', 0\): give .*low < high"),
    ],
)
def test_invalid_options_are_errors(folder, more, message):
    with pytest.raises(UserError, match=message):
        load_classification(**{"source": folder, "split": "train", "size": (8, 8), **more})


LINES = {
    "Linux": "{0} {1}\n",
    "Windows": "{0} {1}\r\n",
    "blank lines": "\n{0}   {1} \n \n",
    "tabs": "{0}\t{1}\n",
    "no numbers": "{0}\n",
    "dots": "./{0} {1}\n",
}


@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("backslashes", [False, True])
@pytest.mark.parametrize("form", LINES)
def test_lists_as_different_tools_write_them(folder, form, backslashes, head):
    (folder / "train" / "dog" / "0.png").rename(folder / "train" / "dog" / "my 0.png")
    paths = sorted(folder.glob("train/*/*.png"))
    classes = ("cat", "dog", "owl")
    text = ""
    for path in paths:
        name = str(path.relative_to(folder)).replace("/", "\\" if backslashes else "/")
        text += LINES[form].format(name, classes.index(path.parent.name))
    (folder / "list.txt").write_bytes(head + text.encode())
    split = load_classification(folder, "list", (8, 8), layout="list")
    expected = load_classification(folder, "train", (8, 8))
    assert split.names == expected.names
    np.testing.assert_array_equal(split.labels, expected.labels)
    np.testing.assert_array_equal(split.inputs["image"], expected.inputs["image"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train/k\u00e4se/0.png 0".encode("latin-1"), "not text in UTF-8"),
        (b"0.png 0", "line 1: '0.png 0': give <path with a folder> <number>"),
        (b"a/0.png 0\na/1.png 1", "line 2: class a has 1, but 0 before; the class is the name"),
        (b"a/0.png 0\nb/0.png 0", "line 2: number 0 has b, but a before; the class is the name"),
    ],
)
def test_wrong_lists_are_errors(folder, content, message):
    (folder / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"list\.txt.*{message}"):
        load_classification(folder, "list", (8, 8), layout="list")


def test_unreadable_image_is_an_error_or_skipped(folder):
    (folder / "train" / "dog" / "0.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"dog/0\.png: not a readable image"):
        load_classification(folder, "train", (8, 8))
    config = classifier()
    config.data.common = {"source": str(folder), "size": (8, 8)}
    config.data.train = {"split": "train"}
    config.data.on_error = "skip"
    split = load_split(config.data, config.data.train, ("folder", "tfds"))
    assert split.labels.tolist() == [0, 0, 0, 1, 2]


def test_missing_size_and_wrong_format_are_errors(folder):
    config = classifier()
    config.data.common = {"source": str(folder)}
    config.data.train = {"split": "train"}
    with pytest.raises(UserError, match=r"data: no 'size'; give data\.common\.size"):
        load_split(config.data, config.data.train, ("folder", "tfds"))
    config.data.format = "coco"
    with pytest.raises(UserError, match=r"data\.format = 'coco': .*known: folder, tfds"):
        load_split(config.data, config.data.train, ("folder", "tfds"))


def test_tensorflow_datasets_split(folder, tmp_path):
    """A set prepared as ArrayRecord by a builder of the library, read without TensorFlow."""
    import tensorflow_datasets as tfds

    names = ["dog", "cat", "owl"]  # not in alphabetical order

    class Animals(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = {}  # noqa: RUF012

        def _info(self):
            label = tfds.features.ClassLabel(names=names)
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {"train": self._rows()}

        def _rows(self):
            for k, file in enumerate(sorted((folder / "train").rglob("*.png"))):
                yield k, {"image": io.BytesIO(file.read_bytes()), "label": file.parent.name}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Animals(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare(download_dir=tmp_path / "downloads")
    loaded = load_classification(builder.data_path, "train", (20, 30), layout="tfds")
    expected = load_classification(folder, "train", (20, 30))
    assert (loaded.classes, loaded.labels.tolist()) == (expected.classes, expected.labels.tolist())
    expected_bytes = sorted(image.tobytes() for image in expected.inputs["image"])
    assert sorted(image.tobytes() for image in loaded.inputs["image"]) == expected_bytes
    half = load_classification(builder.data_path, "train[:50%]", (20, 30), layout="tfds")
    assert len(half.names) == 3
    with pytest.raises(UserError, match=r"split 'val' cannot be read"):
        load_classification(builder.data_path, "val", (20, 30), layout="tfds")
