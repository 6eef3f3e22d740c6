"""Runs on a host: an MLflow server before PostgreSQL, and what it has of a study.

python head_store.py serve           # prints the server's URI; ends with its input
python head_store.py study URI NAME  # prints a line of JSON
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from servers import MlflowServer, postgresql

from mlops.nn.records import METRIC_NAMES
from mlops.tracking.store.store import open_store


def serve() -> None:
    with postgresql() as database, tempfile.TemporaryDirectory() as folder:
        server = MlflowServer(Path(folder), database)
        server.start()
        print(server.uri, flush=True)
        sys.stdin.read()
        server.stop()


def study(uri: str, name: str) -> dict[str, Any]:
    """Returns its runs' statuses, its trials with all their steps, and the models' versions."""
    store = open_store(uri)
    client, found = store.client, [store.experiment_id]
    runs = client.search_runs(found, f"tags.study = '{name}'", max_results=1000)
    trials = []
    for run in runs:
        if "trial" in run.data.tags:
            histories = {m: client.get_metric_history(run.info.run_id, m) for m in METRIC_NAMES}
            steps = {m: [point.step for point in history] for m, history in histories.items()}
            trials.append({**run.data.tags, "steps": steps})
    versions = client.search_model_versions("name = 'mlp'")
    statuses = Counter(run.info.status for run in runs)
    return {"statuses": statuses, "trials": trials, "versions": len(versions)}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        print(json.dumps(study(*sys.argv[2:])))
