"""Pictures on a run, drawn without a display and without pyplot's global state."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops.tracking.models.card import MOST_WHOLE
from mlops.tracking.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST_NAME = 24
MOST_NAMED = 40  # with more classes only every second, third, ... is named
MOST_NUMBERED = 32  # with more classes a cell has no room for its count
FEW = 6  # with so few classes there is room for large cells, zeros included


def log_confusion_matrix(
    store: Store, run_id: str, matrix: np.ndarray, classes: Sequence[Any]
) -> None:
    """Puts confusion_matrix.png and confusion_matrix.json on a run.

    The file holds the `matrix` or, of more than `MOST_WHOLE` classes, its `counts` that are not 0:
    actual class, predicted class, rows.

    Args:
        store: Where the run is.
        run_id: The run.
        matrix: Rows by actual and predicted class: [C, C] int64.
        classes: The labels, in the order of the matrix.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-picture-") as scratch:
        folder = Path(scratch)
        draw_confusion_matrix(matrix, classes).savefig(folder / "confusion_matrix.png")
        document = {"classes": list(classes), "rows": "actual", "columns": "predicted"}
        if len(classes) <= MOST_WHOLE:
            document["matrix"] = np.asarray(matrix).tolist()
        else:
            places = np.nonzero(matrix)
            document["counts"] = np.stack([*places, matrix[places]], axis=1).tolist()
        (folder / "confusion_matrix.json").write_text(json.dumps(document), encoding="utf-8")
        store.client.log_artifacts(run_id, str(folder))


def warm_up() -> None:
    """Imports what drawing needs (measured: 0.5 s)."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


def draw_confusion_matrix(matrix: np.ndarray, classes: Sequence[Any]) -> Figure:
    """Draws counts, shaded by their share of the actual class.

    Of more than `MOST_WHOLE` classes several that are next to each other are drawn as one.

    Args:
        matrix: Rows by actual and predicted class: [C, C] int64.
        classes: The labels, in the order of the matrix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    accuracy = np.trace(matrix) / max(int(matrix.sum()), 1)
    step = math.ceil(len(matrix) / MOST_WHOLE)
    if step > 1:
        firsts = np.arange(0, len(matrix), step)
        matrix = np.add.reduceat(np.add.reduceat(matrix, firsts, axis=0), firsts, axis=1)
        classes = classes[::step]
    n_classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cell = 0.8 if n_classes <= FEW else 0.42  # inches
    side = min(16.0, max(4.0, 1.5 + cell * n_classes))
    figure = Figure(figsize=(side + 1.0, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, label="share of the actual class", shrink=0.8)
    ticks = range(0, n_classes, math.ceil(n_classes / MOST_NAMED))
    names = [_shortened(str(classes[tick])) for tick in ticks]
    upright = n_classes > 2 and max(map(len, names)) > 2
    axes.set_xticks(ticks, names, rotation=90 if upright else 0, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set(
        xlabel="predicted",
        ylabel="actual",
        title=f"{int(matrix.sum()):,} rows, {accuracy:.1%} right",
    )
    if n_classes <= MOST_NUMBERED:
        _write_counts(axes, matrix, shares, cell)
    return figure


def _write_counts(axes: Any, matrix: np.ndarray, shares: np.ndarray, cell: float) -> None:
    # A digit is about 0.62 of the type size wide; 72 points are an inch.
    size = min(11.0, 0.8 * cell * 72 / (0.62 * len(f"{matrix.max():,}")))
    few = len(matrix) <= FEW
    for row, column in np.argwhere(matrix >= (0 if few else 1)):
        axes.text(
            column,
            row,
            f"{matrix[row, column]:,}",
            ha="center",
            va="center",
            fontsize=min(size, 11.0 if few else 7.0),
            color="white" if shares[row, column] > 0.5 else "#1a1a1a",
        )


def _shortened(name: str) -> str:
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
