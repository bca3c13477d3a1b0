"""The asyncio client. The same methods as `adaptivegen.sdk.client`, which a test asserts.

    async with AsyncClient("http://127.0.0.1:8080") as client:
        handle = await client.submit("a red circle moves left over a sunset sky")
        await handle.save_draft("draft.mp4")
        await (await handle.result(timeout_s=60)).save("final.mp4")

Every method raises the errors of `adaptivegen.errors`. Cancelling the task that waits ends the wait, not the video;
`Handle.cancel` ends that. Files are read and written on a thread of the client's own, never on the loop.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeVar

import httpx

from adaptivegen.clock import Clock, SystemClock
from adaptivegen.errors import AdaptiveGenError, Unavailable
from adaptivegen.ids import check_video_id, new_token
from adaptivegen.sdk import routes
from adaptivegen.sdk.download import Download
from adaptivegen.sdk.edges import Edges
from adaptivegen.sdk.files import AtomicFile, Reference, choose_reference, read_reference
from adaptivegen.sdk.follow import EventCursor
from adaptivegen.sdk.models import Video, VideoEvent, VideoPage, parse_data, parse_video, parse_videos
from adaptivegen.sdk.nearest import find_edges
from adaptivegen.sdk.outcome import best_variant, clip_of, drafted, ended, handle_fields
from adaptivegen.sdk.patience import STEADY_S, Backoff, Stopwatch, Waiting
from adaptivegen.sdk.transport import answer_timeout, closed_early, from_httpx, lost, stream_timeout, to_request

T = TypeVar("T")


class AsyncClient:
    """Talks to the nearest edge. For one event loop; close it, or use it as a context manager."""

    def __init__(
        self,
        base_url: str | Sequence[str] | None = None,
        *,
        endpoints_file: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retry_budget_s: float = 10.0,
        reconnect_budget_s: float = 60.0,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As `Client`; nothing is probed or connected before the first call."""
        self._base_url = base_url
        self._endpoints_file = endpoints_file
        self._timeout_s = timeout_s
        self._retry_budget_s = retry_budget_s
        self._reconnect_budget_s = reconnect_budget_s
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(headers=headers, follow_redirects=True, transport=transport)
        self._known: Edges | None = None
        self._lock = asyncio.Lock()
        self._blocking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="adaptivegen-files")

    async def edge(self) -> str:
        """Address of the edge in use; probes at the first call."""
        return (await self._edges()).current

    async def submit(
        self,
        prompt: str,
        *,
        model: str | None = None,
        size: str | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        intent: Literal["iterate", "render"] = "render",
        plan: Literal["draft", "refine", "cloud"] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        image: Reference | None = None,
        video: Reference | None = None,
        strength: float | None = None,
        task: Literal["restyle", "extend", "interpolate"] | None = None,
        session: str | None = None,
        service_tier: Literal["priority", "default", "flex"] | None = None,
        deadline_s: float | None = None,
        allow_reduced: bool = False,
        idempotency_key: str | None = None,
    ) -> AsyncHandle:
        """As `Client.submit`."""
        fields: dict[str, object] = {"prompt": prompt, "model": model, "size": size, "seconds": seconds, "seed": seed}
        fields |= {"intent": intent, "plan": plan, "steps": steps, "guidance": guidance, "strength": strength}
        fields |= {"task": task, "session": session, "service_tier": service_tier, "deadline_s": deadline_s}
        fields |= {"allow_reduced": True} if allow_reduced else {}
        reference = choose_reference(image, video)
        part = await self._off_loop(lambda: read_reference(reference)) if reference is not None else None
        key = idempotency_key or new_token(prefix="sdk", rng=self._rng, bits=120)
        submitted_at_s = self._clock.monotonic_s()
        response = await self._send(routes.submit_call(fields, reference=part, idempotency_key=key))
        return AsyncHandle(self, parse_video(response.content), idempotency_key=key, submitted_at_s=submitted_at_s)

    def handle(self, video_id: str) -> AsyncHandle:
        """As `Client.handle`."""
        return AsyncHandle(self, check_video_id(video_id))

    async def videos(
        self, *, after: str | None = None, limit: int = 20, order: Literal["asc", "desc"] = "desc"
    ) -> VideoPage:
        """As `Client.videos`."""
        return parse_videos((await self._send(routes.list_call(after=after, limit=limit, order=order))).content)

    async def models(self) -> list[dict[str, object]]:
        """As `Client.models`."""
        return parse_data((await self._send(routes.models_call())).content)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        self._blocking.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._blocking, work)

    async def _edges(self) -> Edges:
        async with self._lock:
            if self._known is None:
                self._known = await self._off_loop(lambda: find_edges(self._base_url, self._endpoints_file))
            return self._known

    async def _send(self, call: routes.Call) -> httpx.Response:
        """One answer, over as many attempts as the retry budget allows."""
        edges = await self._edges()
        backoff = Backoff(budget_s=self._retry_budget_s, rng=self._rng)
        while True:
            edge = edges.current
            try:
                response = await self._http.send(to_request(self._http, edge, call, answer_timeout(self._timeout_s)))
                if response.is_success:
                    return response
                error = routes.error_of(response.status_code, response.headers, response.content)
            except httpx.HTTPError as exc:
                error = from_httpx(exc, edge)
            await self._clock.sleep(self._retry_s(backoff, error, edges, edge))

    def _retry_s(self, backoff: Backoff, error: AdaptiveGenError, edges: Edges, edge: str) -> float:
        """Seconds to wait before trying again, at another edge if there is one and this one is away."""
        if isinstance(error, Unavailable):
            edges.failed(edge)
        return backoff.pause_s(error, now_s=self._now_s())

    def _now_s(self) -> float:
        return self._clock.monotonic_s()

    @asynccontextmanager
    async def _stream(self, edge: str, call: routes.Call, timeout: httpx.Timeout) -> AsyncIterator[httpx.Response]:
        """An open answer; raises the typed error of a refusal and translates those of the transport."""
        response: httpx.Response | None = None
        try:
            response = await self._http.send(to_request(self._http, edge, call, timeout), stream=True)
            if not response.is_success:
                raise routes.error_of(response.status_code, response.headers, await response.aread())
            yield response
        except httpx.HTTPError as exc:
            raise lost(exc, edge) from exc
        finally:
            if response is not None:
                await response.aclose()

    async def _follow(self, video_id: str, waiting: Waiting) -> AsyncGenerator[VideoEvent, None]:
        """Every event once, reconnecting; raises DeadlineExceeded when `waiting` is over."""
        cursor = EventCursor(video_id)
        edges = await self._edges()
        backoff = Backoff(budget_s=self._reconnect_budget_s, rng=self._rng)
        while not cursor.ended:
            edge = edges.current
            timeout = stream_timeout(waiting.remaining_s(now_s=self._now_s()))
            try:
                async with self._stream(edge, cursor.connect(), timeout) as response:
                    chunks = response.aiter_bytes()
                    opened_s = self._now_s()
                    while chunk := await self._next(chunks, waiting):
                        events = cursor.feed(chunk)
                        if events or self._now_s() - opened_s > STEADY_S:
                            backoff.succeeded()
                        for event in events:
                            waiting.observe(event.video, event_type=event.type)
                            yield event
                        if cursor.ended:
                            return
                raise closed_early(edge)
            except AdaptiveGenError as exc:
                error = exc
            remaining_s = waiting.remaining_s(now_s=self._now_s())
            pause_s = self._retry_s(backoff, error, edges, edge)
            await self._clock.sleep(pause_s if remaining_s is None else min(pause_s, remaining_s))

    async def _next(self, chunks: AsyncIterator[bytes], waiting: Waiting) -> bytes:
        """The next chunk, or b"" when the stream ended or a deadline came first (which the caller then finds over)."""
        try:
            async with asyncio.timeout(waiting.remaining_s(now_s=self._now_s())):
                return await anext(chunks, b"")
        except TimeoutError:
            return b""

    async def _chunks(self, video: Video, variant: routes.Variant) -> AsyncGenerator[bytes, None]:
        """Every byte of a clip once, resumed when cut off; raises StorageFailure at the end for a wrong digest."""
        download = Download(video.id, clip_of(video, variant), variant)
        edges = await self._edges()
        backoff = Backoff(budget_s=self._reconnect_budget_s, rng=self._rng)
        while not download.complete:
            edge = edges.current
            try:
                async with self._stream(edge, download.call(), answer_timeout(self._timeout_s)) as response:
                    download.begin(response.status_code, response.headers)
                    async for chunk in response.aiter_raw():
                        yield download.feed(chunk)
                        backoff.succeeded()
                if download.complete:
                    break
                raise closed_early(edge)
            except AdaptiveGenError as exc:
                error = exc
            await self._clock.sleep(self._retry_s(backoff, error, edges, edge))
        download.check()


