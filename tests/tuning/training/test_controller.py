"""Tune's loop with our controller: real actors, packs that end at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.tune.tune as tune_module
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial

from mlops.tuning.training import loop
from mlops.tuning.training.controller import PackController
from mlops.tuning.training.trial import PackTrial

pytestmark = pytest.mark.slow

PACKS, RAISES = 12, 5


def instant() -> type[PackTrial]:
    """Made in a function, so that it goes to workers by value: they cannot import this module."""
    raises = RAISES

    class Instant(PackTrial):
        """Ends at its second report, or raises."""

        def setup(self, config: dict[str, Any], *given: Any) -> None:
            self._reports = 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._reports = 0
            return True

        def step(self) -> dict[str, Any]:
            self._reports += 1
            if self.config["pack"] == raises:
                raise ArithmeticError("on purpose")
            return {"done": self._reports == 2}

    return Instant


class Watching(Callback):
    """Notes what Tune looks through at each step, and what it is told."""

    def __init__(self) -> None:
        self.kept: list[list[str]] = []
        self.ended: list[int] = []
        self.reports: list[dict[str, Any]] = []

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.kept.append([trial.status for trial in trials])

    def on_trial_result(self, *, result: dict[str, Any], **info: Any) -> None:
        self.reports.append(dict(result))

    def on_trial_complete(self, *, trial: Trial, **info: Any) -> None:
        self.ended.append(trial.config["pack"])

    on_trial_error = on_trial_complete


@pytest.fixture
def watched(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watching:
    watching = Watching()
    monkeypatch.setattr(tune_module, "TuneController", loop.TUNES_OWN)
    monkeypatch.setattr(loop.os, "environ", dict(loop.os.environ))
    loop.set_up(workers=2)
    assert tune_module.TuneController is PackController
    tune.run(
        tune.with_resources(instant(), {"CPU": 1}),
        config={"pack": tune.grid_search(list(range(PACKS)))},
        reuse_actors=True,
        max_failures=1,
        raise_on_failed_trial=False,
        storage_path=str(tmp_path),
        callbacks=[watching],
        verbose=0,
    )
    return watching


def test_what_has_ended_is_forgotten_and_nothing_else(watched: Watching) -> None:
    assert sorted(watched.ended) == list(range(PACKS))
    finished = {Trial.TERMINATED, Trial.ERROR}
    assert all(finished.isdisjoint(statuses) for statuses in watched.kept)
    assert watched.kept[0]
    assert watched.kept[-1] == []
    assert len(watched.reports) == 2 * (PACKS - 1)
    # The driver has handed it out, and knows it.
    assert not any("config" in report for report in watched.reports)
