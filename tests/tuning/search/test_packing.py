"""How a study is divided into packs."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.nn.sizes import TableSize, pack_bytes
from mlops.tuning.search.packing import (
    MOST_MEMBERS,
    ROUNDS,
    Packing,
    choose,
    most_workers,
    widest_configuration,
)

NARROW = Hyperparameters(hidden_dims=(64, 32), batch_size=32)
MEDIUM = Hyperparameters(hidden_dims=(256, 256), batch_size=256)
WIDE = Hyperparameters(hidden_dims=(1024, 1024), batch_size=1024)
HUGE = Hyperparameters(hidden_dims=(8192, 8192, 8192), batch_size=2**20)

Device = Literal["cpu", "cuda"]
TABLE = TableSize(n_train=3_000, n_val=1_000, n_features=20, n_outputs=2)


def divide(
    pack_size: int | Literal["auto"] = "auto",
    max_evals: int = 200,
    workers: int = 2,
    widest: Hyperparameters = NARROW,
    device: Device = "cpu",
    memory: int | None = None,
    **table: int,
) -> Packing:
    return choose(
        pack_size,
        max_evals=max_evals,
        workers=workers,
        widest=widest,
        table=TABLE._replace(**table),
        device=device,
        memory=memory,
    )


def rounds(packing: Packing, max_evals: int, workers: int) -> float:
    """How often all workers get a pack."""
    return -(-max_evals // packing.pack_size) / workers


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("widest", [NARROW, MEDIUM, WIDE, HUGE], ids=["64", "256", "1024", "8192"])
@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("max_evals", [1, 2, 3, 5, 19, 20, 21, 64, 200, 1000, 10**6])
def test_auto(max_evals: int, workers: int, widest: Hyperparameters, device: Device) -> None:
    packing = divide("auto", max_evals, workers, widest, device=device)
    assert 1 <= packing.pack_size <= min(max_evals, MOST_MEMBERS[device])
    assert packing.packs_in_flight > workers or packing.packs_in_flight >= 1
    if max_evals >= 20 and max_evals >= ROUNDS * workers:
        assert rounds(packing, max_evals, workers) >= ROUNDS
    if max_evals <= workers:
        assert packing.pack_size == 1


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("max_evals", [20, 21, 32, 100, 200, 10_000])
def test_the_searcher_hears_of_results(max_evals: int, workers: int) -> None:
    """With auto, most trials are proposed by a searcher that has been told of others."""
    packing = divide("auto", max_evals, workers)
    uninformed = packing.packs_in_flight * packing.pack_size
    assert uninformed <= max_evals // 2


@pytest.mark.parametrize("max_evals", [4, 7, 19])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_few_trials_are_one_round(max_evals: int, workers: int) -> None:
    packing = divide("auto", max_evals, workers)
    assert rounds(packing, max_evals, workers) <= 1


@pytest.mark.parametrize("pack_size", [1, 2, 8, 500])
@pytest.mark.parametrize("widest", [NARROW, HUGE], ids=["narrow", "huge"])
@pytest.mark.parametrize("max_evals", [1, 20, 1000])
def test_a_number_is_taken_as_it_is(
    pack_size: int, widest: Hyperparameters, max_evals: int
) -> None:
    assert divide(pack_size, max_evals, widest=widest).pack_size == pack_size


@pytest.mark.parametrize(
    ("narrower", "wider"),
    [
        ({"widest": NARROW}, {"widest": WIDE}),
        ({"widest": MEDIUM}, {"widest": WIDE}),
        ({"widest": WIDE}, {"widest": HUGE}),
        ({"widest": MEDIUM, "n_features": 20}, {"widest": MEDIUM, "n_features": 100_000}),
        (
            {"widest": Hyperparameters(batch_size=32)},
            {"widest": Hyperparameters(batch_size=2**16)},
        ),
        ({"widest": MEDIUM, "n_outputs": 2}, {"widest": MEDIUM, "n_outputs": 10_000}),
    ],
)
def test_wider_trials_make_smaller_packs(narrower: dict[str, Any], wider: dict[str, Any]) -> None:
    assert (
        divide(max_evals=10**5, **wider).pack_size < divide(max_evals=10**5, **narrower).pack_size
    )


@pytest.mark.parametrize("memory", [2**30, 2**33, 2**36])
@pytest.mark.parametrize("widest", [NARROW, MEDIUM, WIDE], ids=["64", "256", "1024"])
@pytest.mark.parametrize("n_outputs", [2, 1000])
@pytest.mark.parametrize("n_train", [3_000, 10**6, 5 * 10**6])
def test_a_pack_and_the_table_fit_a_gpu(
    memory: int, widest: Hyperparameters, n_outputs: int, n_train: int
) -> None:
    sizes = {"n_train": n_train, "n_outputs": n_outputs, "n_features": 50}
    chosen = divide(max_evals=10**6, widest=widest, device="cuda", memory=memory, **sizes)
    table = TABLE._replace(**sizes)
    if chosen.pack_size > 1:
        assert pack_bytes(widest, chosen.pack_size, table, "cuda") + table.bytes < memory


@pytest.mark.parametrize("widest", [NARROW, MEDIUM, WIDE])
def test_a_gpu_takes_larger_packs(widest: Hyperparameters) -> None:
    cpu, gpu = (divide(max_evals=10**5, widest=widest, device=d) for d in ("cpu", "cuda"))
    assert gpu.pack_size > cpu.pack_size


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_a_pack_waits_proposed_for_the_first_worker_to_end(workers: int) -> None:
    assert divide(workers=workers, max_evals=1000).packs_in_flight > workers


WIDEST = [
    ({"learning_rate": {"loguniform": [1e-4, 1e-2]}}, (64, 32), 32),
    ({"hidden_dims": {"choice": [[32], [16, 16]]}}, (64, 32), 32),
    ({"hidden_dims": {"choice": [[32], [128, 64]]}}, (128, 64), 32),
    ({"batch_size": {"choice": [16, 512, 64]}}, (64, 32), 512),
    ({"batch_size": {"int": [16, 300]}}, (64, 32), 300),
    ({"batch_size": {"choice": [4, 8]}}, (64, 32), 32),
    (
        {
            "a": {
                "choice": [
                    {"hidden_dims": {"choice": [[512, 8]]}},
                    {"batch_size": {"int": [1, 99]}},
                ]
            }
        },
        (512, 8),
        99,
    ),
    # Constants count: nothing says that the default is as wide.
    ({"hidden_dims": [512, 512], "dropout": {"uniform": [0, 0.5]}}, (512, 512), 32),
    ({"batch_size": 4096, "dropout": {"uniform": [0, 0.5]}}, (64, 32), 4096),
    ({"a": {"choice": [{"hidden_dims": [512, 512]}, {"batch_size": 1024}]}}, (512, 512), 1024),
]


@pytest.mark.parametrize(("spec", "widths", "batch_size"), WIDEST)
def test_widest_configuration(
    spec: dict[str, Any], widths: tuple[int, ...], batch_size: int
) -> None:
    widest = widest_configuration(SearchSpace.parse(spec), Hyperparameters(), 20)
    assert widest.hidden_dims == widths
    assert widest.batch_size == batch_size


def test_many_columns_decide_which_configuration_is_widest() -> None:
    space = SearchSpace.parse({"hidden_dims": {"choice": [[128], [32, 96]]}})
    few, many = (widest_configuration(space, Hyperparameters(), n) for n in (4, 1000))
    assert (few.hidden_dims, many.hidden_dims) == ((32, 96), (128,))


@pytest.mark.parametrize(
    ("max_evals", "n_rows", "expected"),
    [(1, 10**6, 1), (20, 640, 1), (200, 640, 6), (20, 64_000, 5), (19, 10**6, 19), (4, 10**6, 4)],
)
def test_workers_earn_their_start_and_leave_rounds(
    max_evals: int, n_rows: int, expected: int
) -> None:
    trial = Hyperparameters(hidden_dims=(64, 32), batch_size=32, epochs=50)
    assert most_workers(max_evals, trial, n_rows, n_features=20) == expected
