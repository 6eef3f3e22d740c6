"""The parts of the OpenAPI description that are the same for every model."""

from __future__ import annotations

from typing import Any

from mlops.data.notes import ODDITIES

Schema = dict[str, Any]
DETAIL: Schema = {
    "type": "object",
    "required": ["row", "field", "message"],
    "properties": {
        "row": {"type": ["integer", "null"], "description": "position in the request, from 0"},
        "field": {"type": ["string", "null"], "description": "the column"},
        "message": {"type": "string"},
    },
}
MODEL: Schema = {
    "type": ["object", "null"],
    "required": ["name", "version", "run_id"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "integer"},
        "run_id": {"type": "string"},
    },
}
ERROR: Schema = {
    "type": "object",
    "required": ["error", "model"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "string", "examples": ["missing_column"]},
                "message": {"type": "string"},
                "details": {"type": "array", "items": DETAIL},
            },
        },
        "model": MODEL,
    },
}
MLFLOW_ERROR: Schema = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {
        "error_code": {"type": "string"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": DETAIL},
    },
}
INFERENCE_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "details": {"type": "array", "items": DETAIL},
    },
}
NOTE: Schema = {
    "type": "object",
    "required": ["code", "column", "cells"],
    "properties": {
        "code": {
            "type": "string",
            "enum": list(ODDITIES),
        },
        "column": {"type": "string"},
        "cells": {"type": "integer"},
    },
}
SCHEME: Schema = {
    "type": "http",
    "scheme": "bearer",
    "description": "Needed where the endpoint was started with a token.",
}
NAMED: Schema = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}},
}

TENSOR: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string"},
        "data": {"type": "array"},
    },
}
