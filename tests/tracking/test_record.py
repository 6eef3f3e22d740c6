"""What is read back of a study: its runs, and the calls that may not have been sent."""

from __future__ import annotations

from mlops.nn.records import Outcome
from mlops.tracking.record import TrialRecord, add_calls

PARAMS = {"learning_rate": 0.1}
RESULT = {"trial": 0, "outcome": Outcome.COMPLETED.value, "score": 0.5}


def test_a_run_that_was_made_but_not_filled_is_filled_from_the_calls() -> None:
    """The driver died between the two."""
    trials = {
        0: TrialRecord({}, "run-0", "RUNNING"),
        1: TrialRecord({}, "run-1", "RUNNING"),
        2: TrialRecord({"learning_rate": 0.2}, "run-2", "RUNNING"),
    }
    calls = [
        ["start", 0, PARAMS, {}, 1],
        ["start", 1, PARAMS, {"duplicate_of": "0"}, 1],
        ["start", 2, PARAMS, {}, 1],
        ["end", 0, RESULT, {}, 2],
        ["copy", 1, 0],
    ]
    add_calls(trials, calls)
    assert trials[0] == TrialRecord(PARAMS, "run-0", "RUNNING", None, RESULT)
    assert trials[1] == TrialRecord(PARAMS, "run-1", "RUNNING", 0, RESULT)
    assert trials[2].params == {"learning_rate": 0.2}
