"""`generate` against a scripted edge: what is shown, written and cancelled."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import httpx
import pytest
import typer

from adaptivegen.errors import DeadlineExceeded, GenerationFailed
from adaptivegen.sdk.client import Client
from adaptivegen.sdk.models import VideoEvent, parse_video
from cli import exits
from cli.demo import PROMPTS, slug, steps_text
from cli.generate import Files, Run
from cli.progress import eta_text, stage_of
from tests.unit.sdk.scripted import VIDEO_ID, ScriptedEdge, VirtualClock, answers, clip, event, streams, video

DRAFT, FINAL = b"draft" * 100, b"final" * 200
DRAFT_CLIP = clip(DRAFT, hashlib.sha256(DRAFT).hexdigest())
FINAL_CLIP = clip(FINAL, hashlib.sha256(FINAL).hexdigest())
DRAFTED = video(draft=DRAFT_CLIP, draft_steps=6)
DONE = video(
    status="completed", draft=DRAFT_CLIP, final=FINAL_CLIP, draft_steps=6, final_steps=12, worker_id="worker-1", seed=7
)


def interrupted(request: httpx.Request) -> httpx.Response:
    """Ctrl-C while waiting for this answer."""
    raise KeyboardInterrupt


def run(edge: ScriptedEdge, files: Files, *, as_json: bool = False, timeout_s: float | None = None) -> None:
    clock = VirtualClock()
    with Client(
        "http://edge-1:1",
        transport=httpx.MockTransport(edge),
        clock=clock,
        pause=clock.pause,
        rng=random.Random(1),
    ) as client:
        Run(files, timeout_s=timeout_s, as_json=as_json, clock=clock).run(client, {"prompt": "a red circle"})


def whole_run() -> ScriptedEdge:
    return ScriptedEdge(
        answers(video(), 202),
        streams(
            event("1", "snapshot", video()),
            event("2", "draft.look", video(), look=b"\xff\xd8"),
            event("3", "draft.completed", DRAFTED),
            event("4", "completed", DONE),
        ),
        streams(DRAFT),
        streams(FINAL),
    )


def test_the_draft_and_the_final_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(whole_run(), Files(tmp_path / "clip.mp4", tmp_path / "draft.mp4"))
    assert (tmp_path / "draft.mp4").read_bytes() == DRAFT and (tmp_path / "clip.mp4").read_bytes() == FINAL
    said = capsys.readouterr()
    assert "steps: 6 on edge-1, 12 on worker-1" in said.out and "seed 7" in said.out
    assert [line.split()[0] for line in said.err.splitlines()] == ["edge", "video", "look", "draft", "draft", "final"]


def test_json_is_one_object_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(whole_run(), Files(tmp_path / "clip.mp4", tmp_path / "draft.mp4"), as_json=True)
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert summary["id"] == VIDEO_ID and summary["sha256"] == FINAL_CLIP["sha256"] and summary["final_steps"] == 12
    assert summary["draft_output"] == str(tmp_path / "draft.mp4") and said.err == ""


def test_ctrl_c_cancels_the_job_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edge = ScriptedEdge(answers(video(), 202), interrupted, answers(video(status="cancelled")))
    with pytest.raises(typer.Exit) as ended:
        run(edge, Files(tmp_path / "clip.mp4", None))
    assert ended.value.exit_code == exits.INTERRUPTED
    assert edge.requests[-1].url.path == f"/v1/videos/{VIDEO_ID}/cancel"
    assert f"Ctrl-C: cancelled {VIDEO_ID}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_timeout_cancels_the_job(tmp_path: Path) -> None:
    edge = ScriptedEdge(answers(video(), 202), *[streams(event("1", "snapshot", video()))] * 50)
    with pytest.raises(DeadlineExceeded, match="5 s"):
        run(edge, Files(tmp_path / "clip.mp4", None), timeout_s=5.0)
    assert edge.requests[-1].url.path.endswith("/cancel")


def test_a_failed_generation_writes_nothing(tmp_path: Path) -> None:
    failed = video(status="failed", error={"code": "generation_failed", "message": "the model died"})
    edge = ScriptedEdge(answers(video(), 202), streams(event("1", "failed", failed)))
    with pytest.raises(GenerationFailed, match="the model died"):
        run(edge, Files(tmp_path / "clip.mp4", None))
    assert list(tmp_path.iterdir()) == []


def test_a_draft_only_video_says_that_it_is_a_draft(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft_only = video(status="completed", draft=DRAFT_CLIP, plan="draft", intent="iterate")
    edge = ScriptedEdge(answers(video(), 202), streams(event("1", "completed", draft_only)), streams(DRAFT))
    run(edge, Files(tmp_path / "clip.mp4", None))
    assert (tmp_path / "clip.mp4").read_bytes() == DRAFT
    assert "the draft, since no final was asked for" in capsys.readouterr().out


def test_a_draft_asked_for_and_not_made_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hit = video(status="completed", final=FINAL_CLIP, plan="hit", cached=True)
    edge = ScriptedEdge(answers(hit), streams(event("1", "completed", hit)), streams(FINAL))
    run(edge, Files(tmp_path / "clip.mp4", tmp_path / "draft.mp4"))
    assert "none was made (plan hit)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def happened(kind: str, **changes: object) -> VideoEvent:
    state = parse_video(json.dumps(video(**changes)).encode())
    return VideoEvent(id="1", type=kind, at_ns=1, step=2, steps=8, look_jpeg=b"", video=state)


def test_the_bar_shows_the_stage() -> None:
    assert stage_of(happened("queued")) == ("waiting", 0.0)
    assert stage_of(happened("draft.look")) == ("draft", 25.0)
    assert stage_of(happened("progress", status="in_progress", progress=40)) == ("final", 40.0)
    assert stage_of(happened("completed", status="completed")) == ("completed", 100.0)


@pytest.mark.parametrize(
    ("eta_s", "text"),
    [(None, ""), (0.0, ""), (0.2, "about 1 s left"), (12.4, "about 12 s left"), (300, "about 5 min left")],
)
def test_the_eta_is_rough(eta_s: float | None, text: str) -> None:
    assert eta_text(eta_s) == text


def test_folders_of_the_demo_are_named_by_whole_words() -> None:
    assert slug(PROMPTS[0][0]) == "a-red-circle-moves-left-over-a-sunset"
    assert slug("../../Ärger!") == "rger" and slug("漢字") == "video"


def test_a_cached_video_ran_no_steps() -> None:
    assert steps_text(parse_video(json.dumps(DONE).encode())) == "edge 6 / cloud 12"
    assert steps_text(parse_video(json.dumps(DONE | {"cached": True}).encode())) == "none"
