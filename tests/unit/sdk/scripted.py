"""A scripted edge for SDK tests: answers in order, over httpx's mock transport, with virtual time. No sockets."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator

import httpx

VIDEO_ID = "vid_01hzxk3v9q8m7n6p5r4t3w2y1z"
Script = list[Callable[[httpx.Request], httpx.Response]]


class VirtualClock:
    """Time that moves only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses_s: list[float] = []

    def now_ns(self) -> int:
        return round(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Sleep without a loop."""
        self.now_s += seconds
        self.pauses_s.append(seconds)


class ScriptedEdge:
    """Answers each request with the next line of the script and keeps the requests; the last line repeats."""

    def __init__(self, *script: Callable[[httpx.Request], httpx.Response]) -> None:
        self.script: Script = list(script)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        return self.script.pop(0)(request) if len(self.script) > 1 else self.script[0](request)

    async def asynchronously(self, request: httpx.Request) -> httpx.Response:
        """The same for an asynchronous transport."""
        await request.aread()
        self.requests.append(request)
        return self.script.pop(0)(request) if len(self.script) > 1 else self.script[0](request)


class CutStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Chunks, and then a lost connection if `cut`."""

    def __init__(self, chunks: list[bytes], *, cut: bool) -> None:
        self._chunks = chunks
        self._cut = cut

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._cut:
            raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def video(**changes: object) -> dict[str, object]:
    """A video object as an edge sends it."""
    base: dict[str, object] = {
        "id": VIDEO_ID,
        "object": "video",
        "model": "pocket-cloud",
        "status": "queued",
        "progress": 0,
        "created_at": 1,
        "prompt": "a red circle",
        "seconds": "2",
        "size": "256x256",
        "error": None,
        "plan": "refine",
        "edge_id": "edge-1",
        "draft": None,
        "final": None,
        "a_field_of_tomorrow": 1,
    }
    return base | changes


def clip(data: bytes, sha256: str) -> dict[str, object]:
    """A clip object for `data`."""
    return {"sha256": sha256, "size_bytes": len(data), "width": 256, "height": 256, "frames": 24, "fps": 12}


def event(event_id: str, kind: str, state: dict[str, object], *, look: bytes = b"") -> bytes:
    """One event of the stream."""
    data = {"type": kind, "at_ns": 5, "step": 1, "steps": 4, "video": state}
    data["look_jpeg_base64"] = base64.b64encode(look).decode()
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def answers(body: object, status: int = 200, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    """A JSON answer."""
    return lambda request: httpx.Response(
        status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def refuses(code: str, status: int, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    """An error answer."""
    error = {"code": code, "message": f"{code} happened", "param": "size", "retryable": False}
    return answers({"error": error}, status, **headers)


def streams(
    *chunks: bytes, cut: bool = False, status: int = 200, **headers: str
) -> Callable[[httpx.Request], httpx.Response]:
    """A streamed answer, cut off at its end if `cut`."""
    said = {k.replace("_", "-"): v for k, v in headers.items()}
    return lambda request: httpx.Response(status, stream=CutStream(list(chunks), cut=cut), headers=said)


def unreachable(request: httpx.Request) -> httpx.Response:
    """Nobody listens."""
    raise httpx.ConnectError("connection refused")
