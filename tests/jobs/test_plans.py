"""What a job is given is what it plans: every setting is handed over, to its own place."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import pytest

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.settings.study import TrainSettings, TuneSettings
from mlops.tuning.plan import Plan
from ray_jobs import train, tune

SPACE = '{"dropout": {"uniform": [0.0, 0.3]}}'
# Flag, what is given, where it is in the plan, and as what where that is not what was given.
OF_BOTH: list[tuple[Any, ...]] = [
    ("data.split_seed", 7, "data.split_seed"),
    ("metric", "val_f1", "training.metric"),
    ("seed", 3, "training.seed"),
    ("study", "one", "name"),
    ("address", "head:6379", "crew.address"),
    ("resources.workers", 2, "crew.resources.workers"),
    ("tracking.model_name", "mine", "keeping.tracking.model_name"),
]
OF_TUNE: list[tuple[Any, ...]] = [
    *OF_BOTH,
    ("max_evals", 7, "search.max_evals"),
    ("epochs", 4, "search.default", Hyperparameters(epochs=4)),
    ("pack_size", 6, "training.pack_size"),
    ("space", SPACE, "search.space.entries", SearchSpace.parse(json.loads(SPACE)).entries),
    ("defaults", '{"dropout": 0.4}', "search.default", Hyperparameters(dropout=0.4)),
    ("resume", "true", "keeping.resume", True),
    ("time_budget", 60.0, "end.time_budget"),
    ("target", 0.9, "end.target"),
    ("trial_timeout", 5.0, "crew.trial_timeout"),
    ("no_worker_timeout", 50.0, "end.no_worker_timeout"),
    ("checkpoint_every", 9.0, "keeping.checkpoint_every"),
    ("max_failures", 0, "crew.max_failures"),
    ("storage", "there", "keeping.storage"),
    ("search.algorithm", "random", "search.how.algorithm"),
    ("pruning.eta", 3, "training.pruning.eta"),
]
DEFAULT = Hyperparameters().to_dict()
HYPERPARAMETERS = {
    "hidden_dims": [8],
    "learning_rate": 0.1,
    "batch_size": 8,
    "epochs": 3,
    "dropout": 0.3,
    "weight_decay": 0.2,
    "label_smoothing": 0.1,
    "activation": "tanh",
}
OF_TRAIN: list[tuple[Any, ...]] = [
    *OF_BOTH,
    *(
        (name, value, "search.default", Hyperparameters.from_dict({**DEFAULT, name: value}))
        for name, value in HYPERPARAMETERS.items()
    ),
]
CASES = [(tune, *case) for case in OF_TUNE] + [(train, *case) for case in OF_TRAIN]


def planned(job: ModuleType, *flags: str) -> Plan:
    """The plan that a job hands over."""
    plans: list[Plan] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlops.tuning.study.run", plans.append)
        patch.setattr("mlops.tuning.resuming.recorded_settings", lambda *_: {})
        job.main([*flags])
    [plan] = plans
    return plan


def flat(part: Any, place: str = "") -> dict[str, Any]:
    """All that a plan says, by its place."""
    if is_dataclass(part) and not isinstance(part, Hyperparameters | SearchSpace):
        names = [field.name for field in fields(part)]
    elif hasattr(type(part), "model_fields"):
        names = [*type(part).model_fields]
    else:
        return {place: part}
    found: dict[str, Any] = {}
    for name in names:
        found |= flat(getattr(part, name), f"{place}.{name}" if place else name)
    return found


@pytest.mark.parametrize("case", CASES, ids=[f"{job.__name__}-{case[0]}" for job, *case in CASES])
def test_a_setting_is_handed_over_to_its_place_and_changes_no_other(case: tuple[Any, ...]) -> None:
    job, flag, given, place, *expected = case
    plan, plain = planned(job, f"--{flag}", str(given)), planned(job)
    value: Any = plan
    for name in place.split("."):
        value = getattr(value, name)
    assert value == (expected[0] if expected else given)
    now, before = flat(plan), flat(plain)
    changed = {at for at in now.keys() | before.keys() if now.get(at) != before.get(at)}
    # What is recorded and how it is gone on with; a study's name is by the time.
    changed -= {"keeping.settings", "keeping.again", "name"}
    assert changed <= {place.removesuffix(".entries")}
    recorded: Any = plan.keeping.settings
    for name in flag.split("."):
        recorded = recorded[name]
    assert str(recorded).replace("'", '"') == str(given).replace("true", "True")


@pytest.mark.parametrize(("job", "settings"), [(tune, TuneSettings), (train, TrainSettings)])
def test_there_is_a_case_of_each_setting(job: ModuleType, settings: Any) -> None:
    told = {case[1].split(".")[0] for case in CASES if case[0] is job}
    assert told == settings.model_fields.keys()
