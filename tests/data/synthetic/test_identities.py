"""Synthetic people: reproducible, one shape in both modalities, strengths that do what they say."""

import numpy as np
import pytest

from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.synthetic import identities, people
from tinyjax.errors import UserError

NUISANCES = ("view", "pose", "position", "occlusion", "background", "light", "blur", "noise")
STILL = dict.fromkeys(NUISANCES, 0.0)


def of_modality(split, modality):
    return split.inputs["image"][split.inputs["modality"] == modality].astype(int)


def test_image_depends_on_seed_split_identity_camera_and_number():
    few, more = identities.load(2, seed=5), identities.load(3, per_camera=(3, 4), seed=5)
    rows = [more.names.index(name) for name in few.names]
    np.testing.assert_array_equal(few.inputs["image"], more.inputs["image"][rows])
    np.testing.assert_array_equal(few.labels, more.labels[rows])
    assert len({image.tobytes() for image in more.inputs["image"]}) == len(more.names)
    for other in (identities.load(2, seed=6), identities.load(2, "test", seed=5)):
        assert (other.inputs["image"] != few.inputs["image"]).mean() > 0.5


def test_shapes_dtypes_cameras_and_protocols():
    split = identities.load(3, "test", size=(48, 24))
    image, modality = split.inputs["image"], split.inputs["modality"]
    assert image.shape == (48, 48, 24, 3)  # 3 identities x (4 cameras x 2 + 2 cameras x 4)
    assert (image.dtype, modality.dtype, split.labels.dtype) == (np.uint8, np.uint8, np.int32)
    assert np.bincount(split.cameras).tolist() == [6, 6, 12, 6, 6, 12]
    np.testing.assert_array_equal(modality == INFRARED, np.isin(split.cameras, (2, 5)))
    assert np.bincount(split.labels).tolist() == [16, 16, 16]
    assert split.classes == ("test_0000", "test_0001", "test_0002")
    assert len({*split.captures.tolist()}) == 48
    assert [*split.protocols] == ["visible_to_infrared", "infrared_to_visible"]
    assert identities.load(1).protocols == {}
    assert image.std() > 30


def test_color_is_only_in_visible_images():
    colored, gray = identities.load(6), identities.load(6, color=0.0)
    infrared = of_modality(colored, INFRARED)
    assert (infrared == infrared[..., :1]).all()
    np.testing.assert_array_equal(infrared, of_modality(gray, INFRARED))
    assert (of_modality(colored, VISIBLE) != of_modality(gray, VISIBLE)).mean() > 0.1
    still = [identities.load(6, color=color, **STILL) for color in (0.0, 1.0)]
    trunks = [np.ptp(of_modality(split, VISIBLE)[:, 20:34, 13:19], axis=-1) for split in still]
    # A little of the background is visible next to a slim person.
    assert (trunks[0] == 0).mean() > 0.9
    assert (trunks[1] > 20).mean() > 0.8


def test_heat_is_only_in_infrared_images():
    warm, same = identities.load(6), identities.load(6, heat=0.0, infrared_pattern=0.0)
    np.testing.assert_array_equal(of_modality(warm, VISIBLE), of_modality(same, VISIBLE))
    assert (of_modality(warm, INFRARED) != of_modality(same, INFRARED)).mean() > 0.3


def silhouettes(split):
    """bool [N, H, W]: pixels that differ from the plain background in the image's corner."""
    image = split.inputs["image"].astype(int)
    return np.abs(image - image[:, :1, :1]).max(-1) > 1


def test_shape_is_the_same_in_both_modalities():
    options = {"per_camera": (1, 1), "occlusion": 0.0, "background": 0.0, "light": 0.0}
    split = identities.load(8, **options, twins=1.0, blur=0.0, noise=0.0)
    masks = silhouettes(split)
    pairs = [np.flatnonzero((split.labels == k) & np.isin(split.cameras, (1, 2))) for k in range(8)]
    for visible, infrared in pairs:
        assert split.captures[visible] == split.captures[infrared]
        a, b = masks[visible], masks[infrared]
        assert 0.08 < a.mean() < 0.6
        # Faint edges and a garment that is as bright as the ground differ.
        assert (a & b).sum() / (a | b).sum() > 0.8
    other = [masks[v] ^ masks[pairs[(k + 1) % 8][1]] for k, (v, _) in enumerate(pairs)]
    same = [masks[v] ^ masks[i] for v, i in pairs]
    assert np.mean(other) > 3 * np.mean(same)


