"""The network of visible-infrared recognition, as a config describes it."""

from ml_collections import ConfigDict

from tinyjax.errors import UserError, suggest
from tinyjax.models.scaling import Architecture
from tinyjax.recognition import network
from tinyjax.recognition.domain_heads import DomainHeads
from tinyjax.recognition.fdr import FdrConfig
from tinyjax.recognition.pooling import POOLINGS
from tinyjax.tasks import build_backbone


def build(
    config: ConfigDict,
    identities: int,
    supernet: Architecture | None = None,
    domain_heads: DomainHeads | None = None,
) -> network.RecognitionNetwork:
    """Raises UserError for an unknown pooling, and as `build_backbone` and `network.build` do."""
    name = config.model.get("pooling", "mean")
    if name not in POOLINGS:
        raise UserError(f"model.pooling = {name!r}: {suggest(name, POOLINGS)}")
    backbone = build_backbone(config, 0, supernet, pooling=POOLINGS[name])
    settings = config.fdr.to_dict()
    block = settings.pop("block")
    fdr = FdrConfig(**settings) if block else None
    return network.build(backbone, identities, fdr, block, domain_heads)
