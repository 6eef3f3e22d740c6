"""The spool: what was not sent is read back, whatever happened to the file."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from threading import Event

import pytest

from mlops.errors import InputError
from mlops.tracking.spool import NAME, Call, Spool, read_spool, study_folder

CALLS = [["start", 0, {"lr": 0.1 + 0.2}, {}, 5], ["record", [{"loss": float("inf")}], 6]]


def spooled(folder: Path, run_id: str = "run") -> Spool:
    spool = Spool(folder)
    for call in CALLS:
        spool.add(call)
    spool.open(run_id)
    return spool


def test_calls_come_back_as_they_were_added_before_and_after_opening(tmp_path: Path) -> None:
    spool = spooled(tmp_path / "a")
    spool.add(["end", 0])
    assert read_spool(tmp_path / "a") == ([*CALLS, ["end", 0]], [])
    spool.close(sent=False)
    assert len(read_spool(tmp_path / "a")[0]) == 3


def test_what_is_added_while_it_is_opened_is_in_order(tmp_path: Path) -> None:
    for attempt in range(30):
        spool, stop = Spool(tmp_path / str(attempt)), threading.Event()
        added: list[Call] = []

        def add(spool: Spool = spool, stop: Event = stop, added: list[Call] = added) -> None:
            while not stop.is_set():
                added.append(["end", len(added)])
                spool.add(added[-1])

        adding = threading.Thread(target=add)
        adding.start()
        while len(added) < 50:
            time.sleep(0.0001)
        spool.open("run")
        stop.set()
        adding.join()
        assert read_spool(spool.folder) == (added, [])
        spool.close(sent=True)


def test_a_driver_goes_on_with_the_file_of_the_one_before(tmp_path: Path) -> None:
    spooled(tmp_path).close(sent=False)
    spooled(tmp_path).close(sent=False)
    assert read_spool(tmp_path) == ([*CALLS, *CALLS], [])


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_half_written_line_is_reported_and_the_rest_is_read(cut: int, tmp_path: Path) -> None:
    spooled(tmp_path).close(sent=False)
    file = tmp_path / NAME
    file.write_bytes(file.read_bytes()[:-cut])
    again = Spool(tmp_path)
    again.add(["end", 0])
    again.open("run")
    again.close(sent=False)
    calls, problems = read_spool(tmp_path)
    assert calls == ([*CALLS, ["end", 0]] if cut == 1 else [CALLS[0], ["end", 0]])
    assert [("line 3" in problem, str(file) in problem) for problem in problems] == [
        (True, True)
    ] * (cut > 1)


def test_other_rubbish_is_reported_too(tmp_path: Path) -> None:
    spooled(tmp_path).close(sent=False)
    file = tmp_path / NAME
    file.write_bytes(file.read_bytes() + b'\xff\xfe\n{"no": "call"}\n[1]\n' + b'["end", 1]\n')
    calls, problems = read_spool(tmp_path)
    assert calls == [*CALLS, ["end", 1]]
    assert len(problems) == 3


def test_what_is_sent_is_removed(tmp_path: Path) -> None:
    folder = study_folder(tmp_path / "studies", "one")
    spool = spooled(folder)
    spool.keep("trial-0001.safetensors", b"weights")
    spool.close(sent=True)
    assert not (tmp_path / "studies").exists()
    other = spooled(study_folder(tmp_path / "studies", "two"))
    other.close(sent=False)
    spooled(folder).close(sent=True)
    assert list((tmp_path / "studies").iterdir()) == [other.folder]


def test_what_another_run_left_is_put_aside_until_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    other = spooled(folder, "other")
    other.keep("trial-0001.safetensors", b"of other")
    other.close(sent=False)

    ours = Spool(folder)
    ours.add(["start", 7])
    ours.keep("trial-0001.safetensors", b"ours")  # before it is known whose it is
    assert (folder / "trial-0001.safetensors").read_bytes() == b"of other"
    ours.open("run")
    assert "it is now study of other" in capsys.readouterr().err
    assert read_spool(folder) == ([["start", 7]], [])
    assert (folder / "trial-0001.safetensors").read_bytes() == b"ours"
    ours.close(sent=False)

    again = Spool(folder)
    again.open("other")
    assert read_spool(folder) == (CALLS, [])
    assert (folder / "trial-0001.safetensors").read_bytes() == b"of other"
    again.close(sent=True)
    assert [path.name for path in tmp_path.iterdir()] == ["study of run"]


def test_a_run_with_a_driver_is_not_put_aside(tmp_path: Path) -> None:
    first = spooled(tmp_path / "study", "other")
    with pytest.raises(InputError, match="storage: must be without a study of the same name"):
        spooled(tmp_path / "study", "run")
    first.close(sent=False)
    spooled(tmp_path / "study", "run").close(sent=True)


@pytest.mark.parametrize("line", [b"", b"[", b"7\n", b'["start", 0]\n', b"\xff\n"])
def test_a_file_that_does_not_say_whose_it_is_is_nobodys(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / NAME).write_bytes(line)
    spool = spooled(tmp_path / "study")
    assert read_spool(tmp_path / "study") == (CALLS, [])
    spool.close(sent=True)
    # Removed with the last of its folders, unless another was put aside.
    assert tmp_path.exists() == bool(line)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="storage: must be a folder that can be written"):
        Spool(tmp_path / "file" / "study").open("run")


def test_a_full_disk_stops_no_study(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path])
    if mounted.returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    try:
        spool = spooled(tmp_path / "study")
        for _ in range(100):
            spool.add(["record", ["x" * 1000], 1])
        assert spool.fault is not None
        assert "No space left" in spool.fault
        assert spool.keep("weights", b"x" * 100_000) is None
        calls, problems = read_spool(tmp_path / "study")
        assert calls[:2] == CALLS
        assert len(problems) <= 1
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "tune 1", "ü'\"`", "a" * 80])
def test_any_name_of_a_study_is_a_folder_of_its_own(name: str, tmp_path: Path) -> None:
    folder = study_folder(tmp_path, name)
    assert folder.parent == tmp_path
    spooled(folder).close(sent=True)
