"""The blocking client. The same methods as `adaptivegen.sdk.aio`, which a test asserts.

    with Client("http://127.0.0.1:8080") as client:
        handle = client.submit("a red circle moves left over a sunset sky")
        handle.save_draft("draft.mp4")
        handle.result(timeout_s=60).save("final.mp4")

Every method raises the errors of `adaptivegen.errors`. What is decided here is only when to block; what to send, how
answers are read and when to try again is in the pure modules beside it.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Literal, Self

import httpx

from adaptivegen.clock import Clock, SystemClock
from adaptivegen.errors import AdaptiveGenError, DeadlineExceeded, Unavailable
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


class Client:
    """Talks to the nearest edge. Safe to share between threads; close it, or use it as a context manager."""

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
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """One or several edges by address, or a file that names them (`adaptivegen up` writes DIR/endpoints.json); of
        several, the nearest is found by probing at the first call, and the next takes over when it is lost.

        `timeout_s` is for one answer, `retry_budget_s` for repeating a call while the edge cannot be reached or is
        full, `reconnect_budget_s` for the same within a stream of events or a download, counted anew after progress.
        `clock`, `rng`, `transport` and `pause` (blocks for so many seconds) are there for tests.
        """
        self._base_url = base_url
        self._endpoints_file = endpoints_file
        self._timeout_s = timeout_s
        self._retry_budget_s = retry_budget_s
        self._reconnect_budget_s = reconnect_budget_s
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._pause = pause or threading.Event().wait
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(headers=headers, follow_redirects=True, transport=transport)
        self._known: Edges | None = None
        self._lock = threading.Lock()

    def edge(self) -> str:
        """Address of the edge in use; probes at the first call."""
        return self._edges().current

    def submit(
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
    ) -> Handle:
        """Ask for a video; returns once an edge has stored the job. `image` or `video` (path or bytes) is what it
        starts from; `task` says whether a video is redrawn, gone on with, or filled in between its ends. Drafts of one
        `session` are made at one edge as far as that is good. `deadline_s`: within which the final is needed;
        `allow_reduced`: rather of fewer steps than late, or with a deadline than others waiting for long; the video's
        plan says `reduced` then. Repeating a call with the same `idempotency_key` gives the same video; without one,
        one is made, so that a retry inside never makes two."""
        fields: dict[str, object] = {"prompt": prompt, "model": model, "size": size, "seconds": seconds, "seed": seed}
        fields |= {"intent": intent, "plan": plan, "steps": steps, "guidance": guidance, "strength": strength}
        fields |= {"task": task, "session": session, "service_tier": service_tier, "deadline_s": deadline_s}
        fields |= {"allow_reduced": True} if allow_reduced else {}
        reference = choose_reference(image, video)
        part = read_reference(reference) if reference is not None else None
        key = idempotency_key or new_token(prefix="sdk", rng=self._rng, bits=120)
        submitted_at_s = self._clock.monotonic_s()
        response = self._send(routes.submit_call(fields, reference=part, idempotency_key=key))
        return Handle(self, parse_video(response.content), idempotency_key=key, submitted_at_s=submitted_at_s)

    def handle(self, video_id: str) -> Handle:
        """The handle of a video submitted earlier, also by another process; asks nothing yet."""
        return Handle(self, check_video_id(video_id))

    def videos(self, *, after: str | None = None, limit: int = 20, order: Literal["asc", "desc"] = "desc") -> VideoPage:
        """One page of the caller's videos, after the id `after`."""
        return parse_videos(self._send(routes.list_call(after=after, limit=limit, order=order)).content)

    def models(self) -> list[dict[str, object]]:
        """The models an edge offers, with their limits and measured quality."""
        return parse_data(self._send(routes.models_call()).content)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _edges(self) -> Edges:
        with self._lock:
            if self._known is None:
                self._known = find_edges(self._base_url, self._endpoints_file)
            return self._known

    def _send(self, call: routes.Call) -> httpx.Response:
        """One answer, over as many attempts as the retry budget allows."""
        backoff = Backoff(budget_s=self._retry_budget_s, rng=self._rng)
        while True:
            edge = self._edges().current
            try:
                response = self._http.send(to_request(self._http, edge, call, answer_timeout(self._timeout_s)))
                if response.is_success:
                    return response
                error = routes.error_of(response.status_code, response.headers, response.content)
            except httpx.HTTPError as exc:
                error = from_httpx(exc, edge)
            self._pause(self._retry_s(backoff, error, edge))

    def _retry_s(self, backoff: Backoff, error: AdaptiveGenError, edge: str) -> float:
        """Seconds to wait before trying again, at another edge if there is one and this one is away."""
        if isinstance(error, Unavailable):
            self._edges().failed(edge)
        return backoff.pause_s(error, now_s=self._now_s())

    def _now_s(self) -> float:
        return self._clock.monotonic_s()

    @contextmanager
    def _stream(self, edge: str, call: routes.Call, timeout: httpx.Timeout) -> Iterator[httpx.Response]:
        """An open answer; raises the typed error of a refusal and translates those of the transport."""
        response: httpx.Response | None = None
        try:
            response = self._http.send(to_request(self._http, edge, call, timeout), stream=True)
            if not response.is_success:
                raise routes.error_of(response.status_code, response.headers, response.read())
            yield response
        except httpx.HTTPError as exc:
            raise lost(exc, edge) from exc
        finally:
            if response is not None:
                response.close()

    def _follow(self, video_id: str, waiting: Waiting) -> Iterator[VideoEvent]:
        """Every event once, reconnecting; raises DeadlineExceeded when `waiting` is over."""
        cursor = EventCursor(video_id)
        backoff = Backoff(budget_s=self._reconnect_budget_s, rng=self._rng)
        while not cursor.ended:
            edge = self._edges().current
            timeout = stream_timeout(waiting.remaining_s(now_s=self._now_s()))
            try:
                with (
                    self._stream(edge, cursor.connect(), timeout) as response,
                    _cut_off(response, lambda: waiting.remaining_s(now_s=self._now_s())),
                ):
                    opened_s = self._now_s()
                    for chunk in response.iter_bytes():
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
            pause_s = self._retry_s(backoff, error, edge)
            self._pause(pause_s if remaining_s is None else min(pause_s, remaining_s))

    def _chunks(self, video: Video, variant: routes.Variant) -> Iterator[bytes]:
        """Every byte of a clip once, resumed when cut off; raises StorageFailure at the end for a wrong digest."""
        download = Download(video.id, clip_of(video, variant), variant)
        backoff = Backoff(budget_s=self._reconnect_budget_s, rng=self._rng)
        while not download.complete:
            edge = self._edges().current
            try:
                with self._stream(edge, download.call(), answer_timeout(self._timeout_s)) as response:
                    download.begin(response.status_code, response.headers)
                    for chunk in response.iter_raw():
                        yield download.feed(chunk)
                        backoff.succeeded()
                if download.complete:
                    break
                raise closed_early(edge)
            except AdaptiveGenError as exc:
                error = exc
            self._pause(self._retry_s(backoff, error, edge))
        download.check()


