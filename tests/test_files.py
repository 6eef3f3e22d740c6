"""Files on a disk and in an object store, which is moto's here."""

from __future__ import annotations

import errno
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow.fs import FileSelector, FileSystem
from servers import free_port, object_store

from mlops import files
from mlops.cluster import machines
from mlops.cluster.machines import check_storage
from mlops.data.sources import read_file
from mlops.errors import InputError, TableError
from mlops.files import exists, is_same, local_copy, remove, replacing


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment, object_store(environment) as uri:
        yield uri


@pytest.fixture(params=["disk", "object store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path)
    return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"


def written(path: str, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text)


def content(path: str) -> str:
    with local_copy(path) as file:
        return file.read_text()


def test_a_file_comes_and_goes(place: str) -> None:
    path = f"{place}/new/a.txt"
    assert not exists(path)
    with pytest.raises(FileNotFoundError):
        content(path)
    written(path, "one")
    written(path, "two")
    assert exists(path)
    assert content(path) == "two"
    remove(path)
    assert not exists(path)


def test_what_is_interrupted_leaves_the_old_file(place: str) -> None:
    path = f"{place}/a.txt"
    written(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as unfinished:
        unfinished.write_text("new")
        raise KeyboardInterrupt
    assert content(path) == "old"


def test_a_file_that_has_come_meanwhile_is_not_replaced_unasked(place: str) -> None:
    path = f"{place}/a.txt"
    expected = "must be writable, got: File exists; choose another"
    with pytest.raises(TableError, match=expected), replacing(path, overwrite=False) as unfinished:
        unfinished.write_text("ours")
        written(path, "theirs")
    assert content(path) == "theirs"
    with replacing(f"{place}/b.txt", overwrite=False) as unfinished:
        unfinished.write_text("ours")
    assert content(f"{place}/b.txt") == "ours"


def test_so_it_is_where_files_have_one_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without hard links."""

    def refuse(*given: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    test_a_file_that_has_come_meanwhile_is_not_replaced_unasked(str(tmp_path))


def test_a_file_that_is_closed_to_others_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.touch(0o600)
    written(str(path), "new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_file_by_other_names(bucket: str, tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    one.touch()
    other.hardlink_to(one)
    (tmp_path / "c.csv").symlink_to(one)
    (tmp_path / "d.csv").touch()
    assert is_same(str(one), f"{tmp_path}/../{tmp_path.name}/a.csv")
    assert is_same(str(one), str(other))
    assert is_same(str(one), str(tmp_path / "c.csv"))
    assert not is_same(str(one), str(tmp_path / "d.csv"))
    assert not is_same(str(one), str(tmp_path / "none.csv"))
    assert is_same(f"{bucket}/a.csv", f"{bucket}/a.csv?region=us-east-1")
    assert not is_same(f"{bucket}/a.csv", f"{bucket}/b.csv")
    assert not is_same(f"{bucket}/a.csv", str(one))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_an_object_store_is_the_one_of_a_disk(
    ending: str, bucket: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"x": [0.5, 1.5], "y": ["a", "b"]})
    local, remote = tmp_path / f"t.{ending}", f"{bucket}/tables/t.{ending}"
    for path in (str(local), remote):
        with replacing(path) as unfinished:
            frame.to_csv(unfinished, index=False) if ending == "csv" else frame.to_parquet(
                unfinished, index=False
            )
    here, there = read_file(local), read_file(remote)
    pd.testing.assert_frame_equal(here.frame, there.frame)
    assert (there.name, there.source) == ("t", remote)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("{bucket}/none.csv", "must be an existing file, got `{bucket}/none.csv`; check its addr"),
        ("s3://no-such-bucket/t.csv", "must be an existing file, got `s3://no-such-bucket/t.csv`"),
        ("{bucket}/t.xls", "or .zip, got `{bucket}/t.xls`"),
        ("ftp://host/t.csv", "begins with none of s3://, gs:// and abfss://"),
        ("file:///t.csv", "given without file://"),
        ("s3:///t.csv", "`s3:///t.csv`"),
    ],
)
def test_a_table_that_is_not_there(path: str, expected: str, bucket: str) -> None:
    with pytest.raises(TableError) as raised:
        read_file(path.format(bucket=bucket))
    assert expected.format(bucket=bucket) in str(raised.value)


def test_a_bucket_that_cannot_be_written(bucket: str) -> None:
    with pytest.raises(TableError, match=r"must be writable, got: .*bucket does not exist"):
        written("s3://no-such-bucket/a.txt", "text")


def test_a_store_that_is_away(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TableError, match=r"must be readable, got: .*NETWORK_CONNECTION"):
        read_file(f"{bucket}/t.csv")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_storage_is_looked_at_from_every_machine(tmp_path: Path) -> None:
    check_storage(str(tmp_path), cpus=1.0)
    assert not [*tmp_path.iterdir()]
    # The store is made after the cluster, which thus knows nothing of it.
    with pytest.MonkeyPatch.context() as environment, object_store(environment) as bucket:
        with pytest.raises(InputError, match=r"storage: must be a place that all ") as raised:
            check_storage(f"{bucket}/study", cpus=1.0)
        assert f"got {bucket}/study; {platform.node()} (" in str(raised.value)
        assert ") does not: " in str(raised.value)
        assert "probe" not in str(raised.value)
        store, folder = FileSystem.from_uri(f"{bucket}/study")
        assert store.get_file_info(FileSelector(folder, allow_not_found=True)) == []


@pytest.mark.parametrize("place", ["{folder}/file", "{folder}/file/below", "s3://no-such/study"])
def test_storage_that_cannot_be_written_is_named_and_not_the_file_that_was_tried(
    place: str, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    place = place.format(folder=tmp_path)
    with pytest.raises(InputError) as raised:
        check_storage(place, cpus=1.0)
    told = str(raised.value)
    assert told.startswith(f"storage: `{place}` on {platform.node()} must be writable, got: ")
    assert told.endswith("; choose another place")
    assert "probe" not in told
    reason = machines._look(f"{place}/probe-0123456789abcdef")
    assert reason and "probe" not in reason


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scheme", ["gs", "gcs"])
def test_google_s_store_that_does_not_answer_is_given_up(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RETRY_SECONDS", 1.0)
    nobody = f"scheme=http&endpoint_override=127.0.0.1%3A{free_port()}"
    expected = r"must be writable, got: .*Retry policy exhausted"
    uri = f"{scheme}://anonymous@bucket/file?{nobody}"
    with pytest.raises(TableError, match=expected), replacing(uri) as unfinished:
        unfinished.write_text("text")


@pytest.mark.slow
def test_a_study_of_tables_and_checkpoints_in_an_object_store(bucket: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(400, 4)), columns=[*"abcd"])
    frame["kind"] = (frame.a > 0).map({True: "yes", False: "no"})
    table, scored = f"{bucket}/study/table.parquet", f"{bucket}/study/scored.csv"
    with replacing(table) as unfinished:
        frame.to_parquet(unfinished, index=False)
    flags = ["--data.path", table, "--data.target", "kind", "--max_evals", "2", "--epochs", "3"]
    flags += ["--checkpoint_every", "0.001", "--storage", f"{bucket}/checkpoints"]
    result = job("tune", *flags)
    assert result["outcomes"] == {"completed": 2}
    assert not exists(f"{bucket}/checkpoints/{result['study']}/pack-0.safetensors")
    job("predict", "--input", table, "--output", scored)
    assert len(read_file(scored).frame) == 400
    again = run("predict", "--input", table, "--output", scored)
    assert again.returncode == 2
    assert f"must be a new file, got `{scored}`, which exists" in again.stderr


def run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", f"ray_jobs.{name}", *flags]
    return subprocess.run(words, capture_output=True, text=True)


def job(name: str, *flags: str) -> dict[str, object]:
    done = run(name, *flags)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