class AsyncHandle:
    """A video: watch it, take its draft, wait for its final, stop it. As `Handle`."""

    def __init__(
        self,
        client: AsyncClient,
        video: Video | str,
        *,
        idempotency_key: str | None = None,
        submitted_at_s: float | None = None,
    ) -> None:
        self._client = client
        self._last = video if isinstance(video, Video) else None
        self._watch = Stopwatch(submitted_at_s=submitted_at_s)
        self.id = video.id if isinstance(video, Video) else video
        self.idempotency_key = idempotency_key

    @classmethod
    def from_dict(cls, data: Mapping[str, object], client: AsyncClient) -> AsyncHandle:
        """As `Handle.from_dict`."""
        video_id, key = handle_fields(data)
        return cls(client, video_id, idempotency_key=key)

    def to_dict(self) -> dict[str, str | None]:
        """As `Handle.to_dict`."""
        return {"id": self.id, "idempotency_key": self.idempotency_key}

    async def status(self) -> Video:
        """The video as it is now."""
        return self._note(parse_video((await self._client._send(routes.status_call(self.id))).content))

    async def events(
        self, *, start_timeout_s: float | None = None, timeout_s: float | None = None
    ) -> AsyncGenerator[VideoEvent, None]:
        """As `Handle.events`. Leave the loop early only under `contextlib.aclosing`, which closes the connection."""
        waiting = Waiting(now_s=self._client._now_s(), start_timeout_s=start_timeout_s, timeout_s=timeout_s)
        async with aclosing(self._client._follow(self.id, waiting)) as events:
            async for event in events:
                self._note(event.video)
                yield event

    async def draft(self, *, timeout_s: float | None = None) -> bytes:
        """As `Handle.draft`."""
        return b"".join([chunk async for chunk in self._client._chunks(await self._with_draft(timeout_s), "draft")])

    async def save_draft(self, path: str | os.PathLike[str], *, timeout_s: float | None = None) -> None:
        """As `Handle.save_draft`."""
        await AsyncResult(self._client, await self._with_draft(timeout_s)).save(path, variant="draft")

    async def result(self, *, start_timeout_s: float | None = None, timeout_s: float | None = None) -> AsyncResult:
        """As `Handle.result`."""
        if self._last is None or not self._last.ended:
            async for _ in self.events(start_timeout_s=start_timeout_s, timeout_s=timeout_s):
                pass
        return AsyncResult(self._client, ended(self._last))

    async def cancel(self) -> Video:
        """As `Handle.cancel`."""
        return self._note(parse_video((await self._client._send(routes.cancel_call(self.id))).content))

    async def delete(self) -> None:
        """Delete the video with all that is stored of it; one that is not finished is cancelled first. Afterwards it is
        not found; deleting it again is no error."""
        await self._client._send(routes.delete_call(self.id))

    async def upgrade(self) -> Video:
        """As `Handle.upgrade`."""
        return self._note(parse_video((await self._client._send(routes.upgrade_call(self.id))).content))

    async def rate(
        self,
        stars: int,
        *,
        stalls: int = 0,
        stalled_s: float = 0.0,
        draft_wait_s: float | None = None,
        final_wait_s: float | None = None,
    ) -> None:
        """As `Handle.rate`."""
        said = self._watch.experience(stars, stalls, stalled_s, draft_wait_s, final_wait_s)
        await self._client._send(routes.rating_call(self.id, said))

    async def _with_draft(self, timeout_s: float | None) -> Video:
        if self._last is None or (self._last.draft is None and not self._last.ended):
            async with aclosing(self.events(timeout_s=timeout_s)) as events:
                async for event in events:
                    if event.video.draft is not None:
                        break
        return drafted(self._last)

    def _note(self, video: Video) -> Video:
        self._last = video
        self._watch.observe(video, now_s=self._client._now_s())
        return video


class AsyncResult:
    """A video that ended well. As `Result`."""

    def __init__(self, client: AsyncClient, video: Video) -> None:
        self._client = client
        self.video = video

    def chunks(self, *, variant: routes.Variant | None = None) -> AsyncGenerator[bytes, None]:
        """As `Result.chunks`."""
        return self._client._chunks(self.video, variant or best_variant(self.video))

    async def content(self, *, variant: routes.Variant | None = None) -> bytes:
        """As `Result.content`."""
        return b"".join([chunk async for chunk in self.chunks(variant=variant)])

    async def save(self, path: str | os.PathLike[str], *, variant: routes.Variant | None = None) -> None:
        """As `Result.save`."""
        off_loop = self._client._off_loop
        target = await off_loop(lambda: AtomicFile(path))
        try:
            async with aclosing(self.chunks(variant=variant)) as chunks:
                async for chunk in chunks:
                    await off_loop(partial(target.write, chunk))
            await off_loop(target.commit)
        finally:
            await off_loop(target.close)
