"""Which networks tinyjax.average takes for the same."""

from types import SimpleNamespace

import numpy as np
import pytest

from tinyjax import average
from tinyjax.config import detector, with_fields
from tinyjax.core import Variables
from tinyjax.errors import UserError

ONE_ANCHOR = (((4.0, 8.0, 1),), ((16.0, 16.0, 1),))
ANOTHER = (((8.0, 4.0, 1),), ((16.0, 16.0, 1),))


def network(name="retinanet", width=8, **fields):
    config = with_fields(detector(name), {f"model.{key}": v for key, v in fields.items()})
    variables = Variables({"kernel": np.zeros(width)}, {})
    metadata = {"backbone": "mobilenetv3/s-1", "parameters": width}
    return SimpleNamespace(config=config, variables=variables, metadata=metadata)


def test_members_with_the_same_arrays_but_different_networks_are_not_averaged():
    networks = [
        network(anchors=ONE_ANCHOR),
        network(anchors=ANOTHER),
        network(anchors=ONE_ANCHOR, batchnorm_eps=1e-5),
        network(width=9),
    ]
    assert average._group_by_network(networks) == {
        "mobilenetv3-s-1-8": [networks[0], networks[2]],
        "mobilenetv3-s-1-8-2": [networks[1]],
        "mobilenetv3-s-1-9": [networks[3]],
    }


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (network("cascade_rcnn"), "has model.detector = 'cascade_rcnn'; fine has .*'retinanet'"),
        (network(anchors=ANOTHER), r"has model.anchors = \(\(\(8.0, 4.0, 1\),\),"),
        (network(width=9), r": networks with different arrays cannot be averaged \(kernel\)"),
    ],
)
def test_start_of_another_network_is_rejected(start, message):
    with pytest.raises(UserError, match=f"--start probed ?{message}.*give the run that .*started"):
        average._check_same_network(start, network(), "probed", "fine")
