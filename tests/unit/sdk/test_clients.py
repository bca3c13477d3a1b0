"""Both clients against a scripted edge: every scenario runs on the blocking and on the asyncio client."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adaptivegen.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    NodeUnavailable,
    StorageFailure,
)
from adaptivegen.sdk import aio, client
from adaptivegen.sdk.edges import Edges
from tests.unit.sdk.scripted import (
    VIDEO_ID,
    ScriptedEdge,
    VirtualClock,
    answers,
    clip,
    event,
    refuses,
    streams,
    unreachable,
    video,
)

EDGE = "http://edge-1:8080"
CLIP = bytes(range(256)) * 8
SHA256 = hashlib.sha256(CLIP).hexdigest()
DONE = video(status="completed", progress=100, draft=clip(CLIP, SHA256), final=clip(CLIP, SHA256))


class Driver:
    """One of the two clients, driven the same way."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.clock = VirtualClock()
        self._runner = asyncio.Runner()

    def open(self, edge: ScriptedEdge, base_url: str | list[str] = EDGE, **options: Any) -> Any:
        common = {"clock": self.clock, "rng": random.Random(7), **options}
        if self.kind == "blocking":
            return client.Client(base_url, transport=httpx.MockTransport(edge), pause=self.clock.pause, **common)
        return aio.AsyncClient(base_url, transport=httpx.MockTransport(edge.asynchronously), **common)

    def __call__(self, action: Any) -> Any:
        """The outcome of a call of either kind; iterators are collected."""

        async def run() -> Any:
            outcome = action()
            if inspect.isawaitable(outcome):
                return await outcome
            return [item async for item in outcome] if hasattr(outcome, "__aiter__") else outcome

        if self.kind == "asyncio":
            return self._runner.run(run())
        outcome = action()
        return list(outcome) if inspect.isgenerator(outcome) else outcome

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(params=["blocking", "asyncio"])
def do(request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = Driver(request.param)
    yield driver
    driver.close()


def test_submit_gives_a_handle_and_sends_only_what_was_said(do: Driver) -> None:
    edge = ScriptedEdge(answers(video(), 202))
    handle = do(lambda: do.open(edge, api_key="agk_x").submit("a red circle", seed=7))
    assert handle.id == VIDEO_ID
    (request,) = edge.requests
    assert json.loads(request.content) == {"prompt": "a red circle", "seed": 7, "intent": "render"}
    assert request.headers["authorization"] == "Bearer agk_x"
    assert request.headers["idempotency-key"] == handle.idempotency_key


def test_a_submit_that_is_repeated_keeps_its_idempotency_key(do: Driver) -> None:
    edge = ScriptedEdge(unreachable, refuses("broker_unavailable", 503), answers(video(), 202))
    do(lambda: do.open(edge).submit("a"))
    assert len(edge.requests) == 3 and len({r.headers["idempotency-key"] for r in edge.requests}) == 1
    assert len(do.clock.pauses_s) == 2


def test_two_submits_have_two_keys(do: Driver) -> None:
    edge = ScriptedEdge(answers(video(), 202))
    opened = do.open(edge)
    first, second = do(lambda: opened.submit("a")), do(lambda: opened.submit("a"))
    assert first.idempotency_key != second.idempotency_key


def test_a_typed_error_comes_back_and_is_not_tried_again(do: Driver) -> None:
    edge = ScriptedEdge(refuses("invalid_request", 400))
    with pytest.raises(InvalidRequest, match="invalid_request happened") as caught:
        do(lambda: do.open(edge).submit("a"))
    assert caught.value.param == "size" and len(edge.requests) == 1


def test_an_edge_that_stays_away_is_node_unavailable_within_the_budget(do: Driver) -> None:
    edge = ScriptedEdge(unreachable)
    with pytest.raises(NodeUnavailable, match="edge-1:8080"):
        do(lambda: do.open(edge, retry_budget_s=3.0).submit("a"))
    assert 0 < do.clock.now_s <= 3.0 and len(edge.requests) > 2


def test_an_address_that_is_none_is_refused(do: Driver) -> None:
    with pytest.raises(InvalidRequest, match="base_url"):
        do(lambda: do.open(ScriptedEdge(unreachable), "edge:8080").submit("a"))


def test_a_reference_file_is_uploaded(do: Driver, tmp_path: Path) -> None:
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\nrest")
    edge = ScriptedEdge(answers(video(), 202))
    do(lambda: do.open(edge).submit("a", image=picture))
    assert b'filename="cat.png"' in edge.requests[0].content
    with pytest.raises(InvalidRequest, match="input_reference"):
        do(lambda: do.open(edge).submit("a", image=tmp_path / "none.png"))


def test_events_resume_after_a_lost_connection_without_repeating_any(do: Driver) -> None:
    queued, running = video(), video(status="in_progress")
    edge = ScriptedEdge(
        streams(event("1", "snapshot", queued), event("2", "draft.look", queued, look=b"j")[:-9], cut=True),
        unreachable,
        streams(event("1", "snapshot", queued), event("2", "draft.look", queued, look=b"j")),
        streams(event("2", "draft.look", queued), event("3", "progress", running), event("4", "completed", DONE)),
    )
    events = do(lambda: do.open(edge).handle(VIDEO_ID).events())
    assert [(e.id, e.type) for e in events] == [
        ("1", "snapshot"),
        ("2", "draft.look"),
        ("3", "progress"),
        ("4", "completed"),
    ]
    assert [r.headers.get("last-event-id") for r in edge.requests] == [None, "1", "1", "2"]
    assert events[-1].video.final.sha256 == SHA256


def test_a_snapshot_after_a_reconnect_is_passed_on_only_if_it_is_news(do: Driver) -> None:
    queued, running = video(), video(status="in_progress")
    edge = ScriptedEdge(
        streams(event("1", "snapshot", queued), cut=True),
        streams(event("7", "snapshot", queued), cut=True),
        streams(event("8", "snapshot", running), event("9", "completed", DONE)),
    )
    events = do(lambda: do.open(edge).handle(VIDEO_ID).events())
    assert [e.id for e in events] == ["1", "8", "9"]


def test_an_edge_that_only_repeats_itself_uses_up_the_budget(do: Driver) -> None:
    edge = ScriptedEdge(streams(event("1", "snapshot", video())))
    with pytest.raises(NodeUnavailable, match="closed the connection"):
        do(lambda: do.open(edge, reconnect_budget_s=20.0).handle(VIDEO_ID).events())
    assert do.clock.now_s <= 20.0 and len(edge.requests) < 20


def test_events_move_to_the_next_edge_when_theirs_is_lost(do: Driver, tmp_path: Path) -> None:
    edge = ScriptedEdge(unreachable, streams(event("4", "completed", DONE)))
    opened = do.open(edge)
    opened._known = Edges([EDGE, "http://edge-2:8080"])
    do(lambda: opened.handle(VIDEO_ID).events())
    assert [r.url.host for r in edge.requests] == ["edge-1", "edge-2"]


def test_a_video_that_is_not_there_is_not_waited_for(do: Driver) -> None:
    edge = ScriptedEdge(refuses("not_found", 404))
    with pytest.raises(Exception, match="not_found happened"):
        do(lambda: do.open(edge).handle(VIDEO_ID).result())
    assert len(edge.requests) == 1


def test_the_draft_comes_before_the_end(do: Driver) -> None:
    drafted = video(draft=clip(CLIP, SHA256))
    edge = ScriptedEdge(
        streams(
            event("1", "snapshot", video()), event("2", "draft.completed", drafted), event("3", "progress", drafted)
        ),
        streams(CLIP),
    )
    assert do(lambda: do.open(edge).handle(VIDEO_ID).draft()) == CLIP
    assert edge.requests[1].url.params["variant"] == "draft"


def test_a_download_resumes_where_it_was_cut_off(do: Driver, tmp_path: Path) -> None:
    edge = ScriptedEdge(
        answers(DONE, 200),
        streams(CLIP[:100], CLIP[100:700], cut=True),
        streams(CLIP[700:], status=206, content_range=f"bytes 700-{len(CLIP) - 1}/{len(CLIP)}"),
    )
    handle = do(lambda: do.open(edge).submit("a"))
    result = do(handle.result)
    do(lambda: result.save(tmp_path / "final.mp4"))
    assert (tmp_path / "final.mp4").read_bytes() == CLIP
    assert edge.requests[2].headers["range"] == "bytes=700-" and edge.requests[2].headers["if-range"] == f'"{SHA256}"'
    assert [path.name for path in tmp_path.iterdir()] == ["final.mp4"]


def test_a_download_that_begins_again_keeps_each_byte_once(do: Driver) -> None:
    edge = ScriptedEdge(answers(DONE), streams(CLIP[:700], cut=True), streams(CLIP[:300], CLIP[300:]))
    result = do(do(lambda: do.open(edge).submit("a")).result)
    assert do(result.content) == CLIP


@pytest.mark.parametrize("served", [CLIP[:-1] + b"!", CLIP + b"!"])
def test_wrong_bytes_are_refused_and_leave_no_file(do: Driver, tmp_path: Path, served: bytes) -> None:
    (tmp_path / "final.mp4").write_bytes(b"before")
    edge = ScriptedEdge(answers(DONE), streams(served))
    result = do(do(lambda: do.open(edge).submit("a")).result)
    with pytest.raises(StorageFailure):
        do(lambda: result.save(tmp_path / "final.mp4"))
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("final.mp4", b"before")]


