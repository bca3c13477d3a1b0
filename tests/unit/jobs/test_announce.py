"""What is published about a job goes out under the request and in the trace that led to it."""

from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Message, Subscription
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.jobs.events import make_event
from adaptivegen.jobs.store import JobStore
from adaptivegen.telemetry import name_request, span
from tests.jobs import JOB_ID, make_spec

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


async def first(subscription: Subscription) -> Message:
    async for message in subscription:
        return message
    raise AssertionError("nothing was published")


async def test_an_event_and_the_word_to_cancel_carry_the_request_and_the_trace() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock)
    jobs = JobStore(blob=open_store("memory://"), bus=bus, clock=clock)
    published = await bus.subscribe("ag.>")
    name_request("req_1")
    with span("x", carrier=PARENT):
        _, record = await jobs.submit(make_spec())
        await jobs.announce(make_event("queued", record, producer="edge-1", now_ns=1))
        event = await first(published)
        await jobs.cancel("t", JOB_ID)
        cancelled = await first(published)
    for message in (event, cancelled):
        assert message.headers["x-request-id"] == "req_1"
        assert message.headers["traceparent"].split("-")[1] == TRACE_ID
