"""A study is what it was begun as: with exactly those settings it goes on, or it is refused."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from dying import PACKING, REFUSED, create, create_and_die, processes

from mlops.data.versions import RELEASE
from mlops.errors import InputError
from mlops.nn.records import MERIT
from mlops.settings import flags
from mlops.settings.study import TuneSettings
from mlops.tracking.store.lease import DriverTag, Lease
from mlops.tracking.store.store import Store, open_store
from mlops.tracking.study.begun import (
    LONGEST_PART,
    PACKING_TAG,
    RELEASE_TAG,
    SETTINGS,
    SETTINGS_TAG,
    VERSIONS,
    settings_tags,
)
from mlops.tracking.study.record import find_study
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.study_run import StudyRun
from mlops.tuning import resuming

BEGUN = TuneSettings(
    epochs=30,
    seed=7,
    metric="val_f1",
    pack_size=2,
    space={"hidden_dims": {"choice": [[8], [16, 8]]}, "dropout": {"uniform": [0.0, 0.123]}},
    defaults={"learning_rate": 1e-5},
)
PARTS: Any = SimpleNamespace(digest="d", notes=())


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops.tracking.study.study_run.log_dataset", lambda *given: None)
    quick = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)
    monkeypatch.setattr("mlops.tracking.store.lease.time", quick)


def resumed_settings(store: Store, name: str) -> TuneSettings:
    """The settings of `python -m ray_jobs.tune --study NAME --resume`."""
    return flags.load(
        TuneSettings,
        ["--study", name, "--resume", "--tracking.uri", store.uri],
        name="tune",
        recorded=lambda given: resuming.recorded_settings(given.study, given.tracking),
    )


def assert_goes_on_as_begun(store: Store, name: str, folder: Path) -> None:
    settings = resumed_settings(store, name)
    this_time = {"study", "resume", "tracking", "max_evals"}
    assert settings.model_dump(exclude=this_time) == BEGUN.model_dump(exclude=this_time)
    record = find_study(store, name)
    assert record is not None
    assert (record.packing, record.data_digest, record.ends) == (PACKING, "d", [20])
    StudyRun.resume(store, record, PARTS, 20, Spool(folder / name)).end()
    run = store.client.get_run(record.run_id)
    assert run.info.status == "FINISHED"
    # What people read is there too, whoever has recorded it.
    assert run.data.params["epochs"] == "30"
    content = store.read_bytes(record.run_id, SETTINGS)
    assert content is not None
    assert yaml.safe_load(content) == BEGUN.model_dump()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("under_mlflow_run", [False, True], ids=["alone", "under mlflow run"])
@pytest.mark.parametrize("kind", ["sqlite", "files"])
def test_a_driver_killed_at_any_moment_of_beginning(
    under_mlflow_run: bool,
    kind: str,
    sqlite_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = open_store(sqlite_uri if kind == "sqlite" else f"file://{tmp_path}/files")
    settings = BEGUN.model_dump()
    died = 0
    seen: list[bool] = []  # whether there was a study, by moment
    while True:
        name = f"died at {died + 1}"
        given = None
        if under_mlflow_run:
            given = store.client.create_run(store.experiment_id).info.run_id
        arguments = (store.uri, name, settings, died + 1, given, tmp_path)
        child = processes().Process(target=create_and_die, args=arguments)
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        died += 1
        try:
            begun = find_study(store, name) is not None
        except InputError:
            begun = False
        seen.append(begun)
        if begun:
            assert_goes_on_as_begun(store, name, tmp_path)
            continue
        with pytest.raises(InputError, match=r"^study: must .*; .*") as refused:
            resumed_settings(store, name)
        assert len(refused.value.problems) == 1
        create(store, name, settings, tmp_path).end()
        assert_goes_on_as_begun(store, name, tmp_path)
    print(f"{died} moments, at {seen.count(False)} of them there was no study yet")
    assert died > 20
    # One moment makes it a study, and what comes after is no matter.
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


FIRST_RELEASE = json.loads((Path(__file__).parent / "begun_by_release_0_1.json").read_text())


def test_a_study_of_the_first_release_is_refused_and_stays_as_it_is(sqlite_store: Store) -> None:
    """What release 0.1 has recorded of a study, of its first trials too."""
    client, ids = sqlite_store.client, []
    for run in FIRST_RELEASE:
        made = client.create_run(sqlite_store.experiment_id, tags={**run["tags"], **parent(ids)})
        ids.append(made.info.run_id)
        for name, value in run["params"].items():
            client.log_param(ids[-1], name, value)
    before = [client.get_run(run_id).to_dictionary() for run_id in ids]
    name = FIRST_RELEASE[0]["tags"]["study"]
    for _ in range(2):
        with pytest.raises(InputError) as told:
            resumed_settings(sqlite_store, name)
        assert str(told.value) == (
            "study: must have been begun by a release that reads and splits tables as 0.2 does to "
            f"be resumed, got `{name}` of release 0.1; go on with it under release 0.1, or begin "
            "another --study"
        )
    assert [client.get_run(run_id).to_dictionary() for run_id in ids] == before


def parent(ids: list[str]) -> dict[str, str]:
    return {"mlflow.parentRunId": ids[0]} if ids else {}


def test_a_study_of_the_first_release_whose_settings_are_tags_is_refused(
    sqlite_store: Store, tmp_path: Path
) -> None:
    made = create(sqlite_store, "one", BEGUN.model_dump(), tmp_path)
    made.end()
    for name in (*VERSIONS, RELEASE_TAG):
        sqlite_store.client.delete_tag(made.run_id, name)
    with pytest.raises(InputError, match=r"of release 0\.1; go on with it under release 0\.1, or"):
        resumed_settings(sqlite_store, "one")


@pytest.mark.parametrize("name", VERSIONS)
def test_a_study_whose_table_was_read_or_split_otherwise_is_refused(
    name: str, sqlite_store: Store, tmp_path: Path
) -> None:
    made = create(sqlite_store, "one", BEGUN.model_dump(), tmp_path)
    made.end()
    sqlite_store.client.set_tag(made.run_id, name, "3")
    sqlite_store.client.set_tag(made.run_id, RELEASE_TAG, "0.7")
    with pytest.raises(InputError, match=r"of release 0\.7; go on with it under release 0\.7, or"):
        resumed_settings(sqlite_store, "one")


@pytest.mark.parametrize("version", [None, 1, MERIT + 1])
def test_a_study_whose_equal_scores_were_told_apart_otherwise_is_refused(
    version: int | None, sqlite_store: Store, tmp_path: Path
) -> None:
    """Its best trial, and who was pruned, would be others; the first version is not on record."""
    made = create(sqlite_store, "one", BEGUN.model_dump(), tmp_path)
    made.end()
    assert resumed_settings(sqlite_store, "one").seed == BEGUN.seed
    sqlite_store.client.delete_tag(made.run_id, "merit")
    if version is not None:
        sqlite_store.client.set_tag(made.run_id, "merit", str(version))
    told = rf"^study: must tell equal scores .* got `one` of version {version or 1}; .*--study$"
    with pytest.raises(InputError, match=told):
        resumed_settings(sqlite_store, "one")


@pytest.mark.parametrize("number", [0, 3, "auto"])
def test_a_study_that_used_what_is_gone_is_refused_and_others_go_on(
    number: int | str, sqlite_store: Store, tmp_path: Path
) -> None:
    begun = BEGUN.model_dump()
    begun["resources"]["cpu_workers"] = number
    create(sqlite_store, "one", begun, tmp_path).end()
    if number == 0:
        assert resumed_settings(sqlite_store, "one").resources == BEGUN.resources
        return
    told = rf"^study: must have been begun without resources\.cpu_workers .* `one` of {number}, .*;"
    with pytest.raises(InputError, match=told):
        resumed_settings(sqlite_store, "one")


def test_the_release_on_record_is_this_one() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'version = "{RELEASE}.' in project


def artifacts(store: Store, run_id: str) -> Path:
    return Path(store.client.get_run(run_id).info.artifact_uri.removeprefix("file://"))


def test_a_study_goes_on_without_its_artifacts(sqlite_store: Store, tmp_path: Path) -> None:
    made = create(sqlite_store, "one", BEGUN.model_dump(), tmp_path)
    made.end()
    shutil.rmtree(artifacts(sqlite_store, made.run_id))
    assert_goes_on_as_begun(sqlite_store, "one", tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{SETTINGS_TAG}.0", None),
        (f"{SETTINGS_TAG}.0", '{"epochs": 50}'),
        (SETTINGS_TAG, "{}"),
        (SETTINGS_TAG, "rubbish"),
        (SETTINGS_TAG, '{"parts": 0, "sha256": ""}'),
        ("data_digest", None),
        ("max_evals", None),
        ("pack_size", None),
    ],
)
def test_a_study_whose_tags_were_changed_is_refused(
    name: str, value: str | None, sqlite_store: Store, tmp_path: Path
) -> None:
    made = create(sqlite_store, "one", BEGUN.model_dump(), tmp_path)
    made.end()
    if value is None:
        sqlite_store.client.delete_tag(made.run_id, name)
    else:
        sqlite_store.client.set_tag(made.run_id, name, value)
    with pytest.raises(InputError, match=r"^study: must have .*; put .*") as told:
        resumed_settings(sqlite_store, "one")
    assert len(str(told.value).splitlines()) == 1


def test_settings_of_any_length_and_letters_come_back(store: Store, tmp_path: Path) -> None:
    odd = "ü'\"\\\n\u2028😀 " * 2000
    settings = {**BEGUN.model_dump(), "odd": odd}
    assert len(settings_tags(settings)) > 5
    assert all(len(value) <= LONGEST_PART for value in settings_tags(settings).values())
    made = create(store, "long", settings, tmp_path)
    made.end()
    record = find_study(store, "long")
    assert record is not None
    assert record.settings == json.loads(json.dumps(settings))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_two_that_begin_a_study_at_once_one_has_it(sqlite_store: Store, tmp_path: Path) -> None:
    """Whoever wins, and wherever the other one is killed, the winner's settings are the study's."""
    for at in (0, 0, 12, 18, 24, 30):
        name = f"race {at} {len(list(tmp_path.iterdir()))}"
        one, other = ({**BEGUN.model_dump(), "seed": seed} for seed in (1, 2))
        children = [
            processes().Process(
                target=create_and_die,
                args=(sqlite_store.uri, name, settings, moment, None, tmp_path / f"{number}"),
            )
            for number, (settings, moment) in enumerate([(one, 0), (other, at)])
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        record = find_study(sqlite_store, name)
        assert record is not None
        ends = [child.exitcode for child in children]
        winners = [number for number, end in enumerate(ends) if end == 0]
        assert len(winners) <= 1, ends
        if winners:
            assert record.settings["seed"] == winners[0] + 1
        elif at == 0:
            raise AssertionError(ends)
        else:
            assert set(ends) == {REFUSED, -signal.SIGKILL}


def test_who_loses_a_run_that_mlflow_made_leaves_no_study_there(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sqlite_store.client.create_run(sqlite_store.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="storage: must be a folder that can be written"):
        create(sqlite_store, "one", BEGUN.model_dump(), tmp_path / "file")
    assert find_study(sqlite_store, "one") is None
    assert PACKING_TAG not in sqlite_store.client.get_run(given).data.tags


def test_who_goes_on_with_a_study_before_its_maker_has_it_keeps_it(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sqlite_store.client
    create_run, quicker = client.create_run, []

    def create_run_and_lose(*given: Any, **named: Any) -> Any:
        run = create_run(*given, **named)
        quicker.append(Lease(DriverTag(sqlite_store, run.info.run_id, "one")).take())
        return run

    monkeypatch.setattr(client, "create_run", create_run_and_lose)
    with pytest.raises(InputError, match="`one` must have one driver at a time, got one already"):
        create(sqlite_store, "one", BEGUN.model_dump(), tmp_path)
    quicker[0].release()
    assert_goes_on_as_begun(sqlite_store, "one", tmp_path)
