"""A job's settings as MLflow params, by which people compare runs; whole they are elsewhere.

A param has the dotted name of a setting, as its flag has. Names that are the user's, such as those
of columns, are never names of params: MLflow forbids letters in them, and there may be thousands.
They are within the JSON of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# MLflow cuts longer values, in the middle of whatever is there.
LONGEST_PARAM = 6000
# Settings that are sections: all their names are ours.
SECTIONS = frozenset(
    {"data", "data.synthetic", "defaults", "pruning", "resources", "search", "tracking"}
)


def as_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns settings as texts by dotted name, each as long as MLflow takes it.

    Args:
        settings: JSON values; those that are None are left out.
    """
    return {name: _text(value) for name, value in _flat(settings).items() if value is not None}


def fit(text: str, most: int) -> str:
    """Makes a text of the user's one that every store takes: of so many letters, and encodable."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    if "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if prefix + name in SECTIONS and isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        entries = [f"{json.dumps(str(key))}: {json.dumps(value[key])}" for key in value]
        return _joined("{", entries, "}")
    if isinstance(value, list | tuple):
        return _joined("[", [json.dumps(entry) for entry in value], "]")
    return fit(str(value), LONGEST_PARAM)


def _joined(before: str, entries: list[str], after: str) -> str:
    """Joins the first entries, as many as there is room for, and says how many others there are."""
    whole = before + ", ".join(entries) + after
    if len(whole) <= LONGEST_PARAM:
        return whole
    room = LONGEST_PARAM - 100
    shown: list[str] = []
    for entry in entries:
        room -= len(entry) + 2
        if room < 0:
            break
        shown.append(entry)
    more = f"and {len(entries) - len(shown):,} more, see settings.yaml"
    return before + "".join(f"{entry}, " for entry in shown) + more + after
