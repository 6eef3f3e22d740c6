"""The spool: what was not sent is read back, whatever happened to the file."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from threading import Event

import pytest
from pydantic import ValidationError

from mlops.errors import InputError
from mlops.settings.study import TuneSettings
from mlops.tracking.study.spool import Call, Spool, read_spool
from mlops.tracking.study.storage import RECORD, study_folder

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
    file = tmp_path / RECORD
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
    file = tmp_path / RECORD
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
    assert "it is now in study of other" in capsys.readouterr().err
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


@pytest.mark.parametrize("line", [b"", b"[", b'["study", ', b'["study", "run'])
def test_a_file_that_does_not_wholly_say_whose_it_is_is_nobodys(
    line: bytes, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / RECORD).write_bytes(line)
    spool = spooled(tmp_path / "study")
    assert read_spool(tmp_path / "study") == (CALLS, [])
    spool.close(sent=True)
    aside = [path for path in tmp_path.iterdir() if path.name != "study"]
    assert [(path / RECORD).read_bytes() for path in aside] == [line] * bool(line)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file/study", "file/below/study", f"{'a' * 300}/study"):
        for look in (Spool.check, lambda spool: spool.open("run")):
            with pytest.raises(InputError, match="storage: must be a folder that can be written"):
                look(Spool(tmp_path / place))


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


NAMES = ["a/b", "../a", "..", ".", "/", "~", "tune 1", " ", "ü'`", "-", "CON", "a\\", "%2F"]
NAMES += ["a" * 80, "a" * 249, "a" * 250, "名" * 250, "名" * 249 + "a", "a of b", "a;b", "*", "#"]


def test_any_name_of_a_study_is_a_folder_of_its_own(tmp_path: Path) -> None:
    spools = [spooled(study_folder(tmp_path, name), "a" * 32) for name in NAMES]
    folders = {spool.folder for spool in spools}
    assert len(folders) == len(NAMES)
    assert {folder.parent for folder in folders} == {tmp_path}
    for spool in spools:
        assert read_spool(spool.folder) == (CALLS, [])
        spool.close(sent=False)
    for name in NAMES:  # another store's study of that name
        spooled(study_folder(tmp_path, name), "b" * 32).close(sent=True)
        again = Spool(study_folder(tmp_path, name))
        again.open("a" * 32)
        assert read_spool(again.folder) == (CALLS, [])
        again.close(sent=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", " ", "\t", "a\nb", "a\0b", "\x7f", "\ud800", "'\"", "a" * 251, "a\u2028b"]
)
def test_a_name_that_cannot_be_kept_is_told_in_a_line(name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TuneSettings(study=name)
    (problem,) = refused.value.errors()
    assert "must" in problem["msg"]
    assert "; choose another name" in problem["msg"]
    assert problem["msg"].isprintable()


@pytest.mark.parametrize("place", ["", " ", "\0", "~no-such-user/x", "s3://"])
def test_a_storage_that_is_none_is_told_in_a_line(place: str) -> None:
    with pytest.raises(ValidationError, match=r"storage\n.*must be a folder or a URI"):
        TuneSettings(storage=place)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def litter(folder: Path) -> None:
    """What workers that were killed leave in a study's folder."""
    header = json.dumps({"__metadata__": {"facts": "{}"}}).encode()
    (folder / "pack-0.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / f"probe-{'0' * 16}").write_bytes(b"probe")
    (folder / f"probe-{'0' * 16}-{'1' * 8}").write_bytes(b"probe")
    (folder / "trial-0001.unfinished").write_bytes(b"half")
    draft = folder / ".writing-abcd_012"
    draft.mkdir()
    (draft / "pack-3.safetensors").write_bytes(b"half")
    probe = folder / ".writing-00000000" / f"probe-{'2' * 16}"
    probe.parent.mkdir()
    probe.write_bytes(b"half")


# What a user may keep in a storage folder, in the folder of a study's name and beside it.
THEIRS = {
    "churn/table.csv": b"a,b",
    "churn/notes/record.jsonl": b"theirs",
    "churn/trial.safetensors": b"theirs",
    "churn/trial-1.safetensors": b"theirs",
    "churn/pack-7.safetensors": b"theirs",
    "churn/pack-a.safetensors": b"theirs",
    "churn/probe-1": b"theirs",
    "churn/.writing-abcdefgh/table.csv": b"theirs",
    "churn/.writing-00000001/pack-0.parquet": b"theirs",
    "churn/record.jsonl.bak": b"theirs",
    "churn.csv": b"theirs",
    "other/record.jsonl": b"theirs",
}


@pytest.mark.parametrize("ending", ["at once", "resumed", "another store's between"])
def test_nothing_of_a_user_s_vanishes_or_changes(ending: str, tmp_path: Path) -> None:
    for name, content in THEIRS.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    before = tree(tmp_path)
    spool = Spool(study_folder(tmp_path, "churn"))
    spool.check()
    spool.open("run")
    spool.keep("trial-0001.safetensors", b"weights")
    litter(spool.folder)
    if ending != "at once":
        spool.close(sent=False)
        spool = Spool(spool.folder)
        if ending == "another store's between":
            spool.open("other")
            spool.keep("trial-0001.safetensors", b"other")
            spool.close(sent=True)
            spool = Spool(spool.folder)
        spool.open("run")
    spool.close(sent=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["record.jsonl", "trial-0000.safetensors", "trial-0001.unfinished"]
)
@pytest.mark.parametrize("content", [b"theirs", b"\n", b'["start", 0]\n', b"\xff"])
def test_a_user_s_file_of_a_study_s_name_is_told(name: str, content: bytes, tmp_path: Path) -> None:
    spool = Spool(study_folder(tmp_path, "churn"))
    spool.folder.mkdir()
    (spool.folder / name).write_bytes(content)
    before = tree(tmp_path)
    for look in (spool.check, lambda: spool.open("run")):
        with pytest.raises(InputError, match=f"storage: .*got .*/{name}; move it away"):
            look()
    spool.close(sent=False)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("there", ["", "a", "a/b", "a/b/churn"])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_folders_that_were_made_are_removed_and_no_other(
    there: str, resumed: bool, tmp_path: Path
) -> None:
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = tree(tmp_path)
    spool = Spool(study_folder(tmp_path / "a" / "b", "churn"))
    spool.check()
    spool.folder.mkdir(parents=True, exist_ok=True)  # a worker's checkpoint was earlier
    spool.open("run")
    if resumed:
        spool.close(sent=False)
        spool = Spool(spool.folder)
        spool.check()
        spool.open("run")
    litter(spool.folder)
    spool.close(sent=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_study_that_was_stopped_keeps_its_checkpoints_until_it_ends(
    checkpoint: bool, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    spool = Spool(study_folder(tmp_path / "a", "churn"))
    spool.check()
    for call in CALLS:
        spool.add(call)
    spool.open("run")
    spool.keep("trial-0001.safetensors", b"weights")
    litter(spool.folder)
    if not checkpoint:
        (spool.folder / "pack-0.safetensors").unlink()
    spool.close(sent=True, goes_on=True)
    if checkpoint:
        assert {path.name for path in spool.folder.iterdir()} == {"pack-0.safetensors", RECORD}
        assert len((spool.folder / RECORD).read_bytes().splitlines()) == 1
        # Another store's study of the name leaves them for it.
        other = Spool(spool.folder)
        other.open("other")
        assert {path.name for path in spool.folder.iterdir()} == {RECORD}
        other.close(sent=True)
        resumed = Spool(spool.folder)
        resumed.check()
        resumed.open("run")
        assert (spool.folder / "pack-0.safetensors").exists()
        assert read_spool(spool.folder) == ([], [])
        resumed.close(sent=True)
    assert tree(tmp_path) == before


def test_a_spool_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "one"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text('["study", "run"]\n["end", 0]\n')
    spool = Spool(folder)
    spool.open("run")
    assert read_spool(folder) == ([["end", 0]], [])
    spool.close(sent=True)
    assert list(folder.iterdir()) == []
