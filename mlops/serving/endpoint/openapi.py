"""The OpenAPI description, made from the columns of the model being served."""

from __future__ import annotations

from typing import Any

from mlops.serving.champion.predictor import ServedModel
from mlops.serving.endpoint.schemas import (
    ERROR,
    INFERENCE_ERROR,
    MLFLOW_ERROR,
    MODEL,
    NAMED,
    NOTE,
    SCHEME,
    TENSOR,
    Schema,
)
from mlops.serving.protocols.predict import ARROW, CSV, JSON

_REFUSALS = {
    "400": "The body cannot be decoded",
    "401": "The token is missing or wrong",
    "408": "The body came too slowly",
    "413": "The body is too large, or the answer would be",
    "415": "The body is of no supported type",
    "422": "Rows cannot be used; `details` names rows and columns",
    "503": "No model, too many requests at a time, or too slow; see Retry-After",
}


def describe(rest: Schema, model: ServedModel | None) -> Schema:
    """Returns the OpenAPI document.

    Args:
        rest: What FastAPI says of the routes it has.
        model: The model being served; without one, a row is any object.
    """
    paths = {
        "/predict": {"post": _predict(model)},
        "/invocations": {"post": _invocations(model)},
        "/v2/models/{name}/infer": {"post": _infer(model, ["name"])},
        "/v2/models/{name}/versions/{version}/infer": {"post": _infer(model, ["name", "version"])},
    }
    components = {**rest.get("components", {}), "securitySchemes": {"token": SCHEME}}
    return {
        **rest,
        "paths": {**paths, **rest["paths"]},
        "components": components,
        "security": [{}, {"token": []}],
    }


def row_schema(model: ServedModel | None) -> Schema:
    """Describes a row: every column of the model, and no other but what is ignored."""
    if model is None:
        return {"type": "object"}
    described = model.card["columns"]
    return {
        "type": "object",
        "required": list(model.columns.names),
        "properties": {
            **{name: _cell(described[name]) for name in model.columns.names},
            **_ignored(model),
        },
        "additionalProperties": False,
    }


def _ignored(model: ServedModel | None) -> dict[str, Schema]:
    names = sorted(model.columns.ignored) if model else []
    return {name: {"description": "not used by the model; ignored"} for name in names}


def _cell(column: dict[str, Any]) -> Schema:
    gaps = "; null where there is no value" if column.get("gaps") else ""
    if column["kind"] == "numeric":
        return {
            "type": ["number", "null"],
            "description": f"in training from {column['min']:g} to {column['max']:g}{gaps}",
            "examples": [column["median"]],
        }
    if column["kind"] == "date":
        # The format asks for a time and an offset, the endpoint for neither.
        typical = column["typical"] + ("T00:00:00Z" if column["whole_days"] else "Z")
        return {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "a date or time by ISO 8601, of UTC where it has no offset; in training "
            f"from {column['min']} to {column['max']}{gaps}",
            "examples": [typical],
        }
    return {
        "type": ["string", "number", "boolean", "null"],
        "description": f"a category; one that training did not see counts as another{gaps}",
        "examples": column["levels"][:10],
    }


def _operation(
    name: str, summary: str, content: Schema, answer: Schema, error: Schema, refusals: str = ""
) -> Schema:
    responses: Schema = {
        code: {"description": text, "content": {JSON: {"schema": error}}}
        for code, text in _REFUSALS.items()
        if code not in refusals.split()
    }
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["prediction"],
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "Predictions", "content": answer}, **responses},
    }


