"""How answers are read: videos, events, and what the end of a video means for a caller."""

from __future__ import annotations

import json

import pytest

from adaptivegen.errors import Cancelled, GenerationFailed, InternalError, InvalidRequest, NotFound
from adaptivegen.sdk.models import Video, parse_event, parse_video, parse_videos
from adaptivegen.sdk.outcome import best_variant, clip_of, drafted, ended, handle_fields
from adaptivegen.sdk.sse import ServerEvent, SseDecoder
from tests.unit.sdk.scripted import VIDEO_ID, clip, event, video


def read(**changes: object) -> Video:
    return parse_video(json.dumps(video(**changes)).encode())


def test_a_video_is_read_and_fields_of_tomorrow_are_ignored() -> None:
    state = read(status="in_progress", progress=40, notes=["placed by the edge"])
    assert (state.id, state.progress, state.notes, state.ended) == (VIDEO_ID, 40, ("placed by the edge",), False)


def test_a_video_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read().status = "completed"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not an object"),
        (b'{"status": "queued"}', "id: Field required"),
        (json.dumps(video(progress="much")).encode(), "progress"),
    ],
)
def test_a_body_that_is_no_video_is_a_fault_of_the_edge(body: bytes, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        parse_video(body)


def test_a_page_says_whether_more_follow() -> None:
    page = parse_videos(json.dumps({"object": "list", "data": [video()], "has_more": True}).encode())
    assert ([entry.id for entry in page.videos], page.has_more, page.partial) == ([VIDEO_ID], True, False)


def test_a_page_of_an_edge_that_is_cut_off_says_that_it_is_partial() -> None:
    page = parse_videos(json.dumps({"object": "list", "data": [], "has_more": False, "partial": True}).encode())
    assert page.partial


def test_an_event_carries_the_look_and_the_video() -> None:
    (raw,) = SseDecoder().feed(event("9", "draft.look", video(), look=b"\xff\xd8jpeg"))
    parsed = parse_event(raw)
    assert (parsed.id, parsed.type, parsed.step, parsed.steps) == ("9", "draft.look", 1, 4)
    assert parsed.look_jpeg == b"\xff\xd8jpeg" and parsed.video.plan == "refine" and not parsed.final


@pytest.mark.parametrize("change", [{"look_jpeg_base64": "?"}, {"step": "two"}, {"video": None}, {"at_ns": True}])
def test_an_event_that_cannot_be_read_is_a_fault_of_the_edge(change: dict[str, object]) -> None:
    data = {"type": "progress", "at_ns": 1, "step": 1, "steps": 2, "video": video()} | change
    with pytest.raises(InternalError):
        parse_event(ServerEvent("1", "progress", json.dumps(data)))


def test_a_failed_video_raises_with_the_code_of_its_error() -> None:
    with pytest.raises(GenerationFailed, match=r"worker_lost.*gone") as caught:
        ended(read(status="failed", error={"code": "worker_lost", "message": "gone"}))
    assert caught.value.param == "worker_lost"


def test_a_cancelled_video_raises_cancelled_when_a_clip_is_asked_for() -> None:
    with pytest.raises(Cancelled, match=VIDEO_ID):
        drafted(read(status="cancelled"))


def test_a_video_without_a_draft_says_so() -> None:
    with pytest.raises(NotFound, match="no draft"):
        drafted(read(status="completed", final=clip(b"x", "0" * 64)))


def test_a_draft_only_video_gives_its_draft_as_its_clip() -> None:
    state = read(status="completed", draft=clip(b"x", "0" * 64))
    assert best_variant(ended(state)) == "draft"
    with pytest.raises(NotFound, match="no final"):
        clip_of(state, "video")


@pytest.mark.parametrize("data", [{}, {"id": 7}, {"id": "../x"}, {"id": VIDEO_ID, "idempotency_key": "a/b"}])
def test_a_handle_is_only_restored_from_legal_values(data: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        handle_fields(data)
