"""A row gives the same code through every reader and protocol, whatever stands beside it.

Each column of a table is of one of the kinds that once were read by what other rows made pandas
guess. Its cells come with all the ways in which they may be sent; every way must give the code that
the row has in the whole CSV file.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops.data.blocks import open_table
from mlops.data.cells.spelling import spelled
from mlops.data.columns.arrow import pandas_frame
from mlops.data.columns.features import FeatureEncoder
from mlops.data.notes import Tally
from mlops.data.sources import read_file
from mlops.serving.protocols.arrow import read_arrow
from mlops.serving.protocols.mlflow_scoring import _read as read_invocations
from mlops.serving.protocols.open_inference import _InferRequest, _read
from mlops.serving.protocols.predict import CSV, JSON, Request, convert, read_predict
from mlops.serving.rows.cells import Cells, RowLimits
from mlops.serving.rows.columns import Columns

EXAMPLES = 2_000
LIMITS = RowLimits(1_000, 1_000)


@dataclass(frozen=True)
class Cell:
    """A cell, and the ways in which it may be sent.

    Attributes:
        texts: In a CSV file; the first is how the training table has it.
        values: As JSON, or as a typed cell of Parquet and Arrow.
    """

    texts: tuple[str, ...]
    values: tuple[Any, ...]


def level(text: str, *more: str, values: tuple[Any, ...] = ()) -> Cell:
    padded = (text, f" {text}", f"{text} ", *more)
    return Cell(padded, (text, *more, *values))


def number(value: float, *texts: str) -> Cell:
    return Cell((repr(value), f" {value!r}", *texts), (value,))


GAP = Cell(("", " "), (None,))
E_ACUTE = "Orléans"
NFD = unicodedata.normalize("NFD", E_ACUTE)

# The cells that columns of each kind are drawn from.
KINDS: dict[str, list[Cell]] = {
    "leading zeros": [
        level("01", values=(1,)),
        level("02", values=(2, 2.0)),
        level("1A"),
        level("007", values=(7,)),
    ],
    "zeros beside": [level("01"), level("1", values=(1, 1.0)), level("x")],
    "exponents": [
        level("1e5", values=(100000, 1e5)),
        level("2E5", values=(200000,)),
        level("rotary"),
        GAP,
    ],
    "decimals": [
        level("4.0", "4", values=(4, 4.0)),
        level("6.0", values=(6,)),
        level("rotary"),
    ],
    "versions": [level("1.1", values=(1.1,)), level("1.10"), level("2.x")],
    "booleans": [
        level("TRUE", "true", "True", values=(True, 1)),
        level("FALSE", "false", values=(False, 0)),
        level("UNK"),
    ],
    "pure booleans": [
        level("True", "TRUE", "1", values=(True, 1)),
        level("False", "false", "0", values=(False, 0, 0.0)),
    ],
    "gap words": [level("None"), level("NA"), level("plain"), level("?"), GAP],
    "one gap word": [Cell(("NA", " NA", ""), ("NA", None)), level("a"), level("b")],
    "unicode": [
        level(E_ACUTE, NFD, values=(NFD,)),
        level("Nîmes", unicodedata.normalize("NFD", "Nîmes")),
        level("Z"),
    ],
    "long": [
        Cell((str(2**53), f"+{2**53}"), (2**53, str(2**53))),
        Cell((str(2**53 + 1),), (2**53 + 1, str(2**53 + 1))),
        Cell((str(2**63 - 1),), (2**63 - 1,)),
        Cell((str(10**24 + 1),), (str(10**24 + 1),)),
        level("x"),
    ],
    "numbers": [number(0.5, "5e-1", ".5"), number(-3.25, "\u22123.25"), number(1e300), GAP],
    "whole": [number(3.0, "3", "+3", "3e0"), number(-7.0, "-7"), Cell(("NaN", "?"), (None,))],
    "dates": [
        Cell(("2024-01-31", " 2024-01-31"), ("2024-01-31", "2024-01-31T00:00:00")),
        Cell(("2024-02-29 12:30:00", "2024-02-29T12:30"), ("2024-02-29T12:30:00",)),
        Cell(("2023-12-31T23:00:00-02:00",), ("2024-01-01T01:00:00Z",)),
        GAP,
    ],
    "days first": [
        Cell(("31/01/2024", " 31/1/2024"), ("2024-01-31", "31/01/2024")),
        Cell(("02/03/2024",), ("2024-03-02", "02/03/2024")),
        Cell(("13/12/2023",), ("2023-12-13T00:00",)),
    ],
    "durations": [
        Cell(("0 days 01:00:00", "01:00:00", "1:00"), (3600, "01:00:00")),
        Cell(("2 days 00:00:01.5",), (172801.5,)),
        Cell(("-1 days +23:00:00",), (-3600.0,)),
    ],
    "ones": [Cell(("1", "1.0"), (1, 1.0)), Cell(("0", "0.0"), (0,)), GAP],
}
SINGLES = [np.float32(x) for x in (0.1, 1e-8, 16777217, 3.4e38, -2.7182817)]
FLOAT32 = [Cell((str(x), f" {x!s}"), (float(str(x)), float(x), x)) for x in SINGLES]
MONEY = [
    Cell((f"${x:,.2f}", f" ${x:,.2f}", f"{x:.2f}"), (x, f"${x:,.2f}")) for x in (1234.5, 7, 1e6)
]
WANTED = {
    "leading zeros", "exponents", "booleans", "gap words", "unicode", "long", "float32",
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[Cell]]]:
    """Draws the kinds of a table's columns, and its rows of cells: [columns][rows]."""
    any_kind = st.sampled_from(sorted(WANTED)) | st.sampled_from([*KINDS, "float32", "money"])
    kinds = draw(st.lists(any_kind, min_size=2, max_size=4))
    pools = [{**KINDS, "float32": FLOAT32, "money": MONEY}[kind] for kind in kinds]
    n_rows = draw(st.integers(6, 10))
    columns = []
    for pool in pools:
        drawn = [draw(st.sampled_from(pool)) for _ in range(n_rows)]
        columns.append([*pool, *drawn][: max(n_rows, len(pool))])
    longest = max(map(len, columns))
    return kinds, [[*column, *column][:longest] for column in columns]


