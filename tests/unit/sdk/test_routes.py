"""What is sent, and what an error answer means."""

from __future__ import annotations

import json

import httpx
import pytest

from adaptivegen.errors import (
    STATUS,
    AdaptiveGenError,
    InternalError,
    InvalidRequest,
    NodeUnavailable,
    PayloadTooLarge,
    ResourceExhausted,
)
from adaptivegen.experience import Experience
from adaptivegen.sdk.files import choose_reference
from adaptivegen.sdk.routes import (
    FilePart,
    content_call,
    error_of,
    events_call,
    list_call,
    rating_call,
    status_call,
    submit_call,
)
from adaptivegen.sdk.transport import answer_timeout, from_httpx, lost, to_request
from tests.unit.sdk.scripted import VIDEO_ID

EDGE = "http://edge:1"


def body_of(error: AdaptiveGenError) -> bytes:
    return json.dumps({"error": error.body()}).encode()


@pytest.mark.parametrize("cls", [cls for cls in STATUS if cls is not AdaptiveGenError])
def test_every_error_comes_back_as_its_own_class(cls: type[AdaptiveGenError]) -> None:
    sent = cls("size is 1x1; allowed: 256x256", param="size")
    back = error_of(STATUS[cls].http, {"retry-after": "2"}, body_of(sent))
    assert type(back) is cls
    assert (back.message, back.param, back.retry_after_s) == (sent.message, "size", 2.0)


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (502, NodeUnavailable),
        (503, NodeUnavailable),
        (413, PayloadTooLarge),
        (429, ResourceExhausted),
        (418, InternalError),
    ],
)
def test_an_answer_that_is_not_an_edges_is_read_by_its_status(status: int, cls: type[AdaptiveGenError]) -> None:
    error = error_of(status, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"<html>sorry</html>")
    assert type(error) is cls and str(status) in error.message and error.retry_after_s is None


def test_an_unknown_code_keeps_its_text() -> None:
    error = error_of(500, {}, b'{"error": {"code": "of_tomorrow", "message": "m", "param": null}}')
    assert type(error) is InternalError and "of_tomorrow" in error.message


def test_a_request_without_a_reference_is_json_without_the_fields_left_out() -> None:
    call = submit_call({"prompt": "a", "seed": None, "steps": 3}, reference=None, idempotency_key="k1")
    with httpx.Client() as http:
        request = to_request(http, EDGE, call, answer_timeout(5))
    assert json.loads(request.read()) == {"prompt": "a", "steps": 3}
    assert request.headers["idempotency-key"] == "k1" and str(request.url) == "http://edge:1/v1/videos"


def test_a_request_with_a_reference_is_a_form_with_the_file() -> None:
    part = FilePart("cat.png", b"\x89PNG\r\n\x1a\nrest")
    call = submit_call({"prompt": "ä", "strength": 0.5}, reference=part, idempotency_key="k1")
    with httpx.Client() as http:
        request = to_request(http, EDGE, call, answer_timeout(5))
    body = request.read()
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="input_reference"; filename="cat.png"' in body and b"\x89PNG\r\n\x1a\nrest" in body
    assert b'name="prompt"\r\n\r\n' + "ä".encode() in body and b'name="strength"\r\n\r\n0.5' in body


@pytest.mark.parametrize("bad", ["vid_../x", "", "vid_*", "vid_01hzxk3v9q8m7n6p5r4t3w2y1z/content"])
def test_what_is_not_an_id_never_becomes_a_path(bad: str) -> None:
    with pytest.raises(InvalidRequest, match="id is"):
        status_call(bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_json_cannot_say_are_refused_here(value: float) -> None:
    with pytest.raises(InvalidRequest, match="guidance"):
        submit_call({"prompt": "a", "guidance": value}, reference=None, idempotency_key="k")


@pytest.mark.parametrize("stars", [0, 6, True])
def test_stars_are_one_to_five(stars: int) -> None:
    with pytest.raises(InvalidRequest, match="stars"):
        rating_call(VIDEO_ID, Experience(stars))


def test_a_rating_carries_only_what_was_measured() -> None:
    call = rating_call(VIDEO_ID, Experience(4, draft_wait_s=0.81234))
    assert call.json_body == {"stars": 4, "draft_wait_s": 0.812}
    call = rating_call(VIDEO_ID, Experience(4, draft_wait_s=0.0, stalls=2, stalled_s=1.5))
    assert call.json_body == {"stars": 4, "draft_wait_s": 0.0, "stalls": 2, "stalled_s": 1.5}


def test_one_reference_at_most() -> None:
    assert choose_reference(None, b"v") == b"v"
    with pytest.raises(InvalidRequest, match="one of them"):
        choose_reference("a.png", b"v")


def test_resuming_asks_for_what_is_missing() -> None:
    assert "last-event-id" not in events_call(VIDEO_ID, last_event_id="").headers
    assert events_call(VIDEO_ID, last_event_id="9").headers["last-event-id"] == "9"
    assert "range" not in content_call(VIDEO_ID, variant="video", offset=0, sha256="a").headers
    headers = content_call(VIDEO_ID, variant="draft", offset=10, sha256="a").headers
    assert (headers["range"], headers["if-range"]) == ("bytes=10-", '"a"')


def test_a_list_goes_on_after_an_id() -> None:
    assert list_call(after=VIDEO_ID, limit=5, order="asc").params == {"limit": "5", "order": "asc", "after": VIDEO_ID}


def test_failures_of_the_transport_become_our_errors() -> None:
    assert from_httpx(httpx.ConnectError("refused"), EDGE).code == "node_unavailable"
    assert from_httpx(httpx.ConnectTimeout("slow"), EDGE).code == "node_unavailable"
    assert from_httpx(httpx.ReadTimeout("slow"), EDGE).code == "deadline_exceeded"
    assert from_httpx(httpx.UnsupportedProtocol("ftp"), EDGE).code == "invalid_request"
    assert lost(httpx.ReadTimeout("slow"), EDGE).code == "node_unavailable"
    assert isinstance(lost(httpx.ReadError("reset"), EDGE).__cause__, httpx.ReadError)
