"""An endpoint as users write it: FastAPI, a pydantic model of a row, a sync handler, one uvicorn.

    python -m benchmarks.comparators.plain_endpoint --uri sqlite:///mlflow.db --port 8001

It predicts with the same model, read once, without MLflow's pandas in between: in its favour.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, create_model

from mlops.tracking.models.registry import load_version
from mlops.tracking.store.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uri", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    uvicorn.run(make_app(args.uri), host="127.0.0.1", port=args.port, log_level="warning")


def make_app(uri: str) -> FastAPI:
    predictor = load_version(open_store(uri), "mlp", "champion").predictor
    fields: dict[str, Any] = {column.name: (float, ...) for column in predictor.encoder.columns}
    row: Any = create_model("Row", **fields)

    class Request(BaseModel):
        rows: list[row]

    app = FastAPI()

    def predict(request: Request) -> dict[str, Any]:
        records = [given.model_dump() for given in request.rows]
        x = torch.from_numpy(predictor.encoder.transform_records(records))
        with torch.inference_mode():
            probabilities = torch.softmax(predictor.mlp(x), 1).tolist()
        return {
            "predictions": [
                {
                    "label": predictor.task.classes[max(range(len(each)), key=each.__getitem__)],
                    "probabilities": dict(zip(map(str, predictor.task.classes), each, strict=True)),
                }
                for each in probabilities
            ]
        }

    # The annotation is local, which FastAPI cannot find by its name.
    predict.__annotations__["request"] = Request
    app.post("/predict")(predict)
    return app


if __name__ == "__main__":
    main()