def csv_of(names: list[str], columns: list[list[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def encoded(encoder: FeatureEncoder, cells: Cells) -> np.ndarray:
    return encoder.encode(cells.numbers, cells.texts, cells.tally, cells.times)


def request(body: bytes, kind: str) -> Request:
    return Request(body, kind, "/predict", LIMITS, 10**9)


def by_json(encoder: FeatureEncoder, columns: dict[str, list[Any]]) -> np.ndarray:
    body = json.dumps({"columns": columns}).encode()
    return encoded(encoder, read_predict(request(body, JSON), Columns(encoder)))


def by_invocations(encoder: FeatureEncoder, columns: dict[str, list[Any]]) -> np.ndarray:
    rows = list(zip(*columns.values(), strict=True))
    body = json.dumps({"dataframe_split": {"columns": list(columns), "data": rows}}).encode()
    return encoded(encoder, read_invocations(request(body, JSON), Columns(encoder)))


def by_v2(encoder: FeatureEncoder, columns: dict[str, list[Any]]) -> np.ndarray:
    numeric = set(Columns(encoder).numeric)
    inputs = [
        {
            "name": name,
            "shape": [len(cells)],
            "datatype": "FP64" if name in numeric else "BYTES",
            "data": cells,
        }
        for name, cells in columns.items()
    ]
    asked = convert(json.loads(json.dumps({"inputs": inputs})), _InferRequest)
    return encoded(encoder, _read(asked.inputs, Columns(encoder), LIMITS))


def arrow_table(columns: dict[str, list[Any]]) -> pa.Table:
    """Types each column as its cells are, as text where they are of several types."""
    arrays = {}
    for name, cells in columns.items():
        types = {type(cell) for cell in cells if cell is not None}
        if types <= {int, float} and len(types) > 1:
            cells = [None if cell is None else float(cell) for cell in cells]
        elif len(types) > 1:
            cells = [cell if cell is None else spelled(cell) for cell in cells]
        arrays[name] = pa.array(cells)
    return pa.table(arrays)


def by_arrow(encoder: FeatureEncoder, columns: dict[str, list[Any]]) -> np.ndarray:
    table = arrow_table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return encoded(encoder, read_arrow(sink.getvalue().to_pybytes(), Columns(encoder), LIMITS))


def by_frame(encoder: FeatureEncoder, columns: dict[str, list[Any]]) -> np.ndarray:
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})
    return encoder.transform(frame)


TYPED: list[Callable[[FeatureEncoder, dict[str, list[Any]]], np.ndarray]] = [
    by_json,
    by_invocations,
    by_v2,
    by_arrow,
    by_frame,
]


def is_ambiguous(columns: dict[str, list[Any]], reader: Any) -> bool:
    """Numbers of several types in one Arrow column lose what they were before we see them."""
    return reader is by_arrow and any(
        {type(cell) for cell in cells} >= {int, float} and max(map(abs, numbers(cells))) > 2**53
        for cells in columns.values()
    )


def numbers(cells: list[Any]) -> list[float]:
    return [cell for cell in cells if isinstance(cell, (int, float))]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_row_has_one_code(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(table=tables(), data=st.data())
    def check(table: tuple[list[str], list[list[Cell]]], data: st.DataObject) -> None:
        kinds, columns = table
        seen.update(set(kinds))
        check_table(kinds, columns, data, tmp_path)

    check()
    assert seen.total() >= EXAMPLES
    assert min(seen[kind] for kind in WANTED) >= 200, seen


def check_table(
    kinds: list[str], columns: list[list[Cell]], data: st.DataObject, folder: Path
) -> None:
    names = [f"c{place} {kind}" for place, kind in enumerate(kinds)]
    whole = folder / "whole.csv"
    whole.write_text(csv_of(names, [[cell.texts[0] for cell in column] for column in columns]))
    raw = read_file(whole).frame
    singles = [name for name, kind in zip(names, kinds, strict=True) if kind == "float32"]
    trained = raw.assign(
        **{name: raw[name].astype("float64").astype("float32") for name in singles}
    )
    encoder = FeatureEncoder.fit(trained)
    expected = encoder.transform(raw, tally=Tally())
    assert encoder.transform(trained).tobytes() == expected.tobytes()
    if not singles:
        at_once = read_file(whole, is_text=lambda name: False).frame
        assert FeatureEncoder.fit(at_once) == encoder, "numbers that are read at once"

    n_rows = len(columns[0])
    chosen = data.draw(st.lists(st.integers(0, n_rows - 1), min_size=1, max_size=4), "rows")
    order = data.draw(st.permutations(range(len(names))), "order of columns")

    def sent(pick: str) -> dict[str, list[Any]]:
        return {
            names[place]: [
                data.draw(st.sampled_from(getattr(columns[place][row], pick)), pick)
                for row in chosen
            ]
            for place in order
        }

    texts = sent("texts")
    part = csv_of(list(texts), list(texts.values()))
    (folder / "part.csv").write_text(part)
    read = read_file(folder / "part.csv").frame
    wanted = expected[chosen]
    assert encoder.transform(read).tobytes() == wanted.tobytes(), "a CSV file"
    cells = read_predict(request(part.encode(), CSV), Columns(encoder))
    assert encoded(encoder, cells).tobytes() == wanted.tobytes(), "a CSV request"
    (block,) = open_table(folder / "part.csv", encoder.columns).blocks()
    assert encoder.transform(pandas_frame(block.rows)).tobytes() == wanted.tobytes(), "blocks"

    values = sent("values")
    plain = {
        name: [cell.item() if isinstance(cell, np.generic) else cell for cell in cells]
        for name, cells in values.items()
    }
    for reader in TYPED:
        if reader in (by_json, by_v2) and has_texts_for_numbers(encoder, plain):
            continue  # refused, never read otherwise
        if not is_ambiguous(plain, reader):
            assert reader(encoder, plain).tobytes() == wanted.tobytes(), reader.__name__
    pyarrow.parquet.write_table(arrow_table(plain), folder / "part.parquet")
    if not is_ambiguous(plain, by_arrow):
        read = read_file(folder / "part.parquet").frame
        assert encoder.transform(read).tobytes() == wanted.tobytes(), "a Parquet file"


def has_texts_for_numbers(encoder: FeatureEncoder, columns: dict[str, list[Any]]) -> bool:
    numeric = set(Columns(encoder).numeric)
    return any(
        isinstance(cell, str) and name in numeric
        for name, cells in columns.items()
        for cell in cells
    )
