"""Training on sets that stay on disk, through the command: both tasks, with a resume."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.configs import classifier, detector
from tests.data.layouts import source_files
from tests.miniatures import photo, prepare_imagenet2012
from tests.tiny_backbones import TINY
from tinyjax import api, evaluate
from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import read_weights
from tinyjax.train import STOPPED
from tinyjax.train import main as train_main
from tinyjax.train import train as train_config


def weights(folder):
    return read_weights(folder / "weights" / run_folder.member_id({}))[0]


def assert_equal(actual, expected):
    for collection in actual:
        for path, leaf in actual[collection].items():
            np.testing.assert_array_equal(leaf, expected[collection][path], err_msg=path)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return prepare_imagenet2012(tmp_path_factory.mktemp("imagenet2012"))


def tiny_imagenet(source):
    config = configs.load(
        f"configs/imagenet_s.py:backbone={TINY},source={source},images=14,epochs=3"
    )
    config.crop_size, config.batch, config.model.dtype = (32, 32), 4, "float32"
    config.data.common = {**config.data.common, "size": (40, 40)}
    config.schedule.update({"steps": 6, "warmup": 2})
    config.update({"log_every": 1, "save_every": 3, "eval_every": 6})
    return config


@pytest.fixture(scope="module")
def pretrained(imagenet, tmp_path_factory):
    """The authors' recipe on a miniature."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    assert api.train(tiny_imagenet(imagenet), folder) == 0
    return folder


@pytest.mark.slow
def test_training_on_prepared_imagenet_resumes_exactly(imagenet, pretrained, tmp_path):
    """A run stopped at step 3 and resumed ends with the weights of an uninterrupted run."""
    uninterrupted, stopped, config = pretrained, tmp_path / "stopped", tiny_imagenet(imagenet)
    (row,) = read_rows(uninterrupted / "results.csv")
    assert float(row["images"]) == 5
    metrics = read_rows(uninterrupted / "metrics.csv")
    assert sum((r["split"], r["metric"]) == ("train", "loss") for r in metrics) == 6
    rates = [float(r["value"]) for r in metrics if r["metric"] == "lr"]
    np.testing.assert_allclose(rates, np.multiply(0.05, [0.5, 1, 1, 0.75, 0.5, 0.25]), rtol=1e-5)
    log = (uninterrupted / "log.txt").read_text()
    assert "14 images of 40 x 40 x 3, 3 classes of 4 to 5 images" in log

    class AtStep3(list):
        def __bool__(self):
            return any((stopped / "populations" / "0" / "checkpoints").glob("3*"))

    assert train_config(config, stopped, stop=AtStep3()) == STOPPED
    assert api.train(config, stopped) == 0
    assert re.search("resuming at step [34] of 6", (stopped / "log.txt").read_text())
    assert_equal(weights(stopped), weights(uninterrupted))
    # The run folder can be evaluated and loaded.
    assert evaluate.main(["--workdir", str(uninterrupted)]) == 0
    (again,) = read_rows(uninterrupted / "evaluations" / "last.csv")
    assert again["top1"] == row["top1"]
    assert len(api.load(uninterrupted)(photo(9)).names) > 0
    # The cached labels are those of the set.
    labels = sorted(imagenet.glob("tinyjax-labels-*.npy"))
    assert sorted(np.load(labels[0]).tolist() + np.load(labels[1]).tolist()) == sorted(
        [k % 3 for k in range(14)] + [k % 3 for k in range(5)]
    )


def test_predictions_are_averaged_over_the_flipped_image(imagenet, tmp_path):
    from tinyjax.tasks import classify

    config = tiny_imagenet(imagenet)
    image = np.stack([photo(k, (40, 40)) for k in range(2)])
    logits = {}
    for flip in (True, False):
        config.predict.flip = flip
        functions = classify.model_functions(config, ("a", "b", "c"), {"image": (40, 40, 3)})
        variables = functions.init(0)
        last = "backbone/classifier/kernel"  # its first weights are small
        variables.params[last] = 1e4 * variables.params[last]
        for name, pixels in (("original", image), ("flipped", image[:, :, ::-1])):
            logits[flip, name] = np.asarray(
                functions.predict(variables, {"image": pixels})["logits"]
            )
    mean = (logits[False, "original"] + logits[False, "flipped"]) / 2
    np.testing.assert_allclose(logits[True, "original"], mean, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(logits[True, "flipped"], mean, rtol=1e-3, atol=1e-6)
    assert np.abs(logits[False, "original"] - logits[False, "flipped"]).max() > 1e-4


@pytest.mark.slow
def test_detector_on_coco_starts_from_imagenet_weights(pretrained, tmp_path):
    """The layout of COCO's archives."""
    root = source_files.coco(tmp_path / "coco", {"train2017": 10, "val2017": 4})
    for split in ("train2017", "val2017"):
        document = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
        (root / split).mkdir()
        for info in document["images"]:
            (root / "images" / info["file_name"]).rename(root / split / info["file_name"])
        (root / "annotations" / f"captions_{split}.json").write_text("{}")
    (root / "images").rmdir()
    config = configs.load(
        f"configs/coco.py:backbone={TINY},init={pretrained},source={root},batch=4"
    )
    config.data.common.size, config.crop_size = (64, 64), (64, 64)
    config.schedule.steps, config.schedule.warmup = 6, 2
    config.update({"log_every": 1, "save_every": 3, "eval_every": 6})
    assert api.train(config, tmp_path / "run") == 0
    (row,) = read_rows(tmp_path / "run" / "results.csv")
    assert float(row["images"]) == 4
    assert (tmp_path / "run" / "samples" / "val.png").exists()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "near-duplicates" not in log
    assert f"starts from {pretrained}" in log


@pytest.mark.slow
def test_members_share_a_stream(tmp_path):
    """Two seeds use the same batches and different initial weights."""
    folder = tmp_path / "set" / "train"
    for k, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(photo((k, i), (40, 40))).save(folder / name / f"{i}.png")
    config = classifier.get_config(str(tmp_path / "set"))
    config.data.stream, config.data.suites = True, {"val": {"split": "train"}}
    config.eval_every = 6
    file = tmp_path / "sweep.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config(arg=None): return ConfigDict({config.to_dict()!r})\n"
        "def get_hyper(hyper): return hyper.sweep('seed', [0, 1])\n"
    )
    assert train_main(["--config", str(file), "--workdir", str(tmp_path / "run")]) == 0
    assert len({row["member"] for row in read_rows(tmp_path / "run" / "results.csv")}) == 2
    assert "all members see the same batches" in (tmp_path / "run" / "log.txt").read_text()


def test_streaming_rejects_unsupported_configs(tmp_path):
    config = detector.get_config()
    config.data.stream = True
    with pytest.raises(UserError, match=r"data\.stream: synthetic scenes are generated in memory"):
        api.train(config, tmp_path / "run")
    config.subset.shots = 3
    with pytest.raises(UserError, match="subset: a streamed training set"):
        api.train(config, tmp_path / "run")
