"""The routes that are not for speed: health, metadata, documentation, metrics."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from mlops.errors import RequestError
from mlops.serving.champion.champion import Champion
from mlops.serving.champion.predictor import ServedModel
from mlops.serving.endpoint.metrics import CONTENT_TYPE, Metrics
from mlops.serving.endpoint.openapi import describe
from mlops.serving.protocols.open_inference import (
    check_model,
    model_metadata,
    refuse_infer,
    server_metadata,
)
from mlops.serving.protocols.responses import Answer, refusal

TITLE = "Predictions"
_CODES = {404: "not_found", 405: "method_not_allowed"}


def make_routes(champion: Champion, metrics: Metrics) -> FastAPI:
    """Makes the application of all routes but those that predict.

    Args:
        champion: Holds the model.
        metrics: What `/metrics` shows.
    """
    # Without redirects: they would send a client with its token elsewhere by a Host header.
    app = FastAPI(title=TITLE, version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    _add_errors(app, champion)
    _add_viewer(app)
    _add_health(app, champion)
    _add_inference(app, champion)

    @app.get("/model", summary="The model being served", tags=["model"])
    async def model() -> Response:
        model = champion.required()
        return _said(model, describe_model(model, champion))

    @app.get("/metrics", summary="Counters, for Prometheus", tags=["operation"])
    def exposition() -> Response:
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE})

    @lru_cache(maxsize=1)
    def document(model: ServedModel | None) -> dict[str, Any]:
        rest = get_openapi(title=TITLE, version="1", routes=app.routes)
        return describe(rest, model)

    app.openapi = lambda: document(champion.model)  # type: ignore[method-assign]
    return app


def _said(model: ServedModel, content: dict[str, Any]) -> Response:
    """Answers with something about a model, and which."""
    key, value = (part.decode() for part in model.version_header)
    # Not JSONResponse, which fails at a metric that is NaN; here it is null.
    return Response(msgspec.json.encode(content), 200, {key: value}, "application/json")


def describe_model(model: ServedModel, champion: Champion) -> dict[str, Any]:
    """Returns what `GET /model` answers."""
    card = model.card
    refused = champion.refused
    data = card.get("data") or {}
    return {
        **model.identity,
        "target": model.target,
        "classes": model.task.classes,
        "columns": {name: card["columns"][name] for name in model.columns.names},
        "metrics": card.get("metrics", {}),
        "confusion_matrix": card.get("confusion_matrix"),
        "lineage": {"study": card.get("study"), "data": data, "digest": data.get("digest")},
        "typical_row": model.typical_row,
        "refused": refused and {"version": refused.version, "reason": refused.reason},
        "registry_error": champion.registry_error,
    }


def _add_errors(app: FastAPI, champion: Champion) -> None:
    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> Response:
        shape = refuse_infer if request.url.path.startswith("/v2") else refusal
        return _response(shape(error, champion.model))

    @app.exception_handler(HTTPException)
    async def say(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "refused")
        raised = RequestError(
            error.status_code,
            code,
            f"a request must be for a route of the endpoint, got {request.method} there; see /docs",
        )
        answer = await refuse(request, raised)
        if allowed := (error.headers or {}).get("Allow"):
            answer.headers["allow"] = allowed
        return answer


def _response(answer: Answer) -> Response:
    headers = {key.decode(): value.decode() for key, value in answer.headers}
    return Response(answer.body, answer.status, headers, "application/json")


def _add_viewer(app: FastAPI) -> None:
    """Adds `/docs`, whose viewer comes from here too: FastAPI's own comes from other hosts."""
    files = StaticFiles(packages=[("fastapi_swagger", "resources")])
    app.mount("/docs/viewer", files, name="viewer")

    @app.get("/docs", include_in_schema=False)
    async def viewer() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=TITLE,
            swagger_js_url="docs/viewer/swagger-ui-bundle.js",
            swagger_css_url="docs/viewer/swagger-ui.css",
            swagger_favicon_url="docs/viewer/favicon-32x32.png",
        )


def _add_health(app: FastAPI, champion: Champion) -> None:
    async def ping() -> Response:
        """Answers as MLflow's server: 200 if there is a model."""
        status = 503 if champion.model is None else 200
        return Response("\n", status, media_type="application/json")

    for path in ("/ping", "/health"):
        app.get(path, summary="Whether a model is being served", tags=["MLflow"], name=path)(ping)
        app.head(path, include_in_schema=False)(ping)

    @app.get("/version", summary="Version of MLflow", tags=["MLflow"])
    async def mlflow_version() -> Response:
        return Response(version("mlflow"), media_type="application/json")

    @app.head("/v2/health/live", include_in_schema=False)
    @app.get("/v2/health/live", summary="Whether the process answers", tags=["v2"])
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @app.head("/v2/health/ready", include_in_schema=False)
    @app.get("/v2/health/ready", summary="Whether a model is being served", tags=["v2"])
    async def ready() -> JSONResponse:
        there = champion.model is not None
        return JSONResponse({"ready": there}, 200 if there else 503)


def _add_inference(app: FastAPI, champion: Champion) -> None:
    @app.get("/v2", summary="The server's metadata", tags=["v2"])
    async def server() -> JSONResponse:
        return JSONResponse(server_metadata())

    async def metadata(name: str, version: str | None = None) -> Response:
        model = champion.required()
        check_model(model, name, version)
        return _said(model, model_metadata(model))

    async def ready(name: str, version: str | None = None) -> Response:
        model = champion.required()
        check_model(model, name, version)
        return _said(model, {"name": model.name, "ready": True})

    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        app.get(path, summary="The model's metadata", tags=["v2"], name=path)(metadata)
        app.get(f"{path}/ready", summary="Whether it is served", tags=["v2"], name=path)(ready)
