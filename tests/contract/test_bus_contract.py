"""What every broker adapter promises of buckets and subjects, asked of each: in memory and over a real nats-server."""

import asyncio
from collections.abc import AsyncIterable

import pytest

from adaptivegen.bus.base import Bus, Change, Message
from adaptivegen.errors import InvalidRequest, PreconditionFailed


async def test_only_one_create_wins_and_the_value_is_the_winners(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    revision = await bucket.create("a.b", b"first")
    with pytest.raises(PreconditionFailed):
        await bucket.create("a.b", b"second")
    entry = await bucket.get("a.b")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"first", revision)


async def test_an_update_from_an_old_revision_loses(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    first = await bucket.create("k", b"1")
    second = await bucket.update("k", b"2", revision=first)
    with pytest.raises(PreconditionFailed):
        await bucket.update("k", b"3", revision=first)
    assert second > first
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"2"


async def test_a_deleted_key_is_gone_and_can_be_created_again(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    await bucket.put("k", b"1")
    await bucket.delete("k")
    await bucket.delete("never-was")
    assert await bucket.get("k") is None
    assert await bucket.keys() == []
    await bucket.create("k", b"2")
    assert await bucket.keys() == ["k"]


async def test_keys_are_listed_by_prefix_in_order(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    assert await bucket.keys("t.") == []
    for key in ("t.b", "t.a", "u.c"):
        await bucket.put(key, b"x")
    assert await bucket.keys("t.") == ["t.a", "t.b"]
    assert await bucket.keys() == ["t.a", "t.b", "u.c"]


async def test_subscribers_get_what_fits_their_subject_in_order(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(f"{name}.*.x")
    for number in range(3):
        await bus.publish(f"{name}.{number}.x", str(number).encode(), headers={"n": str(number)})
    await bus.publish(f"{name}.0.y", b"other")
    await bus.publish(f"{name}.9.x", b"end")
    got: list[Message] = []
    async for message in subscription:
        got.append(message)
        if message.data == b"end":
            break
    assert [message.data for message in got] == [b"0", b"1", b"2", b"end"]
    assert got[1].headers["n"] == "1"
    await subscription.close()


async def test_a_slow_subscriber_loses_the_oldest_and_it_is_counted(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(name, buffer=2)
    probe = await bus.subscribe(f"{name}.done")
    for number in range(5):
        await bus.publish(name, str(number).encode())
    await bus.publish(f"{name}.done", b"")
    async for _ in probe:
        break
    await subscription.close()
    assert subscription.dropped == 3


async def test_closing_ends_the_iteration(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(name)
    await subscription.close()
    assert [message async for message in subscription] == []


async def test_of_many_racing_creates_exactly_one_wins(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)

    async def attempt(number: int) -> bool:
        try:
            await bucket.create("k", str(number).encode())
        except PreconditionFailed:
            return False
        return True

    won = await asyncio.gather(*(attempt(number) for number in range(20)))
    assert won.count(True) == 1
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == str(won.index(True)).encode()


async def test_a_missing_key_cannot_be_updated(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    with pytest.raises(PreconditionFailed):
        await bucket.update("k", b"1", revision=1)


async def test_a_prefix_may_end_inside_a_part(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    for key in ("t.ab", "t.ac", "t.b", "t.ab.c"):
        await bucket.put(key, b"x")
    assert await bucket.keys("t.a") == ["t.ab", "t.ab.c", "t.ac"]


async def test_an_entry_expires_after_the_buckets_time(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name, ttl_s=1)
    await bucket.put("k", b"x")
    async with asyncio.timeout(10):
        while await bucket.get("k") is not None:
            await asyncio.sleep(0.05)
    assert await bucket.keys() == []
    await bucket.create("k", b"y")


@pytest.mark.parametrize("key", ["", ".", "a..b", "a.", ".a", "a b", "a.*", ">", "a\n", "ä", "a\0"])
async def test_what_cannot_be_a_key_is_refused(bus: Bus, name: str, key: str) -> None:
    bucket = await bus.kv(name)
    for call in (bucket.get(key), bucket.put(key, b""), bucket.create(key, b""), bucket.delete(key)):
        with pytest.raises(InvalidRequest, match="key is"):
            await call
    if key not in ("", "a."):
        with pytest.raises(InvalidRequest, match="prefix is"):
            await bucket.keys(key)


@pytest.mark.parametrize("bad", ["", "a.b", "*", ">", "a b", "A", "../x"])
async def test_what_cannot_be_a_pool_or_bucket_is_refused(bus: Bus, bad: str) -> None:
    with pytest.raises(InvalidRequest, match="pool is"):
        await bus.work_queue(bad, ack_wait_s=1)
    with pytest.raises(InvalidRequest, match="pool is"):
        await bus.dead_letter(bad, b"", reason="", msg_id="1")
    with pytest.raises(InvalidRequest, match="bucket is"):
        await bus.kv(bad)


async def test_a_watch_tells_writes_and_deletions_of_its_prefix_from_now_on(bus: Bus, name: str) -> None:
    bucket = await bus.kv(name)
    await bucket.put("t.before", b"x")
    watch = await bucket.watch("t.")
    await bucket.put("u.other", b"x")
    first = await bucket.put("t.a", b"1")
    await bucket.delete("t.a")
    seen: list[Change] = []
    async with asyncio.timeout(5):
        async for change in watch:
            seen.append(change)
            if change.value is None:
                break
    assert [(change.key, change.value) for change in seen] == [("t.a", b"1"), ("t.a", None)]
    assert (seen[0].revision, seen[1].revision) == (first, first + 1)
    await watch.close()
    assert [change async for change in watch] == []


async def test_closing_the_bus_ends_its_subscriptions_and_watches(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(name)
    watch = await (await bus.kv(name)).watch()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        messages, changes = group.create_task(collect(subscription)), group.create_task(collect(watch))
        await asyncio.sleep(0)
        await bus.close()
    assert (messages.result(), changes.result()) == ([], [])


async def collect(items: AsyncIterable[object]) -> list[object]:
    return [item async for item in items]


async def test_a_closing_wildcard_takes_all_that_follows(bus: Bus, name: str) -> None:
    subscription = await bus.subscribe(f"{name}.>")
    for subject in (name, f"{name}.a", f"{name}x.a", f"{name}.a.b"):
        await bus.publish(subject, subject.encode())
    got: list[str] = []
    async with asyncio.timeout(5):
        async for message in subscription:
            got.append(message.subject)
            if message.subject == f"{name}.a.b":
                break
    assert got == [f"{name}.a", f"{name}.a.b"]
