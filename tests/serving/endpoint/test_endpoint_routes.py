"""The routes beside prediction: model, documentation, metrics, what is not there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from endpoint_harness import Served, rows_of
from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).parents[3]


def test_model_tells_what_is_being_served(mixed: Served) -> None:
    found = mixed.endpoint.ask("/model").json()
    card = mixed.model.card
    assert found["name"] == "mlp"
    assert found["version"] == mixed.model.version
    assert found["run_id"] == mixed.logged.run_id
    assert found["target"] == "target"
    assert found["classes"] == ["no", "yes"]
    assert list(found["columns"]) == ["age", "city", "income", "member"]
    assert found["columns"] == card["columns"]
    assert found["metrics"] == card["metrics"]
    assert found["confusion_matrix"] == card["confusion_matrix"]
    assert found["lineage"] == {
        "study": "a study",
        "data": card["data"],
        "digest": "0123456789abcdef",
    }
    assert found["refused"] is None
    answer = mixed.endpoint.ask("/predict", {"rows": [found["typical_row"]]})
    assert answer.status_code == 200, answer.text


def operations(document: dict[str, Any]) -> dict[str, Any]:
    return {path: item["post"] for path, item in document["paths"].items() if "post" in item}


def test_the_document_describes_the_columns_and_its_examples_work(mixed: Served) -> None:
    document = mixed.endpoint.ask("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    posts = operations(document)
    assert len(posts) == 4
    content = posts["/predict"]["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    row = schema["oneOf"][0]["properties"]["rows"]["items"]
    assert list(row["required"]) == ["age", "city", "income", "member"]
    assert set(row["properties"]) == {*row["required"], "id", "target"}
    checked = 0
    for path, operation in posts.items():
        parameters = {p["name"]: p["schema"]["enum"][0] for p in operation.get("parameters", [])}
        url = path.format(**parameters)
        for kind, body in operation["requestBody"]["content"].items():
            examples = [e["value"] for e in body.get("examples", {}).values()]
            examples += [body["example"]] if "example" in body else []
            for example in examples:
                if kind == "application/json":
                    jsonschema.validate(example, body["schema"])
                answer = mixed.endpoint.ask(url, example, content_type=kind)
                assert answer.status_code == 200, (url, kind, answer.text)
                if answer.headers["Content-Type"] == "application/json":
                    success = operation["responses"]["200"]["content"]["application/json"]
                    jsonschema.validate(answer.json(), success["schema"])
                checked += 1
    assert checked >= 8


def test_a_refusal_has_the_documented_shape(mixed: Served) -> None:
    document = mixed.endpoint.ask("/openapi.json").json()
    for path, operation in operations(document).items():
        parameters = {p["name"]: p["schema"]["enum"][0] for p in operation.get("parameters", [])}
        for body in (b"{", {"rows": [{}]}, {"inputs": []}):
            answer = mixed.endpoint.ask(path.format(**parameters), body)
            described = operation["responses"][str(answer.status_code)]["content"]
            jsonschema.validate(answer.json(), described["application/json"]["schema"])


def test_docs_come_with_their_viewer_from_here(mixed: Served) -> None:
    answer = mixed.endpoint.ask("/docs")
    assert answer.status_code == 200
    assert "//" not in re.sub(r"<!--.*?-->|window.location.\S+", "", answer.text)
    files = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(files) == 3
    for file in files:
        found = mixed.endpoint.ask(f"/{file}")
        assert found.status_code == 200, file
        assert len(found.content) > 500
    assert mixed.endpoint.ask("/docs/viewer/nothing.js").status_code == 404


@pytest.mark.parametrize(
    "path", ["/nowhere", "/model/", "/v2/nowhere", "/predict/", "/static/../x"]
)
def test_what_is_not_there_is_said_in_the_same_shape(path: str, mixed: Served) -> None:
    answer = mixed.endpoint.ask(path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert "see /docs" in (error if isinstance(error, str) else error["message"])


def test_a_wrong_method_is_said_in_the_same_shape(mixed: Served) -> None:
    answer = mixed.endpoint.ask("/model", {})
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET"
    assert answer.json()["error"]["code"] == "method_not_allowed"


def samples(text: str) -> dict[tuple[str, frozenset[str]], float]:
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_rows_and_errors(mixed: Served) -> None:
    ask = mixed.endpoint.ask
    before = samples(ask("/metrics").text)
    ask("/predict", {"rows": rows_of(mixed.frame.head(7))})
    ask("/predict", {"rows": []})
    ask("/nowhere/at/all")
    after = samples(ask("/metrics").text)

    def grown(name: str, *labels: str) -> float:
        key = (name, frozenset(labels))
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert grown("mlops_requests_total", "/predict", "200") == 1
    assert grown("mlops_requests_total", "/predict", "422") == 1
    assert grown("mlops_requests_total", "other", "404") == 1
    assert grown("mlops_requests_total", "/metrics", "200") == 1
    assert grown("mlops_errors_total", "/predict", "no_rows") == 1
    assert grown("mlops_request_seconds_count", "/predict") == 2
    assert grown("mlops_rows_total", str(mixed.model.version)) == 7
    assert grown("mlops_batch_rows_bucket", "10.0") == 1
    assert grown("mlops_batch_rows_bucket", "5.0") == 0
    assert after["mlops_model_version", frozenset({"mlp"})] == mixed.model.version


def test_several_processes_of_a_host_answer_for_all(tmp_path: Path) -> None:
    count = (
        "from mlops.serving.endpoint.metrics import Metrics\n"
        "from mlops.serving.protocols.responses import Answer\n"
        "import sys\n"
        "metrics = Metrics()\n"
        "metrics.count('/predict', Answer(200, b'', rows=5, version=int(sys.argv[1])), 0.001)\n"
        "metrics.count_swap('mlp', int(sys.argv[1]))\n"
        "print(metrics.exposition().decode())\n"
    )
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PATH": "/usr/bin",
    }
    for number in ("3", "4"):
        printed = subprocess.run(
            [sys.executable, "-c", count, number],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    found = samples(printed)
    assert found["mlops_requests_total", frozenset({"/predict", "200"})] == 2
    for number in ("3", "4"):
        assert found["mlops_rows_total", frozenset({number})] == 5
    assert found["mlops_model_version", frozenset({"mlp"})] == 4


def test_nothing_happens_at_import() -> None:
    code = (
        "import sys, threading\n"
        "import mlops.serving.endpoint.app\n"
        "assert threading.active_count() == 1\n"
        "print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"
