"""Request bodies that lie: every one is either a plain object or a typed refusal."""

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from adaptivegen.errors import (
    AdaptiveGenError,
    InvalidRequest,
    PayloadTooLarge,
    RequestTimeout,
    ResourceExhausted,
    UnsupportedMedia,
)
from adaptivegen.http_json import parse_json, read_json
from edge_node.api.body import DECODED_AT_ONCE, SMALL_BYTES, Bodies, read_create

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)

JSON = {"content_type": "application/json; charset=utf-8"}


def asked(body: bytes, headers: dict[str, str], *, pieces: int = 1, gone: bool = False) -> Request:
    """A request whose body arrives in `pieces`; the client is `gone` before its end."""
    size = -(-len(body) // pieces) or 1
    parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    messages: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": named, "app": None}, receive)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse_json(data), dict)


@given(st.text(alphabet='{}[]":,0123456789.eE+-ntrufals\\uINaity ', max_size=60))
def test_anything_that_looks_like_json_is_an_object_or_a_refusal(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse_json(text.encode()), dict)


@given(st.dictionaries(st.text(), PLAIN, max_size=5))
def test_an_object_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1, "a": 2}', "each key once"),
        (b'{"x": {"a": 1, "a": 1}}', "each key once"),
        (b'{"a": NaN}', "finite"),
        (b'{"a": -Infinity}', "finite"),
        (b"[1]", "a JSON object"),
        (b"", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_what_is_refused_says_why(data: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse_json(data)


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="finite"):
        parse_json(b'{"guidance": 1e999}')


async def test_fields_and_upload_of_a_json_body() -> None:
    url = "data:image/png;base64," + base64.b64encode(b"picture").decode()
    body = json.dumps({"prompt": "p", "input_reference": {"image_url": url}}).encode()
    read = await read_create(asked(body, JSON, pieces=3), max_bytes=1000)
    assert (read.values, read.upload) == ({"prompt": "p"}, b"picture")


FORM = (
    b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\np\r\n'
    b'--B\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"\r\n\r\npicture\r\n'
)
MULTIPART = {"content_type": "multipart/form-data; boundary=B"}


async def test_fields_and_upload_of_a_form() -> None:
    read = await read_create(asked(FORM + b"--B--\r\n", MULTIPART, pieces=7), max_bytes=1000)
    assert (read.values, read.upload) == ({"prompt": "p"}, b"picture")


@pytest.mark.parametrize(
    "body",
    [
        FORM + FORM + b"--B--\r\n",
        b'--B\r\nContent-Disposition: form-data; name="x"; filename="f"\r\n\r\nz\r\n--B--\r\n',
        b'--B\r\nContent-Disposition: form-data; name="input_reference"\r\n\r\nz\r\n--B--\r\n',
        b"--C\r\nno form at all",
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"z" * 70_000 + b"\r\n--B--\r\n",
        b"".join(b'--B\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % n for n in range(40))
        + b"--B--\r\n",
    ],
    ids=["twice", "file elsewhere", "no file name", "garbage", "long field", "many fields"],
)
async def test_a_form_that_is_wrong_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await read_create(asked(body, MULTIPART), max_bytes=1_000_000)


@pytest.mark.parametrize("declared", [{}, {"content_length": "5"}, {"content_length": "2000"}, {"content_length": "x"}])
async def test_a_body_over_the_limit_is_refused_whatever_it_declared(declared: dict[str, str]) -> None:
    body = b'{"a": "' + b"z" * 2000 + b'"}'
    with pytest.raises(PayloadTooLarge):
        await read_create(asked(body, JSON | declared, pieces=9), max_bytes=1000)
    with pytest.raises(PayloadTooLarge):
        await read_json(asked(body, {}, pieces=9), max_bytes=1000)


async def test_a_body_that_breaks_off_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="ended before"):
        await read_create(asked(b'{"a": 1', JSON, gone=True), max_bytes=1000)
    with pytest.raises(AdaptiveGenError):
        await read_create(asked(FORM, MULTIPART, gone=True), max_bytes=1000)


@pytest.mark.parametrize("headers", [{"content_type": "text/plain"}, {"content_encoding": "gzip"}])
async def test_other_kinds_and_encodings_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        await read_create(asked(b"{}", headers), max_bytes=1000)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("file:///etc/passwd", InvalidRequest),
        ({"image_url": "http://127.0.0.1/x.png"}, InvalidRequest),
        ({"image_url": 7}, InvalidRequest),
        ({"image_url": "data:image/png,plain"}, InvalidRequest),
        ({"image_url": "data:image/png;base64,%%%"}, UnsupportedMedia),
        ({"image_url": "data:image/png;base64,é"}, UnsupportedMedia),
    ],
)
async def test_an_upload_that_is_no_data_url_is_refused_and_never_fetched(
    reference: object, error: type[AdaptiveGenError]
) -> None:
    body = json.dumps({"input_reference": reference}).encode()
    with pytest.raises(error):
        await read_create(asked(body, JSON), max_bytes=1000)


