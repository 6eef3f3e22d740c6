"""The Open Inference Protocol, version 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from endpoint_harness import Served, rows_of


def tensor(name: str, data: list[Any], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **more}


INPUTS = {
    "age": tensor("age", [30, 40], "INT64"),
    "city": tensor("city", ["Aix", None], "BYTES"),
    "income": tensor("income", [1.5, None]),
    "member": tensor("member", [True, False], "BOOL"),
}


def asked(**changes: Any) -> dict[str, Any]:
    return {"inputs": [t for t in {**INPUTS, **changes}.values() if t is not ...]}


def test_metadata_and_health(mixed: Served) -> None:
    ask = mixed.endpoint.ask
    assert ask("/v2").json()["extensions"] == []
    assert {"name", "version"} <= ask("/v2").json().keys()
    assert ask("/v2/health/live").json() == {"live": True}
    assert ask("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/mlp", f"/v2/models/mlp/versions/{mixed.model.version}"):
        assert ask(f"{path}/ready").json() == {"name": "mlp", "ready": True}
        found = ask(path).json()
        assert found["name"] == "mlp"
        assert found["versions"] == [str(mixed.model.version)]
        assert found["inputs"] == [
            {"name": "age", "datatype": "FP64", "shape": [-1]},
            {"name": "city", "datatype": "BYTES", "shape": [-1]},
            {"name": "income", "datatype": "FP64", "shape": [-1]},
            {"name": "member", "datatype": "BYTES", "shape": [-1]},
        ]
        assert [(o["name"], o["datatype"]) for o in found["outputs"]] == [
            ("label", "BYTES"),
            ("probability_no", "FP64"),
            ("probability_yes", "FP64"),
        ]


def test_tensors_by_column(mixed: Served) -> None:
    sent = {**asked(), "id": "7", "parameters": {"priority": 1}}
    for path in ("/v2/models/mlp/infer", "/v2/models/mlp/versions/1/infer"):
        answer = mixed.endpoint.ask(path, sent)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["model_name"], found["model_version"], found["id"]) == ("mlp", "1", "7")
        outputs = {output["name"]: output for output in found["outputs"]}
        assert all(output["shape"] == [2] for output in outputs.values())
        rows = [{name: t["data"][i] for name, t in INPUTS.items()} for i in range(2)]
        wanted = mixed.endpoint.ask("/predict", {"rows": rows}).json()["predictions"]
        assert outputs["label"]["data"] == [row["label"] for row in wanted]
        assert outputs["probability_yes"]["data"] == [r["probabilities"]["yes"] for r in wanted]


def test_columns_of_shape_n_1_and_nested_data(mixed: Served) -> None:
    plain = mixed.endpoint.ask("/v2/models/mlp/infer", asked()).json()
    nested = asked(
        age={"name": "age", "shape": [2, 1], "datatype": "FP32", "data": [[30], [40]]},
        income={"name": "income", "shape": [2, 1], "datatype": "FP32", "data": [1.5, None]},
    )
    assert mixed.endpoint.ask("/v2/models/mlp/infer", nested).json() == plain


def test_one_tensor_of_numbers(numeric: Served) -> None:
    rows = rows_of(numeric.frame.head(3))
    data = [list(row.values()) for row in rows]
    wanted = numeric.endpoint.ask("/predict", {"rows": rows}).json()["predictions"]
    flat = [cell for row in data for cell in row]
    for sent in (data, flat):
        one = {"name": "x", "shape": [3, 20], "datatype": "FP64", "data": sent}
        body = {"inputs": [one], "outputs": [{"name": "probability_2"}, {"name": "label"}]}
        answer = numeric.endpoint.ask("/v2/models/numbers/infer", body)
        assert answer.status_code == 200, answer.text
        outputs = answer.json()["outputs"]
        assert [o["name"] for o in outputs] == ["probability_2", "label"]
        assert outputs[1] == {
            "name": "label",
            "datatype": "INT64",
            "shape": [3],
            "data": [row["label"] for row in wanted],
        }
        np.testing.assert_allclose(
            outputs[0]["data"], [row["probabilities"]["2"] for row in wanted], atol=1e-9
        )


@pytest.mark.parametrize(
    ("sent", "code", "details"),
    [
        (b"{", "not_json", []),
        ([], "invalid_body", []),
        ({}, "invalid_body", []),
        ({"inputs": {}}, "invalid_body", []),
        ({"inputs": [{"name": "age"}]}, "invalid_body", []),
        ({"inputs": []}, "missing_column", [(None, name) for name in INPUTS]),
        (asked(age=...), "missing_column", [(None, "age")]),
        (asked(more=tensor("more", [1, 2])), "extra_column", [(None, "more")]),
        (asked(more=INPUTS["age"]), "extra_column", [(None, "age")]),
        (asked(income=tensor("income", [1])), "wrong_width", [(None, "income")]),
        (asked(age=tensor("age", [1, 2], shape=[3])), "wrong_width", [(None, "age")]),
        (asked(age=tensor("age", [1, 2], shape=[-1, -2])), "wrong_width", [(None, "age")]),
        (asked(income=tensor("income", [1, 2], shape=[1, 2])), "wrong_width", [(None, "income")]),
        (asked(age=tensor("age", [1, 2], shape=[])), "wrong_width", [(None, "age")]),
        (asked(age=tensor("age", [1, 2], "FP128")), "wrong_type", [(None, "age")]),
        (asked(age=tensor("age", ["1", "2"], "BYTES")), "wrong_type", [(None, "age")]),
        (asked(age=tensor("age", [1, "2"])), "wrong_type", [(1, "age")]),
        (asked(age=tensor("age", [1, float("nan")])), "not_finite", [(1, "age")]),
        (asked(city=tensor("city", ["a", ["b"]], "BYTES")), "wrong_type", [(1, "city")]),
        ({"inputs": [tensor(name, []) for name in INPUTS]}, "no_rows", []),
        ({"inputs": [tensor("x", [1] * 8, shape=[2, 4])]}, "wrong_type", []),
        ({**asked(), "outputs": [{"name": "logits"}]}, "unknown_output", []),
    ],
)  # fmt: skip
def test_what_cannot_be_read(sent: Any, code: str, details: Any, mixed: Served) -> None:
    answer = mixed.endpoint.ask("/v2/models/mlp/infer", sent)
    assert answer.status_code == 400, answer.text
    found = answer.json()
    assert isinstance(found["error"], str)
    assert found["code"] == code, found
    assert [(d["row"], d["field"]) for d in found["details"]] == details


def test_a_matrix_of_another_width(numeric: Served) -> None:
    one = {"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}
    answer = numeric.endpoint.ask("/v2/models/numbers/infer", {"inputs": [one]})
    assert (answer.status_code, answer.json()["code"]) == (400, "wrong_width")
    too_many = {"name": "x", "shape": [201, 20], "datatype": "FP64", "data": [1] * 4020}
    answer = numeric.endpoint.ask("/v2/models/numbers/infer", {"inputs": [too_many]})
    assert (answer.status_code, answer.json()["code"]) == (400, "too_many_rows")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/mlp/versions/99",
        "/v2/models/mlp/versions/99/ready",
        "/v2/models/other/infer",
        "/v2/models/mlp/versions/99/infer",
        "/v2/models/mlp/versions/x/infer",
        "/v2/models/mlp/other/1/infer",
        "/v2/models/infer",
        "/v2/models//infer",
        "/v2/models/a/b/c/d/e/infer",
    ],
)
def test_another_model_is_not_found(path: str, mixed: Served) -> None:
    answer = mixed.endpoint.ask(path, asked() if path.endswith("/infer") else None)
    assert answer.status_code in (404, 405)
    assert isinstance(answer.json()["error"], str)
