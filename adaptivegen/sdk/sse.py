"""Server-sent events from bytes: a sans-I/O decoder (WHATWG HTML, "Server-sent events", event stream interpretation).

Decides where lines and events end; any chunking of the same bytes gives the same events. Knows no socket and no JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adaptivegen.errors import PayloadTooLarge

MAX_EVENT_BYTES = 8 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event; `id` is the last id seen so far, as the standard has it."""

    id: str
    event: str
    data: str


class SseDecoder:
    """Feed bytes, get events. At most `max_event_bytes` are held for an event that has not ended."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._scanned = 0  # no line ends before this offset, so long lines are scanned once
        self._at_start = True
        self._after_cr = False
        self._last_id = ""
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Take the next bytes; returns the events that ended in them. Raises PayloadTooLarge over the bound."""
        self._buffer += chunk
        if not self._skip_prefix():
            return []
        events: list[ServerEvent] = []
        start = 0
        while (match := _LINE_END.search(self._buffer, max(start, self._scanned))) is not None:
            line = bytes(self._buffer[start : match.start()])
            start = match.end()
            # A CR at the very end may be half of a CRLF: the line ends now, the LF is skipped when it comes.
            self._after_cr = match.group() == b"\r" and start == len(self._buffer)
            event = self._line(line)
            if event is not None:
                events.append(event)
        del self._buffer[:start]
        self._scanned = len(self._buffer)
        if len(self._buffer) + self._data_bytes > self._max_event_bytes:
            raise PayloadTooLarge(f"an event exceeds {self._max_event_bytes} bytes")
        return events

    def _skip_prefix(self) -> bool:
        """Drop the LF of a split CRLF and a byte order mark; False while it is not clear whether one is coming."""
        if self._after_cr and self._buffer:
            self._after_cr = False
            if self._buffer[:1] == b"\n":
                del self._buffer[:1]
        if self._at_start:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return False
            self._at_start = False
            if self._buffer.startswith(_BOM):
                del self._buffer[: len(_BOM)]
        return True

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.decode("utf-8", errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._data_bytes += len(line)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
        return None  # a comment (empty name), `retry`, or a field this version does not know

    def _dispatch(self) -> ServerEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._data_bytes = [], "", 0
        if not data:
            return None
        return ServerEvent(id=self._last_id, event=event or "message", data="\n".join(data))
