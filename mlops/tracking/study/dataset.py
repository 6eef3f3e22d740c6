"""The table of a study as an MLflow dataset: what it is, none of its rows.

Names come from the user's table and may be of any length and number; a store takes so many letters.
What is too long for it is cut here, and told: nothing is to be lost for the sake of a description.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.data.notes import Note
from mlops.tracking.models.card import MOST_WHOLE
from mlops.tracking.store.experiment import active_run_from_environment
from mlops.tracking.store.store import Store
from mlops.tracking.study.params import fit

# Letters of a schema. MLflow takes 1 MB, earlier versions 64 KB, and sends it with all that it says
# of the run.
LONGEST_SCHEMA = 65_535
LONGEST_SOURCE = 5_000  # of 64 KB: in JSON a letter may take twelve
LONGEST_NAME = 500
LONGEST_KIND = 36
_COLUMNS = '{{"mlflow_colspec": [{}]}}'

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
    schema, named = _schema(parts.train.table)
    dataset = Dataset(
        name=fit(parts.name, LONGEST_NAME),
        digest=parts.digest,
        source_type=source_type,
        source=json.dumps(source),
        schema=schema,
        profile=json.dumps(_profile(parts, named)),
    )
    tags = [InputTag("mlflow.data.context", context)]
    store.client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])


def notes_on_record(parts: Parts) -> list[Note]:
    """Says what is not recorded in full of a table of so many columns and classes."""
    notes = []
    columns, classes = parts.train.table.shape[1], len(parts.classes)
    _, named = _schema(parts.train.table)
    if named < columns:
        notes.append(
            Note(
                "schema_shortened",
                f"MLflow's description of the table names its first {named:,} columns, which is "
                f"all that it takes, of {columns:,}; the model on record names all of them",
            )
        )
    if classes > MOST_WHOLE:
        notes.append(
            Note(
                "matrix_shortened",
                f"of the confusion matrix of {classes:,} classes confusion_matrix.json has the "
                "counts that are not 0, and the model's card nothing",
            )
        )
    return notes


def _source(source: str) -> tuple[str, dict[str, str]]:
    """Names the kind of a source: MLflow's `local` for a file, else what is before the colon."""
    kind, colon, _ = source.partition(":")
    uri = {"uri": source[:LONGEST_SOURCE]}
    is_kind = colon and len(kind) <= LONGEST_KIND and kind.isalnum()
    return (kind, uri) if is_kind and not _exists(source) else ("local", uri)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # no file can have so long a name
        return False


def _schema(table: pd.DataFrame) -> tuple[str, int]:
    """Describes the first columns of a table, as many as MLflow takes; returns how many."""
    described: list[str] = []
    room = LONGEST_SCHEMA - len(_COLUMNS.format(""))
    for name, dtype in zip(map(str, table.columns), table.dtypes, strict=True):
        column = json.dumps({"name": name, "type": _type_name(dtype), "required": True})
        room -= len(column) + 2
        if room < 0:
            break
        described.append(column)
    return _COLUMNS.format(", ".join(described)), len(described)


def _type_name(dtype: Any) -> str:
    from pandas.api.types import (
        is_bool_dtype,
        is_datetime64_any_dtype,
        is_integer_dtype,
        is_numeric_dtype,
    )

    if is_bool_dtype(dtype):
        return "boolean"
    if is_datetime64_any_dtype(dtype):
        return "datetime"
    if is_integer_dtype(dtype):
        return "long"
    return "double" if is_numeric_dtype(dtype) else "string"


def _profile(parts: Parts, named: int) -> dict[str, Any]:
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
        "columns_in_schema": named,
        **rows,
        "target": fit(parts.target_name, LONGEST_NAME),
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
        schema=_schema(frame)[0],
        profile=json.dumps({"num_rows": len(frame), "num_elements": int(frame.size)}),
    )
    tags = [InputTag("mlflow.data.context", "generated")]
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])
    texts = {key: str(value) for key, value in settings.items()}
    params = [Param(key, text) for key, text in texts.items() if key not in run.data.params]
    client.log_batch(run_id, params=params)
    client.set_terminated(run_id)
    return run_id
