"""Tables in blocks: what is read is what `read_file` reads, and a file is written whole or not."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops.data.blocks import TableReader, open_table, writing
from mlops.data.columns.features import FeatureEncoder
from mlops.data.sources import read_file
from mlops.errors import TableError

# Training table: what the model takes `n` and `c` for.
ENCODER = FeatureEncoder.fit(
    pd.DataFrame(
        {
            "n": [0.5, np.nan, 2.0, 3.0, -1.0],
            "c": pd.Series(["1", "2", "1.0", "True", None], dtype=object),
        }
    ),
    max_levels=100,
)

# A column of a CSV file: its cells, in an order that tells blocks from each other.
CELLS = {
    "whole numbers": ["1", "2", "1", "2"],
    "whole numbers, one gap": ["1", "2", "", "2"],
    "whole numbers, then fractions": ["1", "2", "1.0", "2.5"],
    "fractions that are whole": ["1.0", "2.0", "1.00", "1e0"],
    "numbers, then text": ["1", "1.0", "2", "x"],
    "text, then numbers": ["x", "1.0", "2", "1"],
    "numbers, then a boolean": ["1", "1.0", "2", "True"],
    "booleans": ["True", "FALSE", "true", "True"],
    "booleans, one gap": ["True", "FALSE", "NA", "true"],
    "gaps first": ["", "NA", "1", "2"],
    "gaps only": ["", "NA", "?", "null"],
    "blanks": [" 1", "1 ", " 2 ", "NA "],
    "leading zeros": ["01", "02", "1", "2"],
    "huge": ["1", "9007199254740993", "2", ""],
    "huger": ["1", "18446744073709551615", "2", "1"],
    "quoted": ['"1"', '"x, ""y"""', '"line\nline"', "1"],
}


def write_csv(path: Path, **columns: list[str]) -> Path:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def encoded(table: TableReader) -> np.ndarray:
    frames = [block.rows.to_pandas(ignore_metadata=True) for block in table.blocks()]
    return np.concatenate([ENCODER.transform(frame) for frame in frames])


@pytest.mark.parametrize("block_rows", [1, 2, 3, 4, None])
@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_categories_of_a_csv_file_are_those_of_the_whole_file(
    cells: list[str], block_rows: int | None, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "t.csv", n=["1", "", "2.5", "3"], c=cells)
    expected = ENCODER.transform(read_file(path).frame)
    found = encoded(open_table(path, ENCODER.columns, block_rows=block_rows))
    np.testing.assert_array_equal(found, expected)


NUMBERS = [*(c for name, c in CELLS.items() if name in ("blanks", "huge", "gaps only")), ["7"] * 4]


@pytest.mark.parametrize("cells", NUMBERS)
def test_numbers_of_a_csv_file_are_those_of_the_whole_file(
    cells: list[str], tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "t.csv", n=cells, c=["1", "2", "x", ""])
    expected = ENCODER.transform(read_file(path).frame)
    for block_rows in (1, 2, 4):
        found = encoded(open_table(path, ENCODER.columns, block_rows=block_rows))
        np.testing.assert_array_equal(found, expected)


def test_a_column_the_model_does_not_know_is_carried_as_it_stands(tmp_path: Path) -> None:
    other = ["007", "NA", "", "1.50"]
    path = write_csv(tmp_path / "t.csv", id=other, n=["1"] * 4, c=["1"] * 4)
    table = open_table(path, ENCODER.columns, block_rows=3)
    assert table.schema.field("id").type == pa.string()
    rows = pa.concat_tables([block.rows for block in table.blocks()])
    assert rows["id"].to_pylist() == other
    only = open_table(path, ENCODER.columns, only=True, block_rows=3)
    assert only.schema.names == ["n", "c"]
    assert next(only.blocks()).rows.schema.names == ["n", "c"]


