"""The split: a row's part depends on what the row holds, and stays when a table grows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.data.parts.rowhash import row_hashes
from mlops.data.parts.split import SplitSpec, split_rows
from mlops.errors import TableError

SPEC = SplitSpec()
# Their rows may be in another part when others are added.
DEALT = {"dealt_by_rank", "equal_rows_dealt", "equal_rows_parted"}

Parts = list[np.ndarray]


def placed(
    frame: pd.DataFrame, codes: np.ndarray, spec: SplitSpec = SPEC, **columns: Any
) -> tuple[np.ndarray, set[str]]:
    """Returns the part of each row, -1 for none, and the kinds of notes."""
    parts, notes = split_rows(frame, codes, spec, **columns)
    part_of = np.full(len(frame), -1)
    for number, rows in enumerate(parts):
        assert rows.dtype == np.int64
        assert np.array_equal(rows, np.unique(rows))
        assert (part_of[rows] == -1).all()
        part_of[rows] = number
    assert np.array_equal(part_of >= 0, codes >= 0)
    assert all("\n" not in str(note) for note in notes)
    return part_of, {note.code for note in notes}


def random_table(seed: int, n_rows: int, n_classes: int = 2) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of all kinds of columns with gaps, in which a few rows are equal."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "number": draw.normal(size=n_rows).round(2),
            "count": draw.integers(0, 9, n_rows),
            "town": pd.Categorical(draw.choice(["Köln", "Aix", "Brno"], n_rows)),
            "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(draw.integers(0, 50, n_rows), "D"),
        }
    )
    for name in frame:
        frame[name] = frame[name].where(draw.random(n_rows) > 0.1)
    same = draw.integers(0, n_rows, n_rows // 10)
    frame.iloc[draw.integers(0, n_rows, len(same))] = frame.iloc[same].to_numpy()
    return frame, draw.integers(0, n_classes, n_rows)


tables = st.builds(random_table, st.integers(0, 2**32), st.integers(100, 400))


@settings(max_examples=60, deadline=None)
@given(table=tables, more=tables, seed=st.integers(0, 2**32 - 1))
def test_rows_stay_in_their_part_when_rows_are_added(
    table: tuple[pd.DataFrame, np.ndarray], more: tuple[pd.DataFrame, np.ndarray], seed: int
) -> None:
    spec = SplitSpec(split_seed=seed)
    before, notes = placed(*table, spec)
    frame = pd.concat([table[0], more[0]], ignore_index=True)
    after, later_notes = placed(frame, np.concatenate([table[1], more[1]]), spec)
    if not (notes | later_notes) & DEALT:
        assert np.array_equal(after[: len(before)], before)
    # Before, among and after others, with their classes in another order.
    mixed = np.random.default_rng(seed).permutation(len(frame))
    codes = 1 - np.concatenate([table[1], more[1]])
    anywhere, _ = placed(frame.iloc[mixed], codes[mixed], spec)
    if not (notes | later_notes) & DEALT:
        assert np.array_equal(anywhere, after[mixed])


@settings(max_examples=30, deadline=None)
@given(table=tables, seed=st.integers(0, 99))
def test_the_order_of_rows_and_columns_moves_none(
    table: tuple[pd.DataFrame, np.ndarray], seed: int
) -> None:
    frame, codes = table
    draw = np.random.default_rng(seed)
    part_of, notes = placed(frame, codes)
    columns, _ = placed(frame[draw.permutation(frame.columns)], codes)
    assert np.array_equal(columns, part_of)
    mixed = draw.permutation(len(frame))
    again, more_notes = placed(frame.iloc[mixed], codes[mixed])
    assert more_notes == notes
    assert contents(frame.iloc[mixed], codes[mixed], again) == contents(frame, codes, part_of)


def contents(frame: pd.DataFrame, codes: np.ndarray, part_of: np.ndarray) -> list[Any]:
    """What the parts hold: equal rows of a class may have changed places."""
    return sorted(zip(row_hashes(frame).tolist(), codes.tolist(), part_of.tolist(), strict=True))


@pytest.mark.parametrize("n_values", [2, 5, 40])
def test_rows_that_are_dealt_stay_too(n_values: int) -> None:
    draw = np.random.default_rng(n_values)
    frame = pd.DataFrame({"x": draw.integers(0, n_values, 3000)})
    codes = draw.integers(0, 3, 3000)
    whole, notes = placed(frame, codes)
    assert notes == {"equal_rows_dealt"}
    for n_rows in (1000, 2000):
        part, _ = placed(frame[:n_rows], codes[:n_rows])
        assert np.array_equal(part, whole[:n_rows])
    mixed = draw.permutation(3000)
    again, _ = placed(frame.iloc[mixed], codes[mixed])
    assert contents(frame.iloc[mixed], codes[mixed], again) == contents(frame, codes, whole)


def test_a_table_of_which_a_row_becomes_too_frequent_keeps_the_first_of_each_where_it_was() -> None:
    """Whether equal rows are dealt one by one must not move the others."""
    frame = pd.DataFrame({"x": np.arange(500)})
    codes = np.arange(500) % 2
    before, _ = placed(frame, codes)
    grown = pd.concat([frame, pd.DataFrame({"x": [3] * 200})], ignore_index=True)
    after, notes = placed(grown, np.append(codes, [1] * 200))
    assert notes == {"equal_rows_dealt"}
    assert np.array_equal(after[:500], before)
    assert set(after[500:]) == {0, 1, 2}


@settings(max_examples=60, deadline=None)
@given(table=tables, copies=st.integers(1, 3), seed=st.integers(0, 99))
def test_equal_rows_are_in_one_part(
    table: tuple[pd.DataFrame, np.ndarray], copies: int, seed: int
) -> None:
    """Also rows of different classes, and those of a table that was written several times."""
    frame = pd.concat([table[0]] * copies, ignore_index=True)
    codes = np.random.default_rng(seed).integers(0, 2, len(frame))
    part_of, notes = placed(frame, codes)
    assert "equal_rows_dealt" not in notes
    assert "equal_rows_parted" not in notes
    assert pd.Series(part_of).groupby(row_hashes(frame)).nunique().max() == 1


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(3, 9), min_size=2, max_size=9),
    n_values=st.sampled_from([1, 2, 5, 30, 10**6]),
    beside_test_file=st.booleans(),
    seed=st.integers(0, 999),
)
def test_every_class_is_in_every_part(
    sizes: list[int], n_values: int, beside_test_file: bool, seed: int
) -> None:
    """However few rows a class has, as many as there are parts, and however few differ."""
    draw = np.random.default_rng(seed)
    spec = replace(SPEC, split_seed=seed)
    if beside_test_file:
        sizes, spec = [size - 1 for size in sizes], spec.beside_test_file()
    codes = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    frame = pd.DataFrame({"x": draw.integers(0, n_values, len(codes))})
    part_of, _ = placed(frame, codes, spec)
    for part in range(spec.n_parts):
        assert set(codes[part_of == part]) == set(range(len(sizes)))


def test_as_few_rows_are_dealt_by_rank_as_possible() -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draw.normal(size=2000)})
    common, notes = placed(frame, np.arange(2000) % 2)
    assert not notes
    codes = np.arange(2000) % 2
    rare = np.flatnonzero(common == 0)[:6]
    codes[rare] = 2
    part_of, notes = placed(frame, codes)
    assert notes == {"dealt_by_rank"}
    moved = np.flatnonzero(part_of != common)
    assert len(moved) == 2
    assert set(moved) <= set(rare)
    assert sorted(part_of[moved]) == [1, 2]


def test_a_class_of_too_few_rows_is_at_least_learned() -> None:
    frame = pd.DataFrame({"x": np.arange(300)})
    codes = np.zeros(300, dtype=np.int64)
    codes[7] = 1
    codes[[11, 23]] = 2
    for seed in range(20):
        part_of, _ = placed(frame, codes, SplitSpec(split_seed=seed))
        assert part_of[7] == 0
        assert 0 in part_of[[11, 23]]


def test_rows_of_no_class_are_in_no_part_and_move_none() -> None:
    frame, codes = random_table(3, 300)
    part_of, _ = placed(frame, codes)
    without = np.arange(300) % 7 == 0
    fewer, _ = placed(frame, np.where(without, -1, codes))
    assert np.array_equal(fewer, np.where(without, -1, part_of))


@pytest.mark.parametrize("n_values", [10, 200, 10**9])
@pytest.mark.parametrize("spec", [SPEC, SplitSpec(7, None, None, 0.05, 0.5)])
def test_shares_are_those_of_a_draw(n_values: int, spec: SplitSpec) -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draw.integers(0, n_values, 20_000)})
    codes = draw.choice(3, 20_000, p=[0.7, 0.2, 0.1])
    part_of, _ = placed(frame, codes, spec)
    for rows in (codes >= 0, codes == 0, codes == 2):
        units = min(n_values, rows.sum()) if n_values == 200 else rows.sum()
        for part, share in ((1, spec.validation_fraction), (2, spec.test_fraction)):
            error = (share * (1 - share) / units) ** 0.5
            assert np.mean(part_of[rows] == part) == pytest.approx(share, abs=4 * error)


def test_seeds_differ_and_parts_of_other_sizes_hold_the_same_rows() -> None:
    frame, codes = random_table(0, 400)
    part_of, _ = placed(frame, codes)
    found = [placed(frame, codes, SplitSpec(split_seed=seed))[0] for seed in (0, 1, 2**32 - 1)]
    assert np.array_equal(found[0], part_of)
    assert len({tuple(parts) for parts in found}) == 3
    both = np.mean((found[0] == 2) & (found[1] == 2))
    assert both == pytest.approx(0.04, abs=0.04)
    larger, _ = placed(frame, codes, replace(SPEC, test_fraction=0.3))
    assert set(np.flatnonzero(part_of == 2)) < set(np.flatnonzero(larger == 2))
    beside, _ = placed(frame, codes, SPEC.beside_test_file())
    assert set(beside) == {0, 1}
    assert np.mean(beside == 1) == pytest.approx(0.2, abs=0.08)


# Groups


def grouped(n_rows: int = 1200) -> tuple[pd.DataFrame, np.ndarray, pd.Series]:
    frame, codes = random_table(1, n_rows)
    return frame, codes, pd.Series(np.arange(n_rows) // 6 + 1000, name="client")


GROUP = SplitSpec(group="client")


def test_a_group_is_in_one_part() -> None:
    frame, codes, client = grouped()
    part_of, notes = placed(frame, codes, GROUP, group=client)
    assert notes == {"group_split"}
    assert pd.Series(part_of).groupby(client).nunique().max() == 1
    assert np.bincount(part_of) / 1200 == pytest.approx([0.64, 0.16, 0.2], abs=0.1)


def test_groups_stay_when_rows_and_columns_are_added() -> None:
    frame, codes, client = grouped()
    part_of, _ = placed(frame, codes, GROUP, group=client)
    wider, _ = placed(frame[["town"]].assign(new=1.5), codes, GROUP, group=client)
    assert np.array_equal(wider, part_of)
    for kind in ("float64", "Int64", "str", "category"):
        assert np.array_equal(placed(frame, codes, GROUP, group=client.astype(kind))[0], part_of)
    fewer, _ = placed(frame[:500], codes[:500], GROUP, group=client[:500])
    assert np.array_equal(fewer, part_of[:500])
    other, _ = placed(frame, codes, replace(GROUP, split_seed=1), group=client)
    assert not np.array_equal(other, part_of)


def test_rows_without_a_group_are_dealt_by_what_they_hold() -> None:
    frame, codes, client = grouped()
    alone, _ = placed(frame, codes)
    without = np.arange(1200) % 5 == 0
    part_of, notes = placed(frame, codes, GROUP, group=client.where(~without))
    assert notes == {"group_split", "group_gaps"}
    assert np.array_equal(part_of[without], alone[without])


def test_a_class_of_few_groups_is_learned_first() -> None:
    frame, codes, client = grouped()
    for first in range(0, 120, 6):
        codes = np.arange(1200) % 2
        codes[first : first + 6 : 2] = 2
        part_of, notes = placed(frame, codes, GROUP, group=client)
        assert pd.Series(part_of).groupby(client).nunique().max() == 1
        assert set(part_of[codes == 2]) == {0}
        assert "absent_classes" in notes


@pytest.mark.parametrize("n_groups", [1, 2])
def test_groups_must_leave_rows_for_each_part(n_groups: int) -> None:
    frame, codes, _ = grouped(100)
    with pytest.raises(TableError, match=r"`data.group` must leave rows for every part, got none"):
        split_rows(frame, codes, GROUP, group=pd.Series(np.arange(100) % n_groups, name="client"))


def test_a_part_of_another_size_than_asked_for_is_told() -> None:
    frame, codes, _ = grouped(100)
    _, notes = placed(frame, codes, GROUP, group=pd.Series(np.arange(100) % 3, name="client"))
    assert "part_size" in notes


# Time


def times(values: Any) -> pd.Series:
    return pd.Series(values, name="when")


TIME = SplitSpec(time="when")


@pytest.mark.parametrize("kind", ["datetime64[s]", "int64", "float32", "datetime64[s, UTC]"])
def test_the_latest_rows_are_the_test_part(kind: str) -> None:
    draw = np.random.default_rng(0)
    frame, codes = random_table(0, 500)
    when = times(draw.permutation(500)).astype(kind)
    part_of, notes = placed(frame, codes, TIME, time=when)
    assert notes == {"time_split"}
    assert np.bincount(part_of).tolist() == [320, 80, 100]
    assert when[part_of == 0].max() < when[part_of == 1].min()
    assert when[part_of == 1].max() < when[part_of == 2].min()


@settings(max_examples=200, deadline=None)
@given(
    when=st.lists(st.integers(0, 12) | st.none(), min_size=3, max_size=60).filter(
        lambda when: len(set(when) - {None}) >= 3
    ),
    beside_test_file=st.booleans(),
)
def test_rows_of_one_time_are_in_one_part(when: list[int | None], beside_test_file: bool) -> None:
    frame = pd.DataFrame({"x": np.arange(len(when))})
    spec = TIME.beside_test_file() if beside_test_file else TIME
    column = times(when).astype("float64")
    part_of, _ = placed(frame, np.zeros(len(when), dtype=np.int64), spec, time=column)
    assert set(part_of) == set(range(spec.n_parts))
    assert pd.Series(part_of).groupby(column).nunique().max() == 1
    known = column.notna().to_numpy()
    assert (part_of[~known] == 0).all()
    order = np.argsort(column[known].to_numpy(), kind="stable")
    assert (np.diff(part_of[known][order]) >= 0).all()


def test_rows_without_a_time_are_training_rows_and_told() -> None:
    frame, codes = random_table(0, 300)
    when = times(pd.date_range("2026-01-01", periods=300)).where(np.arange(300) % 3 > 0)
    part_of, notes = placed(frame, codes, TIME, time=when)
    assert notes == {"time_split", "time_gaps"}
    assert (part_of[::3] == 0).all()
    assert np.bincount(part_of).tolist() == [192, 48, 60]


def test_a_class_that_a_part_of_the_time_lacks_is_told() -> None:
    frame = pd.DataFrame({"x": np.arange(200)})
    codes = (np.arange(200) > 190).astype(np.int64)
    _, notes = split_rows(frame, codes, TIME, time=times(np.arange(200)))
    told = [note for note in notes if note.code == "absent_classes"]
    assert [note.text[:40] for note in told] == [
        "1 class(es) are not in the training part",
        "1 class(es) are not in the validation pa",
    ]
    assert all(note.warning for note in told)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["a", "b", "c"] * 20, "must name a column of dates or numbers, got `when` of neither"),
        ([True, False, True] * 20, "must name a column of dates or numbers"),
        ([1, 1, 2] * 20, "at least 3 different times, one for each part, got 2 in `when`"),
        ([float("nan")] * 60, "at least 3 different times, one for each part, got 0"),
    ],
)
def test_times_that_cannot_split_are_refused(values: list[Any], says: str) -> None:
    frame, codes = random_table(0, 60)
    with pytest.raises(TableError, match=says) as caught:
        split_rows(frame, codes, TIME, time=times(values))
    assert "\n" not in str(caught.value)
