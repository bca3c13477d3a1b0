"""What hostile or mistaken clients send to a running edge: a typed error each time, and the edge goes on."""

import base64
import io
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from tests.e2e.system import UpSystem


@pytest.fixture(autouse=True)
def still_there(edge: httpx.Client, system: UpSystem) -> Iterator[None]:
    """After every test the same process answers."""
    pid = system.pid("edge-1")
    yield
    assert edge.get("/readyz").status_code == 200
    assert system.pid("edge-1") == pid


def refused(answer: httpx.Response, status: int, param: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["code"]
    assert error["message"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "x" * 5000}, 413, "prompt"),
        ({"prompt": "a\u0000b"}, 400, "prompt"),
        ({"prompt": "x", "size": "9999x9999"}, 400, "size"),
        ({"prompt": "x", "seconds": 1e9}, 400, "seconds"),
        ({"prompt": "x", "fps": 1000}, 400, "fps"),
        ({"prompt": "x", "steps": -1}, 400, "steps"),
        ({"prompt": "x", "seed": -1}, 400, "seed"),
        ({"prompt": "x", "seed": 10**30}, 400, "seed"),
        ({"prompt": "x", "guidance": "NaN"}, 400, "guidance"),
        ({"prompt": "x", "model": "no-such"}, 404, "model"),
        ({"prompt": "x", "model": "../etc"}, 404, "model"),
        ({"prompt": "x", "model": 7}, 400, "model"),
        ({"prompt": "x", "colour": "red"}, 400, "colour"),
        ({"prompt": "x", "strength": 0.5}, 400, "strength"),
        ({"prompt": "x", "task": "extend"}, 400, "task"),
        ({"prompt": "x", "input_reference": {"image_url": "http://169.254.169.254/"}}, 400, "input_reference"),
        ({"prompt": "x", "input_reference": {"image_url": "data:image/png;base64,%%%"}}, 415, "input_reference"),
    ],
)
def test_a_bad_field_is_named(edge: httpx.Client, fields: dict[str, object], status: int, param: str) -> None:
    refused(edge.post("/v1/videos", json=fields), status, param)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"prompt": NaN}', b'{"prompt":"a","prompt":"b"}', b"[" * 100_000],
)
def test_a_body_that_is_no_object_is_refused(edge: httpx.Client, body: bytes) -> None:
    answer = edge.post("/v1/videos", content=body, headers={"content-type": "application/json"})
    refused(answer, 400, "body")


def test_other_body_types_and_encodings_are_refused(edge: httpx.Client) -> None:
    refused(edge.post("/v1/videos", content=b"x", headers={"content-type": "text/xml"}), 400, "content-type")
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    refused(edge.post("/v1/videos", content=b"x", headers=headers), 400, "content-encoding")


@pytest.mark.parametrize(
    "data",
    [b"not a picture", b"#EXTM3U\nfile:///etc/passwd\n", b"<svg xmlns='x'/>", b"\x89PNG\r\n\x1a\n"],
)
def test_an_upload_that_is_no_picture_or_video_is_refused(edge: httpx.Client, data: bytes) -> None:
    answer = edge.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": ("a.png", data)})
    refused(answer, 415, "input_reference")


def test_a_pixel_bomb_is_refused_before_it_is_decoded(edge: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    answer = edge.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": ("a.png", buffer.getvalue())})
    refused(answer, 413, "input_reference")


def test_an_oversized_upload_is_refused(edge: httpx.Client) -> None:
    answer = edge.post("/v1/videos", data={"prompt": "x"}, files={"input_reference": ("a", b"\0" * (33 * 1024 * 1024))})
    refused(answer, 413, "body")


def test_an_oversized_chunked_body_is_refused_while_it_comes(edge: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1024 * 1024

    try:
        answer = edge.post("/v1/videos", content=endless(), headers={"content-type": "application/json"})
    except httpx.WriteError:
        return  # the edge closed the connection instead of reading on
    refused(answer, 413, "body")


@pytest.mark.parametrize("name", ["..", "vid_*", "vid_>", "vid.x", "a%2Fb", "vid_" + "0" * 27, "%00"])
@pytest.mark.parametrize("tail", ["", "/content", "/events"])
def test_a_hostile_id_goes_nowhere(edge: httpx.Client, name: str, tail: str) -> None:
    answer = edge.get(f"/v1/videos/{name}{tail}")
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]


def test_an_unknown_id_is_not_found(edge: httpx.Client) -> None:
    for tail in ("", "/content", "/events"):
        assert edge.get(f"/v1/videos/vid_{'0' * 26}{tail}").status_code == 404


def test_wrong_methods_and_paths_are_typed_errors_too(edge: httpx.Client) -> None:
    assert edge.put("/v1/videos", json={}).json()["error"]["param"] == "method"
    assert edge.get("/v2/nothing").json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=..", "limit=" + "9" * 400])
def test_bad_page_parameters_are_named(edge: httpx.Client, query: str) -> None:
    refused(edge.get(f"/v1/videos?{query}"), 400, query.partition("=")[0])


def test_a_bad_variant_is_named(edge: httpx.Client) -> None:
    refused(edge.get(f"/v1/videos/vid_{'0' * 26}/content?variant=4k"), 400, "variant")


def raw(edge: httpx.Client, request: bytes) -> bytes:
    """Send bytes as they are and read what comes."""
    address = urlsplit(str(edge.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def create_head(length: int) -> bytes:
    """The head of a create that says its body has `length` bytes."""
    lines = ["POST /v1/videos HTTP/1.1", "host: localhost", "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


def test_a_body_shorter_than_it_says_is_not_taken_for_a_request(edge: httpx.Client) -> None:
    body = json.dumps({"prompt": "half a prompt"}).encode()
    before = edge.get("/v1/videos", params={"limit": 1}).json()["first_id"]
    answer = raw(edge, create_head(len(body) + 50) + body)
    assert b" 202 " not in answer
    assert edge.get("/v1/videos", params={"limit": 1}).json()["first_id"] == before


def test_a_body_longer_than_it_says_is_cut_where_it_said(edge: httpx.Client) -> None:
    body = json.dumps({"prompt": "x", "steps": -1}).encode()
    answer = raw(edge, create_head(len(body)) + body + b"GARBAGE not http\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"steps"' in answer


@pytest.mark.parametrize("request_line", [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000])
def test_what_is_not_http_is_refused(edge: httpx.Client, request_line: bytes) -> None:
    try:
        answer = raw(edge, request_line)
    except ConnectionError:
        return
    assert b" 200 " not in answer


def test_a_data_url_is_decoded_like_an_upload(edge: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "blue").save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    answer = edge.post(
        "/v1/videos", json={"prompt": "a sea", "plan": "draft", "seed": 1, "input_reference": {"image_url": url}}
    )
    assert answer.status_code == 202, answer.text
