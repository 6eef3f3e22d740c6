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

from mlops.data.dataset import encode, fit_encoder
from mlops.data.encoders import CategoricalColumn
from mlops.data.split import stratified_split
from mlops.data.synthetic import SyntheticSpec
from mlops.data.table import load_parts
from mlops.errors import InputError, TableError

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
    Bad("unknown ending", lambda f: f / "table.xls", ["must end in .csv, .tsv", "xls"]),
    Bad("folder", folder_named_csv, ["must be readable"]),
    Bad("empty file", csv_text(""), ["got an empty file"]),
    Bad("header only", csv_text("a,b,target\n"), ["must have rows, got none"]),
    Bad("not UTF-8", csv_text(b"a,target\n\xff\xfe,1\n"), ["UTF-8", "byte"]),
    Bad("ragged rows", csv_text("a,target\n1,2\n1,2,3,4\n"), ["must be readable", "line 3"]),
    Bad("cells without a header", csv_text("a,target\n1,2,3\n1,2,3\n"), ["header, 2, got more"]),
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
        "semicolons",
        csv_text("a;target\n1;2\n"),
        ["separated by commas, got semicolons", "sep=';'"],
    ),
    Bad("tabs", csv_text("a\ttarget\n1\t2\n"), ["separated by commas, got tabs", "'\\t'"]),
    Bad("other separator", csv_text("a|target\n1|2\n"), ["must be named", "'a|target'"]),
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
        "no target named",
        csv_of(small_frame().rename(columns={"target": "label"})),
        ["must be named", "'label'"],
    ),
    Bad(
        "missing targets",
        csv_of(first_cells("target", [None, None])),
        ["value in every row, got none in 2 of 60 rows"],
    ),
    Bad("target all missing", csv_of(with_column("target", None)), ["got none in every row"]),
    Bad("constant target", csv_of(with_column("target", 3)), ["at least 2 classes, got only 3"]),
    Bad(
        "class of one row",
        csv_of(first_cells("target", ["maybe"])),
        ["must have at least 3 rows", "'maybe' (1)"],
    ),
    Bad(
        "class of two rows",
        csv_of(first_cells("target", ["maybe", "maybe"])),
        ["must have at least 3 rows", "'maybe' (2)"],
    ),
    Bad(
        "fewer rows than needed",
        csv_of(small_frame(4)),
        ["at least 3 rows", "'no' (2), 'yes' (2)"],
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
        ["finite labels, got inf"],
    ),
    Bad(
        "all-missing column",
        csv_of(with_column("void", None)),
        ["column `void` must have a value", "drop the column"],
    ),
    Bad(
        "column missing in the training part",
        csv_of(first_cells("target", ["no"]).assign(void=[7.0] + [None] * (N - 1))),
        ["column `void` must have a value in some training row"],
        {"seed": 10},
    ),
    Bad(
        "infinite cells",
        csv_of(with_column("income", np.where(np.arange(N) < 3, np.inf, 1.0))),
        ["column `income` must hold finite numbers, got 3 infinite"],
    ),
    Bad(
        "dates",
        parquet_of(with_column("day", pd.date_range("2020-01-01", periods=N))),
        ["column `day` must hold numbers, text or booleans, got datetime64", "year"],
    ),
    Bad(
        "lists",
        parquet_of(with_column("tags", [[1, 2]] * N)),
        ["column `tags` must hold numbers, text or booleans"],
    ),
    Bad(
        "several at once",
        csv_of(small_frame().assign(void=None, target="yes", income=np.inf)),
        ["`income` must hold finite", "`void` must have a value", "at least 2 classes"],
    ),
]


