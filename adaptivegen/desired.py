"""Which versions of models are in force, as a node reads it from the broker's copy of the schedulers' last change."""

from __future__ import annotations

from pathlib import Path

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.kept_file import remember, remembered
from adaptivegen.models.lines import KEY, Line, Lines
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed

READ_EVERY_S = 1.0


class DesiredModels:
    """The lines in force. While nothing can be read, what was read last stands; with a file `kept` also after a
    restart. Whatever the broker then says counts more than the file."""

    def __init__(self, bus: Bus, clock: Clock, kept: Path | None = None) -> None:
        self._bus = bus
        self._clock = clock
        self._kept = kept
        found = remembered(Lines, kept, name="models") if kept is not None else None
        self._lines = found or Lines()
        self._number = 0  # of what the broker told last
        self._revision = 0
        self._said = ""

    def of(self, name: str) -> Line:
        """A line as it is to be served now."""
        return self._lines.of(name)

    def versions(self) -> tuple[str, ...]:
        """All that serve or are tried, of lines that were ever changed."""
        return tuple(version for line in self._lines.lines.values() for version in line.versions)

    def may_be_wanted(self) -> set[str]:
        """Those, and the versions before them, to which a line may be set back at once."""
        before = (line.previous for line in self._lines.lines.values())
        return {*self.versions(), *(name for name in before if name is not None)}

    async def run(self) -> None:
        """Read every second, until cancelled."""
        while True:
            await self.read()
            await self._clock.sleep(READ_EVERY_S)

    async def read(self) -> None:
        """Read now, if the broker can be reached."""
        try:
            entry = await (await self._bus.kv(POLICY_BUCKET)).get(KEY)
            if entry is not None and entry.revision != self._revision:
                found = parsed(Lines, entry.value, name="models")
                self._revision = entry.revision
                if found.number >= self._number:  # an older copy that was late does not undo a newer change
                    self._take(found)
            self._said = ""
        except AdaptiveGenError as exc:
            if exc.code != self._said:
                get_logger().warning("models_not_read", code=exc.code, error=exc.message)
            self._said = exc.code

    def _take(self, found: Lines) -> None:
        self._number = found.number
        if self._kept is not None and found != self._lines:
            remember(self._kept, found.model_dump_json().encode(), name="models")
        self._lines = found
