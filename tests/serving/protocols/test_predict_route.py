"""POST /predict: what it reads, what it answers, and how it says what it cannot read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from endpoint_harness import Served, rows_of

ARROW = "application/vnd.apache.arrow.stream"
GOOD = {"age": 30, "city": "Aix", "income": 1000.5, "member": True}


def to_arrow(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table, max_chunksize=7)
    return bytes(sink.getvalue())


def expected(served: Served, frame: pd.DataFrame) -> list[dict[str, Any]]:
    probabilities = served.model.probabilities_of(frame)
    names = list(map(str, served.model.task.classes))
    return [
        {"label": label, "probabilities": dict(zip(names, row, strict=True))}
        for label, row in zip(
            served.model.task.answers(probabilities), probabilities.tolist(), strict=True
        )
    ]


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert [row["label"] for row in found] == [row["label"] for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_rows_columns_csv_and_arrow_give_the_same_predictions(
    mixed: Served, numeric: Served
) -> None:
    for served in (mixed, numeric):
        frame, ask = served.frame, served.endpoint.ask
        wanted = expected(served, frame)
        rows = rows_of(frame)
        columns = {name: [row[name] for row in rows] for name in reversed(frame.columns)}
        bodies = {
            "rows": ask("/predict", {"rows": rows}),
            "columns": ask("/predict", {"columns": columns}),
            "csv": ask("/predict", frame.to_csv(index=False), content_type="text/csv"),
        }
        for answer in bodies.values():
            assert answer.status_code == 200, answer.text
            content = answer.json()
            assert_same(content["predictions"], wanted)
            assert content["model"] == served.model.identity
            assert answer.headers["X-Model-Version"] == str(served.model.version)
        arrow = ask("/predict", to_arrow(pa.Table.from_pandas(frame)), content_type=ARROW)
        assert arrow.status_code == 200, arrow.text
        assert arrow.headers["Content-Type"] == ARROW
        table = pa.ipc.open_stream(arrow.content).read_all()
        assert table["label"].to_pylist() == [row["label"] for row in wanted]
        assert table.column_names[1:] == [f"probability_{c}" for c in served.model.task.classes]
        for name in served.model.task.class_names:
            np.testing.assert_allclose(
                table[f"probability_{name}"].to_numpy(),
                [row["probabilities"][name] for row in wanted],
                atol=1e-6,
            )
        assert json.loads(table.schema.metadata[b"model"]) == served.model.identity


def test_a_gap_and_an_unknown_category_are_fine(mixed: Served) -> None:
    row = {"age": None, "city": "Atlantis", "income": None, "member": None}
    answer = mixed.endpoint.ask("/predict", {"rows": [row]})
    assert answer.status_code == 200
    assert_same(answer.json()["predictions"], expected(mixed, pd.DataFrame([row])))


def body(**changes: Any) -> dict[str, Any]:
    row = {**GOOD, **changes}
    return {"rows": [GOOD, {key: cell for key, cell in row.items() if cell is not ...}]}


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("sent", "status", "code", "details"),
    [
        (b"", 400, "not_json", []),
        (b"{", 400, "not_json", []),
        (b"\xff\xfe", 400, "not_json", []),
        (b"[" * 100_000, 400, "not_json", []),
        (b'{"rows": [{"age": ' + b"9" * 5000 + b"}]}", 400, "not_json", []),
        (b"[]", 422, "invalid_body", []),
        (b"null", 422, "invalid_body", []),
        (b'"rows"', 422, "invalid_body", []),
        (b"{}", 422, "invalid_body", []),
        ({"rows": [GOOD], "columns": {}}, 422, "invalid_body", []),
        ({"rows": GOOD}, 422, "invalid_body", []),
        ({"columns": [GOOD]}, 422, "invalid_body", []),
        ({"row": [GOOD]}, 422, "invalid_body", []),
        ({"rows": []}, 422, "no_rows", []),
        ({"columns": {name: [] for name in GOOD}}, 422, "no_rows", []),
        ({"rows": [GOOD] * 201}, 422, "too_many_rows", []),
        ({"columns": {name: [cell] * 201 for name, cell in GOOD.items()}}, 422, "too_many_rows", []),
        (body(age=...), 422, "missing_column", [(1, "age")]),
        (body(aeg=1), 422, "extra_column", [(1, "aeg")]),
        (body(age=..., aeg=1), 422, "invalid_rows", [(1, "age"), (1, "aeg")]),
        ({"rows": [GOOD, [30, "Aix", 1000.5, True]]}, 422, "wrong_type", [(1, None)]),
        ({"rows": [None, GOOD]}, 422, "wrong_type", [(0, None)]),
        ({"columns": {name: [1] for name in GOOD if name != "age"}}, 422, "missing_column", [(None, "age")]),
        ({"columns": {**{name: [1, 2] for name in GOOD}, "city": ["a"]}}, 422, "wrong_width", [(None, "city")]),
        ({"columns": {**{name: [1] for name in GOOD}, "age": 1}}, 422, "wrong_type", [(None, "age")]),
        (body(age="30"), 422, "wrong_type", [(1, "age")]),
        (body(age=True), 422, "wrong_type", [(1, "age")]),
        (body(age=[30]), 422, "wrong_type", [(1, "age")]),
        (body(age={"a": 1}), 422, "wrong_type", [(1, "age")]),
        (body(age=10**400), 422, "wrong_type", [(1, "age")]),
        (body(city=["Aix"]), 422, "wrong_type", [(1, "city")]),
        (body(city={"a": 1}), 422, "wrong_type", [(1, "city")]),
        (body(age=NAN), 422, "not_finite", [(1, "age")]),
        (body(age=INFINITY), 422, "not_finite", [(1, "age")]),
        (body(age=-INFINITY), 422, "not_finite", [(1, "age")]),
        (body(city=NAN), 422, "not_finite", [(1, "city")]),
        (b'{"rows": [{"age": 1e999, "city": "a", "income": 1, "member": true}]}', 422, "not_finite", [(0, "age")]),
        (body(age="x", income="y"), 422, "wrong_type", [(1, "age"), (1, "income")]),
        (body(age="x", city=[]), 422, "wrong_type", [(1, "age"), (1, "city")]),
        (body(**{"\ud800": 1}), 422, "extra_column", [(1, "\\ud800")]),
        (body(**{"x" * 10_000: 1}), 422, "extra_column", [(1, "x" * 999 + "…")]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_with_row_and_field(
    sent: Any, status: int, code: str, details: list[Any], mixed: Served
) -> None:
    answer = mixed.endpoint.ask("/predict", sent)
    assert answer.status_code == status, answer.text
    if status == 200:
        return
    assert answer.headers["Content-Type"] == "application/json"
    content = answer.json()
    assert content["model"] == mixed.model.identity
    assert content["error"]["code"] == code
    assert [(d["row"], d["field"]) for d in content["error"]["details"]] == details
    error = content["error"]
    for message in [error["message"], *(detail["message"] for detail in error["details"])]:
        assert "must" in message
        assert "Traceback" not in message
        assert len(message) < 400


def test_problems_are_told_together_up_to_twenty(mixed: Served) -> None:
    answer = mixed.endpoint.ask("/predict", {"rows": [{**GOOD, "age": "x"}] * 100})
    details = answer.json()["error"]["details"]
    assert [detail["row"] for detail in details] == list(range(20))


@pytest.mark.parametrize(
    ("sent", "status", "code", "details"),
    [
        ("age,city,income,member\n30,Aix,1000.5,True\n", 200, "", []),
        ("\ufeffage,city,income,member\r\n30,Aix,1000.5,True\r\n\r\n", 200, "", []),
        ('member,age,city,income\n,,"a,b",\n', 200, "", []),
        ("", 422, "missing_column", [(None, name) for name in GOOD]),
        ("age,city,income,member\n", 422, "no_rows", []),
        ("age,city,income,member\n1,2,3\n1,2,3,4,5\n", 422, "wrong_width", [(0, None), (1, None)]),
        ("age,city,income\n1,2,3\n", 422, "missing_column", [(None, "member")]),
        (",age,city,income,member\n0,1,2,3,4\n", 422, "extra_column", [(None, "")]),
        ("age,age,city,income,member\n0,1,2,3,4\n", 422, "extra_column", [(None, "age")]),
        ("age,city,income,member\n1,a,2,b\nx,a,inf,b\n", 200, "", []),
        (b"age,city\n\xff", 400, "not_csv", []),
        ('age,city,income,member\n1,"a,2,b\n3,b,4,c\n', 400, "not_csv", []),
        ("age,city,income,member\n" + "1" * 200_000, 422, "wrong_width", [(0, None)]),
    ],
)  # fmt: skip
def test_csv(sent: Any, status: int, code: str, details: list[Any], mixed: Served) -> None:
    answer = mixed.endpoint.ask("/predict", sent, content_type="text/csv; charset=utf-8")
    assert answer.status_code == status, answer.text
    if status != 200:
        error = answer.json()["error"]
        assert error["code"] == code
        assert [(d["row"], d["field"]) for d in error["details"]] == details


PADDED = {f" {name} " if name == "city" else name: cell for name, cell in GOOD.items()}


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("application/json", {"rows": [PADDED, GOOD]}),
        ("application/json", {"columns": {name: [cell] * 2 for name, cell in PADDED.items()}}),
        ("text/csv", "age,city ,income,member\n30,Aix,1000.5,True\n30,Aix,1000.5,True\n"),
        (ARROW, to_arrow(pa.table({name: [cell] * 2 for name, cell in PADDED.items()}))),
    ],
)
def test_blanks_around_names_do_not_matter(kind: str, sent: Any, mixed: Served) -> None:
    answer = mixed.endpoint.ask("/predict", sent, content_type=kind)
    assert answer.status_code == 200, answer.text
    if kind != ARROW:
        wanted = mixed.endpoint.ask("/predict", {"rows": [GOOD, GOOD]}).json()["predictions"]
        assert answer.json()["predictions"] == wanted


@pytest.mark.parametrize(
    ("kind", "sent", "notes"),
    [
        ("application/json", {"rows": [GOOD]}, None),
        (
            "application/json",
            {"rows": [GOOD, {**GOOD, "city": "Rome"}]},
            [("unknown_level", "city", 1)],
        ),
        ("application/json", {"rows": [{**GOOD, "age": None}]}, None),
        ("application/json", {"rows": [{**GOOD, "member": None}] * 3}, [("new_gap", "member", 3)]),
        ("application/json", {"rows": [{**GOOD, "age": -1e9}]}, [("far_outside", "age", 1)]),
        ("text/csv", "age,city,income,member\nthirty,Aix,1,true\n", [("odd_cell", "age", 1)]),
        ("text/csv", "age,city,income,member\n30,Aix,1,TRUE\n", None),
    ],
)
def test_what_is_odd_about_rows_is_noted(
    kind: str, sent: Any, notes: list[Any] | None, mixed: Served
) -> None:
    answer = mixed.endpoint.ask("/predict", sent, content_type=kind)
    assert answer.status_code == 200, answer.text
    found = answer.json().get("notes")
    assert (found and [(n["code"], n["column"], n["cells"]) for n in found]) == notes
    metrics = mixed.endpoint.ask("/metrics", method="GET").text
    for code, column, _ in notes or []:
        assert f'mlops_odd_cells_total{{column="{column}",kind="{code}"}}' in metrics


ID = {"id": [{"of": "any type"}]}


@pytest.mark.parametrize(
    ("sent", "unused"),
    [
        ({"rows": [GOOD, GOOD]}, {}),
        ({"rows": [{**GOOD, "target": "yes"}] * 2}, {"target": 2}),
        ({"rows": [GOOD, {"target": None, **GOOD, **ID}]}, {"id": 1, "target": 1}),
        ({"columns": {name: [cell] * 2 for name, cell in GOOD.items()}}, {}),
        ({"columns": {**{name: [cell] * 2 for name, cell in GOOD.items()}, **ID}}, {"id": 2}),
        ("age,city,income,member\n30,Aix,1000.5,True\n30,Aix,1000.5,True\n", {}),
        ("target,age,city,id,income,member\n7,30,Aix,,1000.5,True\n8,30,Aix,no,1000.5,True\n",
         {"id": 2, "target": 2}),
    ],
)  # fmt: skip
def test_columns_that_only_the_training_table_has_are_ignored_and_noted(
    sent: Any, unused: dict[str, int], mixed: Served
) -> None:
    kind = "text/csv" if isinstance(sent, str) else "application/json"
    answer = mixed.endpoint.ask("/predict", sent, content_type=kind)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert_same(content["predictions"], expected(mixed, pd.DataFrame([GOOD, GOOD])))
    if not unused:
        assert content.keys() == {"predictions", "model"}
        return
    assert content["notes"] == [
        {"code": "unused_column", "column": name, "cells": cells} for name, cells in unused.items()
    ]


@pytest.mark.parametrize(
    ("sent", "details"),
    [
        (body(target="yes", aeg=1), [(1, "aeg")]),
        (body(target="yes", age=...), [(1, "age")]),
        ({"rows": [{**GOOD, "id": 1}, [30]]}, [(1, None)]),
        ({"columns": {**{name: [1] for name in GOOD}, **ID, "aeg": [1]}}, [(None, "aeg")]),
        ("id,age,city,income,aeg\n1,2,3,4,5\n", [(None, "member"), (None, "aeg")]),
        ("id,id,age,city,income,member\n1,1,2,3,4,5\n", [(None, "id")]),
    ],
)
def test_other_columns_beside_them_are_refused(
    sent: Any, details: list[Any], mixed: Served
) -> None:
    kind = "text/csv" if isinstance(sent, str) else "application/json"
    answer = mixed.endpoint.ask("/predict", sent, content_type=kind)
    assert answer.status_code == 422, answer.text
    found = answer.json()["error"]["details"]
    assert [(detail["row"], detail["field"]) for detail in found] == details


def test_of_a_model_of_before_only_the_target_is_known_to_be_no_column(mixed: Served) -> None:
    model = replace(mixed.model, training_columns=())
    assert model.columns.ignored == {"target"}
    assert mixed.model.columns.ignored == {"id", "target"}


TABLE = pa.table(
    {
        "age": pa.array([1, None], pa.int8()),
        "city": pa.array(["Aix", "Aix"]).dictionary_encode(),
        "income": pa.array([1.5, 2.5], pa.float32()),
        "member": pa.array([True, None]),
    }
)


def with_column(name: str, cells: pa.Array) -> pa.Table:
    return TABLE.set_column(TABLE.column_names.index(name), name, cells)


@pytest.mark.parametrize(
    ("table", "status", "code", "details"),
    [
        (TABLE, 200, "", []),
        (with_column("city", pa.array(["a", None], pa.large_string())), 200, "", []),
        (with_column("city", pa.array([1, None])), 200, "", []),
        (with_column("city", pa.nulls(2)), 200, "", []),
        (with_column("age", pa.nulls(2)), 200, "", []),
        (TABLE.slice(0, 0), 422, "no_rows", []),
        (pa.concat_tables([TABLE] * 101), 422, "too_many_rows", []),
        (TABLE.drop_columns(["age"]), 422, "missing_column", [(None, "age")]),
        (TABLE.append_column("aeg", pa.nulls(2)), 422, "extra_column", [(None, "aeg")]),
        (TABLE.append_column("age", pa.nulls(2)), 422, "extra_column", [(None, "age")]),
        (with_column("age", pa.array(["1", "2"])), 200, "", []),
        (with_column("age", pa.array(["1", "two"])), 422, "wrong_type", [(1, "age")]),
        (with_column("age", pa.array([b"1", b"2"])), 422, "wrong_type", [(None, "age")]),
        (with_column("age", pa.array([[1], [2]])), 422, "wrong_type", [(None, "age")]),
        (with_column("city", pa.array([1.5, 2.5])), 200, "", []),
        (with_column("city", pa.array([[1.5], [2.5]])), 422, "wrong_type", [(None, "city")]),
        (with_column("city", pa.array(["a", "b"], pa.string_view())), 200, "", []),
        (with_column("age", pa.array([1.0, float("nan")])), 422, "not_finite", [(1, "age")]),
        (with_column("age", pa.array([float("inf"), None])), 422, "not_finite", [(0, "age")]),
    ],
)  # fmt: skip
def test_arrow(table: pa.Table, status: int, code: str, details: list[Any], mixed: Served) -> None:
    answer = mixed.endpoint.ask("/predict", to_arrow(table), content_type=ARROW)
    assert answer.status_code == status, answer.text
    if status != 200:
        error = answer.json()["error"]
        assert error["code"] == code
        assert [(d["row"], d["field"]) for d in error["details"]] == details


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_compressed_stream_is_refused_before_it_is_unfolded(
    compression: str, dictionary: bool, mixed: Served
) -> None:
    table = TABLE if dictionary else with_column("city", pa.array(["a", "b"]))
    sent = to_arrow(table, compression=compression)
    answer = mixed.endpoint.ask("/predict", sent, content_type=ARROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "compressed")


def test_a_stream_whose_batches_have_metadata_is_refused(mixed: Served) -> None:
    """There Arrow 0.17 named a compression, which Arrow still unfolds."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TABLE.schema) as stream:
        for batch in TABLE.to_batches():
            stream.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "ZSTD"})
    answer = mixed.endpoint.ask("/predict", sink.getvalue().to_pybytes(), content_type=ARROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "compressed")


