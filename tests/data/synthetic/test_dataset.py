"""Synthetic scenes: the same whatever else is asked for, with boxes that are exact."""

import numpy as np
import pytest

from tinyjax.data.synthetic import dataset
from tinyjax.data.synthetic.scenes import CLASSES, CLUTTER, scene
from tinyjax.errors import UserError

SIZE = (128, 160)
NIGHT_AND_DAY = [0.0, 1.0]


def same(a, b):
    for name in ("images", "boxes", "labels", "valid", "ignore"):
        x, y = getattr(a, name), getattr(b, name)
        slots = min(x.shape[1], y.shape[1]) if name != "images" else None
        np.testing.assert_array_equal(x[:, :slots], y[:, :slots])


def test_an_image_is_a_function_of_seed_and_index():
    three, six = dataset.load(3, seed=5), dataset.load(6, seed=5)
    same(three, type(six)(*(v[:3] if isinstance(v, np.ndarray) else v for v in six)))
    assert three.names == six.names[:3]
    assert (six.images[0] != six.images[1]).mean() > 0.5
    assert (dataset.load(1, seed=6).images[0] != six.images[0]).mean() > 0.5


def test_the_split_keeps_the_contract():
    split = dataset.load(40, size=SIZE)
    assert split.images.shape == (40, *SIZE, 1)
    assert split.images.dtype == np.uint8
    assert split.classes == CLASSES
    assert split.boxes.dtype == np.float32
    assert not split.ignore.any()
    counts = split.valid.sum(1)
    assert counts.min() >= 2
    assert counts.max() <= 8
    assert set(split.labels[split.valid]) == {0, 1, 2}
    boxes = split.boxes[split.valid]
    assert (boxes >= 0).all()
    assert (boxes <= (160, 128, 160, 128)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
    assert not split.boxes[~split.valid].any()
    assert not split.labels[~split.valid].any()
    assert len(split.truth["annotations"]) == counts.sum()
    spans = np.ptp(split.images.reshape(40, -1).astype(int), axis=1)
    assert (spans == 255).all()  # automatic gain fills the range


@pytest.mark.parametrize("size", [(64, 64), (96, 200)])
def test_other_sizes_keep_boxes_inside(size):
    split = dataset.load(12, size=size, seed=2)
    assert split.images.shape == (12, *size, 1)
    assert (split.boxes[split.valid] <= (size[1], size[0], size[1], size[0])).all()
    assert (split.valid.sum(1) >= 2).all()


def test_larger_images_hold_more_objects():
    few = dataset.load(6, size=SIZE).valid.sum()
    assert dataset.load(6, size=(256, 320)).valid.sum() > 1.5 * few


@pytest.mark.parametrize("day", NIGHT_AND_DAY)
def test_boxes_are_the_exact_extent_of_what_an_object_changes(day):
    """Each object alone: the pixels that differ with and without it span its box."""
    checked = 0
    for index in range(15):
        whole = scene(3, index, SIZE)
        _, boxes = dataset.temperature(whole, SIZE, day, 1.0)
        present = [thing for thing in whole.things if thing.label != CLUTTER]
        assert len(present) == len(boxes)
        bare, none = dataset.temperature(whole._replace(things=()), SIZE, day, 1.0)
        assert none.shape == (0, 4)
        for thing, box in zip(present, boxes, strict=True):
            field, own = dataset.temperature(whole._replace(things=(thing,)), SIZE, day, 1.0)
            rows, columns = np.nonzero(field != bare)
            span = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert span == box.tolist() == own[0].tolist()
            checked += 1
    assert checked > 40


def test_in_the_whole_scene_an_object_changes_nothing_outside_its_box():
    spanned = 0
    for index in range(12):
        whole = scene(4, index, SIZE)
        field, boxes = dataset.temperature(whole, SIZE, 0.0, 1.0)
        objects = [i for i, thing in enumerate(whole.things) if thing.label != CLUTTER]
        for i, box in zip(objects, boxes.astype(int), strict=True):
            rest = whole.things[:i] + whole.things[i + 1 :]
            without, _ = dataset.temperature(whole._replace(things=rest), SIZE, 0.0, 1.0)
            changed = field != without
            x1, y1, x2, y2 = box
            assert changed[y1:y2, x1:x2].sum() == changed.sum()
            # MOST_HIDDEN leaves most of an object in sight, whatever stands before it
            assert changed.sum() > 0.15 * (x2 - x1) * (y2 - y1)
            rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
            spanned += [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == box.tolist()
    assert spanned > 30  # the rest are partly hidden


@pytest.mark.parametrize("name", dataset.SHIFTS)
def test_a_shift_shows_the_same_scene_differently(name):
    plain, shifted = dataset.load(8, seed=1), dataset.load(8, seed=1, **dataset.SHIFTS[name])
    np.testing.assert_array_equal(plain.boxes, shifted.boxes)
    np.testing.assert_array_equal(plain.labels, shifted.labels)
    assert plain.truth == shifted.truth
    difference = plain.images.astype(float) - shifted.images
    assert np.sqrt(np.mean(difference**2, axis=(1, 2, 3))).min() > 4


def test_no_clutter_leaves_only_ground_and_objects():
    whole = scene(0, 0, SIZE)
    objects = tuple(thing for thing in whole.things if thing.label != CLUTTER)
    assert 0 < len(objects) < len(whole.things)
    cleared, _ = dataset.temperature(whole, SIZE, 0.0, 0.0)
    alone, _ = dataset.temperature(whole._replace(things=objects), SIZE, 0.0, 1.0)
    np.testing.assert_array_equal(cleared, alone)


def contrast(day):
    """Mean temperature of a person over its own ground, one per person, in K."""
    over = []
    for index in range(25):
        whole = scene(7, index, SIZE)
        bare, _ = dataset.temperature(whole._replace(things=()), SIZE, day, 1.0)
        for thing in whole.things:
            if thing.label == CLASSES.index("person"):
                field, _ = dataset.temperature(whole._replace(things=(thing,)), SIZE, day, 1.0)
                over.append((field - bare)[field != bare].mean())
    return np.array(over)


def test_people_are_warm_by_night_and_lose_or_turn_their_contrast_by_day():
    night, day = contrast(0.0), contrast(1.0)
    assert (night > 0).all()
    assert np.median(night) > 6
    assert np.median(np.abs(day)) < 0.5 * np.median(night)
    assert 0.2 < np.mean(day < 0) < 0.9


def test_noise_pattern_and_blur_have_the_strength_they_name():
    flat = np.full((200, 300), 10, np.float32)
    step = np.zeros((200, 300), np.float32)
    step[:, 150:] = 100

    def spread(image):
        columns = image.mean(0)
        return int(((columns > 10) & (columns < 245)).sum())

    def sensed(field, **strengths):
        rng = np.random.default_rng(0)
        off = {"noise": 0.0, "pattern": 0.0, "blur": 0.0}
        return dataset.sense(field, rng, **{**off, **strengths}).astype(float)

    assert not sensed(flat).any()
    white, lines = sensed(flat, noise=1.0), sensed(flat, pattern=1.0)

    # A line pattern is rows plus columns and nothing else, white noise is mostly something else.
    def rest(image):
        image = image - image.mean(0) - image.mean(1, keepdims=True) + image.mean()
        return image.std()

    assert rest(lines) < 0.1 * lines.std()
    assert rest(white) > 0.95 * white.std()
    assert spread(sensed(step)) == 0
    assert spread(sensed(step, blur=1.0)) < spread(sensed(step, blur=3.0)) < 20


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"no strength 'nois'.*did you mean 'noise'"):
        dataset.load(1, nois=1.0)
    for wrong in ({"n": 0}, {"n": 1, "seed": -1}, {"n": 1, "size": (32, 160)}):
        with pytest.raises(UserError, match="give n >= 1, seed >= 0 and a size of at least"):
            dataset.load(**wrong)