def _predict(model: ServedModel | None) -> Schema:
    row = row_schema(model)
    names = list(model.columns.names) if model else []
    cells = {name: {"type": "array", "items": row["properties"][name]} for name in names}
    columns = {
        "type": "object",
        "required": names,
        "properties": {**cells, **_ignored(model)},
        "additionalProperties": model is None,
    }
    example = model.typical_row if model else {}
    schema = {
        "oneOf": [
            _only("rows", {"type": "array", "minItems": 1, "items": row}),
            _only("columns", columns),
        ]
    }
    content = {
        JSON: {
            "schema": schema,
            "examples": {
                "rows": {"value": {"rows": [example]}},
                "columns": {"value": {"columns": {key: [cell] for key, cell in example.items()}}},
            },
        },
        CSV: {"schema": {"type": "string"}, "example": _csv(example)},
        ARROW: {"schema": {"type": "string", "format": "binary"}},
    }
    prediction = {
        "type": "object",
        "required": ["label", "probabilities"],
        "properties": {
            "label": {"type": ["string", "number", "boolean"]},
            "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    }
    answered = {
        "type": "object",
        "required": ["predictions", "model"],
        "properties": {
            "predictions": {"type": "array", "items": prediction},
            "model": MODEL,
            "notes": {"type": "array", "items": NOTE},
        },
    }
    answer = {
        JSON: {"schema": answered},
        ARROW: {"schema": {"type": "string", "format": "binary"}},
    }
    return _operation("predict", "Predict a class for each row", content, answer, ERROR)


def _only(name: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "required": [name],
        "properties": {name: schema},
        "additionalProperties": False,
    }


def _csv(example: dict[str, Any]) -> str:
    def cell(value: Any) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text

    return ",".join(map(cell, example)) + "\n" + ",".join(map(cell, example.values())) + "\n"


def _invocations(model: ServedModel | None) -> Schema:
    example = model.typical_row if model else {}
    names, cells = list(example), list(example.values())
    split = _only(
        "dataframe_split",
        {
            "type": "object",
            "required": ["columns", "data"],
            "properties": {
                "columns": {"type": "array", "items": {"type": "string"}},
                "data": {"type": "array", "items": {"type": "array"}},
            },
        },
    )
    records: Schema = {"type": "array", "items": {"type": "object"}}
    forms = [
        split,
        _only("dataframe_records", records),
        _only("instances", records),
        _only("inputs", {"type": ["object", "array"]}),
    ]
    content = {
        JSON: {
            "schema": {"anyOf": forms},
            "examples": {
                "split": {"value": {"dataframe_split": {"columns": names, "data": [cells]}}},
                "records": {"value": {"dataframe_records": [example]}},
            },
        },
        CSV: {"schema": {"type": "string"}, "example": _csv(example)},
    }
    prediction = {"type": "array", "items": {"type": "object"}}
    answer = {JSON: {"schema": _only("predictions", prediction)}}
    operation = _operation(
        "invocations",
        "Predict as `mlflow models serve` does",
        content,
        answer,
        MLFLOW_ERROR,
        "422",
    )
    operation["responses"]["415"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return operation


def _infer(model: ServedModel | None, names: list[str]) -> Schema:
    content: Schema = {
        JSON: {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {"type": "array", "items": TENSOR},
                    "outputs": {"type": "array", "items": NAMED},
                },
            }
        }
    }
    only: dict[str, Schema] = {}
    if model is not None:
        content[JSON]["example"] = {"inputs": _tensors(model)}
        values = {"name": model.name, "version": str(model.version)}
        only = {name: {"enum": [value], "examples": [value]} for name, value in values.items()}
    answered = {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {"outputs": {"type": "array", "items": TENSOR}},
    }
    operation = _operation(
        "_".join(["infer", *names]),
        "Predict by the Open Inference Protocol",
        content,
        {JSON: {"schema": answered}},
        INFERENCE_ERROR,
        "422",
    )
    operation["parameters"] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, **only.get(name, {})},
        }
        for name in names
    ]
    operation["responses"]["404"] = {
        "description": "Another model or version is served",
        "content": {JSON: {"schema": INFERENCE_ERROR}},
    }
    return operation


def _tensors(model: ServedModel) -> list[Schema]:
    numeric = set(model.columns.numeric)
    return [
        {
            "name": name,
            "shape": [1],
            "datatype": "FP64" if name in numeric else "BYTES",
            "data": [cell],
        }
        for name, cell in model.typical_row.items()
    ]
