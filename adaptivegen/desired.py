"""Which versions of models are in force, as a node reads it from the broker's copy of the schedulers' last change."""

from __future__ import annotations

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.models.lines import KEY, Line, Lines
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed

READ_EVERY_S = 1.0


class DesiredModels:
    """The lines in force. While nothing can be read, what was read last stands."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._lines = Lines()
        self._revision = 0
        self._said = ""

    def of(self, name: str) -> Line:
        """A line as it is to be served now."""
        return self._lines.of(name)

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
                if found.number >= self._lines.number:  # an older copy that was late does not undo a newer change
                    self._lines = found
            self._said = ""
        except AdaptiveGenError as exc:
            if exc.code != self._said:
                get_logger().warning("models_not_read", code=exc.code, error=exc.message)
            self._said = exc.code
