"""What the user sees of a study while it runs."""

from __future__ import annotations

import io
import re
import sys
import time
from typing import Any

import pytest

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.records import METRIC_NAMES, Outcome
from mlops.tuning.watching import progress as progress_module
from mlops.tuning.watching.ledger import Ledger, Row
from mlops.tuning.watching.progress import Progress, describe, describe_params, duration


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait between lines or redraws."""
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress_module, "DRAW_SECONDS", 0.0)


def row(
    trial: int,
    score: float | None,
    outcome: Outcome | None,
    duplicate_of: int | None = None,
    **params: Any,
) -> Row:
    given = Hyperparameters(**params).to_dict()
    metrics = {} if score is None else dict.fromkeys(METRIC_NAMES, score)
    ended = (outcome, None, score, 3, 50 if outcome else 0)
    return Row(trial, given, duplicate_of, *ended, metrics=metrics)


def ledger(max_evals: int = 20, seconds: float = 10.0, metric: str = "val_accuracy") -> Ledger:
    """A study that has run for a while: two of its trials have ended well, one has failed."""
    table = Ledger(metric, max_evals)
    table.started = time.monotonic() - seconds
    table.add(row(0, 0.8, Outcome.COMPLETED))
    table.add(row(1, 0.9123456, Outcome.COMPLETED, hidden_dims=(128,), activation="gelu"))
    table.add(row(2, None, Outcome.FAILED))
    table.add(row(3, None, None))
    table.epochs = 150
    return table


def shown(stream: io.StringIO) -> str:
    """What is on the screen, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (1, "1 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (60, "1:00 min"),
        (75, "1:15 min"),
        (119.6, "2:00 min"),
        (3599, "59:59 min"),
        (3599.7, "1:00 h"),
        (3600, "1:00 h"),
        (3660, "1:01 h"),
        (86_400 + 120, "24:02 h"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "[64, 32] lr 0.001 batch 32 dropout 0.1 decay 0.0001"),
        (
            {"hidden_dims": (128,), "learning_rate": 0.0031234, "activation": "gelu"},
            "[128] lr 0.0031 batch 32 dropout 0.1 decay 0.0001 gelu",
        ),
        (
            {"dropout": 0, "weight_decay": 0, "batch_size": 1024},
            "[64, 32] lr 0.001 batch 1024 dropout 0 decay 0",
        ),
        (
            {"dropout": 1 / 3, "weight_decay": 3.21e-6, "learning_rate": 10.0},
            "[64, 32] lr 10 batch 32 dropout 0.33 decay 3e-06",
        ),
    ],
)
def test_describe(params: dict[str, Any], expected: str) -> None:
    given = row(7, 0.5, Outcome.COMPLETED, **params)
    assert describe_params(given) == expected
    assert describe(given) == f"trial 7 ({expected})"


def test_plain_lines_when_not_a_terminal(often: None) -> None:
    stream = io.StringIO()
    table = ledger()
    with Progress(table, "tune-1: phoneme, 5,404 rows", stream) as display:
        display.on_step_end()
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert lines[0] == "tune-1: phoneme, 5,404 rows"
    line = r"3/20 trials · best val_accuracy 0\.9123 by trial 1 \(\[128\] lr 0\.001 batch 32 "
    line += (
        r"dropout 0\.1 decay 0\.0001 gelu\) · 1[45] epochs/s · about (57|5\d|1:0\d) (s|min) left"
    )
    assert re.fullmatch(line, lines[1])
    assert len(lines) == 2  # the end has nothing new to say


def test_a_line_is_shown_when_something_has_changed_and_no_more_often(often: None) -> None:
    stream = io.StringIO()
    table = ledger()
    with Progress(table, "study", stream) as display:
        for _ in range(3):
            display.on_step_end()
        assert len(stream.getvalue().splitlines()) == 2
        table.add(row(3, 0.5, Outcome.COMPLETED))
        display.on_step_end()
        assert len(stream.getvalue().splitlines()) == 3
        table.best = table.rows[0]
        display.on_step_end()
        assert len(stream.getvalue().splitlines()) == 4


def test_lines_keep_their_distance() -> None:
    stream = io.StringIO()
    table = ledger()
    with Progress(table, "study", stream) as display:
        for trial in range(4, 14):
            table.add(row(trial, 0.1, Outcome.COMPLETED))
            display.on_step_end()
        assert len(stream.getvalue().splitlines()) <= 2


def test_a_long_line_is_one_line(monkeypatch: pytest.MonkeyPatch, often: None) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    with Progress(ledger(), "a title that is longer than 20 characters", stream) as display:
        display.on_step_end()
    assert len(stream.getvalue().splitlines()) == 2


