"""The broker killed, restarted, stripped of its streams, refused, full, and with answers lost on the way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import nats
import pytest
from nats.js import JetStreamContext, api

from adaptivegen.bus.nats import NatsBus
from adaptivegen.bus.nats_dead import DEAD_STREAM
from adaptivegen.bus.nats_queue import JOBS_STREAM
from adaptivegen.errors import (
    BrokerUnavailable,
    Conflict,
    InvalidRequest,
    PayloadTooLarge,
    PreconditionFailed,
    ResourceExhausted,
    Unauthenticated,
)
from tests.proxy import Proxy, proxy
from tests.servers import NatsServer


@contextlib.asynccontextmanager
async def connected_bus(url: str, **options: float) -> AsyncIterator[NatsBus]:
    bus = NatsBus([url], name="t", **options)  # type: ignore[arg-type]
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


@contextlib.asynccontextmanager
async def jetstream(url: str) -> AsyncIterator[JetStreamContext]:
    """An operator's hands."""
    client = await nats.connect(url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def until_connected(bus: NatsBus, wanted: bool = True) -> None:
    async with asyncio.timeout(15):
        while bus.connected is not wanted:
            await asyncio.sleep(0.02)


async def test_acknowledged_work_and_values_survive_a_killed_broker(own_nats: NatsServer) -> None:
    async with connected_bus(own_nats.url) as bus:
        queue = await bus.work_queue("p", ack_wait_s=2)
        await queue.publish(b"job", msg_id="1", headers={})
        bucket = await bus.kv("b")
        await bucket.put("k", b"v")
        own_nats.kill()
        await until_connected(bus, False)
        for call in (queue.publish(b"lost", msg_id="2", headers={}), bucket.put("k", b"lost"), bus.publish("s", b"")):
            with pytest.raises(BrokerUnavailable):
                await call
        own_nats.start()
        await until_connected(bus)
        delivery = await queue.pull(timeout_s=5)
        assert delivery is not None
        assert delivery.data == b"job"
        await delivery.ack()
        entry = await bucket.get("k")
        assert entry is not None
        assert entry.value == b"v"
        assert (await queue.depth()).pending == 0  # nothing that was refused arrived later


async def test_a_pull_that_was_open_when_the_broker_died_ends_and_the_next_works(own_nats: NatsServer) -> None:
    async with connected_bus(own_nats.url) as bus:
        queue = await bus.work_queue("p", ack_wait_s=2)

        async def kill_and_restart() -> None:
            own_nats.kill()
            await asyncio.sleep(0)
            own_nats.start()

        async with asyncio.TaskGroup() as group:
            group.create_task(_pull_ignoring_outage(bus))
            group.create_task(kill_and_restart())
        await until_connected(bus)
        await queue.publish(b"job", msg_id="1", headers={})
        async with asyncio.timeout(15):
            delivery = None
            while delivery is None:
                delivery = await queue.pull(timeout_s=1)
        assert delivery.data == b"job"


async def _pull_ignoring_outage(bus: NatsBus) -> None:
    with contextlib.suppress(BrokerUnavailable):
        await (await bus.work_queue("p", ack_wait_s=2)).pull(timeout_s=3)


async def test_a_subscription_goes_on_after_the_broker_came_back(own_nats: NatsServer) -> None:
    async with connected_bus(own_nats.url) as bus:
        subscription = await bus.subscribe("s")
        own_nats.kill()
        await until_connected(bus, False)
        own_nats.start()
        await until_connected(bus)
        await bus.publish("s", b"again")
        async with asyncio.timeout(5):
            async for message in subscription:
                assert message.data == b"again"
                break


async def test_a_broker_that_hung_for_a_while_is_heard_again_at_once(own_nats: NatsServer) -> None:
    bus = NatsBus([own_nats.url], name="test")
    await bus.start()
    try:
        bucket = await bus.kv("steady")
        await bucket.put("a", b"1")
        own_nats.pause()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await bus.subscribe("steady.>")  # its round trip to the server is given up, and answered later
        finally:
            own_nats.resume()
        async with asyncio.timeout(3):
            subscription = await bus.subscribe("steady.>")
            await bus.publish("steady.x", b"heard")
            async for message in subscription:
                assert message.data == b"heard"
                break
            assert await bucket.get("a") is not None
    finally:
        own_nats.resume()
        await bus.close()


async def test_a_client_that_was_closed_for_good_is_replaced_and_its_subscriptions_follow(
    own_nats: NatsServer,
) -> None:
    async with connected_bus(own_nats.url) as bus:
        subscription = await bus.subscribe("s")
        bucket = await bus.kv("b")
        queue = await bus.work_queue("p", ack_wait_s=2)
        assert await queue.pull(timeout_s=0.1) is None
        await (await bus._connection.client()).close()  # as nats-py does after a protocol error
        await bucket.put("k", b"v")
        await queue.publish(b"job", msg_id="1", headers={})
        assert await queue.pull(timeout_s=5) is not None

        async def tell() -> None:
            while True:
                await bus.publish("s", b"again")
                await asyncio.sleep(0.1)

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            teller = group.create_task(tell())
            async for message in subscription:
                assert message.data == b"again"
                break
            teller.cancel()


async def test_deleted_streams_and_buckets_are_made_again(own_nats: NatsServer) -> None:
    async with connected_bus(own_nats.url) as bus, jetstream(own_nats.url) as operator:
        queue = await bus.work_queue("p", ack_wait_s=2)
        bucket = await bus.kv("b")
        await bucket.put("k", b"v")
        await bus.dead_letter("p", b"job", reason="r", msg_id="1")
        for stream in (JOBS_STREAM, DEAD_STREAM, "KV_b"):
            await operator.delete_stream(stream)
        await queue.publish(b"job", msg_id="1", headers={})
        assert await queue.pull(timeout_s=5) is not None
        assert await bucket.get("k") is None
        assert await bucket.keys() == []
        await bucket.create("k", b"again")
        await bus.dead_letter("p", b"job", reason="r", msg_id="1")
        assert (await operator.stream_info(DEAD_STREAM)).state.messages == 1


async def test_a_dead_letter_is_kept_once_with_its_reason(own_nats: NatsServer) -> None:
    async with connected_bus(own_nats.url) as bus, jetstream(own_nats.url) as operator:
        for reason in ("three claims\nfailed", "again"):
            await bus.dead_letter("p", b"job", reason=reason, msg_id="1")
        assert (await operator.stream_info(DEAD_STREAM)).state.messages == 1
        kept = await operator.get_last_msg(DEAD_STREAM, "ag.dead.p")
        assert kept.data == b"job"
        assert (kept.headers or {})["ag-reason"] == "three claims failed"


async def test_a_consumer_deleted_under_an_open_pull_is_made_again(own_nats: NatsServer) -> None:
    async with connected_bus(own_nats.url) as bus, jetstream(own_nats.url) as operator:
        queue = await bus.work_queue("p", ack_wait_s=2)
        assert await queue.pull(timeout_s=0.1) is None
        await operator.delete_consumer(JOBS_STREAM, "pool-p")
        await queue.publish(b"job", msg_id="1", headers={})
        assert await queue.pull(timeout_s=5) is not None
        await operator.delete_consumer(JOBS_STREAM, "pool-p")
        assert (await queue.depth()).pending == 1  # unsettled, so the new consumer has it again


async def test_limits_an_operator_set_are_kept_and_another_retention_is_refused(own_nats: NatsServer) -> None:
    async with connected_bus(own_nats.url) as bus, jetstream(own_nats.url) as operator:
        tuned = api.StreamConfig(
            name=JOBS_STREAM,
            subjects=["ag.jobs.*"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            discard=api.DiscardPolicy.NEW,
            max_msgs=1,
        )
        await operator.add_stream(tuned)
        queue = await bus.work_queue("p", ack_wait_s=2)
        await queue.publish(b"1", msg_id="1", headers={})
        with pytest.raises(ResourceExhausted, match="maximum messages"):
            await queue.publish(b"2", msg_id="2", headers={})
        await operator.delete_stream(JOBS_STREAM)
        await operator.add_stream(tuned.evolve(retention=api.RetentionPolicy.LIMITS))
        with pytest.raises(Conflict, match="retention"):
            await bus.work_queue("q", ack_wait_s=2)


async def test_what_can_never_be_sent_is_not_called_an_outage(nats_url: str) -> None:
    async with connected_bus(nats_url) as bus:
        queue = await bus.work_queue("large", ack_wait_s=2)
        with pytest.raises(PayloadTooLarge):
            await queue.publish(bytes(2**21), msg_id="large-1", headers={})
        with pytest.raises(InvalidRequest):
            await bus.publish("two words", b"")


async def test_no_broker_is_a_typed_error_at_once() -> None:
    bus = NatsBus(["nats://127.0.0.1:9"], name="t")
    async with asyncio.timeout(20):
        with pytest.raises(BrokerUnavailable):
            await bus.start()


async def test_a_wrong_password_is_said(nats_url: str) -> None:
    bus = NatsBus([nats_url.replace(":test-only@", ":wrong@")], name="t")
    with pytest.raises(Unauthenticated, match=r"(?i)authorization"):
        await bus.start()


async def test_many_callers_without_a_broker_wait_for_one_attempt_not_for_a_row_of_them() -> None:
    bus = NatsBus(["nats://127.0.0.1:9"], name="t")
    async with asyncio.timeout(20):  # one attempt takes three seconds, twenty would take a minute
        results = await asyncio.gather(*(bus.publish("s", b"") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, BrokerUnavailable) for result in results)


async def test_a_closed_bus_does_not_connect_again(nats_url: str) -> None:
    async with connected_bus(nats_url) as bus:
        pass
    with pytest.raises(BrokerUnavailable, match="closed"):
        await bus.publish("s", b"")


# ---- answers lost on the way ------------------------------------------------------------------------------------


@pytest.fixture
async def lossy(nats_url: str) -> AsyncIterator[Proxy]:
    async with proxy(nats_url) as between:
        yield between


async def test_a_create_whose_answer_was_lost_is_known_to_be_ours(lossy: Proxy) -> None:
    async with connected_bus(lossy.url, call_timeout_s=0.5) as bus:
        bucket = await bus.kv("lost-create")
        assert await bucket.get("k") is None
        lossy.lose_answers = 1
        revision = await bucket.create("k", b"owner-1")
        entry = await bucket.get("k")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"owner-1", revision)
        assert lossy.lose_answers == 0
        with pytest.raises(PreconditionFailed):
            await bucket.create("k", b"owner-2")


async def test_an_update_whose_answer_was_lost_is_known_to_be_ours(lossy: Proxy) -> None:
    async with connected_bus(lossy.url, call_timeout_s=0.5) as bus:
        bucket = await bus.kv("lost-update")
        first = await bucket.create("k", b"1")
        lossy.lose_answers = 1
        assert await bucket.update("k", b"2", revision=first) == first + 1


async def test_a_lost_refusal_is_not_taken_for_success(lossy: Proxy) -> None:
    async with connected_bus(lossy.url, call_timeout_s=0.5) as bus:
        bucket = await bus.kv("lost-refusal")
        await bucket.create("k", b"theirs")
        lossy.lose_answers = 1
        with pytest.raises(BrokerUnavailable):
            await bucket.create("k", b"ours")
        entry = await bucket.get("k")
        assert entry is not None
        assert entry.value == b"theirs"


async def test_a_publish_repeated_after_a_lost_acknowledgement_is_one_message(lossy: Proxy) -> None:
    async with connected_bus(lossy.url, call_timeout_s=0.5) as bus:
        queue = await bus.work_queue("lost-puback", ack_wait_s=30)
        lossy.lose_answers = 1
        with pytest.raises(BrokerUnavailable):
            await queue.publish(b"job", msg_id="lost-puback-1", headers={})
        await queue.publish(b"job", msg_id="lost-puback-1", headers={})
        assert (await queue.depth()).pending == 1


async def test_an_acknowledgement_that_was_not_confirmed_is_said_and_may_be_repeated(lossy: Proxy) -> None:
    async with connected_bus(lossy.url, call_timeout_s=0.5) as bus:
        queue = await bus.work_queue("lost-ack", ack_wait_s=30)
        await queue.publish(b"job", msg_id="lost-ack-1", headers={})
        delivery = await queue.pull(timeout_s=2)
        assert delivery is not None
        lossy.lose_answers = 1
        with pytest.raises(BrokerUnavailable):
            await delivery.ack()
        await delivery.ack()
        assert (await queue.depth()).in_flight == 0


# ---- listing keys -------------------------------------------------------------------------------------------------


async def consumers(operator: JetStreamContext) -> int:
    """How many consumers the server keeps, of all streams."""
    return (await operator.account_info()).consumers


async def test_listing_keys_leaves_no_consumer_on_the_server(nats_url: str) -> None:
    async with connected_bus(nats_url) as bus, jetstream(nats_url) as operator:
        bucket = await bus.kv("listed")
        for number in range(1200):
            await bucket.put(f"t.k{number:04d}", b"x" * 10)
        await bucket.delete("t.k0007")
        before = await consumers(operator)
        for _ in range(50):
            assert len(await bucket.keys("t.")) == 1199
        assert await bucket.keys("t.k001") == [f"t.k001{digit}" for digit in range(10)]
        assert await bucket.keys("u.") == []
        assert await consumers(operator) == before


async def test_a_listing_that_is_cancelled_leaves_no_consumer_either(nats_url: str) -> None:
    async with connected_bus(nats_url) as bus, jetstream(nats_url) as operator:
        bucket = await bus.kv("cut-short")
        for number in range(600):
            await bucket.put(f"k{number}", b"")
        before = await consumers(operator)
        for cut in range(60):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(cut / 2000):
                    await bucket.keys()
        assert len(await bucket.keys()) == 600  # what was under way on this connection is over
        assert await consumers(operator) == before


async def test_each_key_is_told_once_however_much_is_written_meanwhile(nats_url: str) -> None:
    async with connected_bus(nats_url) as bus, connected_bus(nats_url) as writers:
        bucket, written = await bus.kv("busy"), await writers.kv("busy")
        wanted = [f"k{number:03d}" for number in range(700)]
        for key in wanted:
            await bucket.put(key, b"")

        async def rewrite(keys: list[str]) -> None:
            while True:
                for key in keys:
                    await written.put(key, b"again")

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(rewrite(wanted[first::4])) for first in range(4)]
            for _ in range(5):
                assert await bucket.keys() == wanted
            for task in tasks:
                task.cancel()


@pytest.mark.parametrize("gone", [["a"], ["a", "b", "c"]])
async def test_keys_that_go_while_they_are_listed_are_no_outage(nats_url: str, gone: list[str], lossy: Proxy) -> None:
    name = f"going-{len(gone)}"
    async with connected_bus(lossy.url, call_timeout_s=1.0) as bus, jetstream(nats_url) as operator:
        bucket = await bus.kv(name)
        for key in gone:
            await bucket.put(key, b"")

        async def purge() -> None:
            await operator.purge_stream(f"KV_{name}")

        lossy.late = b"408"  # the server's word that a request is over, which it may say just after we saw it ourselves
        lossy.before(b"$JS.API.CONSUMER.MSG.NEXT.", purge)  # the keys are counted, and not yet read
        async with asyncio.timeout(10):
            assert await bucket.keys() == []
        await bucket.put("d", b"")
        assert await bucket.keys() == ["d"]
