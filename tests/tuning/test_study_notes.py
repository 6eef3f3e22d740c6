"""What was noticed about a table is told before anything is trained, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops.data.notes import to_json
from mlops.errors import TableError
from mlops.settings.sections import DataSettings
from mlops.tuning.preparation import load_table


@pytest.fixture
def noted(tmp_path: Path) -> DataSettings:
    """A table with a column of one value, and an odd cell in another."""
    numbers = np.random.default_rng(0).normal(size=600).round(3).astype(str)
    numbers[20] = "n. a. (secret)"
    frame = pd.DataFrame({"x": numbers, "same": "a", "y": ["no", "yes", "no"] * 200})
    frame["z"] = np.random.default_rng(1).normal(size=600).round(9)
    frame.to_csv(tmp_path / "t.csv", index=False)
    return DataSettings(path=str(tmp_path / "t.csv"), target="y")


def test_notes_are_told_with_their_cells_and_kept_without(
    noted: DataSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = load_table(noted)
    assert {(note.code, note.column) for note in parts.notes} == {
        ("constant_column", "same"),
        ("odd_cells", "x"),
    }
    title, *lines = capfd.readouterr().err.splitlines()
    assert title == "t: 2 note(s)"
    assert sorted(lines) == sorted(f"  - {note}" for note in parts.notes)
    assert any("secret" in line for line in lines)
    assert "secret" not in str(to_json(parts.notes))


def test_a_strict_study_refuses_what_is_to_be_noted(
    noted: DataSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    notes = load_table(noted).notes
    capfd.readouterr()
    with pytest.raises(TableError) as caught:
        load_table(noted.model_copy(update={"strict": True}))
    assert caught.value.problems == [f"data.strict: {note}" for note in notes]
    assert capfd.readouterr().err == ""


def test_what_is_wished_is_no_reason_to_refuse(noted: DataSettings) -> None:
    strict = {"strict": True, "drop": ["x"]}
    with pytest.raises(TableError) as caught:
        load_table(noted.model_copy(update=strict))
    [problem] = caught.value.problems
    assert problem.startswith("data.strict: `same`: ")
    strict["drop"] = ["same", "x"]
    parts = load_table(noted.model_copy(update=strict))
    assert [(note.code, note.column) for note in parts.notes] == [
        ("dropped", "x"),
        ("dropped", "same"),
    ]


def test_a_table_without_notes_passes_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    assert load_table(DataSettings(sklearn="iris", strict=True)).notes == ()
    assert capfd.readouterr().err == ""
