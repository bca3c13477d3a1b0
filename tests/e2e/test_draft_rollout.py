"""An operator rolls out a draft model on a whole system of two edges: first a cloud model that goes on from its drafts,
then the draft model itself; and one that fails at work costs nobody a draft."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.added_models import add_draft, add_failing_draft, add_model
from tests.e2e.system import UpSystem, finish, submit, up

pytestmark = pytest.mark.skipif(
    not os.environ.get("ADAPTIVEGEN_LONG_TESTS"),
    reason="takes minutes; ADAPTIVEGEN_LONG_TESTS=1 runs it. tests/integration/test_rollout_drafts.py has its parts",
)
DRAFTS, CLOUDS = "pocket-draft", "pocket-cloud"
PROMPT = "a blue star moves right over a meadow"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UpSystem]:
    models = tmp_path / "models"
    models.mkdir()
    add_draft(models, "pocket-draft-2")
    add_failing_draft(models, "pocket-failing")
    add_model(models, "pocket-cloud-2", sources=(DRAFTS, "pocket-draft-2", "pocket-failing"))
    for service in ("EDGE", "WORKER", "SCHEDULER"):
        monkeypatch.setenv(f"ADAPTIVEGEN_{service}_MODELS_DIR", str(models))
    with up(tmp_path / "data", edges=2, workers=1) as started:
        yield started


def ordered(system: UpSystem, *arguments: str) -> Any:
    command = [sys.executable, "-m", "cli", "admin", "rollout", *arguments, "--json", "--data", str(system.data)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def line_of(system: UpSystem, name: str) -> Any:
    return next(line for line in ordered(system, "show")["lines"] if line["line"] == name)


def promoted(system: UpSystem, line: str, version: str) -> None:
    """By hand, once all nodes have it."""
    ordered(system, "start", line, version, "--stages", "50", "--stage-s", "600")
    system.wait(lambda: line_of(system, line)["phase"] == "canary")
    ordered(system, "promote", line)
    system.wait(lambda: all(node["loaded"] == [version] for node in line_of(system, line)["nodes"]))


def with_image(client: httpx.Client, seed: int) -> Any:
    image = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(image, "PNG")
    files = {"input_reference": ("red.png", image.getvalue(), "image/png")}
    answer = client.post("/v1/videos", data={"prompt": PROMPT, "plan": "draft", "seed": str(seed)}, files=files)
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


def test_draft_models_are_rolled_out_and_rolled_back_on_a_running_system(system: UpSystem) -> None:
    promoted(system, CLOUDS, "pocket-cloud-2")
    promoted(system, DRAFTS, "pocket-draft-2")
    with system.client(0) as one, system.client(1) as two:
        whole = finish(one, submit(one, PROMPT, seed=1, plan="refine")["id"])
        assert (whole["status"], whole["plan"]) == ("completed", "refine")
        assert (whole["draft_model_version"], whole["model_version"]) == ("pocket-draft-2", "pocket-cloud-2")
        again = finish(two, submit(two, PROMPT, seed=1, plan="refine")["id"])  # whichever edge is asked
        assert again["cached"] and again["final"]["sha256"] == whole["final"]["sha256"]
        ordered(system, "start", DRAFTS, "pocket-failing", "--stages", "50", "--stage-s", "600")
        system.wait(lambda: line_of(system, DRAFTS)["phase"] == "canary")
        videos: list[Any] = []
        for seed in range(100, 180):
            client = (one, two)[seed % 2]
            videos.append(finish(client, with_image(client, seed)["id"]))
            if seed % 4 == 3 and line_of(system, DRAFTS)["phase"] == "steady":
                break
        assert {(video["status"], video["draft_model_version"]) for video in videos} == {
            ("completed", "pocket-draft-2")
        }
        assert any("pocket-failing had failed" in note for video in videos for note in video["notes"])
        ordered(system, "revert", DRAFTS, "--reason", "for good measure")
    last = ordered(system, "history")["changes"]
    assert [change["action"] for change in last if change["line"] == DRAFTS][:2] == ["revert", "rollback"]
    assert "failures" in last[1]["reason"]