@pytest.mark.parametrize("bad", BAD_TABLES, ids=lambda bad: bad.name)
def test_every_problem_of_a_table_is_named(bad: Bad, tmp_path: Path) -> None:
    with pytest.raises(TableError) as caught:
        load_parts(path=bad.write(tmp_path), **bad.options)
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
        "missing target",
        csv_of(first_cells("target", [None]), "test.csv"),
        ["value in every row, got none in 1 of 60 rows"],
    ),
    Bad(
        "text among numbers",
        csv_of(first_cells("age", ["old", "young"]), "test.csv"),
        ["column `age` must hold numbers, got 'old', 'young'"],
    ),
    Bad(
        "infinite cells",
        csv_of(first_cells("income", [np.inf]), "test.csv"),
        ["column `income` must hold finite numbers"],
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
        load_parts(path=training, test_path=bad.write(tmp_path))
    message = str(caught.value)
    assert [words for words in bad.says if words not in message] == [], message


def test_problems_of_both_files_are_raised_together(tmp_path: Path) -> None:
    training = csv_of(small_frame().assign(void=None), "train.csv")(tmp_path)
    test = csv_of(first_cells("target", ["maybe"]).assign(void=1), "test.csv")(tmp_path)
    with pytest.raises(TableError) as caught:
        load_parts(path=training, test_path=test)
    void, maybe = caught.value.problems
    assert "`void`" in void
    assert maybe.startswith(f"test file `{test}`: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "one source"),
        ({"path": "a.csv", "sklearn": "iris"}, "one source"),
        ({"sklearn": "iris", "test_fraction": 0.0}, "`test_fraction` must be above 0"),
        ({"sklearn": "iris", "validation_fraction": 1.5}, "`validation_fraction` must be"),
        ({"sklearn": "iris", "validation_fraction": 0.5, "test_fraction": 0.5}, "sum of 1"),
        ({"sklearn": "boston"}, "breast_cancer, digits, iris, wine"),
        ({"synthetic": SyntheticSpec(n_classes=1)}, "`n_classes` must be at least 2"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        load_parts(**arguments)


@pytest.mark.filterwarnings("ignore:A network error occurred:UserWarning")
def test_openml_out_of_reach_is_a_table_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sklearn.datasets import _openml

    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(_openml, "_DATA_INFO", "http://127.0.0.1:9/{}")
    with pytest.raises(TableError, match="OpenML table 1590 must be available"):
        load_parts(openml=1590)


# Labels


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a"], ["a", "b"]),
        (["10", "9"], ["10", "9"]),
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
    parts = load_parts(path=path)
    assert parts.classes == classes
    assert [type(label) for label in parts.classes] == [type(label) for label in classes]
    for part in (parts.train, parts.validation, parts.test):
        expected = target[part.frame["x"]].tolist()
        assert [parts.classes[code] for code in part.target] == expected
        assert part.target.dtype == np.int64


def test_labels_of_several_kinds_become_text(tmp_path: Path) -> None:
    path = csv_text("x,target\n" + "1,a\n2,1\n3,true\n" * 5)(tmp_path)
    assert load_parts(path=path).classes == ["1", "a", "true"]


def test_a_test_file_of_some_labels_is_read_like_the_training_file(tmp_path: Path) -> None:
    training = csv_text("x,target\n" + "1,a\n2,1\n" * 5)(tmp_path)
    test = tmp_path / "test.csv"
    test.write_text("x,target\n5,1\n6,1\n")
    parts = load_parts(path=training, test_path=test)
    assert parts.test.target.tolist() == [0, 0]


def test_many_whole_numbers_may_be_classes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": range(6000), "target": np.arange(6000) % 60})
    assert len(load_parts(path=parquet_of(frame)(tmp_path)).classes) == 60


# Reading


def test_odd_column_names_survive(tmp_path: Path) -> None:
    names = {"age": "Größe in cm", "income": "a.b", "town": "a", "target": "Ziel ✓"}
    frame = small_frame().rename(columns=names)
    for write in (csv_of, parquet_of):
        parts = load_parts(path=write(frame)(tmp_path), target="Ziel ✓")
        assert list(parts.train.frame) == ["Größe in cm", "a.b", "a"]
        assert parts.target_name == "Ziel ✓"
        assert encode(parts, fit_encoder(parts)).x_train.shape[1] == 5


@pytest.mark.parametrize("cell", ["", "?", " ?", "NA", "None", "null", "nan", "N/A"])
def test_cells_that_count_as_missing(cell: str, tmp_path: Path) -> None:
    path = csv_text(f"n,c,target\n{cell},{cell},0\n" + "1,a,0\n2,b,1\n" * 10)(tmp_path)
    table = load_parts(path=path).train.table
    assert table["n"].dtype == np.float64
    assert table.isna().sum().tolist() == [1, 1]


def test_none_is_a_category_in_parquet(tmp_path: Path) -> None:
    frame = with_column("fence", ["None", "wood", ""] * 20)
    table = load_parts(path=parquet_of(frame)(tmp_path)).train.table
    assert set(table["fence"]) == {"None", "wood", ""}


def test_the_index_of_a_parquet_file_is_no_feature(tmp_path: Path) -> None:
    frame = small_frame().sort_values("target")
    parts = load_parts(path=parquet_of(frame)(tmp_path))
    assert list(parts.train.frame) == ["age", "income", "town"]


def test_the_digest_tells_content_only(tmp_path: Path) -> None:
    def digest(frame: pd.DataFrame, write: Any = csv_of, **options: Any) -> str:
        return load_parts(path=write(frame)(tmp_path), **options).digest

    frame = small_frame()
    same = digest(frame)
    assert re.fullmatch(r"[0-9a-f]{16}", same)
    assert digest(frame, parquet_of) == same
    assert digest(frame.astype({"age": float, "town": "category"}), parquet_of) == same
    assert digest(frame, seed=5) == same
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
        ("digits", (1797, 64), list(range(10))),
    ],
)
def test_tables_of_scikit_learn(name: str, shape: tuple[int, int], classes: list[Any]) -> None:
    parts = load_parts(sklearn=name)
    assert (parts.name, parts.source) == (name, f"sklearn:{name}")
    assert parts.classes == classes
    assert parts.train.table.shape == shape


def test_a_generated_table() -> None:
    parts = load_parts(synthetic=SyntheticSpec(n_samples=200))
    assert parts.name == "synthetic"
    assert parts.source.startswith("synthetic:n_samples=200,n_features=20")
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [128, 32, 40]


# Splitting


def test_the_parts_share_out_all_rows(tmp_path: Path) -> None:
    frame = small_frame(1000).assign(row=range(1000))
    path = parquet_of(frame)(tmp_path)
    parts = load_parts(path=path, seed=3)
    rows = [set(part.frame["row"]) for part in (parts.train, parts.validation, parts.test)]
    assert [len(part) for part in rows] == [640, 160, 200]
    assert set.union(*rows) == set(range(1000))
    for part in (parts.train, parts.validation, parts.test):
        assert np.mean(part.target) == pytest.approx(1 / 3, abs=0.01)
    again = load_parts(path=path, seed=3)
    other = load_parts(path=path, seed=4)
    assert np.array_equal(parts.test.rows, again.test.rows)
    assert not np.array_equal(parts.test.rows, other.test.rows)


def test_a_test_file_is_the_test_part(tmp_path: Path) -> None:
    training = csv_of(small_frame(100), "train.csv")(tmp_path)
    held_out = small_frame(30)[["target", "town", "income", "age"]].assign(extra=1)
    test = csv_of(held_out, "test.csv")(tmp_path)
    parts = load_parts(path=training, test_path=test)
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [80, 20, 30]
    assert list(parts.test.frame) == list(parts.train.frame)
    assert [parts.classes[code] for code in parts.test.target] == held_out["target"].tolist()
    assert parts.digest != load_parts(path=training).digest


@pytest.mark.parametrize("fractions", [[0.16, 0.2], [0.2], [0.45, 0.45], [0.01, 0.01], [0.1] * 5])
def test_every_class_is_in_every_part(fractions: list[float]) -> None:
    fewest = len(fractions) + 1
    codes = np.repeat(np.arange(12), np.arange(fewest, fewest + 12))
    np.random.default_rng(0).shuffle(codes)
    parts = stratified_split(codes, fractions, seed=1)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(codes)))
    for part in parts:
        assert set(codes[part]) == set(range(12))
        assert np.array_equal(part, np.sort(part))


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
    parts = load_parts(path=SHARED / file, target=target)
    assert parts.classes == classes
    dataset = encode(parts, fit_encoder(parts))
    assert dataset.x_train.shape == (len(parts.train), width)
    assert np.isfinite(dataset.x_val).all()


@needs_real_tables
def test_adult_with_its_official_test_file() -> None:
    parts = load_parts(
        path=SHARED / "adult_train.csv", test_path=SHARED / "adult_test.csv", target="income"
    )
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [26049, 6512, 16281]
    assert parts.classes == ["<=50K", ">50K"]
    assert parts.train.table["workclass"].isna().sum() == 1836
    encoder = fit_encoder(parts)
    workclass = encoder.columns[1]
    assert isinstance(workclass, CategoricalColumn)
    assert (workclass.name, workclass.missing) == ("workclass", True)
    assert "?" not in workclass.levels
    assert np.isfinite(encoder.transform(parts.test.frame)).all()
