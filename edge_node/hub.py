"""Events of jobs, from wherever they happen to whoever watches here.

Owns one topic per watched job: a bounded history (for resuming), the watchers, and the one task that holds the broker
subscription which brings events of other nodes. Events from here go to the topic at once and to the broker for other
edges; the copy that comes back is recognised by its id. Nothing rests on an event arriving: a watcher that hears
nothing reads the record. Nor does an event end a stream by itself: a draft that was completed may be on its way to its
final by now, so at every terminal event the record says whether it is the end that stands.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from adaptivegen.bus.base import Subscription
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, NotFound, ResourceExhausted
from adaptivegen.jobs.events import JobEvent, decode_event, event_subject, make_event, terminal_event
from adaptivegen.jobs.record import JobRecord
from adaptivegen.process import end, guarded
from adaptivegen.telemetry import get_logger
from edge_node.sides import Jobs

HISTORY = 256  # events kept per job
WATCHER_BUFFER = 256
LOOK_AGAIN_S = 2.0  # silence after which a watcher reads the record
LINGER_S = 60.0  # how long an unwatched topic is kept for resuming
MAX_TOPICS = 4096
FULL_RETRY_S = 5.0  # when to ask again while every topic is watched


class Topic:
    """The events of one job as seen here."""

    def __init__(self) -> None:
        self.history: deque[JobEvent] = deque(maxlen=HISTORY)
        self.watchers: set[Watcher] = set()
        self.feed: asyncio.Task[None] | None = None  # holds the subscription; there is never more than one
        self.subscribed = asyncio.Event()  # or found that it cannot: then the feed is done
        self.opening = 0  # callers inside `open`
        self.idle_since_s = 0.0

    @property
    def in_use(self) -> bool:
        """Whether someone watches, or is about to."""
        return bool(self.watchers or self.opening)

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
    """All topics of one edge, at most `max_topics`. `run` must be running. A watcher that hears nothing for
    `look_again_s` reads the record."""

    def __init__(
        self,
        *,
        node_id: str,
        jobs: Jobs,
        clock: Clock,
        look_again_s: float = LOOK_AGAIN_S,
        max_topics: int = MAX_TOPICS,
    ) -> None:
        self._node_id = node_id
        self._jobs = jobs
        self._clock = clock
        self._look_again_s = look_again_s
        self._max_topics = max_topics
        self._topics: dict[tuple[str, str], Topic] = {}
        self._group: asyncio.TaskGroup | None = None
        self._closing = False

    async def run(self) -> None:
        """Own the subscriptions' tasks and let idle topics go; until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    await self._clock.sleep(LINGER_S / 4)
                    self._sweep()
            finally:
                self._group = None  # a group that ends takes no more tasks

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

    def newest(self, record: JobRecord) -> JobRecord:
        """The newest state of the job that was told here, or `record` where that is newer: a look of a draft must not
        tell again that a job is queued which a worker has claimed since."""
        topic = self._topics.get((record.tenant, record.id))
        told = [event.record for event in topic.history] if topic is not None else []
        return max((record, *told), key=lambda known: known.updated_at_ns)

    async def open(self, tenant: str, job_id: str) -> Topic:
        """The topic of a job, subscribed (unless the broker is away); made when it is new. Callers that come together
        share one subscription. Raises ResourceExhausted when all topics there may be are watched."""
        key = (tenant, job_id)
        topic = self._topics.get(key)
        if topic is None:
            self._make_room()
            topic = self._topics[key] = Topic()
        topic.opening += 1
        try:
            if self._group is not None and (topic.feed is None or topic.feed.done()):
                topic.subscribed.clear()
                topic.feed = self._group.create_task(guarded("events", self._feed(topic, tenant, job_id)))
                topic.feed.add_done_callback(lambda _: topic.subscribed.set())  # also one cancelled before it began
            if topic.feed is not None and not topic.feed.done():
                await topic.subscribed.wait()
        finally:
            topic.opening -= 1
            topic.idle_since_s = self._clock.monotonic_s()
        return topic

    async def moved(self, tenant: str, job_id: str) -> None:
        """The job went into the spool, or out of it: hear of it there from now on, if someone listens."""
        topic = self._topics.get((tenant, job_id))
        if topic is None:
            return
        feed, topic.feed = topic.feed, None
        if feed is not None and self._group is not None:
            self._group.create_task(guarded("events", end(feed)))
        if topic.in_use:
            await self.open(tenant, job_id)

    async def watch(self, tenant: str, job_id: str, *, after: str | None) -> AsyncIterator[JobEvent]:
        """The events of `stream` without its quiet marks."""
        async with aclosing(self.stream(tenant, job_id, after=after)) as events:
            async for event in events:
                if event is not None:
                    yield event

    async def stream(self, tenant: str, job_id: str, *, after: str | None) -> AsyncGenerator[JobEvent | None, None]:
        """Events after `after` if it is known here, else a snapshot and what follows; ends with the terminal event that
        stands. One that an upgrade has overtaken is left out.

        None after every `look_again_s` of silence. Raises NotFound and ResourceExhausted. Ends early when the edge
        drains.
        """
        await self._jobs.find(tenant, job_id)  # no topic for what does not exist
        topic = await self.open(tenant, job_id)
        watcher = Watcher()
        topic.watchers.add(watcher)
        try:
            missed = topic.after(after) if after else None
            record = await self._jobs.find(tenant, job_id)  # again: what came before the subscription
            if missed is None:
                yield make_event("snapshot", record, producer=self._node_id, now_ns=self._clock.now_ns())
            for event in missed or ():
                if not event.final or stands(event, record):
                    yield event
                if event.final and stands(event, record):
                    return
            if record.ended:
                yield self._end_of(record)
                return
            while not self._closing:
                event_or_none = await watcher.next(timeout_s=self._look_again_s)
                if event_or_none is not None and not event_or_none.final:
                    yield event_or_none
                    continue
                try:
                    standing = await self._look(tenant, job_id)
                except NotFound:
                    if event_or_none is None:
                        raise
                    yield event_or_none  # it was deleted after its end
                    return
                if standing is None or not standing.ended:
                    yield None
                elif event_or_none is None or stands(event_or_none, standing):
                    yield event_or_none or self._end_of(standing)
                    return
        finally:
            topic.watchers.discard(watcher)
            topic.idle_since_s = self._clock.monotonic_s()

    async def _look(self, tenant: str, job_id: str) -> JobRecord | None:
        """The record, or None while it cannot be read: a stream outlives that. Raises NotFound."""
        try:
            return await self._jobs.find(tenant, job_id)
        except NotFound:
            raise
        except AdaptiveGenError as exc:
            get_logger().warning("record_not_read", job_id=job_id, code=exc.code, error=exc.message)
            return None

    def _end_of(self, record: JobRecord) -> JobEvent:
        return terminal_event(record, producer=self._node_id, now_ns=self._clock.now_ns())

    async def _feed(self, topic: Topic, tenant: str, job_id: str) -> None:
        """Hold the topic's subscription, from its making to its end."""
        subscription: Subscription | None = None
        try:
            subscription = await self._jobs.of(tenant, job_id).bus.subscribe(event_subject(tenant, job_id))
            topic.subscribed.set()
            async for message in subscription:
                try:
                    topic.add(decode_event(message.data))
                except AdaptiveGenError as exc:
                    get_logger().warning("bad_event", error=exc.message)
        except AdaptiveGenError as exc:
            get_logger().warning("events_only_from_here", job_id=job_id, error=exc.message)
        finally:
            if subscription is not None:
                await subscription.close()

    def _make_room(self) -> None:
        """Before a new topic: let the one go that was idle for longest, where the bound is reached."""
        if len(self._topics) < self._max_topics:
            return
        idle = [key for key, topic in self._topics.items() if not topic.in_use]
        if not idle:
            raise ResourceExhausted(f"{self._max_topics} videos are watched here", retry_after_s=FULL_RETRY_S)
        self._forget(min(idle, key=lambda key: self._topics[key].idle_since_s))

    def _sweep(self) -> None:
        now_s = self._clock.monotonic_s()
        for key, topic in list(self._topics.items()):
            if not topic.in_use and now_s - topic.idle_since_s > LINGER_S:
                self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        feed = self._topics.pop(key).feed
        if feed is not None and self._group is not None:
            self._group.create_task(guarded("events", end(feed)))


def stands(event: JobEvent, record: JobRecord) -> bool:
    """Whether a terminal event tells the end that the record has now, and not that of a draft upgraded since."""
    told = event.record
    return record.ended and (told.status, told.completed_at_ns) == (record.status, record.completed_at_ns)