def test_layers_are_a_partition_of_each_pixel():
    person = people.draw_person(np.random.default_rng(0))
    moment = people.draw_moment(np.random.default_rng(1))
    geometry = people.pose_person(person, moment, (64, 32), 0.5, 0.5, 0.5)
    weights, background = identities.layer_weights(geometry.parts, (64, 32))
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(0) + background, 1, atol=1e-6)


def test_coverage_of_a_box():
    # 8 x 4 px around (16, 10), no rotation, sharp corners
    parts = np.array([[16.0, 10.0, 4.0, 2.0, 0.0, 0.0]])
    (weights,), background = identities.layer_weights(parts, (20, 32))
    assert (weights[8:12, 12:20] > 0.7).all()
    assert weights.sum() == pytest.approx(32, abs=1.5)
    np.testing.assert_allclose(background, 1 - weights, atol=1e-6)
    turned = np.array([[16.0, 10.0, 4.0, 2.0, np.pi / 2, 0.0]])
    (weights,), _ = identities.layer_weights(turned, (20, 32))
    assert (weights[6:14, 14:18] > 0.7).all()


def test_without_nuisances_all_images_of_a_camera_are_equal():
    split = identities.load(2, per_camera=(3, 3), **STILL)
    for label in range(2):
        for camera in range(6):
            images = split.inputs["image"][(split.labels == label) & (split.cameras == camera)]
            assert (images == images[0]).all()


@pytest.mark.parametrize("name", NUISANCES)
def test_each_nuisance_varies_images(name):
    changed = identities.load(2, per_camera=(3, 3), **{**STILL, "background": 0.5, name: 1.0})
    still = identities.load(2, per_camera=(3, 3), **{**STILL, "background": 0.5})
    differs = (changed.inputs["image"] != still.inputs["image"]).any((1, 2, 3)).mean()
    assert 0.2 < differs < 0.6 if name == "occlusion" else differs > 0.6
    np.testing.assert_array_equal(changed.labels, still.labels)


def test_noise_and_blur_change_fine_detail():
    def roughness(**strengths):
        image = identities.load(3, **{**STILL, **strengths}).inputs["image"].astype(int)
        return np.abs(np.diff(image, axis=1)).mean()

    assert roughness(blur=1.0) < roughness() < roughness(noise=0.5) < roughness(noise=1.0)


def test_twins_share_the_moment_only():
    split = identities.load(4, per_camera=(4, 4), twins=0.5)
    visible, infrared = (np.flatnonzero(split.cameras == camera) for camera in (1, 2))
    shared = np.isin(split.captures[infrared], split.captures[visible])
    assert 0.2 < shared.mean() < 0.8
    alone = identities.load(4, per_camera=(4, 4))
    rows = np.setdiff1d(np.arange(len(split.names)), infrared[shared])
    np.testing.assert_array_equal(split.inputs["image"][rows], alone.inputs["image"][rows])


def test_visible_only_split_for_pretraining():
    split = identities.load(2, "pretrain", per_camera=(2, 0))
    assert (split.inputs["modality"] == VISIBLE).all()
    assert len(split.names) == 16


def test_invalid_arguments():
    with pytest.raises(UserError, match=r"no strength 'colour' .*did you mean 'color'\?"):
        identities.load(1, colour=0.0)
    with pytest.raises(UserError, match=r"no split 'valid'; did you mean 'val'\?"):
        identities.load(1, "valid")
    for arguments in ({"n": 0}, {"n": 1, "seed": -1}, {"n": 1, "per_camera": (0, 0)}):
        with pytest.raises(UserError, match=r"give n >= 1, seed >= 0"):
            identities.load(**arguments)
    with pytest.raises(UserError, match=r"give at least \(32, 16\)"):
        identities.load(1, size=(16, 16))
