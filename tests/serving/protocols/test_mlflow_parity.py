"""/invocations, /ping, /health and /version against MLflow's own scoring server, same model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from endpoint_harness import Endpoint, Served, rows_of, serve

GOOD = {"age": 30, "city": "Aix", "income": 1000.5, "member": True}
OTHER = {"age": 31.0, "city": None, "income": None, "member": False}
NAMES, CELLS = list(GOOD), list(GOOD.values())
NAN = float("nan")


@pytest.fixture(scope="module")
def reference(mixed: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """`mlflow models serve` for the same model."""
    import mlflow.pyfunc
    from mlflow.pyfunc import scoring_server

    copy = tmp_path_factory.mktemp("reference") / "model"
    shutil.copytree(Path(mixed.logged.location.removeprefix("file://")), copy)
    before = dict(os.environ)
    try:
        with serve(scoring_server.init(mlflow.pyfunc.load_model(str(copy)))) as endpoint:
            yield endpoint
    finally:
        os.environ.clear()
        os.environ.update(before)


def split(*rows: list[Any], columns: list[str] = NAMES, **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": columns, "data": list(rows), **more}}


@pytest.mark.parametrize(
    "sent",
    [
        split(CELLS),
        split(CELLS, [None, "Brno", 5, None], [1.5, None, None, True]),
        split(CELLS, CELLS, index=[7, 3]),
        split(),
        split(["x", *CELLS], columns=["unknown", *NAMES]),
        split(CELLS[::-1], columns=NAMES[::-1]),
        split(["30", "Aix", " 1000.5 ", "True"]),
        split(["NA", "", "?", "null"]),
        split([True, "Aix", False, 1]),
        split([NAN, "Aix", 2, True]),
        split([NAN, None, NAN, None], [1, "Atlantis", 2, "perhaps"]),
        split([30, 7, 2, 1.0], [30, "7", 2, True]),
        {"dataframe_records": [GOOD, OTHER]},
        {"dataframe_records": [GOOD, {"age": 1}]},
        {"dataframe_records": [{**GOOD, "more": [1]}]},
        {"instances": [GOOD, OTHER]},
        {"instances": {name: [cell, cell] for name, cell in GOOD.items()}},
        {"inputs": [GOOD, OTHER]},
        {"inputs": {name: [cell, cell] for name, cell in GOOD.items()}},
        {"inputs": GOOD},
        {"inputs": {**{name: [cell, cell] for name, cell in GOOD.items()}, "city": "Cork"}},
        {**split(CELLS), "params": {"unknown": 1}},
        {**split(CELLS), "other": 1},
        # What both refuse.
        {},
        [],
        "text",
        [GOOD],
        GOOD,
        b"{",
        b"",
        {**split(CELLS), "inputs": GOOD},
        split(CELLS[1:], columns=NAMES[1:]),
        split(["thirty", *CELLS[1:]]),
        split([float("inf"), *CELLS[1:]]),
        split([[30], *CELLS[1:]]),
        split([30, {"a": 1}, 2, True]),
        {"dataframe_split": [CELLS]},
        {"dataframe_split": {"columns": NAMES}},
        {"dataframe_split": {"columns": NAMES, "data": [CELLS], "extra": 1}},
        {"dataframe_split": {"columns": [*NAMES, NAMES[0]], "data": [[*CELLS, 1]]}},
        {"dataframe_split": {"columns": NAMES, "data": [[*CELLS, 1]]}},
        {"dataframe_split": {"data": [CELLS]}},
        {"dataframe_records": GOOD},
        {"dataframe_records": []},
        {"dataframe_records": [{"age": 1}]},
        {"instances": [CELLS]},
        {"instances": []},
        {"inputs": [CELLS]},
        {"inputs": 3},
        {"inputs": {**{name: [1, 2] for name in GOOD}, "age": [1]}},
    ],
    ids=lambda sent: json.dumps(sent)[:60] if not isinstance(sent, bytes) else repr(sent),
)
def test_invocations_answer_as_mlflow_does(sent: Any, mixed: Served, reference: Endpoint) -> None:
    ours, theirs = (e.ask("/invocations", sent) for e in (mixed.endpoint, reference))
    assert ours.status_code == theirs.status_code, (ours.text, theirs.text)
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]
    if ours.status_code == 200:
        assert_same(ours, theirs)
    else:
        assert ours.json()["error_code"] == theirs.json()["error_code"]
        assert "stack_trace" not in ours.json()
        assert "Traceback" not in ours.text


def assert_same(ours: Any, theirs: Any) -> None:
    found, wanted = (answer.json() for answer in (ours, theirs))
    assert found.keys() == wanted.keys() == {"predictions"}
    assert len(found["predictions"]) == len(wanted["predictions"])
    for row, other in zip(found["predictions"], wanted["predictions"], strict=True):
        assert list(row) == list(other)
        assert row.pop("label") == other.pop("label")
        assert row == pytest.approx(other, abs=1e-6)


def test_the_payloads_of_mlflow_give_what_mlflow_gives(mixed: Served, reference: Endpoint) -> None:
    """As `ScoringServerClient`, `mlflow models predict` and the stored example write them."""
    from mlflow.utils.proto_json_utils import dump_input_data

    example = (Path(mixed.logged.location) / "serving_input_example.json").read_text()
    for sent in (dump_input_data(mixed.frame.head(50)), example):
        ours, theirs = (e.ask("/invocations", sent) for e in (mixed.endpoint, reference))
        assert theirs.status_code == 200, theirs.text
        assert_same(ours, theirs)


def test_mlflows_own_client_is_content(mixed: Served) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", mixed.endpoint.port)
    client.wait_server_ready(timeout=5)
    found = client.invoke(mixed.frame).get_predictions()
    assert len(found) == len(mixed.frame)
    assert set(found.columns) == {"label", "probability_no", "probability_yes"}


def test_csv_works_which_mlflow_refuses_for_this_signature(
    mixed: Served, reference: Endpoint
) -> None:
    text = mixed.frame.assign(unknown=1).to_csv()
    ours, theirs = (
        e.ask("/invocations", text, content_type="text/csv") for e in (mixed.endpoint, reference)
    )
    assert theirs.status_code == 400
    assert ours.status_code == 200
    by_json = mixed.endpoint.ask("/invocations", {"dataframe_records": rows_of(mixed.frame)})
    assert_same(ours, by_json)


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_health_and_version_are_mlflows(path: str, mixed: Served, reference: Endpoint) -> None:
    ours, theirs = (e.ask(path) for e in (mixed.endpoint, reference))
    assert (ours.status_code, ours.text) == (theirs.status_code, theirs.text)
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        'application/json;charset="utf-8"',
        "application/json; charset=latin-1",
        "application/json; format=pandas-split",
        "text/plain",
        "application/json;",
    ],
)
def test_content_types_are_mlflows(content_type: str, mixed: Served, reference: Endpoint) -> None:
    ours, theirs = (
        e.ask("/invocations", split(CELLS), content_type=content_type)
        for e in (mixed.endpoint, reference)
    )
    assert ours.status_code == theirs.status_code
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]


def test_rows_and_columns_are_named_in_what_is_refused(mixed: Served) -> None:
    answer = mixed.endpoint.ask("/invocations", split(CELLS, ["thirty", "Aix", "x", 1]))
    assert answer.status_code == 400
    assert [(d["row"], d["field"]) for d in answer.json()["details"]] == [(1, "age"), (1, "income")]
    short = mixed.endpoint.ask("/invocations", split(CELLS, CELLS[1:]))
    assert short.status_code == 400
    assert [d["row"] for d in short.json()["details"]] == [1]
    assert mixed.endpoint.ask("/invocations", split(*[CELLS] * 201)).status_code == 400
    wide = {"inputs": {**{name: [1] * 201 for name in GOOD}, "city": "Cork"}}
    assert mixed.endpoint.ask("/invocations", wide).status_code == 400


def test_predictions_are_those_of_the_registered_model(mixed: Served) -> None:
    import mlflow.pyfunc

    frame = mixed.frame
    loaded = mlflow.pyfunc.load_model(mixed.logged.location).predict(frame)
    answer = mixed.endpoint.ask("/invocations", {"dataframe_records": rows_of(frame)})
    found = pd.DataFrame(answer.json()["predictions"])
    pd.testing.assert_frame_equal(found, loaded, check_dtype=False, atol=1e-6)
