"""The routes of the admin service over HTTP. Thin: who asks, may they, what do they ask, render what is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from adaptivegen.local_only import check_same_origin
from adaptivegen.roles import Role, Roles, called
from adaptivegen.rpc.admin import AdminBackend
from adaptivegen.serving import peer_of
from scheduler.api.openapi import DOCUMENT_PATH, STREAM_PATH, document
from scheduler.api.operations import OPERATIONS, ROOT, Operation
from scheduler.api.pages import HEADERS, load_pages
from scheduler.api.reading import read_asked
from scheduler.api.stream import Streams

Endpoint = Callable[[Request], Awaitable[Response]]
Answering = Callable[[Request, str], Awaitable[Response]]  # with who asks
JSON = "application/json"


class AdminHttp:
    """The admin service of one scheduler over HTTP, its live snapshots, and the dashboard that shows them."""

    def __init__(self, backend: AdminBackend, roles: Roles, streams: Streams) -> None:
        self._backend = backend
        self._roles = roles
        self._streams = streams
        self._document = json.dumps(document()).encode()

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """Method, path and endpoint of everything that is served."""
        routes: list[tuple[str, str, Endpoint]] = [
            *((one.method, f"{ROOT}{one.path}", self._for(one.role, self._answering(one))) for one in OPERATIONS),
            ("GET", DOCUMENT_PATH, self._for("viewer", _fixed(self._document, JSON))),
            ("GET", STREAM_PATH, self._for("viewer", self._stream)),
        ]
        for path, (content, kind) in load_pages().items():
            routes.append(("GET", path, self._for("viewer", _fixed(content, kind))))
        return routes

    def _for(self, role: Role, endpoint: Answering) -> Endpoint:
        """For nobody's pages but our own, and for those who have the role. Raises PermissionDenied."""

        async def allowed(request: Request) -> Response:
            headers = request.headers
            check_same_origin(
                hosts=headers.getlist("host"),
                origins=headers.getlist("origin"),
                site=headers.get("sec-fetch-site", ""),
                mode=headers.get("sec-fetch-mode", ""),
            )
            names = peer_of(request).names
            self._roles.require(names, role)
            return await endpoint(request, called(names))

        return allowed

    def _answering(self, operation: Operation) -> Answering:
        """Reads what an operation takes, and writes what it returns."""
        answers: TypeAdapter[Any] = TypeAdapter(operation.answer)

        async def answer(request: Request, by: str) -> Response:
            asked = await read_asked(operation, request)
            found = await operation.run(self._backend, asked, by)
            return Response(answers.dump_json(found), media_type=JSON, headers=HEADERS)

        return answer

    async def _stream(self, request: Request, by: str) -> Response:
        """Snapshots until either side ends."""
        headers = {**HEADERS, "x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type=_Events.media_type, headers=headers)
        events = self._streams.follow(peer_of(request).abort)
        return _Events(await anext(events), events, headers)  # is refused, where it is, before the answer has begun


class _Events(StreamingResponse):
    """Server-sent events; whoever made them learns at once that nobody follows any more."""

    media_type = "text/event-stream"

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(rest, headers=headers)
        self._first = first
        self._rest = rest

    async def stream_response(self, send: Send) -> None:
        """Send the first event and then the others."""
        async with aclosing(self._rest):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for event in self._rest:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _fixed(content: bytes, kind: str) -> Answering:
    """Always the same."""

    async def answer(request: Request, by: str) -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return answer
