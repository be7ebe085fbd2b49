"""A run of the user's own model on local hosts: from the experiment's file to labels in the tables."""

from __future__ import annotations

import hashlib
import json
import signal
from typing import Any

import pytest

from workloads.onnx_images.testing import colour_model, own_files

pytestmark = pytest.mark.integration


def test_the_users_own_model_runs_on_every_host_and_says_what_it_was(testbed: Any) -> None:
    own_files(testbed.folder)
    testbed.run(
        workload={"name": "onnx_images", "model": "model.onnx", "images": "images"},
        policies=["all_local", "all_edge"],
        epochs=3,
    )
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 2)
    assert set(testbed.check_rows()) == {("done", "")}
    assert testbed.sql("SELECT DISTINCT site, correct = frames, predicted = label FROM tasks ORDER BY ALL") == [
        ("device", True, True),
        ("edge", True, True),
    ]
    digest = hashlib.sha256(colour_model()).hexdigest()
    manifest = testbed.manifest()
    assert manifest["model"]["sha256"] == digest
    assert {manifest["hosts"][device]["facts"]["model_sha256"] for device in testbed.devices} == {digest}
    plan = testbed.plan
    assert plan.settings[0].workload_options["model"] == f"sha256:{digest}"
    assert str(testbed.folder) not in json.dumps(plan.settings[0].workload_options), "hosts are told no path of ours"


def test_a_model_that_was_changed_since_the_run_was_planned_is_refused(testbed: Any) -> None:
    own_files(testbed.folder)
    testbed.run(workload={"name": "onnx_images", "model": "model.onnx", "images": "images"}, epochs=100)
    testbed.wait_for_rows(2)
    testbed.signal(signal.SIGINT)
    testbed.finish(status=130)
    original = (testbed.folder / "model.onnx").read_bytes()
    (testbed.folder / "model.onnx").write_bytes(colour_model(classes=4))
    testbed.resume()
    answer = testbed.finish(status=1)
    assert answer["state"] == "failed"
    assert any("have changed since the run was planned" in reason for reason in answer["reasons"])
    (testbed.folder / "model.onnx").write_bytes(original)
