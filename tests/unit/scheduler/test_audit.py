"""The audit log: noted before it is done, closed afterwards, kept whatever happens."""

import asyncio
import hashlib

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.clock import ManualClock
from adaptivegen.errors import Conflict, StorageFailure
from scheduler.audit import MAX_TEXT_CHARS, PREFIX, Audit, brief
from scheduler.steady import SteadyTime


def made() -> tuple[Audit, ManualClock]:
    clock = ManualClock()
    return Audit(open_store("memory://"), node_id="scheduler-1", time=SteadyTime(clock)), clock


async def change() -> str:
    return "changed"


async def test_names_with_bytes_that_are_no_text_are_kept_as_far_as_they_are() -> None:
    audit, _ = made()
    await audit.carry_out("models-push", "a\udcffb", change, by="user \udcff", details={"reason": "\udcff"})
    (entry,) = await audit.entries(10)
    assert (entry.target, entry.by, entry.details) == ("a?b", "user ?", {"reason": "?"})


async def test_a_change_is_kept_with_who_ordered_it_and_how_it_ended() -> None:
    audit, clock = made()
    done = await audit.carry_out("drain", "edge-1", change, by="ops", details={"workers": 3})
    assert done == "changed"
    await clock.advance(1.0)

    async def refused() -> None:
        raise Conflict("another was first")

    with pytest.raises(Conflict):
        await audit.carry_out("set-policy", "policy", refused, by="x" * 1000, details={})
    newest, oldest = await audit.entries(10)
    assert (oldest.action, oldest.target, oldest.by, oldest.outcome) == ("drain", "edge-1", "ops", "done")
    assert oldest.details == {"workers": "3"}
    assert newest.outcome == "conflict: another was first"
    assert len(newest.by) == MAX_TEXT_CHARS
    assert newest.at_ns > oldest.at_ns
    assert await audit.entries(1) == [newest]


async def test_what_cannot_be_noted_is_not_done() -> None:
    audit, _ = made()
    carried_out = []

    async def note() -> None:
        carried_out.append("done")

    await audit._blob.close()  # a store that takes nothing more

    async def failing(key: str, data: bytes) -> None:
        raise StorageFailure("the store is away")

    audit._blob.put = failing  # type: ignore[method-assign]
    with pytest.raises(StorageFailure):
        await audit.carry_out("drain", "edge-1", note, by="ops", details={})
    assert carried_out == []


async def test_a_change_that_is_cut_off_says_so() -> None:
    audit, _ = made()
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    ordering = asyncio.ensure_future(audit.carry_out("scale", "default", endless, by="ops", details={}))
    await begun.wait()
    (entry,) = await audit.entries(10)
    assert entry.outcome == "ordered"
    ordering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ordering
    (entry,) = await audit.entries(10)
    assert entry.outcome == "cut off"


async def test_two_changes_of_one_moment_are_both_kept() -> None:
    audit, _ = made()
    for target in ("edge-1", "edge-2"):
        await audit.carry_out("drain", target, change, by="ops", details={})
    assert [entry.target for entry in await audit.entries(10)] == ["edge-2", "edge-1"]


async def test_an_entry_that_cannot_be_read_hides_no_other() -> None:
    audit, _ = made()
    await audit.carry_out("drain", "edge-1", change, by="ops", details={})
    at_ns = 1_699_999_999_000_000_000
    await audit._blob.put(f"{PREFIX}2023-11/{at_ns}-scheduler-2-000000", b"{")
    await audit._blob.put(f"{PREFIX}2023-11/notes.txt", b"an operator's")
    good, bad = await audit.entries(10)
    assert good.target == "edge-1"
    assert (bad.at_ns, bad.outcome[:10]) == (at_ns, "unreadable")


async def test_entries_of_months_ago_are_found_and_only_as_many_as_asked_for() -> None:
    audit, clock = made()
    for target in ("oldest", "older", "newest"):
        await audit.carry_out("drain", target, change, by="ops", details={})
        await clock.advance(75 * 86400.0)
    assert [entry.target for entry in await audit.entries(2)] == ["newest", "older"]
    assert [entry.target for entry in await audit.entries(10)] == ["newest", "older", "oldest"]


async def test_a_bug_is_noted_as_one() -> None:
    audit, _ = made()

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await audit.carry_out("drain", "edge-1", broken, by="ops", details={})
    (entry,) = await audit.entries(1)
    assert entry.outcome == "internal: ZeroDivisionError"


async def test_a_long_list_is_whole_in_its_object_and_what_is_told_says_what_is_missing() -> None:
    audit, _ = made()
    ids = " ".join(f"vid_{number:026d}" for number in range(500))
    await audit.carry_out("purge-videos", "500 ids", change, by="ops", details={"ids": ids, "reason": "because"})
    (entry,) = await audit.entries(1)
    assert entry.whole == {"ids": ids}
    assert (entry.outcome, entry.details["reason"]) == ("done", "because")
    said = entry.told()["details"]["ids"]
    shown = int(said.partition("(")[2].partition(" of 500 shown")[0])
    assert shown > 5 and said.startswith(" ".join(ids.split(" ")[:shown]) + " (")
    assert hashlib.sha256(ids.encode()).hexdigest() in said
    assert "whole" not in entry.told()


@pytest.mark.parametrize("text", ["x" * 500, "x " * 250, "x" * 501, "x " * 400, "y" * 400 + " " + "z" * 10**5, ""])
async def test_what_is_told_of_a_value_is_within_the_limit_and_all_of_one_that_is(text: str) -> None:
    said = brief(text)
    assert len(said) <= MAX_TEXT_CHARS
    assert (said == text) == (len(text) <= MAX_TEXT_CHARS)
    audit, _ = made()
    await audit.carry_out("drain", "edge-1", change, by="ops", details={"value": text})
    assert (await audit.entries(1))[0].outcome == "done"