def test_a_part_from_the_wrong_place_is_refused(do: Driver) -> None:
    wrong = streams(CLIP[600:], status=206, content_range=f"bytes 600-{len(CLIP) - 1}/{len(CLIP)}")
    edge = ScriptedEdge(answers(DONE), streams(CLIP[:700], cut=True), wrong)
    result = do(do(lambda: do.open(edge).submit("a")).result)
    with pytest.raises(StorageFailure, match="from 700"):
        do(result.content)


def test_a_place_that_cannot_be_written_is_named(do: Driver, tmp_path: Path) -> None:
    result = do(do(lambda: do.open(ScriptedEdge(answers(DONE))).submit("a")).result)
    for place in (tmp_path, tmp_path / "none" / "final.mp4"):
        with pytest.raises(InvalidRequest, match="path is"):
            do(lambda place=place: result.save(place))


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (video(status="failed", error={"code": "model_digest_mismatch", "message": "m"}), GenerationFailed),
        (video(status="cancelled"), Cancelled),
    ],
)
def test_a_video_that_ends_badly_raises(do: Driver, state: dict[str, object], error: type[Exception]) -> None:
    edge = ScriptedEdge(streams(event("1", str(state["status"]), state)))
    with pytest.raises(error):
        do(lambda: do.open(edge).handle(VIDEO_ID).result())


