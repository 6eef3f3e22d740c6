"""What a pack is thought to take, against what it takes: peaks of processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn import sizes
from mlops.nn.sizes import TableSize, most_members, pack_bytes

SCRIPT = """
import json, sys
import numpy as np, torch
from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.rows import Rows
from mlops.nn.tasks.classification import Classification
from mlops.nn.training import PackTraining

torch.set_num_threads(1)
device, members = sys.argv[1], int(sys.argv[2])
n_train, n_val, n_features, n_classes = json.loads(sys.argv[3])
task = Classification(range(n_classes))
member = Hyperparameters.from_dict(json.loads(sys.argv[4]))
rng = np.random.default_rng(0)

def train(rows, members):
    for _ in PackTraining(members, rows, seed=0).events():
        pass

def part(n):
    return rng.normal(size=(n, n_features)).astype(np.float32), rng.integers(0, n_classes, n)

def resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) * 1024

rows = Rows.on(device, *part(n_train), *part(n_val), task)
# What is imported and started by a first pack has its memory already.
small = Rows(rows.x_train[:40], rows.y_train[:40], rows.x_val[:40], rows.y_val[:40], task)
train(small, [Hyperparameters(hidden_dims=(8,), epochs=1, batch_size=8)] * 2)
if device == "cuda":
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(rows, [member] * members)
    peak = torch.cuda.max_memory_allocated()
else:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = resident("VmRSS")
    train(rows, [member] * members)
    peak = resident("VmHWM")
print(peak - before)
"""

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TABLE = TableSize(n_train=3_000, n_val=1_000, n_features=30, n_outputs=2)
SHAPES: list[tuple[str, int, dict[str, Any], dict[str, int]]] = [
    ("narrow", 48, {}, {}),
    ("1,000 classes", 16, {}, {"n_outputs": 1000}),
    ("1,000 classes, smoothed", 16, {"label_smoothing": 0.1}, {"n_outputs": 1000}),
    ("5,000 classes", 4, {"hidden_dims": (256,), "batch_size": 128}, {"n_outputs": 5000}),
    ("wide", 4, {"hidden_dims": (1024, 1024), "batch_size": 256}, {}),
    ("large batches", 16, {"hidden_dims": (512,), "batch_size": 1024, "dropout": 0.0}, {}),
    ("wide input", 8, {}, {"n_features": 4000}),
    ("both", 32, {"batch_size": 2048}, {"n_outputs": 300}),
    ("many validation rows", 40, {"hidden_dims": (300,) * 3}, {"n_val": 20_000, "n_outputs": 50}),
]


def taken(device: str, members: int, table: TableSize, member: Hyperparameters) -> int:
    words = [sys.executable, "-c", SCRIPT, device, str(members)]
    words += [json.dumps(list(table)), json.dumps(member.to_dict())]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
@pytest.mark.parametrize(
    ("members", "given", "sized"), [shape[1:] for shape in SHAPES], ids=[s[0] for s in SHAPES]
)
def test_what_a_pack_takes(
    members: int, given: dict[str, Any], sized: dict[str, int], device: str
) -> None:
    member, table = Hyperparameters(epochs=1, **given), TABLE._replace(**sized)
    estimated = pack_bytes(member, members, table, device)
    assert 0.7 < estimated / taken(device, members, table, member) < 1.5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("n_outputs", [2, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("members", [1, 16, 256])
@pytest.mark.parametrize("batch_size", [1, 32, 1000, 2048, 10**6])
@pytest.mark.parametrize("n_rows", [1, 31, 3_000, 10**6])
def test_pieces_are_of_whole_steps_and_bounded(
    n_rows: int, batch_size: int, members: int, n_outputs: int, device: str
) -> None:
    batch, chunk, piece = sizes.steps(batch_size, n_rows, members, n_outputs, device)
    assert 1 <= batch <= piece <= chunk <= max(n_rows, batch)
    assert piece % batch == chunk % batch == 0
    held = members * piece * n_outputs
    assert held <= sizes.PIECE_ELEMENTS[device] or piece == batch
    assert chunk <= max(sizes.CHUNK_ROWS, batch)


def test_pieces_do_not_change_chunks() -> None:
    """Dropout noise is drawn by chunks: it must not depend on the pack or the classes."""
    chunks = {
        sizes.steps(32, 10_000, members, n_outputs, device)[1]
        for members in (1, 16, 256)
        for n_outputs in (2, 10_000)
        for device in ("cpu", "cuda")
    }
    assert chunks == {2048}


@pytest.mark.parametrize("memory", [0, 2**20, 2**26, 2**30, 2**36])
def test_most_members(memory: int) -> None:
    member = Hyperparameters()
    most = most_members(member, TABLE, "cuda", memory, 256)
    assert most == 1 or pack_bytes(member, most, TABLE, "cuda") <= memory
    assert most == 256 or pack_bytes(member, most + 1, TABLE, "cuda") > memory
