"""Groups: a partition, alike in depth and batch size, cut where padding costs too much."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.configuration.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.nn import grouping
from mlops.nn.grouping import group_members

hyperparameters = st.builds(
    Hyperparameters,
    hidden_dims=st.lists(st.integers(1, 512), min_size=1, max_size=4).map(tuple),
    batch_size=st.sampled_from([1, 16, 32, 256]),
    activation=st.sampled_from(ACTIVATIONS),
)
packs = st.lists(hyperparameters, min_size=1, max_size=24)


def wide(*dims: int, batch_size: int = 32) -> Hyperparameters:
    return Hyperparameters(hidden_dims=dims, batch_size=batch_size)


def sizes(groups: list[list[int]]) -> list[int]:
    return sorted(len(group) for group in groups)


@settings(deadline=None)
@given(
    members=packs,
    n_features=st.integers(1, 300),
    n_classes=st.integers(2, 30),
)
def test_groups_are_a_partition_of_alike_members(
    members: list[Hyperparameters], n_features: int, n_classes: int
) -> None:
    groups = group_members(members, n_features, n_classes)
    assert sorted(itertools.chain(*groups)) == list(range(len(members)))
    for group in groups:
        assert len({(len(members[i].hidden_dims), members[i].batch_size) for i in group}) == 1
        names = [members[i].activation for i in group]
        assert len(list(itertools.groupby(names))) == len(set(names)), "activations are adjacent"
    assert groups == group_members(members, n_features, n_classes)


@settings(deadline=None, max_examples=50)
@given(members=packs)
def test_groups_are_estimated_no_dearer_than_all_together_or_each_alone(
    members: list[Hyperparameters],
) -> None:
    members = [m for m in members if (len(m.hidden_dims), m.batch_size) == _kind(members[0])]

    def seconds(groups: list[list[int]]) -> float:
        total = 0.0
        for group in groups:
            widths = map(max, zip(*(members[i].hidden_dims for i in group), strict=True))
            total += grouping.seconds_of_step((20, *widths, 2), members[0].batch_size, len(group))
        return total

    every = list(range(len(members)))
    chosen = seconds(group_members(members, 20, 2))
    assert chosen <= seconds([every]) * (1 + 1e-9)
    assert chosen <= seconds([[i] for i in every]) * (1 + 1e-9)


def _kind(member: Hyperparameters) -> tuple[int, int]:
    return len(member.hidden_dims), member.batch_size


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([wide(64)], [1]),
        ([wide(64)] * 20, [20]),
        ([wide(30), wide(32)] * 8, [16]),
        ([wide(16), wide(16, 16)], [1, 1]),
        ([wide(16), wide(16, batch_size=64)], [1, 1]),
        ([wide(8, batch_size=256)] * 9 + [wide(4096, batch_size=256)], [1, 9]),
        ([wide(8, 8, batch_size=128)] * 6 + [wide(1024, 1024, batch_size=128)] * 2, [2, 6]),
    ],
)
def test_wide_and_narrow_part_where_that_pays(
    members: list[Hyperparameters], expected: list[int]
) -> None:
    assert sizes(group_members(members, 20, 2)) == expected


def cuts_between_any_two(members: list[Hyperparameters], device: str) -> list[list[int]]:
    """The same search over every place to cut, also between members of equal widths."""
    groups = []
    for kind in sorted({_kind(m) for m in members}):
        indices = [i for i, m in enumerate(members) if _kind(m) == kind]
        indices.sort(key=lambda i: (members[i].hidden_dims, i))
        best: list[tuple[float, list[list[int]]]] = [(0.0, [])]
        for stop in range(1, len(indices) + 1):
            candidates = []
            for start in range(stop):
                part = indices[start:stop]
                widths = map(max, zip(*(members[i].hidden_dims for i in part), strict=True))
                step = grouping.seconds_of_step((20, *widths, 2), kind[1], len(part), device)
                candidates.append((best[start][0] + step, start))
            seconds, start = min(candidates)
            best.append((seconds, [*best[start][1], indices[start:stop]]))
        groups += best[-1][1]
    return [sorted(group, key=lambda i: (members[i].activation, i)) for group in groups]


@settings(deadline=None)
@given(
    members=st.lists(st.sampled_from([*range(5)]), min_size=1, max_size=40).flatmap(
        lambda picks: st.lists(hyperparameters, min_size=5, max_size=5).map(
            lambda few: [few[i] for i in picks]
        )
    ),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_members_of_equal_widths_are_better_not_cut_apart(
    members: list[Hyperparameters], device: str
) -> None:
    assert group_members(members, 20, 2, device) == cuts_between_any_two(members, device)


def test_grouping_thousands_of_members_is_quick() -> None:
    members = [wide(1 + i % 97, 1 + i % 31) for i in range(300)]
    assert sum(sizes(group_members(members, 20, 2))) == 300
