"""What tenants have used of the cloud in the last hour, in seconds of workers. Pure.

Kept in cells of five minutes by when a job was placed, which its outcome says; so all schedulers put it into the same
cell, and where each has heard of most outcomes the larger of two counts is the truer one (`merge`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.nodes import Seconds

WINDOW_S = 3600.0
CELL_S = 300.0
CELLS = round(WINDOW_S / CELL_S)
MAX_TENANTS = 4096


class UsageTold(BaseModel):
    """What one scheduler tells the others: seconds by tenant and cell."""

    model_config = ConfigDict(frozen=True)

    cells: Annotated[
        dict[Annotated[str, Field(max_length=63)], Annotated[dict[int, Seconds], Field(max_length=2 * CELLS)]],
        Field(max_length=MAX_TENANTS),
    ] = {}


class Usage:
    """Seconds by tenant and cell. `revision` grows with every change."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[int, float]] = {}
        self.revision = 0

    def add(self, tenant: str, seconds: float, *, placed_at_s: float, now_s: float) -> None:
        """A job placed then took so many seconds; the future is taken for now, and what is long ago is forgotten."""
        cell = _cell(min(placed_at_s, now_s))
        if seconds > 0 and cell > _cell(now_s) - CELLS:
            cells = self._cells.setdefault(tenant, {})
            cells[cell] = cells.get(cell, 0.0) + seconds
            self.revision += 1

    def used_s(self, tenant: str, *, now_s: float) -> float:
        """Seconds in the last hour."""
        return sum(seconds for _, seconds in self._recent(tenant, now_s))

    def free_in_s(self, tenant: str, seconds: float, *, now_s: float) -> float:
        """Until so many of its seconds are more than an hour ago; the whole window where they are not that many."""
        freed = 0.0
        for cell, used in sorted(self._recent(tenant, now_s)):
            freed += used
            if freed >= seconds:
                return max(0.0, (cell + CELLS) * CELL_S - now_s)
        return WINDOW_S

    def told(self, *, now_s: float) -> UsageTold:
        """All of it, of those tenants that used most; what is over is forgotten."""
        recent = {tenant: dict(self._recent(tenant, now_s)) for tenant in self._cells}
        self._cells = {tenant: cells for tenant, cells in recent.items() if cells}
        most = sorted(self._cells, key=lambda tenant: (-sum(self._cells[tenant].values()), tenant))[:MAX_TENANTS]
        return UsageTold(cells={t: {cell: round(s, 3) for cell, s in self._cells[t].items()} for t in most})

    def merge(self, told: UsageTold, *, now_s: float) -> None:
        """Take over what another scheduler knows, or this one knew in an earlier life."""
        newest = _cell(now_s)
        for tenant, cells in told.cells.items():
            for cell, seconds in cells.items():
                if newest - CELLS < cell <= newest and seconds > self._cells.get(tenant, {}).get(cell, 0.0):
                    self._cells.setdefault(tenant, {})[cell] = seconds
                    self.revision += 1

    def tenants(self, *, now_s: float) -> Iterator[tuple[str, float]]:
        """Every tenant that used something, and how much."""
        for tenant in sorted(self._cells):
            if used_s := self.used_s(tenant, now_s=now_s):
                yield tenant, used_s

    def _recent(self, tenant: str, now_s: float) -> list[tuple[int, float]]:
        oldest = _cell(now_s) - CELLS
        return [(cell, seconds) for cell, seconds in self._cells.get(tenant, {}).items() if cell > oldest]


def _cell(at_s: float) -> int:
    return math.floor(at_s / CELL_S)
