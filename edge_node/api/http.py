"""The HTTP routes of an edge. Thin: read the request, call `Videos`, render the answer."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import fields
from typing import cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from adaptivegen.errors import AdaptiveGenError, InternalError, InvalidRequest, NotFound
from adaptivegen.experience import Experience
from adaptivegen.http_json import failed, unrouted
from adaptivegen.ids import new_token
from adaptivegen.jobs.events import JobEvent
from adaptivegen.local_only import check_local
from adaptivegen.media.ranges import answer, etag_of
from adaptivegen.models.card import ModelCard
from adaptivegen.rpc.video import Authenticator, Variant
from adaptivegen.telemetry import REQUEST_ID_HEADER, get_logger, given_request_id, name_request, span
from edge_node.api import render
from edge_node.api.body import Bodies
from edge_node.delivery import Delivery
from edge_node.spool.rules import CutOff
from edge_node.videos import Videos

Endpoint = Callable[[Request], Awaitable[Response]]


class HttpApi:
    """Builds the ASGI application of one edge. With `local_names` (an edge without keys) only requests of this machine
    are answered, by those names (`adaptivegen.local_only`)."""

    def __init__(
        self,
        *,
        videos: Videos,
        authenticator: Authenticator,
        delivery: Delivery,
        ready: Callable[[], bool],
        registry: CollectorRegistry,
        rng: random.Random,
        bodies: Bodies,
        cards: Callable[[], Iterable[ModelCard]],
        local_names: frozenset[str] | None = None,
        cut: Callable[[], CutOff | None] = lambda: None,
    ) -> None:
        self._videos = videos
        self._cards = cards
        self._authenticator = authenticator
        self._delivery = delivery
        self._ready = ready
        self._registry = registry
        self._rng = rng
        self._bodies = bodies
        self._local_names = local_names
        self._cut = cut

    def application(self) -> Starlette:
        """The application, to be served by uvicorn."""
        one = "/v1/videos/{id}"
        routes = [
            ("POST", "/v1/videos", self.create),
            ("GET", "/v1/videos", self.list),
            ("GET", one, self.get),
            ("DELETE", one, self.delete),
            ("GET", f"{one}/content", self.content),
            ("GET", f"{one}/events", self.events),
            ("POST", f"{one}/cancel", self.cancel),
            ("POST", f"{one}/upgrade", self.upgrade),
            ("POST", f"{one}/rating", self.rate),
            ("GET", "/v1/models", self.models),
            ("GET", "/healthz", self.healthz),
            ("GET", "/readyz", self.readyz),
            ("GET", "/metrics", self.metrics),
        ]
        return Starlette(
            routes=[Route(path, self._guarded(endpoint), methods=[method]) for method, path, endpoint in routes],
            exception_handlers={HTTPException: unrouted},
        )

    # ---- videos -----------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """202 with the video, or 200 when it is complete already."""
        tenant = self._tenant(request)
        key = request.headers.get("idempotency-key")
        async with self._bodies.create(request) as body:
            record = await self._videos.create(tenant, body.values, upload=body.upload, idempotency_key=key)
        headers = {"location": f"/v1/videos/{record.id}", **self._pace(render.poll_after_ms(record))}
        return JSONResponse(render.video(record), status_code=200 if record.ended else 202, headers=headers)

    async def get(self, request: Request) -> Response:
        """The video, and when to ask again."""
        record = await self._videos.get(self._tenant(request), request.path_params["id"])
        return JSONResponse(render.video(record), headers=self._pace(render.poll_after_ms(record)))

    async def list(self, request: Request) -> Response:
        """A page of videos."""
        query = request.query_params
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest.field("order", order, "asc, desc")
        limit = query.get("limit", "20")
        if not limit.isascii() or not limit.isdigit():
            raise InvalidRequest.field("limit", limit, "1 to 100")
        page = await self._videos.list(
            self._tenant(request), after=query.get("after"), limit=int(limit[:6]), ascending=order == "asc"
        )
        return JSONResponse(render.page(page))

    async def content(self, request: Request) -> Response:
        """The bytes, from the cache (307) or from here, whole or a range."""
        variant = request.query_params.get("variant", "video")
        if variant not in ("video", "draft"):
            raise InvalidRequest.field("variant", variant, "video, draft")
        chosen: Variant = "draft" if variant == "draft" else "video"
        tenant = self._tenant(request)
        media = await self._videos.media(tenant, request.path_params["id"], chosen)
        only_here = self._videos.only_here(media)
        location = None if only_here else self._delivery.cache_location(media, tenant=tenant)
        if location is not None:
            return RedirectResponse(location, status_code=307, headers={"cache-control": "private, no-store"})
        etag = etag_of(media.sha256)
        decided = answer(
            size=media.size_bytes,
            etag=etag,
            range_header=request.headers.get("range"),
            if_range=request.headers.get("if-range"),
            if_none_match=request.headers.get("if-none-match"),
        )
        headers = {"etag": etag, "accept-ranges": "bytes", "cache-control": "private, max-age=31536000, immutable"}
        part = decided.range
        if decided.status == 416:
            return Response(status_code=416, headers={**headers, "content-range": f"bytes */{part.size}"})
        if decided.status == 304:
            return Response(status_code=304, headers=headers)
        if decided.status == 206:
            headers["content-range"] = part.content_range
        headers["content-length"] = str(part.length)
        body = self._videos.read(media, start=part.start, end=part.end) if request.method == "GET" else _nothing()
        return StreamingResponse(body, decided.status, headers, media_type=media.content_type)

    async def events(self, request: Request) -> Response:
        """Server-sent events until the video ends."""
        tenant, video_id = self._tenant(request), request.path_params["id"]
        stream = self._videos.stream(tenant, video_id, after=request.headers.get("last-event-id"))
        first = await anext(stream)  # raises NotFound before the answer has begun
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_server_sent(first, stream), headers=headers, media_type="text/event-stream")

    async def cancel(self, request: Request) -> Response:
        """The cancelled video."""
        return JSONResponse(render.video(await self._videos.cancel(self._tenant(request), request.path_params["id"])))

    async def delete(self, request: Request) -> Response:
        """What OpenAI answers; deleting again is no error."""
        video_id = request.path_params["id"]
        await self._videos.delete(self._tenant(request), video_id)
        return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})

    async def upgrade(self, request: Request) -> Response:
        """The video, its final asked for."""
        record = await self._videos.upgrade(self._tenant(request), request.path_params["id"])
        return JSONResponse(render.video(record), status_code=202)

    async def rate(self, request: Request) -> Response:
        """204."""
        tenant = self._tenant(request)
        values = await self._bodies.json(request)
        known = {field.name for field in fields(Experience)}
        unknown = set(values) - known
        if unknown:
            raise InvalidRequest.field("body", sorted(unknown)[0], ", ".join(sorted(known)))
        said = Experience(
            stars=cast(int, values.get("stars")),  # of whatever type: it is checked with the rest
            draft_wait_s=_seconds(values, "draft_wait_s"),
            final_wait_s=_seconds(values, "final_wait_s"),
            stalls=cast(int, values.get("stalls", 0)),
            stalled_s=_seconds(values, "stalled_s") or 0.0,
        )
        await self._videos.rate(tenant, request.path_params["id"], said)
        return Response(status_code=204)

    # ---- the node ---------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """The model cards."""
        self._tenant(request)
        return JSONResponse({"object": "list", "data": [render.model(card) for card in self._cards()]})

    async def healthz(self, request: Request) -> Response:
        """200 while the process lives."""
        return JSONResponse({"status": "alive", **render.cut_off(self._cut())})

    async def readyz(self, request: Request) -> Response:
        """200 when requests are welcome, else 503; an edge that is cut off says so, and welcomes what has room."""
        ready, cut = self._ready(), self._cut()
        welcome = ready and (cut is None or cut.has_room)
        status = ("ready" if cut is None else "cut off") if ready else "not ready"
        return JSONResponse({"status": status, **render.cut_off(cut)}, status_code=200 if welcome else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    # ---- parts ------------------------------------------------------------------------------------------------

    def _tenant(self, request: Request) -> str:
        return self._authenticator.tenant(request.headers.get("authorization"))

    def _refuse_pages(self, request: Request) -> None:
        if self._local_names is not None:
            hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
            check_local(hosts=hosts, origins=origins, names=self._local_names)

    @staticmethod
    def _pace(milliseconds: int) -> dict[str, str]:
        return {"openai-poll-after-ms": str(milliseconds)}

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Request id, trace, and errors as JSON, around every endpoint."""

        async def guarded(request: Request) -> Response:
            request_id = given_request_id(request.headers) or new_token(prefix="req", rng=self._rng)
            name_request(request_id)
            try:
                self._refuse_pages(request)
                with span(f"http {request.method} {request.url.path}", carrier=dict(request.headers)):
                    response = await endpoint(request)
            except AdaptiveGenError as exc:
                response = failed(exc)
            except Exception as exc:
                get_logger().error("unexpected_error", path=request.url.path, exc_info=exc)
                response = failed(InternalError(f"{type(exc).__name__}; the log has it under {request_id}"))
            response.headers[REQUEST_ID_HEADER] = request_id
            return response

        return guarded


def _seconds(values: dict[str, object], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequest.field(name, value, "seconds")
    try:
        return float(value)
    except OverflowError as exc:
        raise InvalidRequest.field(name, "a number of many digits", "seconds") from exc


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _server_sent(
    first: JobEvent | None, rest: AsyncGenerator[JobEvent | None, None]
) -> AsyncGenerator[bytes, None]:
    """Events as they come, and a comment in every quiet while, so that a dead client is noticed. Where the video is
    deleted the stream ends: who asks for it again is told."""
    async with aclosing(rest):
        if first is not None:
            yield render.event(first)
        with suppress(NotFound):
            async for happened in rest:
                yield b": still here\n\n" if happened is None else render.event(happened)