def test_a_stream_of_very_many_batches_is_refused(mixed: Served) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, TABLE.schema) as stream:
        for _ in range(257):
            stream.write_batch(TABLE.to_batches()[0].slice(0, 0))
    answer = mixed.endpoint.ask("/predict", sink.getvalue().to_pybytes(), content_type=ARROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_many_batches")


def test_only_the_texts_that_rows_use_are_read_from_a_dictionary(mixed: Served) -> None:
    levels = [*(f"unused {i}" for i in range(1000)), "Aix", "Aix"]
    city = pa.DictionaryArray.from_arrays(pa.array([1001, None], pa.int32()), levels)
    plain = with_column("city", pa.array(["Aix", None]))
    answers = [
        mixed.endpoint.ask("/predict", to_arrow(table), content_type=ARROW)
        for table in (with_column("city", city), plain)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize(
    ("sent", "same"),
    [
        ("age,city,income,member\n30,Aix,1.5,true\n", "age,city,income,member\n30,Aix,1.5,True\n"),
        ("age, city, income, member\n30, Aix, 1.5, True\n", "age,city,income,member\n30,Aix,1.5,True\n"),
    ],
)  # fmt: skip
def test_csv_is_read_as_the_jobs_read_it(sent: str, same: str, mixed: Served) -> None:
    answers = [
        mixed.endpoint.ask("/predict", text, content_type="text/csv").json()["predictions"]
        for text in (sent, same)
    ]
    assert answers[0] == answers[1]
    other = same.replace("True", "neither")
    unknown = mixed.endpoint.ask("/predict", other, content_type="text/csv").json()
    assert unknown["predictions"] != answers[0]


def test_a_body_that_is_encoded_is_refused(mixed: Served) -> None:
    headers = {"Content-Encoding": "gzip"}
    answer = mixed.endpoint.ask("/predict", b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415
    assert "Content-Encoding gzip" in answer.json()["error"]["message"]


def test_a_damaged_stream_is_refused(mixed: Served) -> None:
    sound = to_arrow(pa.concat_tables([TABLE] * 20))
    draw = np.random.default_rng(0)
    statuses = set()
    for _ in range(200):
        damaged = bytearray(sound)
        for place in draw.integers(0, len(damaged), 3):
            damaged[place] = draw.integers(0, 256)
        cut = draw.integers(1, len(damaged) + 1)
        answer = mixed.endpoint.ask("/predict", bytes(damaged[:cut]), content_type=ARROW)
        statuses.add(answer.status_code)
    assert statuses <= {200, 400, 422}
    assert mixed.endpoint.ask("/predict", b"", content_type=ARROW).status_code == 400


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-parquet", "x"])
def test_other_types_are_refused(content_type: str | None, mixed: Served) -> None:
    answer = mixed.endpoint.ask("/predict", b"{}", content_type=content_type)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"


def test_only_post_predicts(mixed: Served) -> None:
    for path in ("/predict", "/invocations", "/v2/models/mlp/infer"):
        answer = mixed.endpoint.ask(path)
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "POST"


def test_a_large_body_is_answered_as_a_small_one(numeric: Served) -> None:
    rows = rows_of(numeric.frame) * 3
    answer = numeric.endpoint.ask("/predict", {"rows": rows})
    assert len(answer.request.body or b"") > 65_536
    assert_same(answer.json()["predictions"], expected(numeric, numeric.frame) * 3)
