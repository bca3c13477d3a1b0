"""Events of jobs, from wherever they happen to whoever watches here.

Owns one topic per watched job: a bounded history (for resuming), the watchers, and the broker subscription that brings
events of other nodes. Events from here go to the topic at once and to the broker for other edges; the copy that comes
back is recognised by its id. Nothing rests on an event arriving: a watcher that hears nothing reads the record.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from adaptivegen.bus.base import Subscription
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.events import JobEvent, decode_event, event_subject, make_event, terminal_event
from adaptivegen.jobs.store import JobStore
from adaptivegen.process import guarded
from adaptivegen.telemetry import get_logger

HISTORY = 256  # events kept per job
WATCHER_BUFFER = 256
LOOK_AGAIN_S = 2.0  # silence after which a watcher reads the record
LINGER_S = 60.0  # how long an unwatched topic is kept for resuming
MAX_TOPICS = 4096


class Topic:
    """The events of one job as seen here."""

    def __init__(self) -> None:
        self.history: deque[JobEvent] = deque(maxlen=HISTORY)
        self.watchers: set[Watcher] = set()
        self.subscription: Subscription | None = None
        self.pump: asyncio.Task[None] | None = None
        self.idle_since_s = 0.0

    def add(self, event: JobEvent) -> None:
        """Keep an event and hand it to the watchers, once."""
        if any(event.id == known.id for known in self.history):
            return
        self.history.append(event)
        for watcher in self.watchers:
            watcher.offer(event)

    def after(self, event_id: str) -> list[JobEvent] | None:
        """The events after `event_id`, or None if it is not known here."""
        events = list(self.history)
        for index, event in enumerate(events):
            if event.id == event_id:
                return events[index + 1 :]
        return None


class Watcher:
    """One stream's bounded buffer. A slow reader loses looks and progress first: the oldest go, the newest stay."""

    def __init__(self) -> None:
        self._events: deque[JobEvent] = deque(maxlen=WATCHER_BUFFER)
        self._arrived = asyncio.Event()

    def offer(self, event: JobEvent) -> None:
        """Add an event."""
        self._events.append(event)
        self._arrived.set()

    async def next(self, *, timeout_s: float) -> JobEvent | None:
        """The next event, or None after `timeout_s`."""
        if not self._events:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        return self._events.popleft() if self._events else None

    def wake(self) -> None:
        """Make a waiting `next` return."""
        self._arrived.set()


class EventHub:
    """All topics of one edge. `run` must be running. A watcher that hears nothing for `look_again_s` reads the
    record."""

    def __init__(self, *, node_id: str, jobs: JobStore, clock: Clock, look_again_s: float = LOOK_AGAIN_S) -> None:
        self._node_id = node_id
        self._jobs = jobs
        self._clock = clock
        self._look_again_s = look_again_s
        self._topics: dict[tuple[str, str], Topic] = {}
        self._group: asyncio.TaskGroup | None = None
        self._closing = False

    async def run(self) -> None:
        """Own the subscriptions' tasks and let idle topics go; until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                await self._clock.sleep(LINGER_S / 4)
                await self._sweep()

    def close(self) -> None:
        """End all streams: clients resume at another edge, or here after the restart."""
        self._closing = True
        for topic in self._topics.values():
            for watcher in topic.watchers:
                watcher.wake()

    async def publish(self, event: JobEvent) -> None:
        """Tell an event of this node, here at once and to other edges best effort."""
        topic = self._topics.get((event.record.tenant, event.record.id))
        if topic is not None:
            topic.add(event)
        try:
            await self._jobs.announce(event)
        except AdaptiveGenError as exc:
            get_logger().debug("event_not_sent", error=exc.message)

    async def open(self, tenant: str, job_id: str) -> Topic:
        """The topic of a job, subscribed; made when it is new."""
        key = (tenant, job_id)
        topic = self._topics.get(key)
        if topic is None:
            if len(self._topics) >= MAX_TOPICS:
                await self._sweep(everything_idle=True)
            topic = self._topics[key] = Topic()
            topic.idle_since_s = self._clock.monotonic_s()
        if topic.subscription is None and self._group is not None:
            try:
                topic.subscription = await self._jobs.bus.subscribe(event_subject(tenant, job_id))
                topic.pump = self._group.create_task(guarded("events", self._pump(topic, topic.subscription)))
            except AdaptiveGenError as exc:
                get_logger().warning("events_only_from_here", job_id=job_id, error=exc.message)
        return topic

    async def watch(self, tenant: str, job_id: str, *, after: str | None) -> AsyncIterator[JobEvent]:
        """The events of `stream` without its quiet marks."""
        async with aclosing(self.stream(tenant, job_id, after=after)) as events:
            async for event in events:
                if event is not None:
                    yield event

    async def stream(self, tenant: str, job_id: str, *, after: str | None) -> AsyncGenerator[JobEvent | None, None]:
        """Events after `after` if it is known here, else a snapshot and what follows; ends with the terminal event.

        None after every `look_again_s` of silence. Raises NotFound. Ends early when the edge drains.
        """
        record = await self._jobs.find(tenant, job_id)
        topic = await self.open(tenant, job_id)
        watcher = Watcher()
        topic.watchers.add(watcher)
        try:
            missed = topic.after(after) if after else None
            if missed is None:
                record = await self._jobs.find(tenant, job_id)  # again: what came before the subscription
                yield make_event("snapshot", record, producer=self._node_id, now_ns=self._clock.now_ns())
                if record.ended:
                    yield terminal_event(record, producer=self._node_id, now_ns=self._clock.now_ns())
                    return
            for event in missed or ():
                yield event
                if event.final:
                    return
            while not self._closing:
                event_or_none = await watcher.next(timeout_s=self._look_again_s)
                if event_or_none is None:
                    record = await self._jobs.find(tenant, job_id)
                    if not record.ended:
                        yield None
                        continue
                    event_or_none = terminal_event(record, producer=self._node_id, now_ns=self._clock.now_ns())
                yield event_or_none
                if event_or_none.final:
                    return
        finally:
            topic.watchers.discard(watcher)
            topic.idle_since_s = self._clock.monotonic_s()

    async def _pump(self, topic: Topic, subscription: Subscription) -> None:
        async for message in subscription:
            try:
                topic.add(decode_event(message.data))
            except AdaptiveGenError as exc:
                get_logger().warning("bad_event", error=exc.message)

    async def _sweep(self, *, everything_idle: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        for key, topic in list(self._topics.items()):
            idle = not topic.watchers and (everything_idle or now_s - topic.idle_since_s > LINGER_S)
            if idle:
                del self._topics[key]
                if topic.subscription is not None:
                    await topic.subscription.close()
                if topic.pump is not None:
                    topic.pump.cancel()