def test_every_block_has_the_same_schema_and_its_place(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", n=["1", "2.5", "", "4"], c=["True", "", "", "false"])
    table = open_table(path, ENCODER.columns, block_rows=1)
    blocks = list(table.blocks())
    assert [block.first_row for block in blocks] == [0, 1, 2, 3]
    assert all(block.rows.schema == table.schema for block in blocks)
    shares = [block.share for block in blocks]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def parquet(path: Path, rows: int, **options: int) -> Path:
    generator = np.random.default_rng(0)
    levels = pa.array(["1", "2", "x", None])
    table = pa.table(
        {
            "c": levels.take(pa.array(generator.integers(0, 4, rows))).dictionary_encode(),
            "n": pa.array(generator.normal(size=rows), mask=generator.random(rows) < 0.2),
            "list": pa.array([[i] for i in range(rows)]),
            "a.b": pa.array(range(rows)),
        }
    )
    pq.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("row_group_size", [5, 64, 1000])
@pytest.mark.parametrize("block_rows", [1, 7, 64, None])
def test_a_parquet_file_in_blocks(
    row_group_size: int, block_rows: int | None, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "t.parquet", 100, row_group_size=row_group_size)
    table = open_table(path, ENCODER.columns, block_rows=block_rows)
    blocks = list(table.blocks())
    rows = pa.concat_tables([block.rows for block in blocks])
    assert rows.equals(pq.read_table(path))
    assert table.n_rows == 100
    assert blocks[-1].share == 1.0
    assert all(len(block.rows) <= (block_rows or 100) for block in blocks)
    lengths = [len(block.rows) for block in blocks]
    assert [block.first_row for block in blocks] == [0, *itertools.accumulate(lengths[:-1])]
    np.testing.assert_array_equal(encoded(table), ENCODER.transform(read_file(path).frame))
    only = open_table(path, ENCODER.columns, only=True, block_rows=block_rows)
    assert next(only.blocks()).rows.schema.names == only.schema.names == ["c", "n"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_without_rows(name: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1.0], "c": ["x"]}).iloc[:0]
    path = tmp_path / name
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    table = open_table(path, ENCODER.columns)
    assert sum(len(block.rows) for block in table.blocks()) == 0
    assert table.schema.names == ["n", "c"]


def test_blocks_are_smaller_where_rows_are_longer(tmp_path: Path) -> None:
    sizes = []
    for length in (10, 20_000):
        table = pa.table({"text": [f"{i:0{length}}" for i in range(3000)]})
        pq.write_table(table, tmp_path / "t.parquet")
        opened = open_table(tmp_path / "t.parquet", ENCODER.columns)
        sizes.append(max(len(block.rows) for block in opened.blocks()))
    assert sizes[0] == 3000
    assert 100 < sizes[1] < 1000


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.txt", b"a\n1\n", "must end in .csv, .tsv, .parquet"),
        ("t.csv", b"", "got an empty file"),
        ("t.csv", b"a,a\n1,2\n", "got twice: 'a'"),
        ("t.parquet", b"PAR1", "must be readable"),
    ],
)
def test_a_file_that_is_no_table(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=reason) as caught:
        open_table(tmp_path / name, ENCODER.columns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"n,c\n1,a\n2,b,z\n", "line 3 must have as many cells as the header, 2, got 3"),
        (b"n,c\n1,a,z\n2,b,z\n", "line 2 must have as many cells as the header, 2, got 3"),
    ],
)
def test_a_file_damaged_further_down(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableError, match=reason) as caught:
        list(open_table(tmp_path / "t.csv", ENCODER.columns, block_rows=1).blocks())
    assert "\n" not in str(caught.value)


ROWS = pa.table({"x": [1.5, None], "y": ["a,b", ""]})


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_what_is_written_is_read_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / name
    with writing(path, ROWS.schema) as write:
        write(ROWS)
        write(ROWS)
        assert not path.exists()
    frame = read_file(path).frame
    numbers = pd.to_numeric(frame["x"], errors="coerce")
    assert numbers.fillna(0).to_list() == [1.5, 0, 1.5, 0]
    assert frame["y"].fillna("").to_list() == ["a,b", "", "a,b", ""]
    assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, TableError("a bad cell")])
def test_what_is_interrupted_leaves_the_folder_as_it_was(
    error: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "out.parquet"
    path.write_text("the old one")
    with pytest.raises((KeyboardInterrupt, TableError)), writing(path, ROWS.schema) as write:
        write(ROWS)
        raise error
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_csv_file_cannot_hold_lists(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.list_(pa.int64()))])
    with (
        pytest.raises(TableError, match=r"write to a `\.parquet` file"),
        writing(tmp_path / "out.csv", schema),
    ):
        pass


def test_a_csv_file_cannot_hold_bytes_that_are_no_text(tmp_path: Path) -> None:
    schema = pa.schema([("raw", pa.binary())])
    with (
        pytest.raises(TableError, match="a CSV file must hold numbers, text"),
        writing(tmp_path / "out.csv", schema) as write,
    ):
        write(pa.table({"raw": [b"\xff\xfe"]}, schema=schema))
    assert list(tmp_path.iterdir()) == []


def test_a_link_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "place" / "out.csv")
    with writing(link, pa.schema([("a", pa.int64())])) as write:
        write(pa.table({"a": [1]}))
    assert link.is_symlink()
    assert "1" in (tmp_path / "place" / "out.csv").read_text()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(TableError, match="must be writable"),
        writing(tmp_path / "file" / "out.csv", ROWS.schema),
    ):
        pass
