"""Selection of a split's images, categories and boxes: the config's `where`, `limit`, `rename`,
`classes`, `ignore_classes` and a protocol's limits on boxes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tinyjax.data.images import image_shape, relative_to_pixels
from tinyjax.data.layouts import federated
from tinyjax.data.layouts.listing import Entry, Label, Listing
from tinyjax.errors import UserError, shorten, suggest

T = TypeVar("T")

EMPTY = ("keep", "drop")
SMALL = ("drop", "ignore")


def take_evenly(entries: Sequence[T], limit: int, name: Callable[[T], str]) -> list[T]:
    """At most `limit` entries, evenly spaced in order of name; 0: all.

    Raises UserError for a negative limit.
    """
    if not isinstance(limit, int) or limit < 0:
        raise UserError(f"limit = {limit!r}: give a number of images, or 0 for all")
    if not limit or limit >= len(entries):
        return [*entries]
    ordered = sorted(entries, key=name)
    return [ordered[i * len(entries) // limit] for i in range(limit)]


def check_where(where: Any) -> None:
    """Raise UserError if `where` does not have the form that `filter_entries` takes."""
    if not isinstance(where, Mapping):
        raise UserError(f"where = {where!r}: give a dict, field -> value or (low, high)")
    for field, wanted in where.items():
        is_pair = isinstance(wanted, tuple | list) and [
            type(v) in (int, float) for v in wanted
        ] == [True, True]
        if not is_pair and not isinstance(wanted, str | int | float):
            raise UserError(f"where: {field} = {wanted!r}: give a value, or (low, high)")
        if is_pair and not wanted[0] < wanted[1]:
            raise UserError(f"where: {field} = {wanted!r}: low must be less than high")


def filter_entries(listing: Listing, where: Mapping[str, Any]) -> Listing:
    """The images whose fields match: field -> a text or number, or (low, high), a half-open range
    of numbers.

    Raises UserError for a field that no image has, if no image matches, and as `check_where`.
    """
    check_where(where)
    entries = [*listing.entries]
    for field, wanted in where.items():
        known = dict.fromkeys(name for entry in listing.entries for name in entry.info)
        if field not in known:
            raise UserError(
                f"{listing.source}: where: no image has a field {field!r}; {suggest(field, known)}"
            )
        entries = [entry for entry in entries if _matches(entry.info.get(field), wanted)]
    if where and not entries:
        conditions = ", ".join(f"{field} = {wanted!r}" for field, wanted in where.items())
        raise UserError(f"{listing.source}: where: no image has {conditions}")
    return listing._replace(entries=entries)


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str | int | float):
        return value == wanted
    return isinstance(value, int | float) and wanted[0] <= value < wanted[1]


def rename_categories(listing: Listing, names: Mapping[str, str]) -> Listing:
    """Rename categories, source name -> new name.

    Raises UserError for an unknown category or a new name that is not a string.
    """
    for name, new_name in names.items():
        if not isinstance(new_name, str):
            raise UserError(f"rename: {name!r} to {new_name!r}: give a name")
        if name not in listing.categories:
            raise UserError(
                f"{listing.source}: rename: no category {name!r}; "
                f"{suggest(name, listing.categories)}"
            )

    def rename(name: str) -> str:
        return names.get(name, name)

    entries = [
        entry._replace(
            info=federated.rename(entry.info, rename),
            labels=[label._replace(category=rename(label.category)) for label in entry.labels],
        )
        for entry in listing.entries
    ]
    return listing._replace(
        entries=entries,
        categories=tuple(dict.fromkeys(map(rename, listing.categories))),
        ignored=frozenset(map(rename, listing.ignored)),
        groups=frozenset(map(rename, listing.groups)),
        frequencies={rename(name): value for name, value in listing.frequencies.items()},
    )


def apply_protocol(
    listing: Listing,
    empty: str = "keep",
    min_area: float | None = None,
    min_height: Mapping[str, float] | None = None,
    small: str = "drop",
) -> Listing:
    """Leave out the images and boxes that an evaluation protocol excludes.

    Args:
        empty: "drop" leaves out images without a box; "keep" keeps them.
        min_area: px^2 in the file; boxes of at most this area are left out.
        min_height: category -> px in the file; its boxes of at most this height are small.
        small: "drop" leaves out small boxes, so that they become background; "ignore" turns them
            into ignored regions.

    Raises UserError for an invalid argument, and for a category that does not exist.
    """
    for field, value, known in (("empty", empty, EMPTY), ("small", small, SMALL)):
        if value not in known:
            raise UserError(f"{field} = {value!r}: {suggest(value, known)}")
    heights = dict(min_height or {})
    for name, pixels in (*heights.items(), ("min_area", min_area or 0)):
        if not isinstance(pixels, int | float):
            raise UserError(f"{name} = {pixels!r}: give pixels, a number")
    for category in heights:
        if category not in listing.categories:
            hint = suggest(category, listing.categories)
            raise UserError(f"{listing.source}: min_height: no category {category!r}; {hint}")
    entries = [entry for entry in listing.entries if entry.labels or empty == "keep"]
    if min_area is None and not heights:
        return listing._replace(entries=entries)

    def kept_labels(entry: Entry) -> Iterable[Label]:
        try:
            shape = image_shape(entry.file) if listing.relative and entry.labels else (1, 1)
        except UserError:  # `load` reports the image
            yield from entry.labels
            return
        for label in entry.labels:
            x1, y1, x2, y2 = relative_to_pixels(label.box, shape) if listing.relative else label.box
            if min_area is not None and max(x2 - x1, 0) * max(y2 - y1, 0) <= min_area:
                continue
            if y2 - y1 > heights.get(label.category, -1):
                yield label
            elif small == "ignore":
                yield label._replace(ignore=True)

    return listing._replace(entries=[e._replace(labels=[*kept_labels(e)]) for e in entries])


def assign_roles(
    listing: Listing, classes: Sequence[str], ignore_classes: Sequence[str], allow_missing: bool
) -> tuple[tuple[str, ...], frozenset[str]]:
    """The scored classes in the order of their labels, and the names of ignored categories.

    allow_missing: the names come from another set; some of them may be unknown in this one.

    Raises UserError for unknown names, repeated names, and if no class is left.
    """
    if allow_missing and classes and not {*classes} & {*listing.categories}:
        raise UserError(
            f"{listing.source}: none of the training classes ({shorten(classes)}) is among the "
            f"categories ({shorten(listing.categories)}); give rename, source name -> class"
        )
    names = [*classes, *ignore_classes]
    for name in names:
        if name not in listing.categories and not allow_missing:
            hint = suggest(name, listing.categories)
            raise UserError(f"{listing.source}: no category {name!r}; {hint}")
        if names.count(name) > 1:
            raise UserError(f"{name!r} is named twice in classes and ignore_classes; give it once")
    for name in classes:
        if name in listing.ignored:
            raise UserError(
                f"{listing.source}: category {name!r} is marked as ignored by the data set, so it "
                "cannot be one of classes; leave it out"
            )
    ignored = listing.ignored | {*ignore_classes}
    default = (name for name in listing.categories if name not in ignored | listing.groups)
    scored = tuple(classes) or tuple(default)
    if not scored:
        raise UserError(f"{listing.source}: no category to learn; give at least one class")
    return scored, ignored
