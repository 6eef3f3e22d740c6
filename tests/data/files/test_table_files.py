"""Files of tables: what lies on a disk is read cell for cell, or refused with its line."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import itertools
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlops.data.blocks import open_table
from mlops.data.sources import read_file
from mlops.errors import TableError


def written(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def cells(path: Path, **options: str) -> list[list[Any]]:
    """The table with its header, as the whole file reads, having checked that blocks read so."""
    table = read_file(path, **options)
    rows = table.frame.to_numpy(dtype=object).tolist()
    for block_rows in (1, 2, None):
        opened = open_table(path, (), block_rows=block_rows, **options)
        assert opened.notes == table.notes
        blocks = [block.rows for block in opened.blocks()]
        found = pa.concat_tables([opened.schema.empty_table(), *blocks])
        assert found.schema.equals(opened.schema)
        assert found.column_names == list(table.frame)
        assert list(map(list, zip(*found.to_pydict().values(), strict=True))) == rows
    return [list(table.frame), *rows]


def codes(path: Path) -> list[str]:
    return [note.code for note in read_file(path).notes]


PLAIN = [["x", "name"], ["0.5", "a"], ["NA", ""], ["01", " b "]]

CSV_FILES: dict[str, tuple[str, str, list[str]]] = {
    "commas": ("t.csv", "x,name\n0.5,a\nNA,\n01, b \n", []),
    "no line end at the end": ("t.csv", "x,name\n0.5,a\nNA,\n01, b ", []),
    "Windows": ("t.csv", "x,name\r\n0.5,a\r\nNA,\r\n01, b \r\n", []),
    "old Macs": ("t.csv", "x,name\r0.5,a\rNA,\r01, b \r", []),
    "byte order mark": ("t.csv", "\ufeffx,name\n0.5,a\nNA,\n01, b \n", []),
    "semicolons": ("t.csv", "x;name\n0.5;a\nNA;\n01; b \n", ["separator"]),
    "tabs": ("t.csv", "x\tname\n0.5\ta\nNA\t\n01\t b \n", ["separator"]),
    "bars": ("t.csv", "x|name\n0.5|a\nNA|\n01| b \n", ["separator"]),
    "tabs, .tsv": ("t.tsv", "x\tname\n0.5\ta\nNA\t\n01\t b \n", []),
    "commas, .tsv": ("t.tsv", "x,name\n0.5,a\nNA,\n01, b \n", ["separator"]),
    "Excel's line": ("t.csv", "sep=;\nx;name\n0.5;a\nNA;\n01; b \n", []),
    "comments": ("t.csv", "# made, by\n#\nx,name\n0.5,a\nNA,\n01, b \n", ["comment_lines"]),
    "blank lines": ("t.csv", "\n\nx,name\n\n0.5,a\nNA,\n\n01, b \n\n", []),
    "trailing commas": ("t.csv", "x,name,\n0.5,a,\nNA,,\n01, b ,\n", ["trailing_separator"]),
    "of rows alone": ("t.csv", "x,name\n0.5,a,\nNA,,\n01, b ,\n", ["trailing_separator"]),
    "of the header alone": ("t.csv", "x,name,\n0.5,a\nNA,\n01, b \n", ["trailing_separator"]),
    "blank names": ("t.csv", " x,name \n0.5,a\nNA,\n01, b \n", ["names_stripped"]),
    "blanks before quotes": ("t.csv", 'x, "name"\n0.5, "a"\n"NA",""\n01," b "\n', []),
}


@pytest.mark.parametrize(("name", "text", "noted"), CSV_FILES.values(), ids=CSV_FILES)
def test_the_same_table_however_it_is_written(
    name: str, text: str, noted: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path / name, text)
    assert cells(path) == PLAIN
    assert codes(path) == noted
    assert (read_file(path).frame.dtypes == "str").all()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("height, cm;y\n1,5;2\n2,5;3\n", ["height, cm", "y"]),
        ("a;b\n1,5;2,5\n1,25;2,0\n", ["a", "b"]),
        ('a,b\n"1;2","3;4"\n"5;6;7",8\n', ["a", "b"]),
        ("text\na;b;c\nd\n", ["text"]),
        ("#id,x\n7,0.5\n8,1.5\n", ["#id", "x"]),
    ],
)
def test_a_header_is_read_right(text: str, names: list[str], tmp_path: Path) -> None:
    assert cells(written(tmp_path / "t.csv", text))[0] == names


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("latin-1", "Besançon"),
        ("cp1252", "5 € où"),
        ("cp1251", "Москва Пермь Казань Самара Омск"),
        ("shift_jis", "東京都 大阪府 北海道"),
        ("utf-16", "Łódź"),
        ("utf-32", "Łódź"),
    ],
)
@pytest.mark.parametrize("before", [0, 100_000])
def test_an_encoding_is_found(encoding: str, word: str, before: int, tmp_path: Path) -> None:
    rows = "1,plain\n" * before + f"2,{word}\n" * 20
    path = written(tmp_path / "t.csv", f"x,city\n{rows}", encoding)
    table = read_file(path)
    assert table.frame["city"].iloc[-1] == word
    assert [note.code for note in table.notes] == ["encoding"]
    assert cells(written(tmp_path / "u.csv", f"x,city\n2,{word}\n", "utf-8"))[1] == ["2", word]


def test_what_is_said_is_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "a,b;c\n1,2;é\n", "cp850")
    assert cells(path, separator=";", encoding="cp850") == [["a,b", "c"], ["1,2", "é"]]
    assert read_file(path, separator=";", encoding="cp850").notes == ()


@pytest.mark.parametrize("ending", ["csv.gz", "zip", "tsv.gz", "jsonl.gz"])
def test_packed_files(ending: str, tmp_path: Path) -> None:
    texts = {"csv.gz": "x,y\n1,2\n", "tsv.gz": "x\ty\n1\t2\n", "jsonl.gz": '{"x": "1", "y": "2"}'}
    path = tmp_path / f"my.t.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/", "")
            archive.writestr("folder/t.csv", "x,y\n1,2\n")
    else:
        path.write_bytes(gzip.compress(texts[ending].encode()))
    assert cells(path) == [["x", "y"], ["1", "2"]]
    assert read_file(path).name == "my.t"


BIG = [f"{i},{i}.5,text {i}" for i in range(60)]

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "short row": ("a,b,c\n1,2,3\n1\n1,2,3\n", "line 3 must have as many cells .*3, got 1 cell;"),
    "long row": ("a,b,c\n1,2,3\n\n1,2,3,4\n", "line 4 must .*, 3, got 4 cells"),
    "after a cell of lines": ('a,b\n1,"x\ny\nz"\n1\n', "line 5 must have .* 2, got 1 cell"),
    "after comments": ("# c\na,b\n1,2\n1\n", "line 4 must"),
    "cut off": ("a,b,c\n1,2,3\n1,2", "line 3 must .*may have been cut off"),
    "all rows longer": ("a,b\n1,2,3\n1,2,3\n", "line 2 must have as many cells"),
    "quote to the end": ('a,b\n1,2\n1,"2\n3,4\n', "line 3 (opens a quote|must close)"),
    "quote to the end, last line": ('a,b\n1,2\n1,"2', "line 3 opens a quote that is not closed"),
    "open quote, short": (
        "\n".join(["a,b,c", *BIG[:30], '30,"x', *BIG[31:50], '50,1.5,x"', *BIG[51:]]),
        "line 32 must close its quotes, got a row of 21 lines, up to line 52",
    ),
    "open quote, as wide as the header": (
        "\n".join(["a,b,c", *BIG[:30], '30,"x', *BIG[31:50], '50,1.5",x', *BIG[51:]]),
        "line 32 must close its quotes, got a row of 21 lines, up to line 52",
    ),
    "NUL": (b"a,b\n1,2\n3,\0\n", "line 3 must be text, got a NUL byte"),
    "damaged UTF-8": ("a,b\n1,éàü\n".encode() * 9 + b"1,\xff\n", "line 19 must be text in UTF-8"),
    "empty": ("", "got an empty file"),
    "blank": ("\n\n", "got an empty file"),
    "comments alone": ("# a\n# b\n", "got comments alone"),
    "unnamed": ("a,,b\n1,2,3\n", "must have a name, got none for column 2"),
    "twice": ("a,a\n1,2\n", "must differ, got twice: 'a'"),
    "late cell without a name": (
        "a,b,\n" + "1,2,\n" * 2000 + "1,2,x\n",
        "line 2,002 must .*got one for column 3",
    ),
}


@pytest.mark.parametrize(("content", "says"), REFUSED.values(), ids=REFUSED)
def test_a_csv_file_is_refused_with_its_line(
    content: str | bytes, says: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "t.csv", content)
    with pytest.raises(TableError, match=says) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(TableError, match=says):
        list(open_table(path, (), block_rows=1).blocks())


def test_a_cell_of_some_lines_is_legal(tmp_path: Path) -> None:
    poem = "\n".join(f"line {i}, of a poem" for i in range(30))
    text = io.StringIO()
    csv.writer(text).writerows([["n", "text", "z"], ["1", poem, "2"], ["3", "a\nb", "4"]])
    assert cells(written(tmp_path / "t.csv", text.getvalue()))[1:] == [
        ["1", poem, "2"],
        ["3", "a\nb", "4"],
    ]


def test_a_row_longer_than_what_is_parsed_at_a_time(tmp_path: Path) -> None:
    rows = [[str(i), "x" * (3 * 2**20 if i == 500 else 5)] for i in range(1000)]
    text = "".join(f"{a},{b}\n" for a, b in [["a", "b"], *rows])
    assert cells(written(tmp_path / "t.csv", text))[1:] == rows


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.zip", b"PK", "must be readable"),
        ("t.csv.gz", b"a,b\n", "must be readable"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 999)[:-30], "must be readable"),
        ("t.xlsx", b"a,b\n", "must be a workbook"),
        ("t.jsonl", b'{"a": 1}\n\n{"a": \n', "line 3 must be a JSON object"),
        ("t.jsonl", b'{"a": 1}\n[1]\n', "line 2 must be a JSON object, got a list"),
        ("t.jsonl", b"\n", "must have rows, got none"),
        ("t.jsonl", b'{"a": [1]}\n', "column `a` must hold one value in a cell, got a list"),
        ("t.parquet.gz", b"", "must end in .csv"),
    ],
)
def test_other_files_are_refused_in_a_line(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=says) as caught:
        read_file(written(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_an_archive_of_two_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "x\n1\n")
        archive.writestr("b.csv", "x\n1\n")
    with pytest.raises(TableError, match=r"must hold one file, got `a.csv`, `b.csv`"):
        read_file(tmp_path / "t.zip")


TEXTS = st.text(st.sampled_from("ab1.,;\t|\"'# \n\r-é"), max_size=6)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(TEXTS, min_size=width, max_size=width), max_size=8)
    ),
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    block_rows=st.integers(1, 9),
)
def test_any_table_is_read_back_cell_for_cell(
    rows: list[list[str]],
    separator: str,
    quoting: Any,
    line_end: str,
    encoding: str,
    block_rows: int,
    tmp_path: Path,
) -> None:
    width = len(rows[0]) if rows else 2
    # Python quotes no break of another kind than its own.
    assume(line_end == "\r\n" or not any("\r" in cell for row in rows for cell in row))
    names = [f"column {i}" for i in range(width)]
    text = io.StringIO(newline="")
    dialect: Any = {"delimiter": separator, "quoting": quoting, "lineterminator": line_end}
    csv.writer(text, **dialect).writerows([names, *rows])
    path = written(tmp_path / "t.csv", text.getvalue(), encoding)
    table = read_file(path, separator=separator)
    assert table.frame.to_numpy(dtype=object).tolist() == rows
    blocks = list(open_table(path, (), block_rows=block_rows, separator=separator).blocks())
    assert [len(block.rows) for block in blocks[:-1]] == [block_rows] * (len(blocks) - 1)
    found = itertools.chain(*(zip(*b.rows.to_pydict().values(), strict=True) for b in blocks))
    assert list(map(list, found)) == rows
    lines = text.getvalue()
    for place, row in enumerate(rows):
        line = io.StringIO(newline="")
        csv.writer(line, **dialect).writerows([names, *rows[:place]])
        before = len(list(io.StringIO(line.getvalue(), newline="")))
        assert table.line_of(place) == before + 1, (lines, row)


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"whole": 2**62 + 1, "id": 10**24 + 1, "x": 0.5, "yes": True, "text": "01", "mixed": 1},
        {"whole": 3, "id": 5, "x": 2, "yes": False, "text": "NA", "mixed": "a", "later": None},
        {"whole": None, "id": 7, "x": None, "mixed": True, "later": "é"},
    ]
    path = written(tmp_path / "t.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    table = read_file(path)
    assert table.frame["whole"].to_list()[:2] == [2**62 + 1, 3]
    assert table.frame["id"].to_list() == [Decimal(10**24 + 1), 5, 7]
    assert table.frame["x"].fillna(-1).to_list() == [0.5, 2.0, -1]
    assert table.frame["yes"].to_list()[:2] == [True, False]
    assert table.frame["text"].fillna("gap").to_list() == ["01", "NA", "gap"]
    assert table.frame["mixed"].to_list() == ["1", "a", "true"]
    assert table.frame["later"].isna().to_list() == [True, True, False]
    assert table.line_of(2) == 5
    for size in (1, 2, 5):
        blocks = list(open_table(path, (), block_rows=size).blocks())
        assert pa.concat_tables([b.rows for b in blocks])["whole"].to_pylist() == [
            2**62 + 1,
            3,
            None,
        ]


def test_a_workbook(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 1, 12)
    book = openpyxl.Workbook()
    for row in [["n ", "text", "when", "yes"], [1, "01", day, True], [], [2.5, None, day, False]]:
        book.active.append(row)
    book.create_sheet("other")
    book.save(tmp_path / "t.xlsx")
    table = read_file(tmp_path / "t.xlsx")
    assert table.frame["n"].to_list() == [1.0, 2.5]
    assert table.frame["text"].fillna("gap").to_list() == ["01", "gap"]
    assert table.frame["when"].to_list() == [pd.Timestamp(day)] * 2
    assert table.frame["yes"].dtype == bool
    assert [note.code for note in table.notes] == ["sheets", "names_stripped"]
    assert table.line_of(1) == 4
    (block,) = open_table(tmp_path / "t.xlsx", ()).blocks()
    assert block.rows["when"].to_pylist() == [day, day]


def folder_of(path: Path, *tables: pa.Table) -> Path:
    path.mkdir()
    for place, table in enumerate(tables):
        pq.write_table(table, path / f"part-{place}.snappy.parquet")
    (path / "_SUCCESS").touch()
    (path / ".part-0.snappy.parquet.crc").touch()
    (path / "_temporary").mkdir()
    (path / "_temporary" / "x.parquet").touch()
    return path


@pytest.mark.parametrize("name", ["t.parquet", "folder"])
def test_a_folder_of_parquet_files(name: str, tmp_path: Path) -> None:
    one = pa.table({"x": [1, 2], "t": ["a", "b"], "gap": pa.nulls(2)})
    other = pa.table({"t": pa.array(["c"]).dictionary_encode(), "x": [3], "gap": [0.5]})
    path = folder_of(tmp_path / name, one, other)
    frame = read_file(path).frame
    assert frame["x"].to_list() == [1, 2, 3]
    assert frame["t"].to_list() == ["a", "b", "c"]
    assert frame["gap"].fillna(0).to_list() == [0, 0, 0.5]
    for size in (1, 2, None):
        blocks = [block.rows for block in open_table(path, (), block_rows=size).blocks()]
        assert pa.concat_tables(blocks)["x"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (pa.table({"x": ["1"]}), "`x` as int64 in `part-0.* and as string in `part-1"),
        (pa.table({"x": [1], "y": [1]}), "`y` not at all in"),
        (pa.table({"y": [1]}), "the same columns, got `y`"),
    ],
)
def test_parquet_files_that_differ(other: pa.Table, says: str, tmp_path: Path) -> None:
    path = folder_of(tmp_path / "t.parquet", pa.table({"x": [1]}), other)
    with pytest.raises(TableError, match=says):
        read_file(path)


TYPES: dict[str, tuple[pa.Array, list[Any]]] = {
    "string_view": (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    "large_string": (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
    "dictionary of text": (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    "of decimals": (pa.array([Decimal("1.5"), Decimal(2)]).dictionary_encode(), [1.5, 2.0]),
    "decimals": (pa.array([Decimal(10**24), Decimal(1)]), [Decimal(10**24), 1]),
    "long whole numbers with a gap": (pa.array([2**60 + 1, None]), [2**60 + 1, pd.NA]),
    "bytes": (pa.array([b"a", b"b"]), [b"a", b"b"]),
}


@pytest.mark.parametrize(("array", "expected"), TYPES.values(), ids=TYPES)
def test_types_of_parquet(array: pa.Array, expected: list[Any], tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": array}), tmp_path / "t.parquet")
    found = read_file(tmp_path / "t.parquet").frame["x"].to_list()
    assert [str(cell) for cell in found] == [str(cell) for cell in expected]
    (block,) = open_table(tmp_path / "t.parquet", ()).blocks()
    assert len(block.rows) == 2
