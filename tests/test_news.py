"""What Ray tells every driver of its cluster's machines: a line each, and not on stdout."""

from __future__ import annotations

import time

import pytest


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_log_of_a_lost_machine_stays_out_of_a_job_s(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ray._private.utils import publish_error_to_driver
    from ray._private.worker import global_worker

    news = "Raylet is terminated. Last 20 lines of its log:\n    *** StackTrace ***\n    @ 0x7f\n"
    publish_error_to_driver("raylet_died", news, gcs_client=global_worker.gcs_client)
    said = ""
    deadline = time.monotonic() + 30
    while "Raylet" not in said and time.monotonic() < deadline:
        time.sleep(0.1)
        out, err = capsys.readouterr()
        said += out + err
        assert out == ""
    assert said == "Ray: Raylet is terminated. Last 20 lines of its log:\n"
