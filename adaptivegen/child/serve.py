"""The child's side: reads messages, answers them, notices a cancel while it works. Synchronous.

Standard output belongs to the messages: the channel keeps it for itself and points file descriptor 1 at standard error,
so a stray print cannot break the framing.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from adaptivegen.child.framing import Parts, decode_header, decode_length, encode_head

_PR_SET_PDEATHSIG = 1
_MAX_UNREAD = 64


class Channel:
    """Standard input and output as messages. `read` returns None when the parent is gone."""

    def __init__(self) -> None:
        _die_with_parent()
        self._input = os.fdopen(os.dup(0), "rb", buffering=1024 * 1024)
        self._output = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._messages: queue.Queue[tuple[dict[str, Any], dict[str, bytes]] | None] = queue.Queue(_MAX_UNREAD)
        self._cancelled: set[str] = set()
        threading.Thread(target=self._listen, name="channel", daemon=True).start()

    def read(self) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """The next message that is not a cancel, or None at the end."""
        return self._messages.get()

    def write(self, header: Mapping[str, Any], parts: Parts | None = None) -> None:
        """Send one message; blocks while the parent does not read."""
        parts = parts or {}
        try:
            self._write_all(encode_head(header, parts))
            for part in parts.values():
                self._write_all(part)
        except BrokenPipeError:
            os._exit(0)  # the parent is gone, and with it everyone who would have read this

    def cancelled(self, request_id: str) -> bool:
        """Whether the parent asked to stop this request, or has gone."""
        return request_id in self._cancelled

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._output.write(view)
            view = view[written or 0 :]

    def _listen(self) -> None:
        while (message := self._receive()) is not None:
            header, parts = message
            if header.get("type") == "cancel":
                self._cancelled.add(str(header.get("request_id")))
            else:
                self._messages.put((header, parts))
        self._messages.put(None)

    def _receive(self) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        length = self._input.read(4)
        if len(length) < 4:
            return None
        header, listed = decode_header(self._input.read(decode_length(length)))
        return header, {name: self._input.read(size) for name, size in listed}


def _die_with_parent() -> None:
    """On Linux, be killed when the parent dies, even while the model computes and nobody reads the input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
