"""The spellings of levels: which text is which level, and which texts are one."""

from __future__ import annotations

import unicodedata

import pytest

from mlops.data.cells.levels import GAP, UNKNOWN, Levels, joined
from mlops.data.cells.spelling import meant_names

NFD = unicodedata.normalize("NFD", "Nîmes")


@pytest.mark.parametrize(
    ("levels", "text", "place"),
    [
        (["01", "02", "1A"], "01", 0),
        (["01", "02", "1A"], "1", 0),
        (["01", "02", "1A"], "2.0", 1),
        (["01", "02", "1A"], "1a", UNKNOWN),
        (["01", "02", "1A"], "3", UNKNOWN),
        (["01", "1"], "01", 0),
        (["01", "1"], "1", 1),
        (["01", "1"], "1.0", UNKNOWN),  # fits two
        (["01", "1"], "001", UNKNOWN),
        (["4.0", "6.0", "rotary"], "4", 0),
        (["4.0", "6.0", "rotary"], " 6.00 ", 1),
        (["4.0", "6.0", "rotary"], "4e0", 0),
        (["1.1", "1.10"], "1.1", 0),
        (["1.1", "1.10"], "1.100", UNKNOWN),
        (["False", "True"], "TRUE", 1),
        (["False", "True"], "true", 1),
        (["False", "True"], "1", 1),
        (["False", "True"], "0.0", 0),
        (["False", "True"], "2", UNKNOWN),
        (["False", "True"], "yes", UNKNOWN),
        (["FALSE", "TRUE", "UNK"], "true", 1),
        (["FALSE", "TRUE", "UNK"], "unk", UNKNOWN),
        (["1", "FALSE", "TRUE"], "1", 0),
        (["0", "1"], "true", 1),
        (["0", "1"], "FALSE", 0),
        (["0", "1", "2"], "true", UNKNOWN),
        (["Nîmes"], NFD, 0),
        (["Nîmes"], "\u00a0Nîmes ", 0),
        (["a"], "", GAP),
        (["a"], " ? ", GAP),
        (["a"], "NA", GAP),
        (["a"], "None", GAP),
        (["None", "a"], "None", 0),
        (["None", "a"], "NA", GAP),
        ([str(2**53), str(2**53 + 1)], str(2**53 + 1), 1),
        ([str(2**53)], str(2**53 + 1), UNKNOWN),
        (["1e5"], "100000", 0),
        (["x"], "9" * 10_000, UNKNOWN),
        (["x"], "1e999999999", UNKNOWN),
    ],
)
def test_a_text_is_the_level_that_it_spells(levels: list[str], text: str, place: int) -> None:
    assert Levels(levels).place(text) == place


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": 2, " a": 1, "a ": 1}, {"a": "a", " a": "a", "a ": "a"}),
        ({"Nîmes": 1, NFD: 3}, {"Nîmes": "Nîmes", NFD: "Nîmes"}),
        ({"TRUE": 3, "true": 1, "UNK": 1}, {"TRUE": "TRUE", "true": "TRUE", "UNK": "UNK"}),
        ({"01": 1, "1": 1}, {"01": "01", "1": "1"}),
        ({"4": 1, "4.0": 1}, {"4": "4", "4.0": "4.0"}),
        ({"": 3, "a": 1}, {"": None, "a": "a"}),
        ({"NA": 3, "": 0, "a": 1}, {"NA": None, "": None, "a": "a"}),
        ({"NA": 3, "": 1, "a": 1}, {"NA": "NA", "": None, "a": "a"}),
        ({"NA": 3, "None": 1, "a": 1}, {"NA": "NA", "None": "None", "a": "a"}),
    ],
)
def test_spellings_of_one_level_are_joined(
    counts: dict[str, int], expected: dict[str, str | None]
) -> None:
    assert joined(counts) == expected


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [
        ([" BMI ", "z"], ["BMI", "z"], {" BMI ": "BMI"}),
        (["BMI", "z"], [" BMI ", "z"], {"BMI": " BMI "}),
        (["BMI"], ["BMI"], {}),
        (["BMI", " BMI"], ["BMI"], {}),
        ([" BMI", "BMI "], ["BMI"], {}),  # either could be meant
        ([" BMI"], ["BMI", "BMI "], {}),
        (["bmi"], ["BMI"], {}),
    ],
)
def test_blanks_around_a_name_do_not_matter_where_one_is_meant(
    given: list[str], known: list[str], meant: dict[str, str]
) -> None:
    assert meant_names(given, known) == meant
