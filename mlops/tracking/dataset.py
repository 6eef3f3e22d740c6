"""The table of a study as an MLflow dataset: what it is, none of its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from mlops.data.table import Parts


def log_dataset(store: Store, run_id: str, parts: Parts, context: str = "training") -> None:
    """Records name, source, digest, columns and row counts of a table as an input of a run.

    No cell is read, however large the table is.

    Args:
        store: Where the run is.
        run_id: The study's run.
        parts: The table.
        context: What the run used it for.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source_type, source = _source(parts.source)
    dataset = Dataset(
        name=parts.name,
        digest=parts.digest,
        source_type=source_type,
        source=json.dumps(source),
        schema=json.dumps(_schema(parts.train.table)),
        profile=json.dumps(_profile(parts)),
    )
    tags = [InputTag("mlflow.data.context", context)]
    store.client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])


def _source(source: str) -> tuple[str, dict[str, str]]:
    """Names the kind of a source: MLflow's `local` for a file, else what is before the colon."""
    kind, colon, _ = source.partition(":")
    if not colon or Path(source).exists():
        return "local", {"uri": source}
    return kind, {"uri": source}


def _schema(table: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    columns = zip(map(str, table.columns), table.dtypes, strict=True)
    return {
        "mlflow_colspec": [
            {"name": name, "type": _type_name(dtype), "required": True} for name, dtype in columns
        ]
    }


def _type_name(dtype: Any) -> str:
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    if is_bool_dtype(dtype):
        return "boolean"
    if is_integer_dtype(dtype):
        return "long"
    return "double" if is_numeric_dtype(dtype) else "string"


def _profile(parts: Parts) -> dict[str, Any]:
    rows = {
        "train_rows": len(parts.train.target),
        "validation_rows": len(parts.validation.target),
        "test_rows": len(parts.test.target),
    }
    columns = parts.train.table.shape[1]
    total = sum(rows.values())
    return {
        "num_rows": total,
        "num_elements": total * (columns + 1),
        "columns": columns,
        **rows,
        "target": parts.target_name,
        "classes": len(parts.classes),
    }