def test_a_stopped_study_ends_with_what_was_stopped_and_no_time_left(often: None) -> None:
    stream = io.StringIO()
    table = ledger()
    with Progress(table, "study", stream) as display:
        display.on_step_end()
        table.add(row(4, None, Outcome.INTERRUPTED))
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("3/20 trials · best val_accuracy 0.9123")
    assert "1 interrupted" in last
    assert "left" not in last


def test_there_is_no_rate_before_the_first_epoch(often: None) -> None:
    stream = io.StringIO()
    with Progress(Ledger("val_accuracy", 20), "study", stream) as display:
        display.on_step_end()
    assert stream.getvalue().splitlines() == ["study", "0/20 trials"]


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
@pytest.mark.parametrize("title", ["study [final]: t", "study [/b]: t", "study [red]: t", "100%"])
def test_a_title_is_shown_as_it_is(kind: type[io.StringIO], title: str) -> None:
    stream = kind()
    with Progress(ledger(), title, stream):
        pass
    assert title in shown(stream)


def test_a_panel_in_a_terminal(often: None) -> None:
    stream = Terminal()
    table = ledger()
    with Progress(table, "tune-1: phoneme, 5,404 rows", stream) as display:
        display.on_step_end()
        screen = shown(stream)
        assert "tune-1: phoneme, 5,404 rows" in screen
        assert "3/20 trials" in screen
        assert "1 failed" in screen
        assert "epochs/s" in screen
        assert "left" in screen
        table.add(row(3, 0.95, Outcome.PRUNED, hidden_dims=(8,)))
        stream.truncate(0)
        display.on_step_end()
    lines = shown(stream).splitlines()
    head = next(i for i, line in enumerate(lines) if "configuration" in line)
    assert lines[head].split() == ["val_accuracy", "trial", "epoch", "configuration"]
    best = [lines[head + 1 + i].split()[:3] for i in range(3)]
    assert best == [["0.9500", "3", "3"], ["0.9123", "1", "3"], ["0.8000", "0", "3"]]
    assert "[8] lr 0.001 batch 32" in lines[head + 1]
    assert "1 pruned · 1 failed" in shown(stream)


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
@pytest.mark.parametrize("table", [Ledger("val_loss", 3), Ledger("val_accuracy", 1)])
def test_an_empty_study_can_be_shown(kind: type[io.StringIO], table: Ledger, often: None) -> None:
    stream = kind()
    with Progress(table, "study", stream) as display:
        display.on_step_end()
    assert f"0/{table.max_evals} trials" in shown(stream)
    assert "left" not in shown(stream)
    assert "None" not in shown(stream)


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_an_ended_study_has_no_time_left(kind: type[io.StringIO]) -> None:
    stream = kind()
    table = ledger(max_evals=3)
    del table.rows[3]
    with Progress(table, "study", stream):
        pass
    assert "3/3 trials" in shown(stream)
    assert "left" not in shown(stream)


@pytest.mark.parametrize(
    ("ended", "epochs", "seconds", "expected"),
    [
        (5, 250, 10.0, 30.0),  # 15 trials of 50 epochs left, 25 a second
        (10, 500, 10.0, 10.0),
        (10, 750, 10.0, 250 / 75),  # half of what is left is trained already
        (0, 100, 10.0, 0.0),  # nothing has ended: nobody knows how long trials are
        (20, 1000, 10.0, 0.0),
    ],
)
def test_time_left(ended: int, epochs: int, seconds: float, expected: float) -> None:
    table = Ledger("val_accuracy", 20)
    for n in range(20):
        table.add(row(n, 0.5, Outcome.COMPLETED if n < ended else None))
    table.epochs = epochs
    table.started = time.monotonic() - seconds
    left = Progress(table, "study", io.StringIO())._seconds_left()
    assert left == pytest.approx(expected, rel=0.02)


def test_time_left_does_not_wait_for_duplicates() -> None:
    """A duplicate is not trained: it takes no time."""
    table = Ledger("val_accuracy", 20)
    for n in range(10):
        table.add(row(n, 0.5, Outcome.COMPLETED, duplicate_of=None if n < 5 else 0))
    table.epochs = 250
    table.started = time.monotonic() - 10
    left = Progress(table, "study", io.StringIO())._seconds_left()
    # Half of what came was trained, and 10 more are to come: 5 x 50 epochs at 25 a second,
    # or at worst 10 x 50.
    assert 9.5 <= left <= 20.5


def test_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(Ledger("val_accuracy", 1), "study"):
        print("result")
    out, err = capsys.readouterr()
    assert out == "result\n"
    assert err.startswith("study\n")
    assert sys.stderr is not None


def test_the_panel_is_left_on_the_screen_when_the_study_fails() -> None:
    stream = Terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        Progress(ledger(), "study", stream),
    ):
        raise KeyboardInterrupt
    assert stream.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is back
