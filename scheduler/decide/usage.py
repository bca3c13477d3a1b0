"""What tenants have used of the cloud in the last hour, in seconds of workers. Pure.

Kept in cells of five minutes by when a job was decided on, which its outcome says, so that all schedulers put it into
the same cell. Each counts what it hears of itself and tells that and nothing else; of what several have counted of one
cell the most is taken, since each may have missed some.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

WINDOW_S = 3600.0
CELL_S = 300.0
CELLS = round(WINDOW_S / CELL_S)
SKEW_CELLS = 2  # by which another's clock may be ahead
MAX_TENANTS = 2048  # told: half a megabyte
MAX_SCHEDULERS = 64
MAX_TENANT_CHARS = 63
MOST_S = CELL_S * 4096  # in one cell: that many workers

Cells = dict[str, dict[int, float]]


class UsageTold(BaseModel):
    """What one scheduler tells the others: seconds by tenant and cell, as it has counted them."""

    model_config = ConfigDict(frozen=True)

    cells: Annotated[
        dict[
            Annotated[str, Field(max_length=MAX_TENANT_CHARS)],
            Annotated[
                dict[int, Annotated[float, Field(ge=0, le=MOST_S, allow_inf_nan=False)]],
                Field(max_length=2 * CELLS),
            ],
        ],
        Field(max_length=MAX_TENANTS),
    ] = {}


class Usage:
    """Seconds by tenant and cell, as counted here and by others. `revision` grows with what is counted here."""

    def __init__(self) -> None:
        self._own: Cells = {}
        self._others: dict[str, UsageTold] = {}
        self.revision = 0

    def add(self, tenant: str, seconds: float, *, decided_at_s: float, now_s: float) -> None:
        """A job that was decided on then took so many seconds. What is long ago is forgotten; of the future only as
        much is believed as clocks may differ."""
        cell = _cell(decided_at_s)
        if cell > _cell(now_s) + SKEW_CELLS:
            cell = _cell(now_s)
        if seconds > 0 and cell > _cell(now_s) - CELLS and len(tenant) <= MAX_TENANT_CHARS:
            cells = self._own.setdefault(tenant, {})
            cells[cell] = min(MOST_S, cells.get(cell, 0.0) + seconds)
            self.revision += 1

    def used_s(self, tenant: str, *, now_s: float) -> float:
        """Seconds in the last hour."""
        return sum(self._recent(tenant, now_s).values())

    def free_in_s(self, tenant: str, seconds: float, *, now_s: float) -> float:
        """Until so many of its seconds are more than an hour ago; the whole window where they are not that many."""
        freed = 0.0
        for cell, used in sorted(self._recent(tenant, now_s).items()):
            freed += used
            if freed >= seconds:
                return max(0.0, (cell + CELLS) * CELL_S - now_s)
        return WINDOW_S

    def told(self, *, now_s: float) -> UsageTold:
        """What was counted here, of those tenants that used most; what is over is forgotten."""
        oldest = _cell(now_s) - CELLS
        recent = {t: {cell: s for cell, s in cells.items() if cell > oldest} for t, cells in self._own.items()}
        self._own = {tenant: cells for tenant, cells in recent.items() if cells}
        most = sorted(self._own, key=lambda tenant: (-sum(self._own[tenant].values()), tenant))[:MAX_TENANTS]
        return UsageTold(cells={t: {cell: round(s, 3) for cell, s in self._own[t].items()} for t in most})

    def hear(self, scheduler: str, told: UsageTold) -> None:
        """What another scheduler has counted, in place of what it told before."""
        self._others.pop(scheduler, None)
        self._others[scheduler] = told
        while len(self._others) > MAX_SCHEDULERS:
            del self._others[next(iter(self._others))]

    def resume(self, told: UsageTold) -> None:
        """What this scheduler had counted in an earlier life; once."""
        for tenant, cells in told.cells.items():
            own = self._own.setdefault(tenant, {})
            for cell, seconds in cells.items():
                own[cell] = min(MOST_S, own.get(cell, 0.0) + seconds)

    def tenants(self, *, now_s: float) -> Iterator[tuple[str, float]]:
        """Every tenant that used something, and how much."""
        names = set(self._own).union(*(told.cells for told in self._others.values()))
        for tenant in sorted(names):
            if used_s := self.used_s(tenant, now_s=now_s):
                yield tenant, used_s

    def _recent(self, tenant: str, now_s: float) -> dict[int, float]:
        """The last hour's cells, the most of what was counted anywhere."""
        newest = _cell(now_s)
        found: dict[int, float] = {}
        for cells in (self._own.get(tenant, {}), *(told.cells.get(tenant, {}) for told in self._others.values())):
            for cell, seconds in cells.items():
                if newest - CELLS < cell <= newest + SKEW_CELLS:
                    found[cell] = max(found.get(cell, 0.0), seconds)
        return found


def _cell(at_s: float) -> int:
    return math.floor(at_s / CELL_S)
