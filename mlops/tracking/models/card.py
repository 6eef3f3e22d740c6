"""A model's card: what a user of the model wants to know of it, in the model's own folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops.data.notes import to_json
from mlops.data.profile import profile

if TYPE_CHECKING:
    import pandas as pd

    from mlops.data.table import Part, Parts
    from mlops.tracking.pyfunc import Predictor

SAMPLE_ROWS = 20
MOST_WHOLE = 1000  # with more classes a matrix has more cells than can be seen, or be of use


def make_card(
    study: str,
    parts: Parts,
    predictor: Predictor,
    metrics: Mapping[str, float],
    confusion: np.ndarray,
) -> dict[str, Any]:
    """Describes a study's best model.

    Args:
        study: The study's name.
        parts: The table.
        predictor: The model.
        metrics: Its loss, accuracy and F1 on each part.
        confusion: [C, C] int64 on the test part, actual by predicted.

    Returns:
        JSON values: `study`, `data`, `metrics`, `confusion_matrix` (None of more than `MOST_WHOLE`
        classes), `columns` (see `mlops.data.profile`), `notes` (what was noticed about the table,
        without its cells), and as `sample` some test rows with the model's answers, by which
        whoever loads it can tell that it still gives them.
    """
    return {
        "study": study,
        "data": {"name": parts.name, "source": parts.source, "digest": parts.digest},
        "metrics": dict(metrics),
        "confusion_matrix": confusion.tolist() if len(confusion) <= MOST_WHOLE else None,
        "columns": profile(parts.train, predictor.encoder),
        "notes": to_json(parts.notes),
        "sample": _sample(parts.test, predictor),
    }


def _sample(part: Part, predictor: Predictor) -> dict[str, Any]:
    """Takes rows evenly spread over a part, since the first ones may all be of one class."""
    places = np.unique(np.linspace(0, len(part) - 1, SAMPLE_ROWS).astype(np.int64))
    frame = part.table.take(part.rows[places]).reset_index(drop=True)
    probabilities = predictor.probabilities(frame)
    return {
        "rows": json_rows(frame[[column.name for column in predictor.encoder.columns]]),
        "labels": predictor.task.answers(probabilities),
        "probabilities": probabilities.tolist(),
    }


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the rows of a table as JSON objects.

    Where there is no value, or no finite one, it is None. A time is ISO 8601 text in UTC, such as
    `2024-01-01T10:00:00`, and a duration its seconds.
    """
    columns = {str(name): [_json(cell) for cell in cells] for name, cells in frame.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json(cell: Any) -> Any:
    import pandas as pd

    if pd.isna(cell):
        return None
    if isinstance(cell, np.datetime64 | date):  # of pandas, numpy or Python
        time = pd.Timestamp(cell)
        return (time if time.tz is None else time.tz_convert("UTC").tz_localize(None)).isoformat()
    if isinstance(cell, np.timedelta64 | timedelta):
        return pd.Timedelta(cell).total_seconds()
    if isinstance(cell, np.generic):
        cell = cell.item()
    elif isinstance(cell, Decimal):
        cell = float(cell)
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
