"""Settings as MLflow params: whatever the user's names, MLflow takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from mlops.settings.sections import Section
from mlops.settings.study import TrainSettings, TuneSettings
from mlops.tracking.store.store import Store
from mlops.tracking.study.params import LONGEST_PARAM, SECTIONS, as_params

ODD = "[ü]*%\n\0😀'\""


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield prefix + name
            yield from sections(field.annotation, f"{prefix}{name}.")


@pytest.mark.parametrize("model", [TrainSettings, TuneSettings])
def test_the_sections_are_those_of_the_settings(model: type[BaseModel]) -> None:
    # The names in `defaults` are those of hyperparameters, which is checked.
    assert set(sections(model)) <= SECTIONS
    others = {*sections(TrainSettings), *sections(TuneSettings), "defaults"}
    assert others == SECTIONS


def test_a_param_is_a_setting() -> None:
    settings = TuneSettings(defaults={"epochs": 3}).model_dump()
    params = as_params(settings)
    assert params["data.synthetic.n_samples"] == "1000"
    assert params["defaults.epochs"] == "3"
    assert params["search.algorithm"] == "hyperopt"
    assert json.loads(params["space"]) == settings["space"]
    assert "target" not in params  # None
    assert as_params(TuneSettings(target=0.5).model_dump())["target"] == "0.5"


@pytest.mark.parametrize(
    "columns",
    [
        {ODD: "drop"},
        {f"column {i} {ODD}": "drop" for i in range(16_000)},
        {"x" * 100_000: "drop"},
        {f"c{i}": "drop" for i in range(300)},
        [ODD, "a*"],
        [f"c{i}" for i in range(16_000)],
        "x" * 100_000,
        ODD,
        "\udcff",
        {},
    ],
    ids=["odd", "many odd", "long", "some", "a list", "a long list", "a long text", "an odd text",
         "no text", "none"],
)  # fmt: skip
def test_names_of_columns_are_no_params(columns: Any, store: Store) -> None:
    """Real stores take them; what is there of them is whole, and says what is not there."""
    from mlflow.entities import Param

    settings = TuneSettings().model_dump()
    settings["data"]["columns"] = columns
    params = as_params(settings)
    assert params.keys() == as_params(TuneSettings().model_dump()).keys()
    text = params["data.columns"]
    assert len(text) <= LONGEST_PARAM
    if not isinstance(columns, str) and "more" not in text:
        assert json.loads(text) == columns
    elif not isinstance(columns, str):
        shown, _, more = text[1:-1].rpartition("and ")
        read = json.loads(text[0] + shown.removesuffix(", ") + text[-1])
        assert list(read) == list(columns)[: len(read)]
        assert more == f"{len(columns) - len(read):,} more, see settings.yaml"
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_batch(run_id, params=[Param(key, text) for key, text in params.items()])
    assert store.client.get_run(run_id).data.params == params
