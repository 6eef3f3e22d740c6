"""Tables that once went wrong, if they are at hand: each is read right, or refused in a line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading import load

from mlops.data.dataset import encode, fit_encoder
from mlops.data.notes import Tally
from mlops.data.sources import read_file
from mlops.errors import TableError

REPOSITORY = Path(__file__).parents[2]
CASES = Path(os.environ.get("MLOPS_SHARED_CASES", REPOSITORY.parent / "shared" / "cases"))

pytestmark = pytest.mark.skipif(
    not (CASES / "make.py").exists(), reason="set MLOPS_SHARED_CASES to the folder of make.py"
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, str(CASES / "make.py"), str(folder)], check=True, timeout=100)
    return folder


# Of each table the kinds of columns, in order, and the codes of the notes that must be there.
READ: dict[str, tuple[str, set[str]]] = {
    "codes.csv": ("cccn", set()),
    "words.csv": ("ccn", set()),
    "words.parquet": ("ccn", set()),
    "flags.csv": ("nnc", set()),
    "flags_as_numbers.csv": ("nnn", set()),
    "odd_dash.csv": ("nn", {"odd_cells"}),
    "odd_total.csv": ("nn", {"odd_cells"}),
    "odd_error.csv": ("nn", {"odd_cells"}),
    "odd_blank.csv": ("nn", set()),
    "odd_minus.csv": ("nn", set()),
    "amounts.csv": ("nnnnn", {"number_format"}),
    "semicolons.csv": ("nn", {"separator", "number_format"}),
    "semicolons_comma_name.csv": ("nn", {"separator"}),
    "tabs.tsv": ("nn", set()),
    "zipped.csv.gz": ("nn", set()),
    "latin1.csv": ("nnc", {"encoding"}),
    "utf16.csv": ("nn", {"encoding"}),
    "parts.parquet": ("nn", set()),
    "trailing_comma.csv": ("nn", {"trailing_separator"}),
    "comment.csv": ("nn", {"comment_lines"}),
    "excel.csv": ("nn", set()),
    "empty_column.csv": ("nn", {"empty_column"}),
    "sorted_row_number.csv": ("nn", {"row_number"}),
    "copy_of_target.csv": ("nnc", {"gives_away"}),
    "person_id.csv": ("nn", {"identifier"}),
    "label_codes.csv": ("nn", set()),
    "label_blanks.csv": ("nn", {"labels_joined"}),
    "label_gaps.csv": ("nn", {"no_target"}),
    "label_none.csv": ("nn", {"gap_word_class"}),
    "label_huge.csv": ("nn", set()),
    "dates.csv": ("nndd", set()),
    "dates.parquet": ("nndd", set()),
    "kinds.parquet": ("nnncnn", set()),
    "huge.csv": ("nn", {"extreme_numbers"}),
    "blank_names.csv": ("nn", {"names_stripped"}),
}
CLASSES: dict[str, list[Any]] = {
    "label_codes.csv": ["001", "002"],
    "label_none.csv": ["None", "Some"],
    "label_huge.csv": [str(2**65), str(2**65 + 1)],
}
REFUSED = {
    "cut_off.csv": "line 601 must have as many cells",
    "short_row.csv": "line 21 must have as many cells",
    "open_quote.csv": "line 101 must close its quotes",
    "label_lists.parquet": "must hold one label in a cell",
}


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read_right(name: str, cases: Path) -> None:
    kinds, noted = READ[name]
    parts = load(path=cases / name, target="label")
    assert "".join(reading.kind[0] for reading in parts.readings) == kinds
    assert noted <= {note.code for note in parts.notes}
    assert parts.classes == CLASSES.get(name, ["no", "yes"])
    dataset = encode(parts, fit_encoder(parts))
    assert np.isfinite(dataset.x_train).all()
    # No column is spoilt: its values are neither all alike nor lost in the scale of some.
    assert (dataset.x_train.std(axis=0) > 0.01).all()


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_is_refused_with_its_line(name: str, cases: Path) -> None:
    with pytest.raises(TableError, match=REFUSED[name]):
        load(path=cases / name, target="label")


@pytest.mark.parametrize(
    ("trained", "whole", "part"),
    [
        ("codes.csv", "codes.csv", "codes_part.csv"),
        ("words.csv", "words.csv", "words.parquet"),
        ("words.parquet", "words.csv", "words.parquet"),
        ("flags.csv", "flags.csv", "flags_as_numbers.csv"),
        ("flags_as_numbers.csv", "flags.csv", "flags_as_numbers.csv"),
        ("dates.csv", "dates.csv", "dates.parquet"),
        ("dates.parquet", "dates.csv", "dates.parquet"),
    ],
)
def test_the_same_rows_have_the_same_codes(
    trained: str, whole: str, part: str, cases: Path
) -> None:
    encoder = fit_encoder(load(path=cases / trained, target="label"))
    frames = [read_file(cases / name).frame for name in (whole, part)]
    if part == "codes_part.csv":
        odd = {"code": "1A", "gear": "rotary", "flag": "UNK"}
        kept = np.all([frames[0][name] != text for name, text in odd.items()], axis=0)
        frames[0] = frames[0][kept]
    tally = Tally()
    codes = [encoder.transform(frame, tally=tally) for frame in frames]
    np.testing.assert_array_equal(*codes)
    assert not tally.counts
