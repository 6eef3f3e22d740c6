"""What was noticed about a table is told before anything is trained, or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlops.data import table
from mlops.data.notes import Note
from mlops.data.table import Parts
from mlops.errors import TableError
from mlops.settings.sections import DataSettings
from mlops.tuning.study import _load

NOTES = (
    Note("odd_cells", "2 cell(s) are gaps now", "petal", 2, 7, "n. a."),
    Note("leak", "it alone gives the target", "copy", warning=True),
)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table about which there is something to note."""
    load_parts = table.load_parts

    def load(**given: Any) -> Parts:
        return replace(load_parts(**given), notes=NOTES)

    monkeypatch.setattr(table, "load_parts", load)


@pytest.mark.usefixtures("noted")
def test_notes_are_told_warnings_first(capfd: pytest.CaptureFixture[str]) -> None:
    parts = _load(DataSettings(sklearn="iris"), 0)
    assert parts.notes == NOTES
    assert capfd.readouterr().err.splitlines() == [
        "iris: 2 note(s)",
        "  - warning: `copy`: it alone gives the target",
        "  - `petal`: 2 cell(s) are gaps now (first in line 7, 'n. a.')",
    ]


@pytest.mark.usefixtures("noted")
def test_a_strict_study_refuses_what_is_to_be_noted(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TableError) as caught:
        _load(DataSettings(sklearn="iris", strict=True), 0)
    assert caught.value.problems == [f"data.strict: {note}" for note in NOTES]
    assert capfd.readouterr().err == ""


def test_a_table_without_notes_passes_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    assert _load(DataSettings(sklearn="iris", strict=True), 0).notes == ()
    assert capfd.readouterr().err == ""
