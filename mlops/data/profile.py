"""What the training rows held, column by column, for the people who will fill in new ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from mlops.data.cells.levels import GAP
from mlops.data.columns.date_columns import describe
from mlops.data.columns.encoders import CategoricalColumn, NumericColumn
from mlops.data.columns.features import FeatureEncoder
from mlops.data.columns.kinds import texts_of
from mlops.data.table import Part


def profile(part: Part, encoder: FeatureEncoder) -> dict[str, dict[str, Any]]:
    """Describes each column an encoder takes.

    Args:
        part: The rows it was fitted on.
        encoder: The fitted preprocessing.

    Returns:
        JSON values by column, in the encoder's order. Of numbers `min`, `max`, `median` and whether
        all are `whole`; of categories the `levels` and the `typical`, most frequent one; of both
        the `kind`, and whether there were `gaps`.
    """
    described = {}
    for column in encoder.columns:
        cells = part.table[column.name].array.take(part.rows)
        described[column.name] = (
            _numbers(column, cells)
            if isinstance(column, NumericColumn)
            else _categories(column, cells)
            if isinstance(column, CategoricalColumn)
            else describe(np.asarray(cells))
        )
    return described


def _numbers(column: NumericColumn, cells: Any) -> dict[str, Any]:
    numbers, _ = column.read(cells)
    known = numbers[~np.isnan(numbers)]
    return {
        "kind": column.kind,
        "min": float(known.min()),
        "max": float(known.max()),
        "median": column.median,
        "whole": bool((known == np.floor(known)).all()),
        "gaps": len(known) < len(numbers),
    }


def _categories(column: CategoricalColumn, cells: Any) -> dict[str, Any]:
    codes, texts = texts_of(column.name, cells)
    places = [column.table.place(text) for text in texts]
    counts = Counter(np.array([*places, GAP])[codes].tolist())
    return {
        "kind": "categorical",
        "levels": list(column.levels),
        "typical": max(column.levels, key=lambda level: counts[column.table.exact[level]]),
        "gaps": column.missing,
    }
