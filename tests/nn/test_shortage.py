"""Packs on a device with too little memory: smaller packs, no failed trials."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, logging, resource, sys
import numpy as np, torch
from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.training import fit
from mlops.nn.records import TrialResult
from mlops.nn.tasks.classification import Classification

logging.basicConfig(format="%(message)s", stream=sys.stderr)
torch.set_num_threads(1)
mebibytes, widths = int(sys.argv[1]), json.loads(sys.argv[2])
rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 30)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int64)
members = [Hyperparameters(hidden_dims=(w, w), epochs=2, batch_size=2000) for w in widths]
# What is imported and started by a first pack has its memory already.
list(fit([Hyperparameters(hidden_dims=(8,), epochs=1)], x, y, x, y, Classification([0, 1]), seed=0))
if mebibytes:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * 2**20,) * 2)
for event in fit(members, x, y, x, y, Classification([0, 1]), seed=1):
    if isinstance(event, TrialResult):
        print(json.dumps([event.trial, event.outcome.value, event.score, event.reason]))
"""


def train(mebibytes: int, widths: list[int]) -> tuple[dict[int, list[object]], str]:
    """Trains a pack with so much memory besides what torch has; 0 for all there is."""
    words = [sys.executable, "-c", SCRIPT, str(mebibytes), json.dumps(widths)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {number: rest for number, *rest in results}, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory")
def test_a_pack_that_does_not_fit_goes_on_as_smaller_ones() -> None:
    widths = [500] * 8
    whole, said = train(0, widths)
    assert said == ""
    parts, said = train(260, widths)
    assert "8 trials do not fit the device's memory at once and go on as 4 and 4: " in said
    assert parts.keys() == whole.keys()
    for number, (outcome, score, reason) in parts.items():
        assert (outcome, reason) == ("completed", None)
        assert score == pytest.approx(whole[number][1], abs=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory")
def test_a_trial_that_fits_nowhere_fails_alone() -> None:
    results, _ = train(220, [300, 4000, 300])
    assert [results[i][0] for i in range(3)] == ["completed", "failed", "completed"]
    assert str(results[1][2]).startswith("does not fit the device's memory: ")
