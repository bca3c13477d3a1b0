"""Reading one video's events over as many connections as it takes. Pure: bytes in, each event once out.

Decides what is new. An edge that knows the last id goes on after it; another edge, or the same after a restart, begins
with a snapshot, which is passed on only if it tells something this client has not seen.
"""

from __future__ import annotations

from collections import deque

from adaptivegen.sdk.models import Video, VideoEvent, parse_event
from adaptivegen.sdk.routes import Call, events_call
from adaptivegen.sdk.sse import SseDecoder

_REMEMBERED = 1024  # ids; an edge repeats at most what it kept, which is less


class EventCursor:
    """The place in a video's stream of events."""

    def __init__(self, video_id: str) -> None:
        self._video_id = video_id
        self._decoder = SseDecoder()
        self._last_id = ""
        self._order: deque[str] = deque()
        self._seen: set[str] = set()
        self._video: Video | None = None
        self.ended = False

    def connect(self) -> Call:
        """The request of the next connection; what was left of the one before is forgotten."""
        self._decoder = SseDecoder()
        return events_call(self._video_id, last_event_id=self._last_id)

    def feed(self, chunk: bytes) -> list[VideoEvent]:
        """The new events in the next bytes, in order, none after the one that ends the stream."""
        events: list[VideoEvent] = []
        for raw in self._decoder.feed(chunk):
            event = parse_event(raw)
            if not self.ended and self._new(event):
                events.append(event)
        return events

    def _new(self, event: VideoEvent) -> bool:
        if event.id:
            if event.id in self._seen:
                return False
            self._remember(event.id)
        stale = event.type == "snapshot" and event.video == self._video
        self._video = event.video
        self.ended = event.final
        return not stale

    def _remember(self, event_id: str) -> None:
        self._last_id = event_id
        self._seen.add(event_id)
        self._order.append(event_id)
        if len(self._order) > _REMEMBERED:
            self._seen.discard(self._order.popleft())
