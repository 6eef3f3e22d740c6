"""Who may be let in is known before anything answers; what replicas get is the user's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from endpoint_harness import EndpointSettings

from mlops.errors import SettingsError
from mlops.serving.champion.champion import Champion
from mlops.serving.endpoint.app import make_app
from mlops.serving.endpoint.security import TOKEN_VARIABLE, is_loopback
from mlops.serving.ingress import credentials

NAMES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `take_up` changes is undone."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in [*NAMES, TOKEN_VARIABLE]:
        os.environ.pop(name, None)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("fe80::1", False),
        ("no.such.host.invalid", False),
        ("", False),
    ],
)
def test_what_others_can_reach_needs_a_token(
    host: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_loopback(host) == expected
    settings, champion = EndpointSettings(host=host), Champion("sqlite:///none.db")
    if expected:
        make_app(settings, champion)
    else:
        with pytest.raises(SettingsError, match="must come with a token, got none"):
            make_app(settings, champion)
    os.environ[TOKEN_VARIABLE] = "secret"
    make_app(settings, champion)


def test_replicas_get_what_the_job_has_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    os.environ.update(MLFLOW_TRACKING_TOKEN="of the job", AWS_REGION="here", HOME="kept")
    path = credentials.leave(tmp_path, "secret", "http://store")
    assert path.stat().st_mode & 0o777 == 0o600

    os.environ.update(
        MLFLOW_TRACKING_USERNAME="of the cluster",
        MLFLOW_TRACKING_PASSWORD="of the cluster",
        MLFLOW_TRACKING_TOKEN="of the cluster",
        MLFLOW_TRACKING_URI="of the cluster",
        MLOPS_SERVE_TOKEN="of the cluster",
        HOME="of the cluster",
    )
    credentials.take_up(path)
    names = [*NAMES, "MLFLOW_TRACKING_URI", TOKEN_VARIABLE, "AWS_REGION", "HOME"]
    assert [os.environ.get(name) for name in names] == [
        None,
        None,
        "of the job",
        "http://store",
        "secret",
        "here",
        "of the cluster",
    ]


def test_a_cluster_with_a_password_keeps_it_where_the_job_has_none(tmp_path: Path) -> None:
    path = credentials.leave(tmp_path, None, "http://store")
    os.environ.update(MLFLOW_TRACKING_USERNAME="name", MLOPS_SERVE_TOKEN="of the cluster")
    credentials.take_up(path)
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "name"
    assert TOKEN_VARIABLE not in os.environ  # the job has said that there is none


@pytest.mark.parametrize("written", [None, "half of it: {"])
def test_what_cannot_be_read_lets_nobody_in(written: str | None, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    if written is not None:
        path.write_text(written)
    with pytest.raises(SettingsError, match="must be able to read the job's credentials") as raised:
        credentials.take_up(path)
    assert len(str(raised.value).splitlines()) == 1
