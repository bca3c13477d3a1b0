"""The child's side: reads messages, answers them, notices a cancel while it works. Synchronous.

Standard output belongs to the messages: the channel keeps it for itself and points file descriptor 1 at standard
error, so a stray print cannot break the framing; standard input likewise, and reads from file descriptor 0 find its
end. A thread reads ahead, so a cancel is noticed between two steps of a model.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from adaptivegen.child.framing import Message, Parts, decode_header, decode_length, encode
from adaptivegen.errors import InternalError

_PR_SET_PDEATHSIG = 1
_MAX_UNREAD = 64
_MAX_CANCELS = 1024


class Channel:
    """Standard input and output as messages. `read` returns None when the parent is gone."""

    def __init__(self) -> None:
        _die_with_parent()
        # A Ctrl-C in the terminal reaches the whole process group; the parent drains, and needs its child for that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._input = os.fdopen(os.dup(0), "rb", buffering=1024 * 1024)
        self._output = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        _close_standard_input()
        self._messages: queue.Queue[Message | None] = queue.Queue(_MAX_UNREAD)
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._gone = threading.Event()
        threading.Thread(target=self._listen, name="channel", daemon=True).start()

    def read(self) -> Message | None:
        """The next message that is not a cancel, or None at the end."""
        return self._messages.get()

    def write(self, header: Mapping[str, Any], parts: Parts | None = None) -> None:
        """Send one message; blocks while the parent does not read. Ends the process when the parent is gone."""
        try:
            for piece in encode(header, parts or {}):
                self._write_all(piece)
        except BrokenPipeError:
            os._exit(0)  # nobody is left who would read this

    def cancelled(self, request_id: str) -> bool:
        """Whether the parent asked to stop this request, or has gone. The last 1024 cancels are remembered."""
        return self._gone.is_set() or request_id in self._cancelled

    def _write_all(self, view: memoryview) -> None:
        while view:
            written = self._output.write(view)
            view = view[written or 0 :]

    def _listen(self) -> None:
        try:
            while (message := self._receive()) is not None:
                header, _ = message
                if header.get("type") == "cancel":
                    self._remember(str(header.get("request_id")))
                else:
                    self._messages.put(message)
        except InternalError as exc:  # out of step: nothing after this can be trusted
            sys.stderr.write(f"child: {exc.message}\n")
        self._gone.set()
        self._messages.put(None)

    def _remember(self, request_id: str) -> None:
        self._cancelled[request_id] = None
        if len(self._cancelled) > _MAX_CANCELS:
            self._cancelled.popitem(last=False)

    def _receive(self) -> Message | None:
        length = self._input.read(4)
        if len(length) < 4:
            return None
        size = decode_length(length)
        head = self._input.read(size)
        if len(head) < size:
            return None
        header, listed = decode_header(head)
        parts = {name: self._input.read(part_size) for name, part_size in listed}
        if any(len(parts[name]) < part_size for name, part_size in listed):
            return None  # the parent died in the middle of a message
        return header, parts


def _close_standard_input() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _die_with_parent() -> None:
    """On Linux, be killed when the parent dies, even while the model computes and nobody reads the input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
