"""Federated labels, as in LVIS v1: each image is labeled for some of the classes only.

LVIS (Gupta et al., arXiv 1908.03195) adds to the COCO layout: `neg_category_ids` of an image,
classes that were verified to be absent; `not_exhaustive_category_ids`, classes of which some
objects are not labeled; `frequency` of a category, r, c or f. Its images have no `file_name`, but a
`coco_url` that ends in the folder and the name of the file.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Field of the json -> field of a listing's images, with names instead of ids.
FIELDS = {
    "neg_category_ids": "neg_categories",
    "not_exhaustive_category_ids": "not_exhaustive_categories",
}


def add_file_name(info: Any) -> Any:
    """An image's fields with the `file_name` from its `coco_url`, if it has only that."""
    if (
        not isinstance(info, dict)
        or "file_name" in info
        or not isinstance(info.get("coco_url"), str)
    ):
        return info
    return {**info, "file_name": "/".join(info["coco_url"].split("/")[-2:])}


def name_categories(
    info: Mapping[str, Any],
    names: Mapping[Any, str],
    as_id: Callable[[Any], Any],
    report: Callable[[str, str], None],
) -> dict[str, Any]:
    """An image's fields with names of categories instead of the source's ids.

    Unknown ids, and values that are not lists, are left out and reported as (problem, message).
    """
    named = {field: value for field, value in info.items() if field not in FIELDS}
    for field, name in FIELDS.items():
        if field not in info:
            continue
        ids = [as_id(value) for value in info[field]] if isinstance(info[field], list) else [None]
        if unknown := [i for i in ids if i not in names]:
            report("unknown category", f"image {info['id']}: {field} has the unknown {unknown}")
        named[name] = [names[i] for i in ids if i in names]
    return named


def frequencies(categories: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Category -> its frequency, for those that have one."""
    return {
        str(c["name"]): c["frequency"] for c in categories if isinstance(c.get("frequency"), str)
    }


def rename(info: Mapping[str, Any], new_name: Callable[[str], str]) -> dict[str, Any]:
    """An image's fields with its categories renamed."""
    lists = {name: [*map(new_name, info[name])] for name in FIELDS.values() if name in info}
    return {**info, **lists}


def to_ids(info: Mapping[str, Any], category_ids: Mapping[str, int]) -> dict[str, list[int]]:
    """The `FIELDS` of an image with a split's ids; categories without an id are left out."""
    return {
        field: [category_ids[category] for category in info[name] if category in category_ids]
        for field, name in FIELDS.items()
        if name in info
    }
