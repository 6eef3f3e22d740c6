"""What a study that goes on must have kept: what its trials and its parts depend on."""

from __future__ import annotations

from typing import Any

import pytest

from mlops.errors import InputError
from mlops.settings.study import TuneSettings
from mlops.tracking.study.record import StudyRecord
from mlops.tuning.resuming import check_same

DATA = {"path": "table.csv", "target": "label"}


def settings(**given: Any) -> dict[str, Any]:
    return TuneSettings(**{"data": DATA, **given}).model_dump()


def record(**given: Any) -> StudyRecord:
    packing = {"pack_size": 2, "packs_in_flight": 2}
    return StudyRecord("one", "0", settings(**given), "d", packing, [20])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"seed": 3}, "seed"),
        ({"data": {**DATA, "split_seed": 1}}, "data.split_seed"),
        ({"data": {**DATA, "group": "client"}}, "data.group"),
        ({"data": {**DATA, "time": "day"}}, "data.time"),
        ({"data": {**DATA, "validation_fraction": 0.2}}, "data.validation_fraction"),
        ({"data": {**DATA, "test_fraction": 0.3}}, "data.test_fraction"),
        ({"resources": {"precision": "bf16"}}, "resources.precision"),
    ],
)
def test_what_makes_other_trials_or_other_parts_is_refused(given: Any, name: str) -> None:
    for before, now in ((record(), settings(**given)), (record(**given), settings())):
        with pytest.raises(InputError) as told:
            check_same(before, now, 20)
        (problem,) = told.value.problems
        assert problem.startswith(f"{name}: must be what it was to resume `one`, got ")


def test_what_makes_the_same_trials_may_change() -> None:
    check_same(record(), settings(resources={"workers": 1}, max_failures=0), 30)
    # A table may lie elsewhere: its content is compared.
    check_same(record(), settings(data={**DATA, "path": "moved.csv"}), 20)
