"""Rollouts of versions whose cards leave open how good they are, or are not known to a scheduler."""

from __future__ import annotations

from pathlib import Path

from adaptivegen.models.registry import ModelLibrary
from tests.added_models import add_model, add_unmeasured
from tests.unit.scheduler.test_rollouts import EAGER, LINE, Broker, One

NEW = "pocket-new"


async def at_its_last_stage(one: One, stable: str = LINE, candidate: str = NEW) -> str:
    """With all that a promotion needs of what is seen; the phase after it."""
    phase = ""
    for stage in range(3):
        await one.shared.clock.advance(11.0)
        one.hears(LINE, NEW)
        for number in range(12):
            one.ends(100 * stage + number, candidate)
            one.ends(1000 + 100 * stage + number, stable)
        phase = await one.look()
    return phase


async def test_a_version_that_nobody_has_measured_waits_for_an_operator_and_all_are_told(tmp_path: Path) -> None:
    add_unmeasured(tmp_path, NEW)
    one = One(Broker(), library=ModelLibrary(tmp_path))
    await one.until_canary(NEW)
    assert await at_its_last_stage(one) == "canary"
    assert (one.line.percent, await one.actions()) == (50.0, ["start", "load", "widen", "widen"])
    info = next(line for line in one.rollouts.known() if line.line == LINE)
    (waits,) = info.waits_for
    assert "an operator" in waits and "measured quality: nothing against 4.942" in waits
    assert [gate.name for gate in info.gates if gate.needed and gate.verdict == "open"] == ["measured quality"]
    await one.rollouts.steer(LINE, "promote", by="otto", reason="I have seen its clips")
    assert one.line.stable == NEW


async def test_a_version_that_follows_one_that_nobody_has_measured_is_promoted_and_it_is_said(tmp_path: Path) -> None:
    add_unmeasured(tmp_path, NEW)
    one = One(Broker(), library=ModelLibrary(tmp_path))
    await one.until_canary(NEW)
    await one.rollouts.steer(LINE, "promote", by="otto", reason="")
    await one.rollouts.start(LINE, LINE, EAGER, by="ada", reason="")
    one.hears(LINE, NEW)
    assert [await one.look(), await one.look()] == ["loading", "canary"]
    info = next(line for line in one.rollouts.known() if line.line == LINE)
    assert (info.gates[0].verdict, info.gates[0].needed) == ("unmeasured", False)
    assert await at_its_last_stage(one, NEW, LINE) == "steady" and one.line.stable == LINE
    assert "cannot be compared" in (await one.rollouts.history(1))[0].reason


async def test_a_scheduler_without_the_cards_promotes_nothing_until_it_has_them(tmp_path: Path) -> None:
    shared = Broker()
    folders = {name: tmp_path / name for name in ("first", "later")}
    for folder in folders.values():
        folder.mkdir()
    add_model(folders["first"], NEW)
    await One(shared, library=ModelLibrary(folders["first"])).until_canary(NEW)
    later = One(shared, "scheduler-2", ModelLibrary(folders["later"]))
    later.hears(LINE, NEW)
    await later.look()
    assert await at_its_last_stage(later) == "canary"
    add_model(folders["later"], NEW)
    assert await at_its_last_stage(later) == "steady" and later.line.stable == NEW
