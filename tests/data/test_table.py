"""Loading, checking and splitting tables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from loading import load

from mlops.data.columns.encoders import CategoricalColumn
from mlops.data.dataset import encode, fit_encoder
from mlops.data.sources import RawTable, read_file, read_sklearn
from mlops.data.table import Parts, target_of
from mlops.errors import InputError, TableError
from mlops.settings.wishes import Wish

REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MLOPS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))

needs_real_tables = pytest.mark.skipif(
    not (SHARED / "phoneme.csv").exists(), reason="set MLOPS_SHARED_DATA to the real tables"
)


def small_frame(n_rows: int = 60) -> pd.DataFrame:
    """A sound table: two numeric columns, one of text with a gap, and a target of two classes."""
    row = np.arange(n_rows)
    return pd.DataFrame(
        {
            "age": row % 7,
            "income": np.sin(row) * 1000,
            "town": [None if i % 9 == 0 else ["Köln", "São Paulo"][i % 2] for i in row],
            "target": np.where(row % 3, "no", "yes"),
        }
    )


def with_column(name: str, values: Any) -> pd.DataFrame:
    return small_frame().assign(**{name: values})


def first_cells(column: str, values: list[Any]) -> pd.DataFrame:
    """The sound table with the first cells of a column replaced."""
    frame = small_frame().astype({column: object})
    frame.loc[: len(values) - 1, column] = pd.Series(values, dtype=object)
    return frame


def csv_text(text: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "table.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def csv_of(frame: pd.DataFrame, name: str = "table.csv") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        frame.to_csv(folder / name, index=False)
        return folder / name

    return write


def parquet_of(frame: pd.DataFrame) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        frame.to_parquet(folder / "table.parquet")
        return folder / "table.parquet"

    return write


def folder_named_csv(folder: Path) -> Path:
    (folder / "table.csv").mkdir()
    return folder / "table.csv"


def parquet_with_twin_columns(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table([[1, 2], [3, 4], [0, 1]], names=["a", "a", "target"])
    pyarrow.parquet.write_table(table, folder / "table.parquet")
    return folder / "table.parquet"


@dataclass(frozen=True)
class Bad:
    """A table that cannot be used, and what the error must say, in order."""

    name: str
    write: Callable[[Path], Path]
    says: list[str]
    options: dict[str, Any] = field(default_factory=dict)


N = 60
BAD_TABLES = [
    Bad("missing file", lambda f: f / "absent.csv", ["existing file", "no table in"]),
    Bad("missing folder", lambda f: f / "no" / "absent.csv", ["no folder"]),
    Bad(
        "misspelt file",
        lambda f: csv_of(small_frame())(f).with_name("tabel.csv"),
        ["did you mean `table.csv`?"],
    ),
    Bad("unknown ending", lambda f: f / "table.xls", ["must end in .csv, .tsv, ", "table.xls"]),
    Bad("folder", folder_named_csv, ["must be readable"]),
    Bad("empty file", csv_text(""), ["got an empty file"]),
    Bad("header only", csv_text("a,b,target\n"), ["must have rows, got none"]),
    Bad("a long row", csv_text("a,target\n1,2\n1,2,3,4\n"), ["line 3", "header, 2, got 4"]),
    Bad("a short row", csv_text("a,target\n1,2\n1\n"), ["line 3", "header, 2, got 1"]),
    Bad("cells without a header", csv_text("a,target\n1,2,3\n1,2,3\n"), ["line 2", "got 3"]),
    Bad("an open quote", csv_text('a,target\n1,2\n"1,2\n1,2\n'), ["line 3 must close its quotes"]),
    Bad(
        "an open quote that closes further down",
        csv_text('a,target\n"1,2\n' + "1,2\n" * 9 + '1,2"\n1,2\n'),
        ["line 2 must close its quotes, got a row of 11 lines"],
    ),
    Bad("unnamed column", csv_text(",a,target\n0,1,2\n"), ["must have a name", "index=False"]),
    Bad("twin columns", csv_text("a,a,target\n0,1,2\n"), ["must differ, got twice: 'a'"]),
    Bad("twin columns, Parquet", parquet_with_twin_columns, ["must differ, got twice: 'a'"]),
    Bad(
        "not Parquet",
        lambda f: csv_text("a,target\n1,2\n")(f).rename(f / "table.parquet"),
        ["must be readable"],
    ),
    Bad("no feature", csv_of(small_frame()[["target"]]), ["column besides target `target`"]),
    Bad(
        "unknown target",
        csv_of(small_frame()),
        ["no column is called `incom`", "did you mean `income`?"],
        {"target": "incom"},
    ),
    Bad(
        "far-off target",
        csv_of(small_frame()),
        ["no column is called `xyz`", "'age', 'income', 'town', 'target'"],
        {"target": "xyz"},
    ),
    Bad(
        "target all missing", csv_of(with_column("target", None)), ["a value in some row, got none"]
    ),
    Bad("constant target", csv_of(with_column("target", 3)), ["at least 2 classes, got only 3"]),
    Bad(
        "fewer rows than needed",
        csv_of(small_frame(4)),
        ["must have 3 rows", "'no' (2), 'yes' (2)"],
    ),
    Bad(
        "continuous target",
        csv_of(with_column("target", np.linspace(0, 1, N))),
        ["must hold classes, got 60 distinct numbers"],
    ),
    Bad(
        "counting target",
        csv_of(with_column("target", np.arange(N))),
        ["must hold classes, got 60 distinct numbers"],
    ),
    Bad(
        "infinite target",
        parquet_of(with_column("target", np.where(np.arange(N) % 2, np.inf, 1.0))),
        ["finite labels, got 'inf'"],
    ),
    Bad(
        "lists",
        parquet_of(with_column("tags", [[1, 2]] * N)),
        ["column `tags` must hold one value in a cell", "--data.drop tags"],
    ),
    Bad(
        "several at once",
        parquet_of(small_frame().assign(tags=[[1]] * N, target="yes", names=[["a"]] * N)),
        ["`tags` must hold one value", "`names` must hold one value", "at least 2 classes"],
    ),
]


@pytest.mark.parametrize("bad", BAD_TABLES, ids=lambda bad: bad.name)
def test_every_problem_of_a_table_is_named(bad: Bad, tmp_path: Path) -> None:
    with pytest.raises(TableError) as caught:
        load(path=bad.write(tmp_path), **bad.options)
    message = str(caught.value)
    places = [message.find(words) for words in bad.says]
    assert min(places) >= 0, message
    assert places == sorted(places), message
    assert all("\n" not in problem for problem in caught.value.problems)


BAD_TEST_FILES = [
    Bad("missing", lambda f: f / "absent.csv", ["existing file"]),
    Bad("header only", csv_of(small_frame()[:0], "test.csv"), ["must have rows"]),
    Bad(
        "columns absent",
        csv_of(small_frame().drop(columns=["age", "town"]), "test.csv"),
        ["every column of the training table", "'age', 'town' absent"],
    ),
    Bad(
        "no target",
        csv_of(small_frame().drop(columns="target"), "test.csv"),
        ["no column is called `target`"],
    ),
    Bad(
        "unseen class",
        csv_of(first_cells("target", ["maybe"]), "test.csv"),
        ["classes of the training table, 'no', 'yes', got 'maybe'"],
    ),
    Bad(
        "several at once",
        csv_of(first_cells("target", ["maybe"]).drop(columns="age"), "test.csv"),
        ["'age' absent", "got 'maybe'"],
    ),
]


@pytest.mark.parametrize("bad", BAD_TEST_FILES, ids=lambda bad: bad.name)
def test_every_problem_of_a_test_file_is_named(bad: Bad, tmp_path: Path) -> None:
    training = csv_of(small_frame(), "train.csv")(tmp_path)
    with pytest.raises(TableError) as caught:
        load(path=training, test_path=bad.write(tmp_path))
    message = str(caught.value)
    assert [words for words in bad.says if words not in message] == [], message


def test_a_test_file_is_read_by_the_training_columns_formats(tmp_path: Path) -> None:
    """Its cells alone would be plain numbers, and dates of either order."""
    rows = np.arange(N)
    amounts = [f"{1 + row % 9}.{row:03}" + (",5" if row % 2 else "") for row in rows]
    days = [f"{row % 28 + 1:02}/03/2024" for row in rows]
    clocks = [f"{row % 24}:30" for row in rows]
    frame = small_frame().assign(amount=amounts, day=days, clock=clocks)
    training = csv_of(frame, "train.csv")(tmp_path)
    test = csv_of(frame[(rows % 2 == 0) & (rows % 28 < 12)].assign(clock="3600"), "test.csv")(
        tmp_path
    )
    parts = load(path=training, test_path=test)
    whole, part = parts.train.table, parts.test.table
    chosen = (rows % 2 == 0) & (rows % 28 < 12)
    assert part["amount"].tolist() == whole["amount"][chosen].tolist()
    assert min(part["amount"]) >= 1000
    assert part["day"].tolist() == whole["day"][chosen].tolist()
    assert set(part["clock"]) == {3600.0}


def test_a_column_of_times_is_split_by_as_it_is_wished(tmp_path: Path) -> None:
    days = [f"{row % 12 + 1:02}/{row // 12 + 1:02}/2024" for row in range(N)]
    path = csv_of(with_column("day", days))(tmp_path)
    for wish in ("day_first", "month_first"):
        parts = load(path=path, time="day", columns={"day": wish})
        times = parts.train.table["day"].to_numpy()
        assert times[parts.train.rows].max() <= times[parts.test.rows].min()


def test_problems_of_both_files_are_raised_together(tmp_path: Path) -> None:
    training = parquet_of(small_frame().assign(tags=[[1]] * N))(tmp_path)
    test = csv_of(first_cells("target", ["maybe"]).assign(tags=1), "test.csv")(tmp_path)
    with pytest.raises(TableError) as caught:
        load(path=training, test_path=test)
    tags, maybe = caught.value.problems
    assert "`tags`" in tags
    assert maybe.startswith(f"test file `{test}`: ")


def test_the_target_of_a_table_whose_publisher_names_none_must_be_named() -> None:
    raw = RawTable(small_frame().rename(columns={"target": "label"}), "some", "openml:1")
    with pytest.raises(TableError, match=r"must be named, got no `target`; choose one .*'label'"):
        target_of(raw, None)
    assert target_of(raw, "age") == "age"


def test_a_table_that_there_is_none_of_is_named() -> None:
    with pytest.raises(TableError, match="breast_cancer, digits, iris, wine"):
        read_sklearn("boston")
    with pytest.raises(InputError, match="`n_classes` must be at least 2"):
        load(synthetic={"n_classes": 1})


@pytest.mark.filterwarnings("ignore:A network error occurred:UserWarning")
def test_openml_out_of_reach_is_a_table_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sklearn.datasets import _openml

    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(_openml, "_DATA_INFO", "http://127.0.0.1:9/{}")
    with pytest.raises(TableError, match="OpenML table 1590 must be available"):
        load(openml=1590)


# Labels


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a"], ["a", "b"]),
        (["10", "9"], [9, 10]),
        (["010", "9"], ["010", "9"]),
        ([str(2**65), str(2**65 + 1)], [str(2**65), str(2**65 + 1)]),
        (["ja", "näh"], ["ja", "näh"]),
        ([2, 10], [2, 10]),
        ([True, False], [False, True]),
        ([2.0, 1.0], [1, 2]),
        ([0.5, 1.0], [0.5, 1]),
        ([-1, 1], [-1, 1]),
        (pd.Series([2, 1], dtype="Int64"), [1, 2]),
        (pd.Series([True, False], dtype="boolean"), [False, True]),
        (pd.Series(["b", "a"], dtype="category"), ["a", "b"]),
        (pd.Series(["b", "a"], dtype="category").cat.add_categories("unused"), ["a", "b"]),
    ],
    ids=lambda value: f"{getattr(value, 'dtype', '')}{list(value)}",
)
def test_labels_keep_their_kind(values: Any, classes: list[Any], tmp_path: Path) -> None:
    target = pd.concat([pd.Series(values)] * 10, ignore_index=True)
    path = parquet_of(pd.DataFrame({"x": range(20), "target": target}))(tmp_path)
    parts = load(path=path)
    assert parts.classes == classes
    assert [type(label) for label in parts.classes] == [type(label) for label in classes]
    for part in (parts.train, parts.validation, parts.test):
        found = [parts.classes[code] for code in part.target]
        expected = target[part.frame["x"]].tolist()
        assert [
            label in (value, str(value)) or str(label) == value
            for label, value in zip(found, expected, strict=True)
        ] == [True] * len(found)
        assert part.target.dtype == np.int64


def test_labels_of_several_kinds_become_text(tmp_path: Path) -> None:
    path = csv_text("x,target\n" + "1,a\n2,1\n3,true\n" * 5)(tmp_path)
    assert load(path=path).classes == ["1", "a", "true"]


def test_a_test_file_of_some_labels_is_read_like_the_training_file(tmp_path: Path) -> None:
    training = csv_text("x,target\n" + "1,a\n2,1\n" * 5)(tmp_path)
    test = tmp_path / "test.csv"
    test.write_text("x,target\n5,1\n6,1\n")
    parts = load(path=training, test_path=test)
    assert parts.test.target.tolist() == [0, 0]


def test_many_whole_numbers_may_be_classes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.sin(range(6000)), "target": np.arange(6000) % 60})
    assert len(load(path=parquet_of(frame)(tmp_path)).classes) == 60


def test_many_numbers_are_classes_if_the_user_says_so(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.sin(range(600)), "target": np.arange(600) % 60 / 4})
    path = csv_of(frame)(tmp_path)
    with pytest.raises(TableError, match=re.escape("`data.columns: {target: categorical}`")):
        load(path=path)
    assert len(load(path=path, columns={"target": "categorical"}).classes) == 60


@pytest.mark.parametrize(
    ("wish", "cell", "value"),
    [
        ("day_first", "03/04/2024", np.datetime64("2024-04-03")),
        ("month_first", "03/04/2024", np.datetime64("2024-03-04")),
        ("decimal_comma", "1,234", 1.234),
        ("decimal_point", "1,234", 1234.0),
        ("decimal_comma", "1.234", 1234.0),
        ("decimal_point", "1.234", 1.234),
    ],
)
def test_what_was_guessed_can_be_said(wish: Any, cell: str, value: Any, tmp_path: Path) -> None:
    path = csv_of(with_column("x", [cell, cell.replace("4", "5", 1)] * 30))(tmp_path)
    parts = load(path=path, columns={"x": wish})
    assert value in parts.train.table["x"].to_numpy()
    assert not any(note.warning for note in parts.notes)


# Reading


def test_odd_column_names_survive(tmp_path: Path) -> None:
    names = {"age": "Größe in cm", "income": "a.b", "town": "a", "target": "Ziel ✓"}
    frame = small_frame().rename(columns=names)
    for write in (csv_of, parquet_of):
        parts = load(path=write(frame)(tmp_path), target="Ziel ✓")
        assert list(parts.train.frame) == ["Größe in cm", "a.b", "a"]
        assert parts.target_name == "Ziel ✓"
        assert encode(parts, fit_encoder(parts)).x_train.shape[1] == 5


@pytest.mark.parametrize("cell", ["", "?", " ?", "NA", "None", "null", "nan", "N/A"])
def test_cells_that_count_as_missing(cell: str, tmp_path: Path) -> None:
    path = csv_text(f"n,c,target\n{cell},{cell},0\n" + "1,a,0\n2,b,1\n" * 10)(tmp_path)
    table = load(path=path).train.table
    assert table["n"].dtype == np.float64
    assert table.isna().sum().tolist() == [1, 1]


@pytest.mark.parametrize("write", [csv_of, parquet_of])
def test_of_several_words_for_a_gap_all_but_the_empty_one_are_levels(
    write: Any, tmp_path: Path
) -> None:
    frame = with_column("fence", ["None", "wood", ""] * 20)
    table = load(path=write(frame)(tmp_path)).train.table
    assert set(table["fence"].dropna()) == {"None", "wood"}
    assert table["fence"].isna().sum() > 0


def test_the_index_of_a_parquet_file_is_no_feature(tmp_path: Path) -> None:
    frame = small_frame().sort_values("target")
    parts = load(path=parquet_of(frame)(tmp_path))
    assert list(parts.train.frame) == ["age", "income", "town"]


def test_the_digest_tells_content_and_parts_only(tmp_path: Path) -> None:
    def digest(frame: pd.DataFrame, write: Any = csv_of, **options: Any) -> str:
        return load(path=write(frame)(tmp_path), **options).digest

    frame = small_frame()
    same = digest(frame)
    assert re.fullmatch(r"[0-9a-f]{16}", same)
    assert digest(frame, parquet_of) == same
    assert digest(frame.astype({"age": float, "town": "category"}), parquet_of) == same
    # The parts count: which rows a model was scored on is a matter of them.
    assert digest(frame, split_seed=5) != same
    assert digest(frame, test_fraction=0.3) != same
    changed = [
        frame[::-1],
        frame.rename(columns={"age": "Age"}),
        first_cells("income", [1e-9]),
        first_cells("town", ["Rome"]),
        first_cells("target", ["no"]),
        frame[["income", "age", "town", "target"]],
    ]
    assert len({same, *(digest(other) for other in changed)}) == len(changed) + 1


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("iris", (150, 4), ["setosa", "versicolor", "virginica"]),
        ("wine", (178, 13), ["class_0", "class_1", "class_2"]),
        ("breast_cancer", (569, 30), ["benign", "malignant"]),
        ("digits", (1797, 61), list(range(10))),  # less 3 constant columns
    ],
)
def test_tables_of_scikit_learn(name: str, shape: tuple[int, int], classes: list[Any]) -> None:
    parts = load(sklearn=name)
    assert (parts.name, parts.source) == (name, f"sklearn:{name}")
    assert parts.classes == classes
    assert parts.train.table.shape == shape


def test_a_generated_table() -> None:
    parts = load(synthetic={"n_samples": 200})
    assert parts.name == "synthetic"
    assert parts.source.startswith("synthetic:n_samples=200,n_features=20")
    assert sizes(parts) == pytest.approx([128, 32, 40], abs=15)
    assert sum(sizes(parts)) == 200


# Splitting


def sizes(parts: Parts) -> list[int]:
    return [len(part) for part in (parts.train, parts.validation, parts.test)]


def rows_of(parts: Parts) -> list[set[int]]:
    """The numbers in column `row`, by part."""
    return [set(part.frame["row"]) for part in (parts.train, parts.validation, parts.test)]


def test_the_parts_share_out_all_rows(tmp_path: Path) -> None:
    frame = small_frame(1000).assign(row=np.random.default_rng(0).permutation(1000))
    path = parquet_of(frame)(tmp_path)
    parts = load(path=path)
    assert sizes(parts) == pytest.approx([640, 160, 200], abs=50)
    assert set.union(*rows_of(parts)) == set(range(1000))
    for part in (parts.train, parts.validation, parts.test):
        assert np.mean(part.target) == pytest.approx(1 / 3, abs=0.12)
    for options in ({"split_seed": 4}, {"test_fraction": 0.4}, {"validation_fraction": 0.3}):
        assert rows_of(load(path=path, **options)) != rows_of(parts)


def test_the_same_rows_are_test_rows_in_any_file_and_any_order(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(500)
    frame = small_frame(500).assign(row=numbers, seen=np.arange(500) % 3 > 0)
    parts = load(path=parquet_of(frame)(tmp_path))
    mixed = frame.sample(frac=1, random_state=1)[["seen", "target", "row", "town", "income", "age"]]
    for write in (parquet_of, csv_of):
        assert rows_of(load(path=write(mixed)(tmp_path))) == rows_of(parts)
    longer = pd.concat([frame, small_frame(500).assign(row=numbers + 500, seen=True)])
    grown = rows_of(load(path=csv_of(longer)(tmp_path)))
    assert [{row for row in part if row < 500} for part in grown] == rows_of(parts)


def test_a_test_file_is_the_test_part(tmp_path: Path) -> None:
    training = csv_of(small_frame(100), "train.csv")(tmp_path)
    held_out = small_frame(30)[["target", "town", "income", "age"]].assign(extra=1)
    test = csv_of(held_out, "test.csv")(tmp_path)
    parts = load(path=training, test_path=test)
    assert sizes(parts) == pytest.approx([80, 20, 30], abs=12)
    assert sum(sizes(parts)) == 130
    assert list(parts.test.frame) == list(parts.train.frame)
    assert [parts.classes[code] for code in parts.test.target] == held_out["target"].tolist()
    assert parts.digest != load(path=training).digest


def test_a_column_of_groups_keeps_rows_together_and_is_no_feature(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).permutation(600)
    frame = small_frame(600).assign(row=rows, client=[f"c{row // 3}" for row in rows])
    held_out = csv_of(small_frame(30).assign(row=0), "test.csv")(tmp_path)
    for write in (csv_of, parquet_of):
        parts = load(path=write(frame)(tmp_path), group="client")
        assert list(parts.train.frame) == ["age", "income", "town", "row"]
        for part in rows_of(parts):
            assert {row // 3 * 3 + other for row in part for other in range(3)} == part
        told = {(note.code, note.column, note.wished) for note in parts.notes}
        assert told == {("dropped", "client", True), ("group_split", "client", True)}
        # A test file needs no such column, and new columns move no row.
        beside = load(path=write(frame)(tmp_path), group="client", test_path=held_out)
        assert len(beside.test) == 30
        wider = load(path=write(frame.assign(new=rows % 2))(tmp_path), group="client")
        assert rows_of(wider) == rows_of(parts)


@pytest.mark.parametrize("wish", ["keep", "categorical", "drop"])
def test_a_column_of_groups_is_a_feature_if_it_is_wished(wish: Wish, tmp_path: Path) -> None:
    frame = small_frame(600).assign(client=[f"c{row // 60}" for row in range(600)])
    wishes: dict[str, Wish] = {"cli*": wish}
    parts = load(path=csv_of(frame)(tmp_path), group="client", columns=wishes)
    assert ("client" in parts.train.frame) == (wish != "drop")
    alone = load(path=csv_of(frame)(tmp_path), group="client")
    assert np.array_equal(parts.test.rows, alone.test.rows)


def test_a_column_that_was_the_same_so_far_moves_no_row(tmp_path: Path) -> None:
    """It is no feature, and becomes one when another value comes into it."""
    frame = small_frame(500).assign(row=np.random.default_rng(0).permutation(1000)[:500])
    frame = frame.assign(text="a", number=7.5, empty=None)
    parts = load(path=csv_of(frame)(tmp_path))
    assert list(parts.train.frame) == ["age", "income", "town", "row"]
    more = frame.assign(row=frame["row"] + 1000, text="b", number=np.arange(500) % 3, empty="no")
    grown = load(path=csv_of(pd.concat([frame, more]))(tmp_path))
    assert list(grown.train.frame) == [*parts.train.frame, "text", "number", "empty"]
    assert [{row for row in part if row < 1000} for part in rows_of(grown)] == rows_of(parts)


def test_the_digest_covers_a_column_of_groups(tmp_path: Path) -> None:
    digests = {
        load(
            path=csv_of(small_frame(60).assign(client=np.arange(60) // size))(tmp_path),
            group="client",
        ).digest
        for size in (2, 3, 4)
    }
    assert len(digests) == 3


def test_a_column_of_times_puts_the_latest_rows_last(tmp_path: Path) -> None:
    frame = small_frame(500).assign(row=range(500), year=np.arange(500) // 5)
    mixed = frame.sample(frac=1, random_state=1)
    parts = load(path=csv_of(mixed)(tmp_path), time="year")
    assert rows_of(parts) == [set(range(320)), set(range(320, 400)), set(range(400, 500))]
    assert "year" in parts.train.frame
    beside = load(
        path=csv_of(mixed)(tmp_path), time="year", test_path=csv_of(frame, "test.csv")(tmp_path)
    )
    assert rows_of(beside)[:2] == [set(range(400)), set(range(400, 500))]


BAD_SPLITS = [
    (
        {"group": "ages"},
        "`data.group` must be a column of the table, got `ages`; did you mean `age`",
    ),
    ({"time": "day"}, "`data.time` must be a column of the table, got `day`; choose one of"),
    ({"group": "target"}, "`data.group` must be another column than the target, got `target`"),
    ({"time": "target"}, "`data.time` must be another column than the target"),
    ({"time": "town"}, "`data.time` must name a column of dates or numbers, got `town`"),
    ({"group": "town"}, "`data.group` must leave rows for every part"),
]


@pytest.mark.parametrize(("options", "says"), BAD_SPLITS, ids=[str(bad[0]) for bad in BAD_SPLITS])
def test_a_split_that_cannot_be_made_is_refused(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    frame = small_frame().assign(town=["Köln", "Aix"] * 30)
    with pytest.raises((InputError, TableError)) as caught:
        load(path=csv_of(frame)(tmp_path), **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# Notes


@dataclass(frozen=True)
class Noted:
    """A table that is used, and the notes on it: code, column, cells, line."""

    name: str
    frame: pd.DataFrame
    notes: list[tuple[str, str | None, int | None, int | None]]
    options: dict[str, Any] = field(default_factory=dict)


def spelled_as(text: str) -> pd.DataFrame:
    """A sound table whose incomes are written in another way."""
    frame = small_frame()
    incomes = (frame["income"] * 10).round(2)
    return frame.assign(income=[text.format(income) for income in incomes])


ROWS = np.arange(N)
NOTED = [
    Noted("nothing odd", small_frame(), []),
    Noted(
        "no target",
        first_cells("target", ["no", None, ""]),
        [("no_target", "target", 2, 3)],
    ),
    Noted("a rare class", first_cells("target", ["x", "x"]), [("rare_classes", "target", 2, None)]),
    Noted("an empty column", with_column("void", None), [("empty_column", "void", None, None)]),
    Noted("a constant column", with_column("one", 1), [("constant_column", "one", None, None)]),
    Noted("a row number", with_column("row", ROWS + 7), [("row_number", "row", None, None)]),
    Noted(
        "an identifier",
        with_column("id", [f"P{i:03}" for i in ROWS]),
        [("identifier", "id", None, None)],
    ),
    Noted(
        "an identifier that is kept",
        with_column("id", [f"P{i:03}" for i in ROWS]),
        [],
        {"columns": {"i*": "keep"}},
    ),
    Noted(
        "free text",
        with_column("said", [f"a sentence that is long enough, and the {i}th" for i in ROWS]),
        [("free_text", "said", None, None)],
    ),
    Noted("a wish", small_frame(), [("dropped", "age", None, None)], {"columns": {"age": "drop"}}),
    Noted(
        "the target again",
        small_frame().assign(copy=lambda frame: frame["target"].str.upper()),
        [("gives_away", "copy", N, None)],
    ),
    Noted(
        "the target as a number",
        small_frame().assign(copy=lambda f: (f["target"] == "yes") * 10 + np.cos(ROWS)),
        [("gives_away", "copy", N, None)],
    ),
    Noted(
        "equal rows",
        pd.concat([small_frame(), small_frame()[:5]], ignore_index=True),
        [("equal_rows", None, 5, None)],
    ),
    Noted(
        "numbers of another scale",
        with_column("far", np.where(ROWS % 10 == 5, -9999.0, np.cos(ROWS))),
        [("extreme_numbers", "far", 6, None)],
    ),
    Noted("an odd cell", first_cells("income", [1.5, "-"]), [("odd_cells", "income", 1, 3)]),
    Noted("an infinite cell", first_cells("income", [np.inf]), [("odd_cells", "income", 1, 2)]),
    Noted("grouped digits", spelled_as("{:,.2f}"), [("number_format", "income", None, None)]),
    Noted("euros", spelled_as("{} €"), [("number_format", "income", None, None)]),
    Noted("a unit", spelled_as("{}kg"), [("number_format", "income", None, None)]),
    Noted(
        "a word as a class",
        small_frame().assign(target=np.where(ROWS % 3, "None", "yes")),
        [("gap_word_class", "target", 40, None)],
    ),
    Noted(
        "blanks around labels",
        small_frame().assign(target=[f"l{i % 2}{' ' * (i % 3 // 2)}" for i in ROWS]),
        [("labels_joined", "target", None, None)],
    ),
]


@pytest.mark.parametrize("noted", NOTED, ids=lambda noted: noted.name)
@pytest.mark.parametrize("write", [csv_of, parquet_of])
def test_what_is_odd_about_a_table_is_noted(noted: Noted, write: Any, tmp_path: Path) -> None:
    frame = noted.frame
    if write is parquet_of:
        odd = [name for name in frame if frame[name].map(type).nunique() > 1]
        frame = frame.assign(**{name: frame[name].astype("str") for name in odd})
    parts = load(path=write(frame)(tmp_path), **noted.options)
    found = [(note.code, note.column, note.cells, note.line) for note in parts.notes]
    lines = noted.notes if write is csv_of else [(*note[:3], None) for note in noted.notes]
    assert found == lines
    assert np.isfinite(encode(parts, fit_encoder(parts)).x_train).all()


def test_a_test_file_that_repeats_training_rows_is_a_warning(tmp_path: Path) -> None:
    training = csv_of(small_frame(100), "train.csv")(tmp_path)
    test = parquet_of(pd.concat([small_frame(100)[:7], small_frame(130)[100:]]))(tmp_path)
    parts = load(path=training, test_path=test)
    found = [(note.code, note.cells, note.warning) for note in parts.notes]
    assert found == [("test_repeats", 7, True)]


# Real tables


@needs_real_tables
@pytest.mark.parametrize(
    ("file", "target", "classes", "width"),
    [
        ("phoneme.csv", "nasal", [0, 1], 5),
        ("credit_g.csv", "class", ["bad", "good"], 61),
        ("pima_diabetes.csv", "diabetes", [0, 1], 8),
        ("bank_marketing.csv", "deposit", ["no", "yes"], 51),
    ],
)
def test_real_tables(file: str, target: str, classes: list[Any], width: int) -> None:
    parts = load(path=SHARED / file, target=target)
    assert parts.classes == classes
    dataset = encode(parts, fit_encoder(parts))
    assert dataset.x_train.shape == (len(parts.train), width)
    assert np.isfinite(dataset.x_val).all()


@needs_real_tables
def test_adult_with_its_official_test_file() -> None:
    parts = load(
        path=SHARED / "adult_train.csv", test_path=SHARED / "adult_test.csv", target="income"
    )
    assert sizes(parts) == pytest.approx([26049, 6512, 16281], abs=300)
    assert len(parts.train) + len(parts.validation) == 32561
    assert parts.classes == ["<=50K", ">50K"]
    assert parts.train.table["workclass"].isna().sum() == 1836
    encoder = fit_encoder(parts)
    workclass = encoder.columns[1]
    assert isinstance(workclass, CategoricalColumn)
    assert (workclass.name, workclass.missing) == ("workclass", True)
    assert "?" not in workclass.levels
    assert np.isfinite(encoder.transform(parts.test.frame)).all()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_line_longer_than_a_cell_may_be_is_read(suffix: str, tmp_path: Path) -> None:
    """The names of a wide table, taken for one cell: for Python's csv it is too long."""
    names = [f"{'x' * 95}{i:05d}" for i in range(1500)]
    frame = pd.DataFrame(np.zeros((3, len(names)), dtype=np.int64), columns=names)
    path = tmp_path / f"wide.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    assert list(read_file(path).frame) == names
