"""What is read back of a study: its runs, and the calls that may not have been sent."""

from __future__ import annotations

from mlops.nn.records import Outcome
from mlops.tracking.study.record import (
    TrialRecord,
    add_calls,
    of_started_trials,
    without_interruptions,
)

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


def test_a_trial_that_was_interrupted_once_and_has_ended_since_keeps_its_duplicates() -> None:
    interrupted = {**RESULT, "outcome": Outcome.INTERRUPTED.value}
    first = [["start", 0, PARAMS, {}, 1], ["start", 1, PARAMS, {"duplicate_of": "0"}, 1]]
    stopped = [["end", 0, interrupted, {}, 2], ["copy", 1, 0]]
    ended = [["end", 0, RESULT, {}, 3], ["copy", 1, 0]]
    assert without_interruptions([*first, *stopped]) == first
    assert without_interruptions([*first, *stopped, *first, *ended]) == [*first, *first, *ended]


def test_what_is_said_of_a_trial_whose_start_is_lost_is_left_out() -> None:
    of_one = [["start", 1, PARAMS, {}, 1], ["record", [{"trial": 1}], 2], ["end", 1, RESULT, {}, 3]]
    of_both = [["record", [{"trial": 0}, {"trial": 1}], 2], ["file", "best"], ["copy", 0, 1]]
    assert of_started_trials([["end", 0, RESULT, {}, 3], *of_one, *of_both]) == [
        *of_one,
        ["record", [{"trial": 1}], 2],
        ["file", "best"],
    ]
