"""`POST /invocations` as `mlflow models serve` answers it, for the clients of that server.

Bodies, predictions and the shape of errors are MLflow's (`mlflow.pyfunc.scoring_server`): columns
that the model does not have are ignored, and cells are read leniently (`protocols.reading`).
Differences: an error says under `details` which rows and columns it is about, never a stack trace;
there is a limit to rows; CSV works, which MLflow's own server refuses for a model whose signature
leaves the types of cells to the model; and Parquet is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from mlops.errors import RequestError
from mlops.serving.champion.predictor import ServedModel
from mlops.serving.protocols.predict import (
    CSV,
    JSON,
    Request,
    check_lengths,
    decode_json,
    media_type,
    read_csv,
    unsupported,
)
from mlops.serving.protocols.responses import Answer, answered, details_of, in_parts, refused, score
from mlops.serving.rows.cells import (
    Cells,
    Problems,
    RowLimits,
    check_most,
    check_names,
    plain,
    shown,
)
from mlops.serving.rows.columns import Columns
from mlops.serving.rows.reading import read_cells

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_SCALARS = (str, int, float, bool, type(None))
Table = dict[str, Sequence[Any]]


def invocations(model: ServedModel, request: Request) -> Answer:
    """Answers a request with predictions.

    Raises:
        RequestError: It cannot be read.
    """
    cells = _read(request, model.columns)
    task, most = model.task, request.max_answer_bytes
    predictions = score(model, cells, request, task.n_outputs)
    rows = in_parts(predictions, len(task.columns), task.flat_objects, most)
    return answered(
        model,
        msgspec.json.encode({"predictions": rows}),
        rows=len(predictions),
        tally=cells.tally,
    )


def refuse_invocations(error: RequestError, model: ServedModel | None) -> Answer:
    """Answers with an error in MLflow's shape."""
    if error.status == 415:
        return refused(
            error, model, error.message.encode(), content_type=b"text/plain; charset=utf-8"
        )
    unusable = error.status in (400, 422)
    # MLflow's word for columns that do not fit the signature, where cells are a bad request.
    columns = error.status == 422 and any(detail.row is None for detail in error.details)
    bad = "INVALID_PARAMETER_VALUE" if columns else "BAD_REQUEST"
    content = {
        "error_code": bad if unusable else error.code.upper(),
        "message": error.message,
        "details": details_of(error.details),
    }
    body = msgspec.json.encode(content)
    return refused(error, model, body, status=400 if unusable else error.status)


def _read(request: Request, columns: Columns) -> Cells:
    kind = media_type(request.content_type)
    parameters = [part.strip() for part in request.content_type.split(";")[1:]]
    if kind not in (JSON, CSV) or any(part != "charset=utf-8" for part in parameters):
        raise unsupported(request.content_type, (JSON, CSV, "in UTF-8"))
    if kind == CSV:
        _, cells = read_csv(request.body, columns, request.limits, ignore_others=True)
        return read_cells(columns, cells, "text")
    value = decode_json(request.body)
    given = [name for name in FORMATS if isinstance(value, dict) and name in value]
    if len(given) != 1:
        got = ", ".join(map(plain, list(value)[:5])) if isinstance(value, dict) else shown(value)
        raise RequestError(
            400,
            "invalid_body",
            f"a body must be a JSON object with exactly one of {', '.join(FORMATS)}, got "
            f"{got or 'an empty object'}; see /docs for an example",
        )
    (name,) = given
    return _read_table(_READERS[name](value[name], columns, request.limits), columns)


def _read_table(table: Table, columns: Columns) -> Cells:
    """Reads a table's cells; unlike `/predict`, of no row as well, for MLflow does."""
    problems = Problems()
    check_names([name for name in table if name in columns.known], columns, problems)
    problems.raise_any()
    cells = [table[name] for name in columns.ordered]
    check_lengths(columns, cells)
    return read_cells(columns, cells, "lenient")


def _split(value: Any, columns: Columns, limits: RowLimits) -> Table:
    if (
        not isinstance(value, dict)
        or not {"data"} <= value.keys() <= {"columns", "data", "index"}
        or not isinstance(value["data"], list)
        or not isinstance(value.get("columns", []), list)
    ):
        raise _bad_shape("dataframe_split", '{"columns": [...], "data": [[...], ...]}')
    check_most(len(value["data"]), limits)
    names = value.get("columns", [])
    if not names:
        return {}
    problems = Problems()
    for name, times in Counter(map(str, names)).items():
        if times > 1 and name in columns.known:
            problems.add(
                "extra_column",
                f"column names must differ, got `{plain(name)}` twice; drop one",
                field=name,
            )
    problems.raise_any()
    for index, row in enumerate(value["data"]):
        if not isinstance(row, list) or len(row) != len(names):
            got = f"{len(row)}" if isinstance(row, list) else shown(row)
            problems.add(
                "wrong_width",
                f"a row must be a list of one cell for each of the {len(names)} columns, got {got};"
                " send null where there is no value",
                row=index,
            )
            if problems.full:
                break
    problems.raise_any()
    transposed: list[Sequence[Any]] = list(zip(*value["data"], strict=True))
    return dict(zip(map(str, names), transposed or [()] * len(names), strict=True))


def _records(value: Any, columns: Columns, limits: RowLimits) -> Table:
    """Reads a list of objects; a column that some of them lack has a gap there, as in pandas."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise _bad_shape("dataframe_records", "[{column: value, ...}, ...]")
    check_most(len(value), limits)
    try:
        return dict(zip(columns.ordered, columns.transposed(value), strict=True)) if value else {}
    except KeyError:
        present = [name for name in columns.names if any(name in row for row in value)]
        return {name: [row.get(name) for row in value] for name in present}


def _inputs(value: Any, columns: Columns, limits: RowLimits) -> Table:
    """Reads rows, or lists of cells by column, where one value stands for all rows."""
    if isinstance(value, list) and len(columns.names) == 1 and not _has_objects(value):
        check_most(len(value), limits)
        return {columns.names[0]: value}
    if isinstance(value, list) and _has_objects(value):
        return _records(value, columns, limits)
    if not isinstance(value, dict):
        return {}  # values without names are of no column
    lengths = [len(cells) for cells in value.values() if isinstance(cells, list)]
    n_rows = max(lengths, default=1)
    check_most(n_rows, limits)
    return {
        name: [cells] * n_rows if isinstance(cells, _SCALARS) else _list(name, cells)
        for name, cells in value.items()
        if name in columns.known
    }


def _list(name: str, cells: Any) -> list[Any]:
    if not isinstance(cells, list):
        raise _bad_shape(f"column `{plain(name)}`", "[value, ...]")
    return cells


def _has_objects(value: list[Any]) -> bool:
    return any(isinstance(row, dict) for row in value)


def _bad_shape(name: str, shape: str) -> RequestError:
    return RequestError(
        400, "invalid_body", f"{name} must be {shape}, got another shape; see /docs for an example"
    )


_READERS = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _inputs,
    "inputs": _inputs,
}
