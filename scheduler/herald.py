"""What schedulers tell one another: the jobs they place, at once, and every few seconds what tenants have used.

Both are hints that make several schedulers agree sooner than the store and heartbeats would: a job that was not told of
is found in the store within seconds, its draft in the next heartbeat of its edge, what was used is told again. Jobs go
over core NATS; usage is kept in a bucket, so that a scheduler that starts anew knows what was used before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.bus.base import Bus, Message
from adaptivegen.bus.hearing import hear
from adaptivegen.clock import Clock
from adaptivegen.errors import InvalidRequest, Unavailable
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed
from scheduler.decide.jobs import OpenJob
from scheduler.decide.usage import WINDOW_S, UsageTold
from scheduler.decide.view import View
from scheduler.steady import SteadyTime

SUBJECT = "ag.scheduler."
USAGE_BUCKET = "usage"
MAX_TOLD_AT_ONCE = 64
MAX_WAITING = 4096
BUFFER = 1024
USAGE_EVERY_S = 5.0


class JobsTold(BaseModel):
    """Jobs that a scheduler has placed."""

    model_config = ConfigDict(frozen=True)

    placed: Annotated[tuple[OpenJob, ...], Field(max_length=MAX_TOLD_AT_ONCE)]


class Herald:
    """Tells and hears for one scheduler. `malformed` counts what was not understood."""

    def __init__(self, view: View, bus: Bus, *, clock: Clock, time: SteadyTime) -> None:
        self._view = view
        self._bus = bus
        self._clock = clock
        self._time = time
        self._waiting: deque[OpenJob] = deque(maxlen=MAX_WAITING)  # the oldest give way: the store has them
        self._wake = asyncio.Event()
        self._told_revision = -1
        self._resumed = False  # whether what it had told in an earlier life was read
        self.malformed = 0

    def placed(self, job: OpenJob) -> None:
        """Tell the others of it soon."""
        self._waiting.append(job)
        self._wake.set()

    async def run(self) -> None:
        """Tell and hear, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            group.create_task(hear(self._bus, f"{SUBJECT}*", self.take, buffer=BUFFER, clock=self._clock))
            group.create_task(self._share_usage())

    async def _tell(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                jobs = tuple(self._waiting.popleft() for _ in range(min(MAX_TOLD_AT_ONCE, len(self._waiting))))
                try:
                    told = JobsTold(placed=jobs).model_dump_json().encode()
                    await self._bus.publish(SUBJECT + self._view.decider, told)
                except Unavailable as exc:
                    get_logger().debug("jobs_not_told", jobs=len(jobs), error=exc.message)
                except Exception as exc:
                    get_logger().warning("jobs_not_told", jobs=len(jobs), error=repr(exc)[:500])

    def take(self, message: Message) -> None:
        """What another scheduler told; its own is no news to it."""
        if message.subject == SUBJECT + self._view.decider:
            return
        try:
            told = parsed(JobsTold, message.data, name="jobs")
        except InvalidRequest as exc:
            self.malformed += 1
            get_logger().debug("jobs_malformed", subject=message.subject[:120], error=exc.message)
            return
        now_ns = self._time.now_ns()
        for job in told.placed:
            self._view.hear_of(job, now_ns=now_ns)

    async def _share_usage(self) -> None:
        while True:
            try:
                await self.share_usage()
            except Unavailable as exc:
                get_logger().debug("usage_not_shared", error=exc.message)
            except Exception as exc:  # what is told is a help to others, and no reason to end
                get_logger().warning("usage_not_shared", error=repr(exc)[:500])
            await self._clock.sleep(USAGE_EVERY_S)

    async def share_usage(self) -> None:
        """Take over what the others have counted, then tell what was counted here, if that is news.

        Raises BrokerUnavailable, PayloadTooLarge."""
        bucket = await self._bus.kv(USAGE_BUCKET, ttl_s=2 * WINDOW_S)
        usage, now_s = self._view.jobs.usage, self._time.now_ns() / 1e9
        for key in await bucket.keys():
            own = key == self._view.decider
            if own and self._resumed:
                continue
            entry = await bucket.get(key)
            try:
                told = parsed(UsageTold, entry.value, name="usage") if entry is not None else UsageTold()
            except InvalidRequest as exc:
                get_logger().warning("usage_malformed", scheduler=key, error=exc.message)
                continue
            if own:
                usage.resume(told)
                self._resumed = True
            else:
                usage.hear(key, told)
        self._resumed = True  # also where there was nothing: what is there from now on is its own telling
        if usage.revision != self._told_revision:
            revision = usage.revision
            await bucket.put(self._view.decider, usage.told(now_s=now_s).model_dump_json().encode())
            self._told_revision = revision
