"""Endpoints from a JSON file, `{"endpoints": [...]}`: the one `adaptivegen up` writes, or an operator's own.

The file is read anew each time, so a restarted system is found. It is small and local, so it is read on the loop.
"""

from __future__ import annotations

import json
from pathlib import Path

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint, Tell, parse_endpoint
from adaptivegen.discovery.polling import LOOK_EVERY_S, poll
from adaptivegen.errors import InvalidRequest, NodeUnavailable
from adaptivegen.ids import check_name

MAX_FILE_BYTES = 1024**2


class StaticFile:
    """Raises NodeUnavailable without the file (no system runs from there), InvalidRequest naming the field when the
    file is not such a list."""

    def __init__(self, path: Path, clock: Clock, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._path = path
        self._clock = clock
        self._look_every_s = look_every_s

    async def endpoints(self, kind: str) -> list[Endpoint]:
        check_name(kind, field="kind")
        return sorted(
            (endpoint for endpoint in self._read() if endpoint.kind == kind), key=lambda endpoint: endpoint.node_id
        )

    async def follow(self, kind: str, tell: Tell) -> None:
        """By reading the file every `look_every_s`."""
        await poll(self, kind, tell, clock=self._clock, every_s=self._look_every_s)

    async def register(self, endpoint: Endpoint) -> None:
        """Nothing: whoever wrote the file lists the nodes."""

    def _read(self) -> list[Endpoint]:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as exc:
            raise NodeUnavailable(f"no endpoints at {self._path}: {exc.strerror}") from exc
        where = self._path.name
        if len(data) > MAX_FILE_BYTES:
            raise InvalidRequest.field(where, f"over {MAX_FILE_BYTES} bytes", f"at most {MAX_FILE_BYTES} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest.field(where, data[:40], f"JSON ({exc})") from exc
        listed = document.get("endpoints") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise InvalidRequest.field(f"{where}.endpoints", listed, "a list of endpoints")
        found = [parse_endpoint(value, where=f"{where}.endpoints[{index}]") for index, value in enumerate(listed)]
        self._refuse_twins(found, where)
        return found

    def _refuse_twins(self, found: list[Endpoint], where: str) -> None:
        seen: set[tuple[str, str]] = set()
        for index, endpoint in enumerate(found):
            name = (endpoint.kind, endpoint.node_id)
            if name in seen:
                raise InvalidRequest.field(
                    f"{where}.endpoints[{index}].node_id", endpoint.node_id, "each node of a kind once"
                )
            seen.add(name)
