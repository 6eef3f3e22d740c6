"""How many trials go into a pack, and how many packs are under way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import Choice, Int, SearchSpace
from mlops.errors import InputError
from mlops.nn.grouping import seconds_of_step
from mlops.nn.records import MERIT
from mlops.nn.sizes import TableSize, most_members

# A searcher that hears of nothing before it has proposed everything is a random one.
ROUNDS = 4
ROUNDS_FROM_EVALS = 20
# More members than this gain nothing more (docs/experiments.md), and a long pack reports late.
MOST_MEMBERS = {"cpu": 48, "cuda": 256}
# Float32 elements of one member's activations and weights past which wider packs stop paying; of a
# GPU, as long as its memory is not known.
ELEMENTS_A_WORKER = {"cpu": 24 * 2**20, "cuda": 2**30}
# Part of a GPU's memory, besides the rows, that packs are made for. The rest is for graphs and CUDA
# itself; a pack for which it is not enough goes on as smaller ones.
MEMORY_SHARE = 0.7
# Work, one trial after another, that is worth starting a worker for: that takes 5 s of a core.
SECONDS_A_WORKER = 10.0


@dataclass(frozen=True)
class Packing:
    """What is fixed when a study is made: its division into packs, and its order.

    Attributes:
        pack_size: Trials a pack.
        packs_in_flight: L: pack n is proposed from the results of packs up to n - L only, whatever
            else has finished, so that timing does not change the search.
        merit: The version of `records.merit`.
    """

    pack_size: int
    packs_in_flight: int
    merit: int = MERIT


def choose(
    pack_size: int | Literal["auto"],
    *,
    max_evals: int,
    workers: int,
    widest: Hyperparameters,
    table: TableSize,
    device: Literal["cpu", "cuda"],
    memory: int | None = None,
) -> Packing:
    """Chooses the division of a study.

    Args:
        pack_size: Trials a pack, or "auto".
        max_evals: Trials of the study.
        workers: Packs trained at the same time.
        widest: The widest configuration of the space, at its largest batch size.
        table: What packs train on.
        device: Where packs train.
        memory: Bytes that a worker may take of its GPU, the smallest one's where they differ; None
            where that is not known.

    Raises:
        InputError: The table does not fit a worker's GPU.
    """
    if pack_size == "auto":
        pack_size = _pays(max_evals, workers, widest, table, device, memory)
    # One or more packs wait proposed, so that a worker never waits for the searcher.
    return Packing(pack_size, workers + max(1, workers // 2))


def most_workers(max_evals: int, trial: Hyperparameters, n_rows: int, n_features: int) -> int:
    """Returns how many workers leave the searcher its rounds and earn their start, at least one.

    Args:
        max_evals: Trials of the study.
        trial: A configuration of ordinary size.
        n_rows: Rows to train on.
        n_features: Width of the input.
    """
    leaving_rounds = max_evals // ROUNDS if max_evals >= ROUNDS_FROM_EVALS else max_evals
    steps = -(-n_rows // trial.batch_size) * trial.epochs
    widths = (n_features, *trial.hidden_dims)
    seconds = max_evals * steps * seconds_of_step(widths, trial.batch_size, 1)
    return max(1, min(leaving_rounds, round(seconds / SECONDS_A_WORKER)))


def _pays(
    max_evals: int,
    workers: int,
    widest: Hyperparameters,
    table: TableSize,
    device: str,
    memory: int | None,
) -> int:
    rounds = ROUNDS if max_evals >= ROUNDS_FROM_EVALS else 1
    most = MOST_MEMBERS[device]
    if device == "cuda" and memory is not None:
        # The whole table is on the GPU beside the packs.
        room = int(MEMORY_SHARE * (memory - table.bytes))
        if room < 0:
            raise InputError(
                f"the encoded table, {table.bytes / 1e6:,.0f} MB, must fit what a worker has of "
                f"its GPU, got {memory / 1e6:,.0f} MB; raise resources.gpus_per_worker, set it to "
                "0 to train on cores, or leave out columns of many levels"
            )
        fitting = most_members(widest, table, device, room, most)
    else:
        widths = (table.n_features, *widest.hidden_dims, table.n_outputs)
        weights = sum(a * b for a, b in pairwise(widths))
        member = 5 * weights + 3 * widest.batch_size * sum(widths)
        fitting = ELEMENTS_A_WORKER[device] // member
    fair = max_evals // (rounds * workers) if rounds > 1 else -(-max_evals // workers)
    return max(1, min(fair, fitting, most))


def widest_configuration(
    space: SearchSpace, default: Hyperparameters, n_features: int
) -> Hyperparameters:
    """Returns the default with the largest hidden layers and batch size that the space holds."""
    widths = [default.hidden_dims, *_values(space, "hidden_dims")]
    batches = [default.batch_size, *_values(space, "batch_size")]
    widest = max(widths, key=lambda dims: sum(a * b for a, b in pairwise((n_features, *dims))))
    return Hyperparameters(hidden_dims=tuple(widest), batch_size=max(batches))


def _values(space: SearchSpace, name: str) -> Iterator[Any]:
    """Yields what a space, branches included, may set a hyperparameter to; an interval's end."""
    for key, entry in space.entries.items():
        if isinstance(entry, Choice):
            for option in entry.options:
                if isinstance(option, SearchSpace):
                    yield from _values(option, name)
                elif key == name:
                    yield option
        elif key == name:
            yield entry.high if isinstance(entry, Int) else entry
