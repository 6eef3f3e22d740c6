"""Studies that are stopped inside a pack, by a budget or a target, and go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chaos_harness import Driver, finish, start_with, table

from mlops.tracking.store.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Two packs, each a group or two of which some epochs are longer than a report takes.
SMALL = ["--max_evals", "8"]
ENDED = ("completed", "pruned")


def run(folder: Path, *flags: str, **variables: str) -> Driver:
    """Runs a study with slow workers; whatever stops it, there is a model."""
    driver = start_with("SlowTrial", folder, *SMALL, *flags, **variables)
    assert driver.process.wait(300) == 0, driver.said()
    assert "mlp version" in driver.said()
    return driver


def epochs_of(found: dict[int, Any]) -> int:
    return sum(len(row[-1]["val_loss"]) for row in found.values())


def check_cut(uri: str, reason: str) -> int:
    """Checks what is on record of trials that were cut; returns how many have a score so far."""
    store = open_store(uri)
    runs = store.client.search_runs([store.experiment_id], "tags.outcome = 'interrupted'")
    scored = 0
    for run in runs:
        assert reason in run.data.tags["reason"]
        assert "result" not in run.data.tags
        assert not any(name.startswith("best_") for name in run.data.metrics)
        if "result_so_far" in run.data.tags:
            result = json.loads(run.data.tags["result_so_far"])
            history = store.client.get_metric_history(run.info.run_id, "val_accuracy")
            assert result["epochs"] == len(history)
            assert result["score"] == max(point.value for point in history)
            scored += 1
    return scored


@pytest.mark.parametrize(
    "flags",
    [
        ["--resources.workers", "1"],
        ["--resources.workers", "2"],
        ["--resources.workers", "1", "--pruning.eta", "2", "--pruning.min_epochs", "2"],
    ],
    ids=["one worker", "two workers", "pruned"],
)
def test_resumed_until_it_ends(
    flags: list[str], tmp_path: Path, uri: str, cluster: dict[str, str]
) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    finish(undisturbed, *SMALL, *flags, **cluster)
    epochs, resume, stops, scored = 0, [], 0, 0
    while True:
        # Spent before a pack has begun: each still gets on.
        driver = run(tmp_path, *flags, "--time_budget", "1", *resume, **cluster)
        found = table(uri)
        if not any(row[1] == "interrupted" for row in found.values()) and len(found) == 8:
            break
        assert "the time_budget was spent; to go on: python -m ray_jobs.tune" in driver.said()
        assert epochs_of(found) > epochs
        epochs, resume, stops = epochs_of(found), ["--resume"], stops + 1
        scored += check_cut(uri, "the time_budget was spent")
        assert stops < 30
    assert stops > 1
    assert scored
    assert found == table(f"sqlite:///{undisturbed}/mlflow.db")
    assert {row[1] for row in found.values()} <= set(ENDED)


def test_a_target_is_reached_inside_a_pack(
    tmp_path: Path, uri: str, cluster: dict[str, str]
) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    finish(undisturbed, *SMALL, **cluster)
    whole = table(f"sqlite:///{undisturbed}/mlflow.db")
    target = max(dict(row[-1]["val_accuracy"])[2] for row in list(whole.values())[:4])
    driver = run(tmp_path, "--target", str(target), **cluster)
    assert "the target was reached, val_accuracy" in driver.said()
    found = table(uri)
    # Groups of a pack may train one after another: some trials may have ended.
    assert "interrupted" in {row[1] for row in found.values()}
    assert 0 < epochs_of(found) < epochs_of(whole)
    assert check_cut(uri, "the target was reached")
    store = open_store(uri)
    (version,) = store.client.search_model_versions("name = 'mlp'")
    study = store.client.get_run(version.run_id)
    assert study.data.metrics["val_accuracy"] >= target
    run(tmp_path, "--resume", **cluster)
    assert table(uri) == whole
    # Of the trial's end, even if it is the same trial's.
    assert not (tmp_path / "studies").exists()
