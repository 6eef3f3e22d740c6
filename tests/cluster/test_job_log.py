"""The log of a job, read again and again: each line is shown once, whatever comes between."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops.cluster.job_log import JobLog


def shown(*readings: str | list[str]) -> tuple[str, str]:
    """Returns what is shown of a log read in this way, the last time to its end, and the result."""
    log = JobLog()
    with redirect_stderr(io.StringIO()) as said:
        for reading in readings:
            log.begin_again()
            for piece in reading:
                log.add(piece)
        log.end()
    return said.getvalue(), log.result


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (["a\nb\n"], "a\nb\n"),
        (["a\nb"], "a\nb\n"),
        ([["a", "b", "\nc\n"]], "ab\nc\n"),
        ([""], ""),
        (["a\nb\n", "a\nb\n"], "a\nb\n"),
        (["a\nb", "a\nbc\n"], "a\nbc\n"),  # half a line is none
        (["a\nb\n", "a\nb\nc\n"], "a\nb\nc\n"),
        (["a\nb\n", "", "a\nb\nc\n"], "a\nb\nc\n"),  # a reading that was lost at once
        (["a\nb\nc\n", "a\n", "a\nb\nc\nd\n"], "a\nb\nc\nd\n"),
        (["same\nsame\n", "same\nsame\nsame\n"], "same\nsame\nsame\n"),
        (["\n\n", "\n\n\n"], "\n\n\n"),
        ([["grü", "ße\n"], ["g", "rüße\n", "日本", "\n"]], "grüße\n日本\n"),
        (["a\rb\u2028c\n", "a\rb\u2028c\nd\n"], "a\rb\u2028c\nd\n"),  # only \n ends a line
        # It was cut meanwhile, and has grown again.
        (["a\nb\nc\n", "x\n"], "a\nb\nc\nx\n"),
        (["a\nb\nc\n", "a\nx\ny\nz\n"], "a\nb\nc\nx\ny\nz\n"),
        (["a\nb\nc\n", "x\nb\nc\n", "x\nb\nc\nd\n"], "a\nb\nc\nx\nb\nc\nd\n"),
    ],
)
def test_what_is_shown(readings: list[str | list[str]], expected: str) -> None:
    assert shown(*readings) == (expected, "")


@pytest.mark.parametrize(
    ("text", "expected", "result"),
    [
        ('a\n{"trials": 2}\n', "a\n", '{"trials": 2}'),
        ('a\n{"trials": 2}', "a\n", '{"trials": 2}'),
        ('{"not": "it"}\na\n{"trials": 2}\n', 'a\n{"not": "it"}\n', '{"trials": 2}'),
        ('a\n{"trials": 2}\nof Ray\n', "a\nof Ray\n", '{"trials": 2}'),
    ],
)
def test_the_last_line_of_json_is_the_result(text: str, expected: str, result: str) -> None:
    assert shown(text) == shown(text[: len(text) // 2], [*text]) == (expected, result)


@given(
    lines=st.lists(st.text(st.sampled_from("ab\r ä日"), max_size=4), max_size=12),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    size=st.integers(1, 20),
)
def test_each_line_is_shown_once_however_readings_are_cut(
    lines: list[str], cuts: list[int], size: int
) -> None:
    text = "".join(f"{line}\n" for line in lines)

    def pieces(text: str) -> list[str]:
        return [text[first : first + size] for first in range(0, len(text), size)]

    assert shown(*(pieces(text[:cut]) for cut in cuts), pieces(text)) == (text, "")
