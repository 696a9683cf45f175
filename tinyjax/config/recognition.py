"""The fields of visible-infrared recognition (TOPLight, CVPR 2023): fine-tuning and pretraining.

Defaults that the TOPLight poster does not state are our own choice, see docs/recognition.md.
"""

from tinyjax.config.detectors import Fields

_NETWORK: Fields = {
    "model.hidden": (
        False,
        "MobileNetV3 and GhostNet: keep the linear layer between pooling and classifier",
    ),
    "fdr.block": (
        0,
        "feature decoupling and reasoning (FDR) follows this block, after the doubled ones, up to "
        "6; 0: no FDR",
    ),
    "fdr.pooling": ("stripes", "how FDR pools: stripes, or gap, context, hap for comparison"),
    "fdr.horizontal": (6, "number of horizontal stripes; 0: none"),
    "fdr.vertical": (3, "number of vertical stripes; 0: none"),
    "fdr.upsample": (True, "interpolate between stripes"),
    "fdr.attention": ("shuffle", "shuffle, or grouped (no shuffle), se, cbam for comparison"),
    "fdr.groups": (8, "groups of shuffle attention"),
}
_JITTER: Fields = {
    "augment.jitter": (0.5, "probability of a change of the next four, of visible images"),
    "augment.brightness": (0.2, "largest change of the factor of all levels"),
    "augment.contrast": (0.2, "largest change of the contrast"),
    "augment.saturation": (0.2, "largest change of the saturation"),
    "augment.hue": (0.05, "largest rotation of the hue; 1 is a full circle"),
}

RECOGNITION: Fields = {  # besides those of all tasks
    "task": ("reid", "find the same identity in visible and infrared images"),
    "model.path_blocks": (
        1,
        "the blocks of the backbone that exist twice, for visible and for infrared images: 1 to "
        "this one, of 7; 0: none, a single path",
    ),
    "model.last_stride": (1, "stride of the backbone's last stage: 1, or 2 as in classification"),
    "model.pooling": ("gem", "pooling of the feature map: gem (generalized mean, p = 3) or mean"),
    **_NETWORK,
    "data.format": (
        "pairs",
        "pairs, sysu, regdb, llcm, oulu, buaa or synthetic; docs/recognition.md",
    ),
    "crop_size": ((288, 144), "height and width of the images; data.common.size must be the same"),
    "batch": (64, "images per step, half of them visible"),
    "sampler.identities": (8, "identities per step; each has batch / identities images"),
    "augment.pad": (10.0, "largest shift, pixels; a black border moves in"),
    "augment.flip": (0.5, "probability of a horizontal flip"),
    "augment.erasing": (0.5, "probability that a rectangle is erased"),
    "augment.channel_exchange": (
        0.25,
        "probability that all channels of a visible image become one of them",
    ),
    "augment.gray": (0.1, "probability that a visible image becomes gray"),
    **_JITTER,
    "augment.infrared_contrast": (0.2, "log range of the gain of infrared images"),
    "augment.infrared_brightness": (0.05, "range of their offset; 1 is the full gray range"),
    "augment.infrared_noise": (0.02, "their maximum standard deviation of noise"),
    "loss.identity": (1.0, "weight of the cross-entropy of identities"),
    "loss.label_smoothing": (0.0, "fraction of a label that is spread over all identities"),
    "loss.triplet": (1.0, "weight of the triplet loss"),
    "loss.margin": (0.3, "its margin; the weighted form has none"),
    "loss.triplet_start": (
        0.25,
        "fraction of the steps before the triplet loss; from the first step on, it slows learning",
    ),
    "triplet": (
        "four_way",
        "form of the triplet loss: batch_hard over all images, four_way (the mean over both "
        "modalities of anchor and candidates) or weighted (AGW)",
    ),
    "predict.flip": (False, "average the embeddings of the image and of its mirror image"),
    "score.protocol": ("", "protocol of the main scores; '': the first one of the suite"),
    "score.feature": (
        "embedding",
        "feature that is compared: embedding (after BNNeck) or pooled (before)",
    ),
    "score.verification": (False, "also score the verification rates of faces"),
}

PRETRAINING: Fields = {  # besides those of all tasks
    "task": ("pretrain", "task-oriented pretraining on classes: two views, as of two cameras"),
    "model.path_blocks": (4, "blocks that exist twice, one copy for each view; 0: a single path"),
    "model.last_stride": (2, "stride of the backbone's last stage: 2, or 1"),
    **_NETWORK,
    "data.format": ("folder", "a folder of images for each class; or list, tfds"),
    "crop_size": ((96, 96), "height and width of a random view; prediction is on full images"),
    "batch": (64, "images per step; each has two views"),
    "augment.area": (0.25, "smallest fraction of the image's area that a view covers"),
    "augment.aspect": (0.58, "log range of the aspect ratio, width over height"),
    "augment.deform": (0.3, "probability of a deformed grid"),
    "augment.deform_limit": (0.1, "largest relative change of a cell's width and height"),
    "augment.flip": (0.5, "probability of a horizontal flip"),
    **_JITTER,
    "augment.jitter": (0.8, "probability of a change of the next four, of the visible view"),
    "augment.brightness": (0.4, _JITTER["augment.brightness"][1]),
    "augment.contrast": (0.4, _JITTER["augment.contrast"][1]),
    "augment.saturation": (0.4, _JITTER["augment.saturation"][1]),
    "augment.hue": (0.1, _JITTER["augment.hue"][1]),
    "augment.channel_shuffle": (0.5, "probability of a random order of the channels"),
    "augment.rgb_shift": (0.5, "probability of an offset of each channel"),
    "augment.rgb_shift_limit": (0.12, "range of the offsets; 1 is the full range"),
    "augment.infrared_gray": (1.0, "probability that the infrared view is gray"),
    "augment.sharpen": (0.5, "probability that the infrared view is sharpened"),
    "augment.sharpen_low": (0.2, "smallest amount"),
    "augment.sharpen_high": (0.5, "largest amount"),
    "augment.defocus": (0.5, "probability that the infrared view is defocused"),
    "augment.defocus_low": (1.0, "smallest radius, pixels of an image of 224 x 224"),
    "augment.defocus_high": (3.0, "largest radius, up to 3"),
    "augment.jpeg": (0.5, "probability that the infrared view is compressed"),
    "augment.quality_low": (20.0, "lowest JPEG quality"),
    "augment.quality_high": (60.0, "highest JPEG quality"),
    "views.shared_geometry": (
        True,
        "the two views of an image have the same crop, deformation and flip",
    ),
    "predict.flip": (False, "average the logits of the image and of its mirror image"),
    "loss.identity": (1.0, "weight of the cross-entropy of classes, the sum over both views"),
    "loss.label_smoothing": (0.1, "fraction of a label that is spread over all classes"),
    "loss.consistency": (
        1.0,
        "weight of the consistency of both views' class probabilities, which makes L_id L_idc",
    ),
    "loss.feature_consistency": (0.0, "weight of the consistency of both views' features"),
    "loss.domain": (0.1, "weight of the fake-domain loss L_fd"),
    "loss.reversal_ramp": (
        0.5,
        "fraction of the steps in which the strength of gradient reversal rises to 1",
    ),
}
