"""What workers get of the machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mlops.cluster.machines import Workers, _gpu_memory, fitting_workers, workers
from mlops.errors import InputError
from mlops.settings import flags
from mlops.settings.study import TuneSettings

CPUS_ALONE = {"CPU": 8.0, "memory": 1e9}
TWO_GPUS = {"CPU": 8.0, "GPU": 2.0}
MANY_GPUS = {"CPU": 4.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("machines", "cpus", "gpus", "fitting"),
    [
        ([CPUS_ALONE], 1.0, 0.0, 8),
        ([CPUS_ALONE, TWO_GPUS], 3.0, 0.0, 4),  # a worker is on one machine
        ([CPUS_ALONE, TWO_GPUS], 0.1, 0.0, 160),
        ([CPUS_ALONE], 1.0, 1.0, 0),
        ([CPUS_ALONE, TWO_GPUS, MANY_GPUS], 1.0, 1.0, 6),  # cores are short on the last one
        ([TWO_GPUS], 1.0, 0.4, 4),  # a GPU has two workers, and a rest that is of no use
        ([TWO_GPUS], 1.0, 0.25, 8),
        ([TWO_GPUS], 4.0, 0.25, 2),
        ([], 1.0, 0.0, 0),
    ],
)
def test_workers_that_fit(
    machines: list[dict[str, float]], cpus: float, gpus: float, fitting: int
) -> None:
    assert fitting_workers(machines, cpus, gpus) == fitting


BOTH = [CPUS_ALONE, TWO_GPUS, MANY_GPUS]


@pytest.mark.parametrize(
    ("machines", "given", "expected"),
    [
        ([CPUS_ALONE], {"count": "auto"}, (8, 0.0)),
        ([CPUS_ALONE], {"count": "auto", "at_most": 3}, (3, 0.0)),
        (BOTH, {"count": "auto"}, (6, 1.0)),
        (BOTH, {"count": 2, "at_most": 1}, (2, 1.0)),
        (BOTH, {"count": 2, "gpus": 0.5}, (2, 0.5)),
        (BOTH, {"count": "auto", "gpus": 0.0}, (20, 0.0)),
        ([TWO_GPUS], {"count": 4, "may_grow": True}, (4, 1.0)),
        ([], {"count": 8, "gpus": 1.0, "may_grow": True}, (8, 1.0)),
    ],
)
def test_machines_are_divided(
    machines: list[dict[str, float]], given: dict[str, Any], expected: tuple[int, float]
) -> None:
    count, gpus = expected
    options = {"cpus": 1.0, "gpus": "auto", "at_most": 100, **given}
    assert workers(machines, **options) == Workers(count, 1.0, gpus)


@pytest.mark.parametrize(
    ("machines", "given", "complaint"),
    [
        ([CPUS_ALONE], {"count": 9}, "resources: 9 workers of 1 cores and 0 GPUs must fit .* 8 c"),
        ([], {"count": "auto", "may_grow": True}, "resources: 1 workers .* got 0 cores and 0 GPUs"),
        (
            [CPUS_ALONE],
            {"count": 1, "gpus": 1.0},
            "resources: 1 workers of 1 cores and 1 GPUs must",
        ),
        ([TWO_GPUS], {"count": 3}, "resources: 3 workers of 1 cores and 1 GPUs must"),
    ],
)
def test_workers_that_do_not_fit_are_refused(
    machines: list[dict[str, float]], given: dict[str, Any], complaint: str
) -> None:
    options = {"cpus": 1.0, "gpus": "auto", "at_most": 100, **given}
    with pytest.raises(InputError, match=complaint):
        workers(machines, **options)


@pytest.mark.parametrize("gpus", ["-0.5", "2", "1.5", "nan", "some"])
def test_a_worker_has_one_gpu_at_most(gpus: str) -> None:
    with pytest.raises(InputError, match=r"resources\.gpus_per_worker"):
        flags.load(TuneSettings, ["--resources.gpus_per_worker", gpus], name="tune")


def test_a_precision_is_one_of_three() -> None:
    with pytest.raises(InputError, match=r"resources\.precision.*float32.*got 'fp16'"):
        flags.load(TuneSettings, ["--resources.precision", "fp16"], name="tune")


@pytest.mark.parametrize(
    ("script", "memory"),
    [
        ("echo 81559; echo 40960", 40960 * 2**20),
        ("echo '[N/A]'", None),
        ("echo No devices were found; exit 6", None),
        (None, None),
    ],
)
def test_memory_of_the_smallest_gpu(
    script: str | None, memory: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the answers of a program of that name: those of the driver's own where there is none."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin" if script else str(tmp_path))
    if script:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    assert _gpu_memory() == memory