class Handle:
    """A video: watch it, take its draft, wait for its final, stop it. Made by `Client.submit` or `Client.handle`."""

    def __init__(
        self,
        client: Client,
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
    def from_dict(cls, data: Mapping[str, object], client: Client) -> Handle:
        """The handle that `to_dict` described; raises InvalidRequest. Asks nothing yet."""
        video_id, key = handle_fields(data)
        return cls(client, video_id, idempotency_key=key)

    def to_dict(self) -> dict[str, str | None]:
        """What another process needs to go on with this video; JSON-safe, without the API key."""
        return {"id": self.id, "idempotency_key": self.idempotency_key}

    def status(self) -> Video:
        """The video as it is now."""
        return self._note(parse_video(self._client._send(routes.status_call(self.id)).content))

    def events(self, *, start_timeout_s: float | None = None, timeout_s: float | None = None) -> Iterator[VideoEvent]:
        """Each event once, in order, from the present state to the end of the video. A lost connection is made again;
        looks published meanwhile may be missed, states are not. Raises DeadlineExceeded when no work has begun after
        `start_timeout_s` or the video has not ended after `timeout_s`."""
        waiting = Waiting(now_s=self._client._now_s(), start_timeout_s=start_timeout_s, timeout_s=timeout_s)
        for event in self._client._follow(self.id, waiting):
            self._note(event.video)
            yield event

    def draft(self, *, timeout_s: float | None = None) -> bytes:
        """The draft as MP4, once it is there. Raises the video's failure, or NotFound when it ended without one."""
        return b"".join(self._client._chunks(self._with_draft(timeout_s), "draft"))

    def save_draft(self, path: str | os.PathLike[str], *, timeout_s: float | None = None) -> None:
        """Write the draft to a file, whole or not at all; raises as `draft` does."""
        Result(self._client, self._with_draft(timeout_s)).save(path, variant="draft")

    def result(self, *, start_timeout_s: float | None = None, timeout_s: float | None = None) -> Result:
        """Wait for the end. Raises GenerationFailed (its `param` is the code of the job's error), Cancelled, or
        DeadlineExceeded as `events` does; the video goes on after a DeadlineExceeded."""
        if self._last is None or not self._last.ended:
            for _ in self.events(start_timeout_s=start_timeout_s, timeout_s=timeout_s):
                pass
        return Result(self._client, ended(self._last))

    def cancel(self) -> Video:
        """Stop the video; raises Conflict when it ended otherwise before."""
        return self._note(parse_video(self._client._send(routes.cancel_call(self.id)).content))

    def delete(self) -> None:
        """Delete the video with all that is stored of it; one that is not finished is cancelled first. Afterwards it is
        not found; deleting it again is no error."""
        self._client._send(routes.delete_call(self.id))

    def upgrade(self) -> Video:
        """Ask for the final of a video that is only a draft; raises Conflict when there is nothing to upgrade."""
        return self._note(parse_video(self._client._send(routes.upgrade_call(self.id)).content))

    def rate(
        self,
        stars: int,
        *,
        stalls: int = 0,
        stalled_s: float = 0.0,
        draft_wait_s: float | None = None,
        final_wait_s: float | None = None,
    ) -> None:
        """Say how good it was, 1 to 5; the waits this handle measured go along, where none are given: seconds from
        submission until each was there.

        stalls: how often playback stopped to wait, for stalled_s seconds in all.
        """
        said = self._watch.experience(stars, stalls, stalled_s, draft_wait_s, final_wait_s)
        self._client._send(routes.rating_call(self.id, said))

    def _with_draft(self, timeout_s: float | None) -> Video:
        if self._last is None or (self._last.draft is None and not self._last.ended):
            for event in self.events(timeout_s=timeout_s):
                if event.video.draft is not None:
                    break
        return drafted(self._last)

    def _note(self, video: Video) -> Video:
        self._last = video
        self._watch.observe(video, now_s=self._client._now_s())
        return video


class Result:
    """A video that ended well. Its bytes are fetched when asked for, resumed when cut off, and checked."""

    def __init__(self, client: Client, video: Video) -> None:
        self._client = client
        self.video = video

    def chunks(self, *, variant: routes.Variant | None = None) -> Iterator[bytes]:
        """The clip's bytes as they come. The digest is checked after the last: an error then spoils all of them."""
        return self._client._chunks(self.video, variant or best_variant(self.video))

    def content(self, *, variant: routes.Variant | None = None) -> bytes:
        """The clip as MP4: the final, or the draft of a video that is only a draft; `variant` asks for one."""
        return b"".join(self.chunks(variant=variant))

    def save(self, path: str | os.PathLike[str], *, variant: routes.Variant | None = None) -> None:
        """Write the clip to a file, whole or not at all. Raises InvalidRequest for a place that cannot be written,
        StorageFull or StorageFailure when the disk or the transfer fails."""
        target = AtomicFile(path)
        try:
            for chunk in self.chunks(variant=variant):
                target.write(chunk)
            target.commit()
        finally:
            target.close()


@contextmanager
def _cut_off(response: httpx.Response, remaining_s: Callable[[], float | None]) -> Iterator[None]:
    """End a blocked read when a deadline passes: a watcher shuts the socket down, the reader sees it close. A read
    timeout cannot do it, since the edge's heartbeats start it anew."""
    stream = response.extensions.get("network_stream")
    raw = stream.get_extra_info("socket") if stream is not None else None
    if raw is None or remaining_s() is None:
        yield
        return
    left = threading.Event()

    def watch() -> None:
        try:
            while (seconds := remaining_s()) is not None and not left.wait(seconds):
                pass
        except DeadlineExceeded:
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=watch, name="adaptivegen-deadline", daemon=True).start()
    try:
        yield
    finally:
        left.set()
