"""Whether one model can stand in for another before its clients, and what it reads otherwise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlops.data.columns.kinds import some_of
from mlops.tracking.pyfunc import Predictor


def difference(champion: Predictor, model: Predictor) -> str:
    """Says why a model cannot stand in for the champion before its clients; empty if it can."""
    old, new = _columns(champion), _columns(model)
    taken = new.keys() | set(model.training_columns)  # those left out are ignored in requests
    parts = {
        "columns gone": [name for name in old if name not in taken],
        "columns added": [name for name in new if name not in old],
        "classes gone": _missing(champion.task.classes, model.task.classes),
        "classes added": _missing(model.task.classes, champion.task.classes),
    }
    return "; ".join(f"{title} {some_of(names)}" for title, names in parts.items() if names)


def read_otherwise(champion: Predictor, model: Predictor) -> str:
    """Says which of the champion's columns a model leaves out or reads as another kind."""
    old, new = _columns(champion), _columns(model)
    changed: dict[str, list[str]] = {}
    for name, kind in old.items():
        if name not in new:
            changed.setdefault("left out", []).append(name)
        elif new[name] != kind:
            changed.setdefault(f"read as {new[name]}", []).append(name)
    return "".join(f"; {how} now: {some_of(names)}" for how, names in changed.items())


def _missing(labels: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    # As JSON, in which 1 and true differ.
    known = {json.dumps(other) for other in others}
    return [label for label in labels if json.dumps(label) not in known]


def _columns(predictor: Predictor) -> dict[str, Any]:
    return {column.name: column.kind for column in predictor.encoder.columns}
