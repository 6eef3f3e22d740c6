"""The Open Inference Protocol, version 2, over HTTP.

Inputs are tensors named by column, of shape [N] or [N, 1]: numbers for a numeric column, BYTES
(text) for a category. A model of numbers alone takes one tensor [N, F] as well, of any name, with
the columns in the order of the model's metadata. `null` in `data` is a gap. Outputs are `label` and
`probability_<class>` for each class, each [N].

Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from math import prod
from typing import Any

import msgspec
import numpy as np

from mlops.errors import RequestError
from mlops.serving.champion.predictor import ServedModel
from mlops.serving.protocols.predict import (
    JSON,
    Request,
    convert,
    decode_json,
    media_type,
    unsupported,
)
from mlops.serving.protocols.responses import Answer, answered, details_of, in_parts, refused, score
from mlops.serving.rows.cells import (
    Cells,
    Problems,
    RowLimits,
    check_count,
    check_names,
    plain,
)
from mlops.serving.rows.columns import Columns
from mlops.serving.rows.reading import read_cells

_INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
_NUMBERS = (*_INTEGERS, "FP16", "FP32", "FP64")
_DATATYPES = (*_NUMBERS, "BOOL", "BYTES")
_LABELS = {bool: "BOOL", int: "INT64", float: "FP64"}


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class _Output(msgspec.Struct):
    name: str


class _InferRequest(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    outputs: list[_Output] | None = None


def infer(model: ServedModel, request: Request) -> Answer:
    """Answers a request with predictions.

    Raises:
        RequestError: It cannot be read, or asks for another model.
    """
    check_model(model, *named_in(request.path))
    if media_type(request.content_type) not in (JSON, ""):
        raise unsupported(request.content_type, (JSON,))
    asked = convert(decode_json(request.body), _InferRequest)
    names = _outputs_asked(asked, model)
    cells = _read(asked.inputs, model.columns, request.limits)
    probabilities = score(model, cells, request, len(names))
    content: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if asked.id is not None:
        content["id"] = asked.id.encode("utf-8", "backslashreplace").decode("utf-8")
    content["outputs"] = _outputs(model, probabilities, names, request.max_answer_bytes)
    return answered(model, msgspec.json.encode(content), rows=len(probabilities), tally=cells.tally)


def refuse_infer(error: RequestError, model: ServedModel | None) -> Answer:
    """Answers with an error in the protocol's shape."""
    content = {
        "error": error.message,
        "code": error.code,
        "details": details_of(error.details),
    }
    status = 400 if error.status == 422 else error.status
    return refused(error, model, msgspec.json.encode(content), status=status)


def is_infer(path: str) -> bool:
    """Tells whether a path is `/v2/models/{name}[/versions/{version}]/infer`."""
    return path.startswith("/v2/models/") and path.endswith("/infer")


def named_in(path: str) -> tuple[str, str | None]:
    """Returns the model and the version that such a path names.

    Raises:
        RequestError: It is no such path.
    """
    parts = path.split("/")[3:-1]
    if len(parts) == 1:
        return parts[0], None
    if len(parts) == 3 and parts[1] == "versions":
        return parts[0], parts[2]
    raise RequestError(
        404,
        "not_found",
        f"a path must be one of the endpoint's, got {plain(path)}; see /docs",
    )


def check_model(model: ServedModel, name: str, number: str | None) -> None:
    """Refuses a request for a model that is not being served.

    Raises:
        RequestError: It is for another.
    """
    if name != model.name or number not in (None, str(model.version)):
        asked = name if number is None else f"{name}, version {number}"
        raise RequestError(
            404,
            "unknown_model",
            f"a request must be for the model being served, {model.name}, version {model.version}, "
            f"got {plain(asked)}; leave the version out to ask whichever is served",
        )


def server_metadata() -> dict[str, Any]:
    """Returns what `GET /v2` answers."""
    try:
        number = version("mlops")
    except PackageNotFoundError:  # run from a checkout that is not installed
        number = "unknown"
    return {"name": "mlops", "version": number, "extensions": []}


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """Returns what `GET /v2/models/{name}` answers."""
    numeric = set(model.columns.numeric)
    return {
        "name": model.name,
        "versions": [str(model.version)],
        "platform": "mlops_mlp",
        "inputs": [
            {"name": name, "datatype": "FP64" if name in numeric else "BYTES", "shape": [-1]}
            for name in model.columns.names
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in _output_types(model).items()
        ],
    }


def _output_types(model: ServedModel) -> dict[str, str]:
    answer, *names = model.task.columns
    types = {answer: _LABELS.get(type(model.task.classes[0]), "BYTES")}
    return types | dict.fromkeys(names, "FP64")


