"""Search spaces of sweeps, and the members that they define."""

import numpy as np
import pytest

from tinyjax.config import detector, with_fields
from tinyjax.errors import UserError
from tinyjax.population import search_space as hyper


def test_combinators_by_hand():
    a, b = hyper.sweep("a", [1, 2]), hyper.sweep("b", [3, 4])
    assert hyper.product([a, b]) == [
        {"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4},
    ]  # fmt: skip
    assert hyper.zipit([a, b, hyper.fixed("c", 5)]) == [
        {"a": 1, "b": 3, "c": 5}, {"a": 2, "b": 4, "c": 5},
    ]  # fmt: skip
    assert hyper.zipit([a, hyper.fixed("c", 5, length=2)])[1] == {"a": 2, "c": 5}
    assert hyper.chainit([a, b]) == [{"a": 1}, {"a": 2}, {"b": 3}, {"b": 4}]
    assert hyper.product([]) == [{}]


def test_invalid_combinations_are_rejected():
    a = hyper.sweep("a", [1, 2])
    with pytest.raises(
        UserError, match="zipit of spaces of 3 and 2 points; give spaces of the same length"
    ):
        hyper.zipit([a, hyper.sweep("b", [1, 2, 3])])
    with pytest.raises(UserError, match="a is set twice"):
        hyper.product([a, a])


def test_sweep_points_accepts_the_form_of_big_vision():
    assert hyper.sweep_points(lambda h: h.product([h.sweep("config.seed", range(2))])) == [
        {"seed": 0}, {"seed": 1},
    ]  # fmt: skip
    for invalid, message in (([], "empty"), ("seed", "give a list"), ([1], "give a list")):
        with pytest.raises(UserError, match=message):
            hyper.sweep_points(lambda h, invalid=invalid: invalid)
    with pytest.raises(UserError, match=r"with one argument, def get_hyper\(hyper\)"):
        hyper.sweep_points(lambda: [])


def test_members_are_unique_and_have_converted_values():
    config = detector()
    space = hyper.product(
        [
            hyper.sweep("seed", np.arange(2)),
            hyper.sweep("optimizer.lr", [1, 0.5]),
            hyper.fixed("freeze", ["backbone"]),
        ]
    )
    members = hyper.make_members(config, [*space, space[0]])
    assert [member.point for member in members[:2]] == [
        {"seed": 0, "optimizer.lr": 1.0, "freeze": ("backbone",)},
        {"seed": 0, "optimizer.lr": 0.5, "freeze": ("backbone",)},
    ]
    assert len(members) == len({member.id for member in members}) == 4
    # The id depends on the values alone, not on their order.
    again = hyper.make_members(config, [{"optimizer.lr": 1.0, "freeze": ("backbone",), "seed": 0}])
    assert again[0].id == members[0].id
    assert isinstance(members[0].point["seed"], int)
    assert with_fields(config, members[1].point).optimizer.lr == 0.5
    assert config.seed == 0


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"optimizr.lr": 1}, "did you mean --config.optimizer.lr"),
        ({"optimizer": 1}, "a group, not a field"),
        ({"seed": "one"}, "seed = 'one': expected type int"),
    ],
)
def test_invalid_fields_and_values_are_named(point, message):
    with pytest.raises(UserError, match=message):
        hyper.make_members(detector(), [point])


def test_filter_members():
    config = detector()
    members = hyper.make_members(
        config,
        hyper.product([hyper.sweep("seed", range(3)), hyper.sweep("optimizer.lr", [0.1, 0.2])]),
    )

    def seeds(*only, **options):
        matches = hyper.filter_members(config, members, *only, **options)
        return [member.point["seed"] for member in matches]

    assert seeds(["seed=0,2"]) == [0, 0, 2, 2]
    assert seeds(["--config.seed=0,2", "optimizer.lr=0.2"]) == [0, 2]
    assert seeds(limit=3) == [0, 0, 1]
    assert seeds(["batch=16"], limit=1) == [0]
    assert hyper.filter_members(config, members, [members[3].id]) == [members[3]]
    frozen = hyper.make_members(
        config, hyper.sweep("freeze", [(), ("stem",), ("stem", "batchnorm")])
    )
    for k, value in enumerate(["()", "('stem',)", "('stem', 'batchnorm')"]):
        assert hyper.filter_members(config, frozen, [f"freeze={value}"]) == [frozen[k]]
    assert hyper.filter_members(config, frozen, ["freeze=(),('stem',)"]) == frozen[:2]
    with pytest.raises(UserError, match="none of the 6 members matches"):
        seeds(["seed=7"])
    with pytest.raises(UserError, match=r"did you mean --config\.seed"):
        seeds(["sed=7"])
