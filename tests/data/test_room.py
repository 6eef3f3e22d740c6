"""What an encoded table takes, told before it is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops.data import room
from mlops.data.columns.features import FeatureEncoder
from mlops.data.room import check_room, free_memory, widest_columns
from mlops.errors import TableError

ROWS = 2_000


@pytest.fixture(scope="module")
def encoder() -> FeatureEncoder:
    """Of two numbers, a category and forty columns in which nearly every cell differs."""
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=ROWS), "b": rng.normal(size=ROWS)}
    columns["colour"] = rng.choice(["red", "green", "blue"], ROWS)
    columns |= {f"id_{n}": [f"{n}-{i}" for i in rng.permutation(ROWS)] for n in range(40)}
    return FeatureEncoder.fit(pd.DataFrame(columns))


@pytest.mark.parametrize(
    ("share", "outcome"),
    [(0.1, "silence"), (0.24, "silence"), (0.3, "note"), (0.99, "note"), (1.01, "error")],
)
def test_a_large_table_is_told_before_it_is_made(
    encoder: FeatureEncoder, share: float, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = 2 * encoder.width * ROWS * np.dtype(np.float32).itemsize
    free = int(made / share)
    if outcome == "error":
        with pytest.raises(TableError) as caught:
            check_room(encoder, ROWS, free)
        told = str(caught.value)
        assert "must fit the memory, got 2,000 rows of 4,045 features, 64.7 MB in 2 copies" in told
        assert "leave out columns" in told
    else:
        check_room(encoder, ROWS, free)
        told = capsys.readouterr().err
    assert told.count("\n") == (1 if outcome == "note" else 0)
    assert ("`id_0` (101), `id_1` (101), `id_2` (101), 40 more columns" in told) == (
        outcome != "silence"
    )


def test_few_columns_are_all_named() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    assert widest_columns(FeatureEncoder.fit(frame)) == "`b` (2), `a` (1)"


def test_a_container_has_no_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = free_memory()
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    assert free_memory() > 0
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 2500000\ninactive_file 500000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 0.5 * machine
    (tmp_path / "memory.max").write_text("4000000\n")
    assert free_memory() == 1_500_000
    (tmp_path / "memory.max").write_text("2000000\n")
    assert free_memory() == 0
