"""Fitted preprocessing: what it codes, and that it survives JSON bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops.data.cells.spelling import GAP_WORDS, tidy
from mlops.data.columns import features
from mlops.data.columns.encoders import LIMIT, CategoricalColumn, NumericColumn, is_extreme
from mlops.data.columns.features import FeatureEncoder
from mlops.data.dataset import encode, fit_encoder
from mlops.data.notes import Tally
from mlops.data.table import load_parts
from mlops.errors import TableError
from mlops.settings.sections import DataSettings, SyntheticSettings

INTEGERS = st.integers(-(2**53), 2**53)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=4)

COLUMNS = st.one_of(
    st.tuples(st.just("int64"), st.lists(INTEGERS, min_size=8, max_size=8)),
    st.tuples(st.just("float64"), st.lists(FLOATS | st.none(), min_size=8, max_size=8)),
    st.tuples(
        st.just("float32"),
        st.lists(st.floats(width=32, allow_infinity=False), min_size=8, max_size=8),
    ),
    st.tuples(st.just("Int64"), st.lists(INTEGERS | st.none(), min_size=8, max_size=8)),
    st.tuples(st.just("Float64"), st.lists(FLOATS | st.none(), min_size=8, max_size=8)),
    st.tuples(st.just("bool"), st.lists(st.booleans(), min_size=8, max_size=8)),
    st.tuples(st.just("boolean"), st.lists(st.booleans() | st.none(), min_size=8, max_size=8)),
    st.tuples(st.just("str"), st.lists(TEXTS | st.none(), min_size=8, max_size=8)),
    st.tuples(st.just("string"), st.lists(TEXTS | st.none(), min_size=8, max_size=8)),
    st.tuples(st.just("category"), st.lists(TEXTS | st.none(), min_size=8, max_size=8)),
    st.tuples(
        st.just("object"),
        st.lists(TEXTS | st.integers(0, 3) | st.booleans() | st.none(), min_size=8, max_size=8),
    ),
)


def usable(column: tuple[str, list[Any]]) -> bool:
    return any(
        value is not None and value == value and tidy(str(value)) not in GAP_WORDS
        for value in column[1]
    )


FRAMES = st.dictionaries(TEXTS, COLUMNS.filter(usable), min_size=1, max_size=4).map(
    lambda columns: pd.DataFrame(
        {name: pd.Series(values, dtype=dtype) for name, (dtype, values) in columns.items()}
    )
)


def through_json(encoder: FeatureEncoder) -> FeatureEncoder:
    return FeatureEncoder.from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))


def of_records(encoder: FeatureEncoder, records: list[dict[str, Any]]) -> np.ndarray:
    names = [column.name for column in encoder.columns]
    columns = {
        name: pd.Series([record[name] for record in records], dtype=object) for name in names
    }
    return encoder.transform(pd.DataFrame(columns), tally=Tally())


def rounded(matrix: np.ndarray) -> list[list[float]]:
    return matrix.astype(np.float64).round(3).tolist()


def codes(encoder: FeatureEncoder, **columns: Any) -> list[list[float]]:
    return rounded(encoder.transform(pd.DataFrame(columns)))


# Properties


@settings(max_examples=150, deadline=None)
@given(frame=FRAMES)
def test_json_gives_back_the_same_encoder(frame: pd.DataFrame) -> None:
    encoder = FeatureEncoder.fit(frame)
    again = through_json(encoder)
    assert again == encoder
    expected = encoder.transform(frame, tally=Tally())
    assert again.transform(frame, tally=Tally()).tobytes() == expected.tobytes()
    assert expected.shape == (len(frame), encoder.width)
    assert expected.dtype == np.float32
    assert expected.flags.c_contiguous
    assert np.isfinite(expected).all()


@settings(max_examples=100, deadline=None)
@given(frame=FRAMES, rows=st.lists(st.integers(0, 7), max_size=12))
def test_a_row_is_coded_alike_wherever_it_stands(frame: pd.DataFrame, rows: list[int]) -> None:
    encoder = FeatureEncoder.fit(frame)
    expected = encoder.transform(frame, tally=Tally())[rows]
    positions = np.array(rows, dtype=np.int64)
    assert encoder.transform(frame, positions, tally=Tally()).tobytes() == expected.tobytes()
    assert encoder.transform(frame.iloc[rows, ::-1], tally=Tally()).tobytes() == expected.tobytes()
    for row in rows[:2]:
        assert (
            encoder.transform(frame[row : row + 1], tally=Tally()).tobytes()
            == expected[rows.index(row)].tobytes()
        )


@settings(max_examples=100, deadline=None)
@given(frame=FRAMES)
def test_rows_of_json_are_coded_like_a_frame(frame: pd.DataFrame) -> None:
    encoder = FeatureEncoder.fit(frame)
    records = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in frame.astype(object).to_dict(orient="records")
    ]
    expected = encoder.transform(frame, tally=Tally())
    assert of_records(encoder, records).tobytes() == expected.tobytes()


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=2, max_size=30).filter(any))
def test_numbers_are_scaled_like_scikit_learn(values: list[float | None]) -> None:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    column = pd.DataFrame({"x": pd.Series(values, dtype=np.float64)})
    filled = SimpleImputer(strategy="median").fit_transform(column)
    assume(not is_extreme(column["x"].dropna().to_numpy()).any())
    scaler = StandardScaler().fit(filled)
    fitted = FeatureEncoder.fit(column).columns[0]
    assert isinstance(fitted, NumericColumn)
    size = np.abs(filled).max()
    assert fitted.mean == pytest.approx(scaler.mean_[0], rel=1e-9, abs=1e-9 * size)
    if fitted.scale != 1.0 and scaler.scale_[0] != 1.0:  # they differ on what is constant
        assert fitted.scale == pytest.approx(scaler.scale_[0], rel=1e-6)


def test_blocks_do_not_change_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"x": np.arange(10.0), "c": list("abcdefghij")})
    encoder = FeatureEncoder.fit(frame)
    expected = encoder.transform(frame)
    rows = np.arange(9, -1, -1)
    monkeypatch.setattr(features, "BLOCK_CELLS", 3 * encoder.width)
    assert encoder.transform(frame).tobytes() == expected.tobytes()
    assert encoder.transform(frame, rows).tobytes() == expected[rows].tobytes()


# Numbers


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2, 3], dtype=np.int8),
        np.array([1, 2, 3], dtype=np.uint64),
        np.array([1, 2, 3], dtype=np.float16),
        pd.array([1, 2, 3], dtype="Int32"),
        pd.array([1, 2, 3], dtype="Float32"),
        np.array([1, 2.0, 3], dtype=object),
        np.array([Decimal(1), Decimal(2), Decimal(3)], dtype=object),
        pd.array([1, 2, 3], dtype="int64[pyarrow]"),
    ],
    ids=lambda values: f"{values.dtype}-{type(values[0]).__name__}",
)
def test_numbers_of_any_type_are_numeric(values: Any) -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": values}))
    assert encoder.columns[0].kind == "numeric"
    assert codes(encoder, x=values) == [[-1.225], [0.0], [1.225]]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        (None, 0.0),
        (np.nan, 0.0),
        (pd.NA, 0.0),
        ("", 0.0),
        ("?", 0.0),
        ("NA", 0.0),
        ("3", 1.225),
        (" 3.0 ", 1.225),
        (3, 1.225),
        (np.float32(3), 1.225),
        (Decimal(3), 1.225),
        (1e300, LIMIT),
        (-1e300, -LIMIT),
    ],
)
def test_cells_a_numeric_column_understands(cell: Any, code: float) -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": [1.0, 2.0, 3.0]}))
    assert codes(encoder, x=np.array([cell], dtype=object)) == [[code]]
    assert rounded(of_records(encoder, [{"x": cell}])) == [[code]]


@pytest.mark.parametrize(
    "cell", ["abc", 10**400, np.inf, "-inf", "1_000", "0x10", True, pd.Timestamp("2020-01-01")]
)
def test_a_cell_that_is_no_number_is_refused_or_a_gap_that_is_counted(cell: Any) -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": [1.0, 2.0]}))
    tally = Tally()
    frame = pd.DataFrame({"x": pd.Series([2.0, cell], dtype=object)})
    assert encoder.transform(frame, tally=tally).tolist() == [[1.0], [0.0]]
    assert tally.to_json() == [{"code": "odd_cell", "column": "x", "cells": 1}]
    with pytest.raises(TableError, match="column `x` must hold finite numbers, got "):
        encoder.transform(frame)


@pytest.mark.parametrize("cell", [[1.0], {}, b"1"])
def test_cells_of_several_values_are_refused(cell: Any) -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": [1.0, 2.0]}))
    with pytest.raises(TableError, match="column `x` must hold one value in a cell"):
        encoder.transform(pd.DataFrame({"x": pd.Series([cell], dtype=object)}))


def test_gaps_become_the_median() -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": [0.0, 1.0, 100.0, None, None]}))
    column = encoder.columns[0]
    assert isinstance(column, NumericColumn)
    assert (column.median, column.mean) == (1.0, 20.6)
    assert codes(encoder, x=[None]) == codes(encoder, x=[1.0])


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e-320, 1e308])
def test_a_constant_column_is_zero(value: float) -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": [value] * 7}))
    column = encoder.columns[0]
    assert isinstance(column, NumericColumn)
    assert (column.mean, column.scale) == (value, 1.0)
    assert codes(encoder, x=[value, None]) == [[0.0], [0.0]]


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e200, 1.7e308])
def test_sizes_of_numbers_do_not_matter(size: float) -> None:
    frame = pd.DataFrame({"x": [-size, 0.0, size, None]})
    assert codes(FeatureEncoder.fit(frame), **frame) == [[-1.414], [0.0], [1.414], [0.0]]


# Categories


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([True, False, True], ("False", "True")),
        (pd.array([True, None, False], dtype="boolean"), ("False", "True")),
        (pd.Categorical([2, 1, 2]), ("1", "2")),
        (pd.Categorical([2.0, 1.0, 2.5]), ("1", "2", "2.5")),
        (pd.Categorical(["b", "b", "b"], categories=["a", "b"]), ("b",)),
        (np.array([1, "1", True], dtype=object), ("1", "True")),
        (["Zürich", "São Paulo", "東京"], ("São Paulo", "Zürich", "東京")),
    ],
)
def test_levels_are_texts(values: Any, levels: tuple[str, ...]) -> None:
    column = FeatureEncoder.fit(pd.DataFrame({"x": values})).columns[0]
    assert isinstance(column, CategoricalColumn)
    assert column.levels == levels


GAP = [None, np.nan, pd.NA, "", "?", "None"]
UNKNOWN = ["z", 7, True]


@pytest.mark.parametrize(
    ("values", "max_levels", "gap", "unknown"),
    [
        (["a", "b"], 9, [0, 0], [0, 0]),
        (["a", "b", None], 9, [0, 0, 1], [0, 0, 0]),
        (["a", "a", "b", "b", "c"], 2, [0, 0, 1], [0, 0, 1]),
        (["a", "a", "b", "b", "c", None], 2, [0, 0, 1, 0], [0, 0, 0, 1]),
    ],
    ids=["neither seen", "gap seen", "other seen", "both seen"],
)
def test_gaps_and_unknown_values_use_outputs_that_were_trained(
    values: list[Any], max_levels: int, gap: list[float], unknown: list[float]
) -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": values}), max_levels=max_levels)
    assert encoder.width == len(gap)
    for cells, code in ((GAP, gap), (UNKNOWN, unknown)):
        expected = [code] * len(cells)
        assert codes(encoder, x=pd.Series(cells, dtype=object)) == expected
        assert of_records(encoder, [{"x": cell} for cell in cells]).tolist() == expected
    assert codes(encoder, x=["b"])[0][:2] == [0, 1]


def test_a_text_for_a_gap_may_be_a_level() -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"fence": ["None", "wood", None]}))
    assert codes(encoder, fence=["None", "wood", None]) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_the_most_frequent_levels_are_kept() -> None:
    values = [f"level {i}" for i in range(150) for _ in range(1 + i % 2)]
    column = FeatureEncoder.fit(pd.DataFrame({"x": values})).columns[0]
    assert isinstance(column, CategoricalColumn)
    assert column.width == 101
    assert {f"level {i}" for i in range(1, 150, 2)} < set(column.levels)


def test_a_rare_level_is_not_taken_for_another_ones_spelling() -> None:
    texts = ["1"] * 20 + ["01"] + [f"k{i}" for i in range(99)] * 2 + ["z9"]
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": texts}))
    column = encoder.columns[0]
    assert isinstance(column, CategoricalColumn)
    assert (len(column.levels), column.rare) == (100, ("01", "z9"))
    tally = Tally()
    rare, other, known, unknown = encoder.transform(
        pd.DataFrame({"x": ["01", "z9", "1", "new"]}), tally=tally
    )
    assert rare.tolist() == other.tolist() == unknown.tolist() != known.tolist()
    assert tally.to_json() == [{"code": "unknown_level", "column": "x", "cells": 1}]
    assert through_json(encoder) == encoder


def test_a_container_is_no_category() -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"x": ["a", "b"]}))
    with pytest.raises(TableError, match="column `x` must hold one value in a cell, got"):
        of_records(encoder, [{"x": ["a"]}])


# Whole tables


def test_columns_are_found_by_name() -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"a b": [1, 3], "ü": ["x", "y"]}))
    rows = pd.DataFrame({"extra": [0], "ü": ["y"], "a b": [3]})
    assert encoder.transform(rows).tolist() == [[1, 0, 1]]
    numbered = pd.DataFrame(np.eye(2))
    assert FeatureEncoder.fit(numbered).transform(numbered).tolist() == [[1, -1], [-1, 1]]


def test_absent_columns_are_named() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [1, 2], "c": ["x", "y"]})
    encoder = FeatureEncoder.fit(frame)
    with pytest.raises(TableError, match="'a', 'c' absent; got 'b'"):
        encoder.transform(frame[["b"]])
    with pytest.raises(TableError, match="got no column"):
        encoder.transform(pd.DataFrame(index=[0]))


def test_twin_columns_are_refused() -> None:
    twins = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(TableError, match="must differ, got twice: 'a'"):
        FeatureEncoder.fit(twins)


def test_all_problems_of_a_table_are_raised_together() -> None:
    frame = pd.DataFrame(
        {
            "lists": [[1], [2]],
            "z": [1j, 2j],
            "fine": [1, 2],
        }
    )
    with pytest.raises(TableError) as caught:
        FeatureEncoder.fit(frame)
    named = [problem.split("`")[1] for problem in caught.value.problems]
    assert named == ["lists", "z"]
    with pytest.raises(TableError) as caught:
        FeatureEncoder.fit(pd.DataFrame({"void": [None, None], "gap": [np.nan, np.nan]}))
    named = [problem.split("`")[1] for problem in caught.value.problems]
    assert named == ["void", "gap"]
    encoder = FeatureEncoder.fit(pd.DataFrame({"a": [1, 2], "b": [1, 2], "c": ["x", "y"]}))
    with pytest.raises(TableError) as caught:
        of_records(encoder, [{"a": [1], "b": {}, "c": []}])
    assert len(caught.value.problems) == 3


def test_no_rows_give_no_codes() -> None:
    encoder = FeatureEncoder.fit(pd.DataFrame({"a": [1, 2], "c": ["x", "y"]}))
    assert encoder.transform(pd.DataFrame({"a": [], "c": []})).shape == (0, 3)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "must be of format 1 or 2, got None"),
        ({"format": 3, "columns": []}, "must be of format 1 or 2, got 3"),
        ({"format": 1}, "damaged"),
        ({"format": 1, "columns": [{"kind": "numeric", "name": "x"}]}, "damaged"),
        ({"format": 1, "columns": [{"kind": "embedding", "name": "x"}]}, "damaged"),
    ],
)
def test_damaged_states_are_refused(state: dict[str, Any], says: str) -> None:
    with pytest.raises(TableError, match=says):
        FeatureEncoder.from_json(state)


def test_a_dataset_holds_the_encoded_parts() -> None:
    parts = load_parts(DataSettings(synthetic=SyntheticSettings(n_samples=100, n_classes=3)))
    encoder = fit_encoder(parts)
    assert encoder == FeatureEncoder.fit(parts.train.frame)
    dataset = encode(parts, encoder)
    assert np.array_equal(dataset.x_train, encoder.transform(parts.train.frame))
    assert np.array_equal(dataset.x_val, encoder.transform(parts.validation.frame))
    assert np.array_equal(dataset.y_train, parts.train.target)
    assert np.array_equal(dataset.y_val, parts.validation.target)
    assert (dataset.n_classes, dataset.n_features) == (3, 20)


def test_a_served_model_needs_no_scikit_learn() -> None:
    code = "import sys, mlops.data.table, mlops.data.dataset; print('sklearn' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"
