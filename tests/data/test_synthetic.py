"""Generated tables, and writing tables to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.data.synthetic import SyntheticSpec, check_output, make_table, write_table
from mlops.errors import InputError, TableError


def test_the_default_table() -> None:
    table = make_table(SyntheticSpec())
    assert table.shape == (1000, 21)
    assert list(table) == [*(f"feature_{i}" for i in range(20)), "target"]
    assert set(table.dtypes[:-1]) == {np.dtype("float32")}
    assert table["target"].dtype == np.int64
    assert sorted(table["target"].unique()) == [0, 1]


def test_the_same_specification_gives_the_same_table() -> None:
    table = make_table(SyntheticSpec(n_samples=50))
    pd.testing.assert_frame_equal(table, make_table(SyntheticSpec(n_samples=50)))
    assert not table.equals(make_table(SyntheticSpec(n_samples=50, seed=1)))


def test_rows_and_columns_are_shuffled() -> None:
    table = make_table(SyntheticSpec(n_samples=5000, n_classes=3, label_noise=0.0))
    assert len(set(table["target"][:50])) == 3
    assert len(set(table["target"][-50:])) == 3


def test_the_classes_can_be_told_apart() -> None:
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

    spec = SyntheticSpec(n_samples=2000, informative=0.3, label_noise=0.0, class_separation=3.0)
    table = make_table(spec)
    features, target = table.drop(columns="target"), table["target"]
    model = QuadraticDiscriminantAnalysis(reg_param=0.1).fit(features[:1500], target[:1500])
    assert model.score(features[1500:], target[1500:]) > 0.8


def test_class_balance_and_label_noise_are_met() -> None:
    balance = [0.7, 0.2, 0.1]
    spec = SyntheticSpec(n_samples=5000, n_classes=3, class_balance=balance, label_noise=0.0)
    shares = make_table(spec)["target"].value_counts(normalize=True).sort_index()
    assert shares.to_list() == pytest.approx(balance, abs=0.001)
    noisy = SyntheticSpec(n_samples=5000, n_classes=2, class_balance=[0.9, 0.1], label_noise=1.0)
    assert make_table(noisy)["target"].mean() == pytest.approx(0.5, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(
    n_features=st.integers(1, 12),
    n_classes=st.integers(2, 8),
    informative=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_specification_is_met_or_refused(
    n_features: int, n_classes: int, informative: float, seed: int
) -> None:
    spec = SyntheticSpec(80, n_features, n_classes, informative, seed=seed)
    if n_classes > 2**spec.n_informative:
        with pytest.raises(InputError, match="`n_classes` must be at most 2 to the number"):
            make_table(spec)
    else:
        table = make_table(spec)
        assert table.shape == (80, n_features + 1)
        assert np.isfinite(table.to_numpy()).all()


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"n_samples": 0}, "`n_samples` must be at least 1, got 0"),
        ({"n_features": 0}, "`n_features` must be at least 1, got 0"),
        ({"n_classes": 1}, "`n_classes` must be at least 2, got 1"),
        ({"informative": 0.0}, "`informative` is a share"),
        ({"informative": 1.1}, "`informative` is a share"),
        ({"informative": float("nan")}, "`informative` is a share"),
        ({"label_noise": -0.1}, "`label_noise` is a share"),
        ({"class_separation": -1.0}, "`class_separation` must be at least 0"),
        ({"class_separation": float("inf")}, "`class_separation` must be at least 0"),
        ({"seed": -1}, "`seed` must be from 0"),
        ({"n_classes": 5, "n_features": 4}, "make 3 features informative"),
        ({"class_balance": [0.5, 0.4]}, "add up to 1, got [0.5, 0.4] (sum 0.9)"),
        ({"class_balance": [1.0]}, "must be 2 shares"),
        ({"class_balance": [1.0, 0.0]}, "must be 2 shares above 0"),
        ({"n_samples": 8}, "`n_samples` must be at least 10"),
        ({"n_samples": 100, "class_balance": [0.99, 0.01]}, "`n_samples` must be at least 500"),
    ],
)
def test_bad_specifications_are_refused(settings_: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        make_table(SyntheticSpec(**settings_))
    assert says in str(caught.value)


def test_all_problems_of_a_specification_are_named() -> None:
    with pytest.raises(InputError) as caught:
        make_table(SyntheticSpec(n_samples=0, n_features=0, label_noise=2.0))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".CSV"])
def test_a_written_table_is_read_back(ending: str, tmp_path: Path) -> None:
    table = make_table(SyntheticSpec(n_samples=20))
    path = tmp_path / "new folder" / f"table{ending}"
    write_table(table, path)
    back = pd.read_parquet(path) if ending == ".parquet" else pd.read_csv(path)
    pd.testing.assert_frame_equal(back.astype(table.dtypes), table)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_table(pd.DataFrame({"a": [1]}), path)
    with pytest.raises(Exception, match="complex"):
        write_table(pd.DataFrame({"a": [1j]}), path)
    assert pd.read_parquet(path)["a"].tolist() == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]})
    with pytest.raises(TableError, match=r"must end in \.csv or \.parquet, got .*table\.txt"):
        write_table(frame, tmp_path / "table.txt")
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match="must be writable, got"):
        write_table(frame, tmp_path / "file" / "table.csv")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("theirs", "is_generated"),
    [
        (pd.DataFrame({"a": [1], "target": [0]}), False),
        (pd.DataFrame({"target": [0]}), False),
        (pd.DataFrame({"feature_0": [1.5], "target": [0], "note": ["mine"]}), False),
        (pd.DataFrame({"feature_0": [1.5], "feature_1": [1.5], "target": [0]}), True),
    ],
)
def test_only_a_generated_table_is_replaced_unasked(
    ending: str, theirs: pd.DataFrame, is_generated: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"table.{ending}"
    check_output(str(path), overwrite=False)
    write_table(theirs, path)
    check_output(str(path), overwrite=True)
    if is_generated:
        check_output(str(path), overwrite=False)
    else:
        with pytest.raises(TableError, match=r"output must be a new file .*; .* say --overwrite"):
            check_output(str(path), overwrite=False)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"PAR1", b"a thesis"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_is_no_table_is_not_replaced_unasked(
    content: bytes, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"table.{ending}"
    path.write_bytes(content)
    with pytest.raises(TableError, match="output must be a new file"):
        check_output(str(path), overwrite=False)
    (tmp_path / f"folder.{ending}").mkdir()
    with pytest.raises(TableError, match="output must be a new file"):
        check_output(str(tmp_path / f"folder.{ending}"), overwrite=False)
