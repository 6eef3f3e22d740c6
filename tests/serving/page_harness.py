"""A server for the page, in the shapes of the endpoint, that can be told what to answer."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from mlops.serving.endpoint.page_files import page_routes


def numeric(least: float, median: float, most: float, **more: bool) -> dict[str, Any]:
    column = {"kind": "numeric", "min": least, "median": median, "max": most}
    return {**column, "whole": False, "gaps": False, **more}


def categorical(*levels: str, gaps: bool = False) -> dict[str, Any]:
    return {"kind": "categorical", "levels": list(levels), "typical": levels[0], "gaps": gaps}


def dated(least: str, typical: str, most: str, *, gaps: bool = False) -> dict[str, Any]:
    column = {"kind": "date", "min": least, "typical": typical, "max": most}
    return {**column, "gaps": gaps, "whole_days": len(least) == 10}


def model(
    columns: Mapping[str, dict[str, Any]], classes: Sequence[Any], target: str, **more: Any
) -> dict[str, Any]:
    """What GET /model answers."""
    size = len(classes)
    matrix = [
        [40 + 7 * (a % 3) if a == b else (a * b + a) % 4 for b in range(size)] for a in range(size)
    ]
    hits = sum(matrix[place][place] for place in range(size))
    total = sum(map(sum, matrix))
    typical = {
        name: column["median"] if column["kind"] == "numeric" else column["typical"]
        for name, column in columns.items()
    }
    scores = {"test_accuracy": hits / total, "test_f1": 0.948, "test_loss": 0.1721}
    return {
        "name": "mlp",
        "version": 3,
        "run_id": "9f2c41d07be84a8d9c1f0b5e3a6d7c88",
        "target": target,
        "classes": list(classes),
        "columns": dict(columns),
        "metrics": {**scores, "val_accuracy": 0.957, "val_loss": 0.18, "train_loss": 0.11},
        "confusion_matrix": matrix,
        "lineage": {
            "study": "tune-20261123-143000",
            "data": {"name": "people.csv", "source": "data/people.csv", "digest": "5c1f0a77"},
        },
        "typical_row": typical,
        "refused": None,
        **more,
    }


PEOPLE = model(
    {
        "age": numeric(17, 37, 90, whole=True),
        "workclass": categorical("Private", "Self-employed", "Government", "Unpaid", gaps=True),
        "education": categorical(
            "Bachelors", "Doctorate", "High school", "Masters", "Some college"
        ),
        "marital_status": categorical("Divorced", "Married", "Never married", "Widowed"),
        "capital_gain": numeric(0, 0, 99999, whole=True),
        "hours_per_week": numeric(1, 40, 99, whole=True),
        "score": numeric(-2.318, 0.0721355901, 3.4417),
        "citizen": categorical("False", "True"),
    },
    ["at most 50K", "above 50K"],
    "income",
)
DIGITS = model(
    {f"pixel_{row}_{column}": numeric(0, 5, 16) for row in range(8) for column in range(8)},
    list(range(10)),
    "digit",
)
SPOT = model({f"feature_{i}": numeric(-3, 0.1, 3) for i in range(4)}, ["no", "yes"], "target")
VISITS = model(
    {
        "day": dated("2023-01-02", "2023-06-30", "2024-01-31"),
        "start": dated("2023-01-02T00:00:00", "2023-06-30T10:11:12.500000", "2024-01-31T23:59:59"),
    },
    ["no", "yes"],
    "target",
)


class Standin:
    """A server that can be told what to do.

    Attributes:
        model: What it serves; None for none.
        token: What it asks for.
        refusal: Status, headers and error of every answer to POST /predict, if not a prediction.
        rows: The rows it was sent.
        tokens: The Authorization headers it was sent.
    """

    def __init__(self, model: dict[str, Any] | None = None, token: str | None = None) -> None:
        self.model = model
        self.token = token
        self.refusal: tuple[int, dict[str, str], dict[str, Any]] | None = None
        self.rows: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []

    def app(self) -> ASGIApp:
        return Starlette(
            routes=[
                *page_routes(),
                Route("/model", self.answer_model),
                Route("/predict", self.answer_predict, methods=["POST"]),
            ]
        )

    async def answer_model(self, request: Request) -> JSONResponse:
        return self._stopped(request) or JSONResponse(self.model)

    async def answer_predict(self, request: Request) -> JSONResponse:
        if stopped := self._stopped(request):
            return stopped
        assert self.model is not None
        (row,) = (await request.json())["rows"]
        self.rows.append(row)
        if self.refusal is not None:
            status, headers, error = self.refusal
            return self._error(status, error, headers)
        if missing := self.model["columns"].keys() - row.keys():
            details = [
                {"row": 0, "field": name, "message": f"column `{name}` must be there"}
                for name in sorted(missing)
            ]
            return self._error(422, error_of("missing_column", "a row lacks columns", details))
        probabilities = self._probabilities(row)
        label = max(self.model["classes"], key=lambda name: probabilities[str(name)])
        prediction = {"label": label, "probabilities": probabilities}
        return JSONResponse({"predictions": [prediction], "model": self._serving()})

    def _probabilities(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Any will do, as long as they depend on the row and sum to 1."""
        assert self.model is not None
        total = sum(value for value in row.values() if isinstance(value, (int, float)))
        weights = [
            math.exp(3 * math.cos(total + 2.5 * i)) for i in range(len(self.model["classes"]))
        ]
        return {
            str(name): weight / sum(weights)
            for name, weight in zip(self.model["classes"], weights, strict=True)
        }

    def _serving(self) -> dict[str, Any] | None:
        return self.model and {key: self.model[key] for key in ("name", "version", "run_id")}

    def _stopped(self, request: Request) -> JSONResponse | None:
        sent = request.headers.get("Authorization")
        self.tokens.append(sent)
        if self.token is not None and sent != f"Bearer {self.token}":
            return self._error(401, error_of("unauthorized", "a request must carry the token"))
        if self.model is None:
            return self._error(503, error_of("no_model", "a model must be registered, got none"))
        return None

    def _error(
        self, status: int, error: dict[str, Any], headers: dict[str, str] | None = None
    ) -> JSONResponse:
        return JSONResponse({"error": error, "model": self._serving()}, status, headers)


def error_of(code: str, message: str, details: Sequence[Any] = ()) -> dict[str, Any]:
    return {"code": code, "message": message, "details": list(details)}


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serves an application on a free port of loopback; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
