"""How tenants stand with their quotas, told to edges every few seconds where that has changed: in a bucket, since an
edge may start at any time. Decides nothing; what a telling holds is `of_view`, pure.
"""

from __future__ import annotations

import math

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import Unavailable
from adaptivegen.standing import BUCKET, KEPT_S, KEY, MAX_TENANTS, TELL_EVERY_S, Standing, Standings
from adaptivegen.telemetry import get_logger
from scheduler.decide.quota import EVERYBODY
from scheduler.decide.view import View
from scheduler.steady import SteadyTime

FIRST_AFTER_S = 10.0  # of this scheduler's life: what others have counted and the store has was read by then
AGAIN_AFTER_S = 60.0  # where nothing has changed: an edge and the broker believe it for so long only
NEARLY = 0.9  # share of the bytes that a tenant may store, from which on it is told of
WHOLE_S = 0.1  # to which use is told, so that what has hardly changed is not told again


class StandingsTold:
    """Tells for one scheduler."""

    def __init__(self, view: View, bus: Bus, *, clock: Clock, time: SteadyTime) -> None:
        self._view = view
        self._bus = bus
        self._clock = clock
        self._time = time
        self._told = Standings()

    async def run(self) -> None:
        """Tell, until cancelled."""
        await self._clock.sleep(FIRST_AFTER_S)
        while True:
            try:
                await self.tell()
            except Unavailable as exc:
                get_logger().debug("standings_not_told", error=exc.message)
            except Exception as exc:  # a help to edges, and no reason to end
                get_logger().warning("standings_not_told", error=repr(exc)[:500])
            await self._clock.sleep(TELL_EVERY_S)

    async def tell(self) -> None:
        """Tell now, if that is news or was not told for long. Raises BrokerUnavailable, PayloadTooLarge."""
        if self._view.quotas.limits_storage and not self._view.stored.counts:
            return  # what is stored was not counted yet in this life: another's word, or none, is better than nothing
        now_ns = self._time.now_ns()
        found = of_view(self._view, now_ns=now_ns)
        same = found.model_copy(update={"at_ns": self._told.at_ns}) == self._told
        if same and now_ns - self._told.at_ns < AGAIN_AFTER_S * 1e9:
            return
        await (await self._bus.kv(BUCKET, ttl_s=KEPT_S)).put(KEY, found.encode())
        self._told = found


def of_view(view: View, *, now_ns: int) -> Standings:
    """What a scheduler knows now: of the tenants that have own values, have stored what they may, or use something;
    of these, in that order, those that use most."""
    used = dict(view.jobs.usage.tenants(now_s=now_ns / 1e9))
    own = {name for name in view.quotas.values if name != EVERYBODY}
    full = {
        name for name, stored in view.stored.by_tenant.items() if stored >= NEARLY * view.quotas.of(name).stored_bytes
    }
    known = {*own, *full, *view.jobs.tenants(), *used}
    names = sorted(known, key=lambda name: (name not in own, name not in full, -used.get(name, 0.0), name))
    tenants = {name: _standing(view, name, used.get(name, 0.0)) for name in names[:MAX_TENANTS]}
    return Standings(at_ns=now_ns, everybody=_standing(view, EVERYBODY, 0.0), tenants=tenants)


def _standing(view: View, tenant: str, used_s: float) -> Standing:
    quota, jobs = view.quotas.of(tenant), view.jobs
    return Standing(
        gpu_seconds_per_hour=_limit(quota.gpu_seconds_per_hour),
        concurrent_jobs=_limit(quota.concurrent_jobs),
        stored_bytes=_limit(quota.stored_bytes),
        priority=bool(quota.priority),
        used_gpu_s=round((used_s + jobs.reserved_s(tenant)) / WHOLE_S) * WHOLE_S,
        open_jobs=jobs.count(tenant),
        stored=view.stored.of(tenant),
    )


def _limit(value: float) -> float | None:
    return None if math.isinf(value) else value
