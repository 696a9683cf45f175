"""Groups of members: networks, variants, and pairs that differ in starting weights or freezing."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from tinyjax.reporting.tables import SCRATCH, Member

MAX_VARIANTS = 7  # number of `plotting.COLORS`
MAX_SETTINGS = 3  # with more settings of the varied fields, gains are averaged over them
# Fields in which members that differ in freezing may differ: the last two add parameters that are
# trained next to a frozen backbone.
FREEZING_FIELDS = ("freeze", "model.adapters", "model.squeeze_excite")


def network_key(member: Member) -> tuple:
    """Everything that defines a member except its seed."""
    return member.run, member.backbone, member.parameters, member.start, *member.varied.items()


def group_members(
    members: Iterable[Member], label: Callable[[Member], str]
) -> dict[str, list[Member]]:
    """Label -> members, in ascending order of size."""
    groups: dict[str, list[Member]] = {}
    for member in sorted(members, key=lambda m: m.parameters):
        groups.setdefault(label(member), []).append(member)
    return groups


def group_networks(members: Iterable[Member]) -> list[list[Member]]:
    """The seeds of each network, in ascending order of size."""
    return [*group_members(members, lambda member: repr(network_key(member))).values()]


def variant_labels(members: Sequence[Member], max_variants: float = MAX_VARIANTS) -> dict[str, str]:
    """Member key -> label of its variant: the run, start and varied fields in which members differ.

    With more than `max_variants`, varied fields are left out, then runs, then starts.
    """
    label = _make_labeler(members)
    for run, start, fields in ((True, True, True), (True, True, False), (False, True, False)):
        variants = {m.key: label(m, run, start, fields) for m in members}
        if len({*variants.values()}) <= max_variants:
            return variants
    return dict.fromkeys(variants, "")


def _make_labeler(members: Sequence[Member]) -> Callable[[Member, bool, bool, bool], str]:
    """Return `label(member, run, start, fields)`: text that distinguishes a member from others.

    run, start, fields: whether to include these. Fields are included if the member's run varies
    them.
    """
    all_fields = dict.fromkeys(f for m in members for f in m.varied)
    runs: dict[str, list[Member]] = {}
    for member in members:
        runs.setdefault(member.run, []).append(member)
    varied = {
        run: [f for f in all_fields if len({m.varied.get(f) for m in run_members}) > 1]
        for run, run_members in runs.items()
    }
    several_runs, several_starts = len(runs) > 1, len({m.start for m in members}) > 1

    def label(m: Member, run: bool, start: bool, fields: bool) -> str:
        words = [m.run] * (run and several_runs) + [m.start] * (start and several_starts)
        words += [f"{f} {m.varied.get(f) or 'default'}" for f in varied[m.run] if fields]
        return ", ".join(words)

    return label


def limited_groups(
    members: Sequence[Member], variants: Mapping[str, str], max_groups: int
) -> dict[str, list[Member]]:
    """Label -> members, in at most `max_groups` groups.

    The first of these groupings that is small enough: by backbone and variant, by backbone, by
    variant, by quartile of the sizes.
    """
    sizes = sorted(member.parameters for member in members)
    edges = [sizes[len(sizes) * k // 4] for k in (1, 2, 3)]

    def quartile(m: Member) -> str:
        return f"size quartile {1 + sum(m.parameters >= edge for edge in edges)}"

    def backbone_and_variant(m: Member) -> str:
        return " · ".join(filter(None, (short_backbone(m.backbone), variants[m.key])))

    labels: tuple[Callable[[Member], str], ...] = (
        backbone_and_variant,
        lambda m: short_backbone(m.backbone),
        lambda m: variants[m.key] or "all",
        quartile,
    )
    for label in labels:
        groups = group_members(members, label)
        if len(groups) <= max_groups:
            break
    return groups


def pair_with_scratch(members: Sequence[Member]) -> dict[str, list[tuple[Member, Member]]]:
    """Start -> pairs (member with that start, member from scratch with all other fields equal).

    The key also contains the run and the varied fields in which pairs differ; fields only if they
    have at most `MAX_SETTINGS` settings.
    """
    from_scratch = {(*_key_without_start(m), m.seed): m for m in members if m.start == SCRATCH}
    pairs = [
        (member, other)
        for member in members
        if member.start != SCRATCH
        and (other := from_scratch.get((*_key_without_start(member), member.seed)))
    ]
    label = _make_labeler([member for pair in pairs for member in pair])
    separate_settings = (
        len({label(member, True, False, True) for member, _ in pairs}) <= MAX_SETTINGS
    )
    result: dict[str, list[tuple[Member, Member]]] = {}
    for pair in pairs:
        settings = label(pair[0], True, False, separate_settings)
        start = pair[0].start
        result.setdefault(f"{start} ({settings})" if settings else start, []).append(pair)
    return result


def pair_with_unfrozen(members: Sequence[Member]) -> dict[str, list[tuple[Member, Member]]]:
    """Label -> pairs (member with frozen parameters, member of the same run, backbone, start and
    seed that trains all parameters), with all other fields than `FREEZING_FIELDS` equal.

    The label has the fields in which a pair differs. If several members train all parameters, the
    smallest one is taken, which has neither adapters nor squeeze-excite added.
    """
    by_size = sorted(members, key=lambda m: -m.parameters)
    unfrozen = {_key_without_freezing(m): m for m in by_size if m.trained_share == 1}
    result: dict[str, list[tuple[Member, Member]]] = {}
    for member in members:
        other = unfrozen.get(_key_without_freezing(member))
        if member.trained_share < 1 and other:
            differences = [
                f"{field} {value}"
                for field in FREEZING_FIELDS
                if (value := member.varied.get(field)) != other.varied.get(field)
            ]
            result.setdefault(", ".join(differences), []).append((member, other))
    return result


def _key_without_freezing(member: Member) -> tuple:
    varied = (item for item in member.varied.items() if item[0] not in FREEZING_FIELDS)
    return member.run, member.backbone, member.start, member.seed, *varied


def _key_without_start(member: Member) -> tuple:
    return member.run, member.backbone, member.parameters, *member.varied.items()


def short_backbone(backbone: str) -> str:
    """A backbone without its family, such as "s-2" for "mobilenetv3/s-2"."""
    return backbone.rpartition("/")[2]


def count_text(number: int, singular: str) -> str:
    """A number with its noun, such as "1 member" or "2 members"."""
    return f"{number:,} {singular if number == 1 else singular + 's'}"
