"""The network of visible-infrared recognition: backbone, FDR, pooling, BNNeck, classifier.

The embedding is that of AGW (arXiv 2001.04193): the pooled feature after a BatchNorm without bias,
which a linear classifier without bias reads. The pooled feature is the input of the backbone's own
classifier. Where the poster of TOPLight is ambiguous, we chose:

    - a backbone with a 1x1 convolution before its pooling (MobileNetV3, EfficientNet, GhostNet,
      ShuffleNetV2) applies it; its hidden layer after the pooling, if it has one, is optional:
      `models.architecture(.., hidden=True)`
    - LightCNN has its own feature of 256 numbers, ViT its class token
"""

from functools import partial

import flax.linen as nn
from jax import Array
from jax.typing import ArrayLike

from tinyjax.errors import UserError
from tinyjax.models import vit
from tinyjax.models.backbone import Backbone
from tinyjax.models.initializers import classifier_normal
from tinyjax.models.layers import BatchNorm, Dense, spatial_mean
from tinyjax.models.path_blocks import NUM_BLOCKS
from tinyjax.recognition.domain_heads import DomainHeads
from tinyjax.recognition.fdr import Fdr, FdrConfig

SHALLOW_BLOCK = 4  # the last block of which TOPLight has two copies in pretraining
FDR_BLOCK = 5


class RecognitionNetwork(nn.Module):
    """image [B, H, W, C], modality [B] -> arrays by name.

    pooled     [B, D], input of triplet losses
    embedding  [B, D], the pooled feature after BNNeck
    logits     [B, identities]
    shallow    [B, h, w, c], the output of TOPLight's block 4
    shallow_domain, final_domain   [B, 2], with `domain_heads`, see `DomainHeads`

    In training, modality is None: the first half of the batch is visible, the second infrared, see
    `Backbone`. In prediction it is 0 or 1 for each image; a backbone with one path ignores it.
    """

    preserves_zeros = True

    backbone: Backbone
    identities: int
    fdr: FdrConfig | None = None
    fdr_block: int = FDR_BLOCK
    domain_heads: DomainHeads | None = None

    @nn.compact
    def __call__(
        self,
        image: Array,
        modality: Array | None = None,
        reversal_strength: ArrayLike = 0.0,
        *,
        train: bool,
    ) -> dict[str, Array]:
        if train and (modality is not None or len(image) % 2):
            raise ValueError("a training batch has no modality, and equal halves")
        if self.is_initializing():
            modality = None  # so that `flops` counts one path per image
        after = {}
        if self.fdr:
            after[self.fdr_block] = partial(Fdr(self.fdr, name="fdr"), train=train)
        outputs = self.backbone.forward(image, train, modality, after)
        if (pooled := outputs.vector) is None:
            raise ValueError("a recognition network needs a backbone of 0 classes, not of None")
        neck = BatchNorm(use_bias=False, name="neck_bn")
        embedding = neck(pooled[:, None, None], train)[:, 0, 0]
        classifier = Dense(self.identities, classifier_normal, use_bias=False, name="classifier")
        named = {
            "pooled": pooled,
            "embedding": embedding,
            "logits": classifier(embedding),
            "shallow": outputs.blocks[SHALLOW_BLOCK],
        }
        if self.domain_heads:
            final = pooled[:, None, None]
            domains = self.domain_heads(named["shallow"], final, reversal_strength)
            named |= dict(zip(("shallow_domain", "final_domain"), domains, strict=True))
        return named


def build(
    backbone: Backbone,
    identities: int,
    fdr: FdrConfig | None = None,
    fdr_block: int = FDR_BLOCK,
    domain_heads: DomainHeads | None = None,
) -> RecognitionNetwork:
    """Build the network.

    Args:
        backbone: of `models.build` with 0 classes and one of `pooling.POOLINGS`.
        fdr: settings of FDR; None: without it.
        fdr_block: FDR follows this one of TOPLight's blocks, which must be shared by both paths.
        domain_heads: for the fake-domain loss.

    Raises UserError where FDR or the pooling do not fit the backbone.
    """
    if backbone.pooling is not spatial_mean and not backbone.pools:
        raise UserError(
            "model.pooling: this backbone has no pooling before its classifier; give 'mean'"
        )
    first = backbone.arch.path_blocks + 1
    if fdr and fdr_block not in range(first, NUM_BLOCKS):
        raise UserError(f"fdr.block = {fdr_block}: give a block from {first} to {NUM_BLOCKS - 1}")
    if fdr and isinstance(backbone, vit.Model):
        raise UserError(
            "fdr.block: the blocks of vit have tokens instead of maps; give another backbone"
        )
    return RecognitionNetwork(backbone, identities, fdr, fdr_block, domain_heads)