def _outputs_asked(asked: _InferRequest, model: ServedModel) -> list[str]:
    known = _output_types(model)
    names = [output.name for output in asked.outputs or []] or list(known)
    for name in names:
        if name not in known:
            raise RequestError(
                422,
                "unknown_output",
                f"an output must be one of {', '.join(map(plain, list(known)[:20]))}, got "
                f"{plain(name)}; see the model's metadata",
            )
    return list(dict.fromkeys(names))


def _outputs(
    model: ServedModel, probabilities: np.ndarray, names: Sequence[str], most: int
) -> list[Any] | msgspec.Raw:
    types = _output_types(model)
    answer, *others = model.task.columns
    columns = dict(zip(others, probabilities.T, strict=True))
    n_rows = len(probabilities)

    def data(name: str) -> list[Any] | msgspec.Raw:
        if name == answer:
            return in_parts(probabilities, 1, model.task.answers, most)
        return in_parts(columns[name], 1, np.ndarray.tolist, most)

    def written(part: Sequence[str]) -> list[Any]:
        return [
            {"name": name, "datatype": types[name], "shape": [n_rows], "data": data(name)}
            for name in part
        ]

    return in_parts(names, n_rows, written, most)


def _read(tensors: list[_Tensor], columns: Columns, limits: RowLimits) -> Cells:
    problems = Problems()
    flat = [_flat(tensor, problems) for tensor in tensors]
    problems.raise_any()
    if len(tensors) == 1 and len(tensors[0].shape) == 2 and tensors[0].shape[1] != 1:
        table = _of_matrix(tensors[0], flat[0], columns)
    else:
        check_names([tensor.name for tensor in tensors], columns, problems)
        _check_tensors(tensors, columns, problems)
        problems.raise_any()
        table = {tensor.name: data for tensor, data in zip(tensors, flat, strict=True)}
    check_count(len(table[columns.ordered[0]]), limits)
    return read_cells(columns, [table[name] for name in columns.ordered])


def _flat(tensor: _Tensor, problems: Problems) -> list[Any]:
    """Returns a tensor's data in one list, whether it was sent in one or nested."""
    data = tensor.data
    if data and len(tensor.shape) == 2 and all(isinstance(row, list) for row in data):
        data = list(chain.from_iterable(data))
    name = plain(tensor.name)
    if tensor.datatype not in _DATATYPES:
        problems.add(
            "wrong_type",
            f"a tensor's datatype must be one of {', '.join(_DATATYPES)}, got "
            f"{plain(tensor.datatype)} for `{name}`",
            field=tensor.name,
        )
    if len(tensor.shape) not in (1, 2) or prod(tensor.shape) != len(data) or min(tensor.shape) < 0:
        problems.add(
            "wrong_width",
            f"a tensor must be of shape [N] or [N, F] and hold as many values as its shape says, "
            f"got {len(data)} in `{name}`; correct shape or data",
            field=tensor.name,
        )
    return data


def _of_matrix(tensor: _Tensor, data: list[Any], columns: Columns) -> dict[str, list[Any]]:
    width = tensor.shape[1]
    others = len(columns.names) - len(columns.numeric)
    if others or tensor.datatype not in _NUMBERS:
        raise RequestError(
            422,
            "wrong_type",
            "a tensor [N, F] must hold numbers, for a model of numeric columns alone, got "
            f"{plain(tensor.datatype)} for {others} other column(s); send "
            "one tensor [N] a column",
        )
    if width != len(columns.names):
        raise RequestError(
            422,
            "wrong_width",
            f"a tensor [N, F] must have one value for each of the {len(columns.names)} columns, "
            f"got {width}; GET /v2/models/NAME lists them in order",
        )
    return {name: data[place::width] for place, name in enumerate(columns.names)}


def _check_tensors(tensors: list[_Tensor], columns: Columns, problems: Problems) -> None:
    numeric = set(columns.numeric)
    rows = tensors[0].shape[0] if tensors else 0
    seen: set[str] = set()
    for tensor in tensors:
        if problems.full:
            return
        name = plain(tensor.name)
        if tensor.name in seen:
            problems.add(
                "extra_column",
                f"tensors must be of different columns, got two of `{name}`; leave one out",
                field=tensor.name,
            )
        seen.add(tensor.name)
        if tensor.name in numeric and tensor.datatype not in _NUMBERS:
            problems.add(
                "wrong_type",
                f"column `{name}` must hold numbers, got {plain(tensor.datatype)}; send FP64",
                field=tensor.name,
            )
        if tensor.shape[1:] not in ([], [1]) or tensor.shape[0] != rows:
            problems.add(
                "wrong_width",
                f"tensors must all be of shape [{rows}] or [{rows}, 1], got "
                f"{plain(str(tensor.shape))} for `{name}`; send one value a row",
                field=tensor.name,
            )
