"""Which members of a pack share tensors: same depth and batch size, and widths that pay."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from mlops.configuration.hyperparameters import Hyperparameters


class Costs(NamedTuple):
    """What a step takes, in seconds.

    Attributes:
        layer: The calls of a layer, however many members there are.
        flop: An operation of a product.
        element: An activation or a weight, which is read and written some times.
    """

    layer: float
    flop: float
    element: float


COSTS = {
    # Measured on one thread of a 2-core AMD EPYC (docs/experiments.md).
    "cpu": Costs(80e-6, 1 / 50e9, 4e-9),
    # From profiles of one H200 (docs/experiments.md): small kernels take 22 us a layer, the gaps
    # between them are a guess; of steps of widths 256, products and the rest.
    "cuda": Costs(30e-6, 1 / 32e12, 2e-11),
}


def group_members(
    members: Sequence[Hyperparameters], n_features: int, n_outputs: int, device: str = "cpu"
) -> list[list[int]]:
    """Splits members into groups that train fastest as batched tensors.

    Within one depth and batch size, members are sorted by width and cut where padding the narrow
    ones would cost more than another group's calls.

    Args:
        members: The pack's configurations.
        n_features: Width of the input.
        n_outputs: Width of the output.
        device: A name in `COSTS`.

    Returns:
        Groups of indices into `members`, every index once, members with equal activations adjacent.
    """
    alike: defaultdict[tuple[int, int], defaultdict[tuple[int, ...], list[int]]]
    alike = defaultdict(lambda: defaultdict(list))
    for i, member in enumerate(members):
        alike[len(member.hidden_dims), member.batch_size][tuple(member.hidden_dims)].append(i)
    groups = []
    for (_, batch_size), indices in sorted(alike.items()):
        ordered = sorted(indices)
        counts = [len(indices[dims]) for dims in ordered]
        for start, stop in _cuts(ordered, counts, batch_size, n_features, n_outputs, device):
            part = itertools.chain(*(indices[dims] for dims in ordered[start:stop]))
            groups.append(sorted(part, key=lambda i: (members[i].activation, i)))
    return groups


def _cuts(
    ordered: Sequence[tuple[int, ...]],
    counts: Sequence[int],
    batch_size: int,
    n_features: int,
    n_outputs: int,
    device: str,
) -> list[tuple[int, int]]:
    """Finds the cheapest way to cut sorted widths into runs, by dynamic programming.

    Members of the same widths stay together: of two groups that have some, the one whose members
    cost less each can take the other's and costs no more a member.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(ordered) + 1):
        widths, size = list(ordered[stop - 1]), 0
        candidates = []
        for start in range(stop - 1, -1, -1):
            widths, size = list(map(max, widths, ordered[start])), size + counts[start]
            seconds = seconds_of_step((n_features, *widths, n_outputs), batch_size, size, device)
            candidates.append((best[start][0] + seconds, start))
        best.append(min(candidates))
    cuts = []
    stop = len(ordered)
    while stop:
        start = best[stop][1]
        cuts.append((start, stop))
        stop = start
    return cuts[::-1]


@lru_cache(maxsize=4096)
def seconds_of_step(
    widths: tuple[int, ...], batch_size: int, n_members: int, device: str = "cpu"
) -> float:
    """Estimates a training step of a group.

    Args:
        widths: Width of the input and of every layer.
        batch_size: Rows of a step.
        n_members: Members that share tensors.
        device: A name in `COSTS`.
    """
    costs = COSTS[device]
    weights = sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))
    units = batch_size * sum(widths[1:])
    return costs.layer * len(widths) + n_members * (
        6 * batch_size * weights * costs.flop + (units + weights) * costs.element
    )
