"""The table of a study as an MLflow dataset: what it is, none of its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.tracking.store import Store, active_run_from_environment

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


def log_generated(
    store: Store,
    name: str,
    frame: pd.DataFrame,
    path: str,
    source: str,
    settings: Mapping[str, Any],
) -> str:
    """Records a generated table as an MLflow dataset in a run of its own.

    Under `mlflow run` it is the run made there.

    Args:
        store: Where to record.
        name: Name of the run.
        frame: The table.
        path: The file it was written to.
        source: What it was generated from.
        settings: The job's settings.

    Returns:
        The run's id.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    client = store.client
    given = active_run_from_environment()
    run = client.get_run(given) if given else client.create_run(store.experiment_id, run_name=name)
    run_id: str = run.info.run_id
    dataset = Dataset(
        name=Path(path).stem,
        digest=hashlib.sha256(source.encode()).hexdigest()[:16],
        source_type="local",
        source=json.dumps({"uri": str(Path(path).absolute()), "generated": source}),
        schema=json.dumps(_schema(frame)),
        profile=json.dumps({"num_rows": len(frame), "num_elements": int(frame.size)}),
    )
    tags = [InputTag("mlflow.data.context", "generated")]
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])
    texts = {key: str(value) for key, value in settings.items()}
    params = [Param(key, text) for key, text in texts.items() if key not in run.data.params]
    client.log_batch(run_id, params=params)
    client.set_terminated(run_id)
    return run_id