class Threads(Executor):
    """Runs work at once and counts it."""

    def __init__(self) -> None:
        self.given = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given += 1
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as exc:
            future.set_exception(exc)
        return future


def upload_of(data: bytes) -> bytes:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return json.dumps({"input_reference": {"image_url": url}}).encode()


async def test_what_takes_long_to_decode_is_decoded_in_a_thread_and_a_small_body_is_not() -> None:
    threads = Threads()
    small, data = b"x" * 1000, random.Random(1).randbytes(3 * DECODED_AT_ONCE + 17)
    for upload, expected in ((small, 0), (data, 1)):
        read = await read_create(asked(upload_of(upload), JSON), max_bytes=10**8, threads=threads)
        assert (read.upload, threads.given) == (upload, expected)


async def test_a_refusal_in_a_thread_is_the_same_refusal() -> None:
    with pytest.raises(InvalidRequest, match="each key once"):
        await read_create(asked(b'{"a": 1, "a": 2}' + b" " * SMALL_BYTES, JSON), max_bytes=10**8, threads=Threads())


@pytest.mark.parametrize("at", [4, DECODED_AT_ONCE - 4, DECODED_AT_ONCE + 4])
@pytest.mark.parametrize("wrong", ["AA==", "A A=", "é123"])
async def test_base64_that_is_wrong_anywhere_is_refused(at: int, wrong: str) -> None:
    digits = "A" * (2 * DECODED_AT_ONCE)
    url = "data:image/png;base64," + digits[:at] + wrong + digits[at:]
    body = json.dumps({"input_reference": {"image_url": url}}).encode()
    with pytest.raises(UnsupportedMedia):
        await read_create(asked(body, JSON), max_bytes=10**8)


async def test_a_body_that_does_not_arrive_is_a_timeout_of_the_request() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": [], "app": None}
    for read in (
        read_create(Request(scope, never), max_bytes=10, deadline_s=0),
        read_json(Request(scope, never), deadline_s=0),
    ):
        with pytest.raises(RequestTimeout):
            await read


async def test_all_seats_taken_is_a_refusal_before_anything_is_read() -> None:
    bodies = Bodies(max_bytes=10**8, large=1)
    big, small = {**JSON, "content_length": str(SMALL_BYTES + 1)}, {**JSON, "content_length": "2"}
    async with bodies.create(asked(b"{}", big)):
        for headers in (big, JSON):  # without a length it may be large
            with pytest.raises(ResourceExhausted) as refused:
                async with bodies.create(asked(b"{}", headers)):
                    pass
            assert refused.value.retry_after_s
        async with bodies.create(asked(b"{}", small)) as read:
            assert read.values == {}
    for wrong in (b"[]", b"{}"):  # a seat comes back, whatever happened
        with contextlib.suppress(InvalidRequest):
            async with bodies.create(asked(wrong, big)) as read:
                assert read.values == {}