def test_a_deadline_that_is_over_is_named(do: Driver) -> None:
    edge = ScriptedEdge(streams(event("1", "snapshot", video()), cut=True), unreachable)
    with pytest.raises(DeadlineExceeded, match=r"start: .* 2 s"):
        do(lambda: do.open(edge).handle(VIDEO_ID).result(start_timeout_s=2.0, timeout_s=9.0))
    edge = ScriptedEdge(streams(event("1", "snapshot", video(status="in_progress")), cut=True), unreachable)
    with pytest.raises(DeadlineExceeded, match=r"whole: .* 9 s"):
        do(lambda: do.open(edge).handle(VIDEO_ID).result(start_timeout_s=2.0, timeout_s=9.0))


def test_cancel_upgrade_delete_status_rating_and_lists_go_to_their_places(do: Driver) -> None:
    edge = ScriptedEdge(
        answers(video()), answers(video()), answers(video()), answers({"data": [video()], "has_more": False})
    )
    opened = do.open(edge)
    handle = opened.handle(VIDEO_ID)
    for call in (handle.cancel, handle.upgrade, handle.status, opened.videos):
        do(call)
    edge.script = [answers(None, 204)]
    do(lambda: handle.rate(5))
    edge.script = [answers({"id": VIDEO_ID, "object": "video.deleted", "deleted": True})]
    do(handle.delete)
    edge.script = [answers({"data": [{"id": "pocket-cloud"}]})]
    assert do(opened.models) == [{"id": "pocket-cloud"}]
    assert [(r.method, r.url.path.replace(VIDEO_ID, "ID")) for r in edge.requests] == [
        ("POST", "/v1/videos/ID/cancel"),
        ("POST", "/v1/videos/ID/upgrade"),
        ("GET", "/v1/videos/ID"),
        ("GET", "/v1/videos"),
        ("POST", "/v1/videos/ID/rating"),
        ("DELETE", "/v1/videos/ID"),
        ("GET", "/v1/models"),
    ]


def test_cancelling_what_has_ended_is_a_conflict(do: Driver) -> None:
    with pytest.raises(Conflict):
        do(lambda: do.open(ScriptedEdge(refuses("conflict", 409))).handle(VIDEO_ID).cancel())


def test_a_handle_survives_as_json(do: Driver) -> None:
    edge = ScriptedEdge(answers(video(), 202), streams(event("4", "completed", DONE)), streams(CLIP))
    opened = do.open(edge)
    saved = json.loads(json.dumps(do(lambda: opened.submit("a")).to_dict()))
    restored = (client.Handle if do.kind == "blocking" else aio.AsyncHandle).from_dict(saved, opened)
    assert restored.to_dict() == saved
    assert do(do(restored.result).content) == CLIP
