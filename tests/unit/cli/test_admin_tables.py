"""What operators see of predictions and of why a job was placed so."""

from io import StringIO

import pytest
from rich.console import Console

from adaptivegen.nodes import Loading, Way
from adaptivegen.placement import Decision
from adaptivegen.rpc.admin_rows import Explanation, JobInfo, LineChangeInfo, PolicyChangeInfo
from cli.admin_tables import (
    chances_table,
    changes_table,
    line_changes_table,
    loads_table,
    sizes_table,
    ways_table,
)
from cli.decision_tables import print_explanation
from cli.rows import Rows
from scheduler.decide.policy import Policy
from scheduler.decide.view import View
from scheduler.predictions import MOST, predictions
from tests.unit.scheduler.builders import JOB, NOW_NS, cards, cloud_card, draft_card, place, query, report, view


def shown(table: Rows, width: int = 160) -> str:
    console = Console(width=width, file=StringIO())
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def learned() -> View:
    """A scheduler that has heard of ways, loads, repeats and clips."""
    loading = (Loading(model="pocket-next", elapsed_s=1.0, expected_s=4.0),)
    seen = view(report("edge-1"))
    ways = {"store.put": Way(delay_s=0.25, bytes_per_s=3 * 1024**2)}
    seen.hear(report("worker-1", ways=ways, loading=loading), now_ns=NOW_NS)
    seen.hits.asked("edge-1", "acme", True)
    seen.learned.sized(cloud_card(), size_bytes=0.03 * 2**20, pixels=2**20)
    return seen


def test_ways_sizes_loads_and_chances_are_shown_with_their_units() -> None:
    found = predictions(learned(), now_ns=NOW_NS)
    for table, words in (
        (ways_table(found.ways), ("worker-1", "store.put", "0.250 s", "3 MiB/s")),
        (loads_table(found.loads), ("worker-1", "pocket-next", "3.0 s more")),
        (sizes_table(found.sizes), ("pocket-cloud", "1048576", "0.0300", "1 clips")),
        (chances_table(found.chances), ("edge-1", "(all)", "acme", "known", "28 %", "0.810")),
    ):
        text = shown(table)
        assert all(word in text for word in words), text


def test_an_overdue_load_is_said_to_be_one_of_which_nothing_is_known() -> None:
    found = predictions(learned(), now_ns=NOW_NS + 60 * 10**9)
    assert found.loads[0].left_s is None
    assert "not known how long" in shown(loads_table(found.loads))


def test_of_very_many_chances_some_are_told() -> None:
    seen = learned()
    for number in range(2 * MOST):
        seen.hits.asked("edge-1", f"t{number}", False)
    assert len(predictions(seen, now_ns=NOW_NS).chances) == MOST


def explained(decision: Decision, width: int = 200) -> str:
    """What an operator is shown of a job that was placed so."""
    job = JobInfo(JOB, "local", "queued", decision.plan, "edge-1", "", 0, 0, NOW_NS, 0, "", "")
    console = Console(width=width, file=StringIO())
    print_explanation(console, Explanation(job, decision, ()))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_an_explanation_tells_the_bytes_of_every_plan_that_is_possible() -> None:
    text = explained(place(view()))
    lines = {line.replace(">", "").split()[0]: line for line in text.splitlines() if line.strip()}
    assert "115 KiB" in lines["refine"] and "92 KiB" in lines["cloud"]  # 30 bytes for a thousand pixels
    assert "KiB" not in lines["hit"]


def test_a_plan_that_is_taken_though_late_is_shown_with_its_figures() -> None:
    decision = place(view(), query(requested_plan="refine", deadline_s=3.0))
    late = decision.chosen()
    assert late is not None and decision.plan == "refine"
    taken = next(line for line in explained(decision).splitlines() if line.startswith(">"))
    assert all(figure in taken for figure in (f"{late.qoe:.2f}", f"{late.gpu_s:.2f} s", f"{late.score:.2f}", "115 KiB"))
    assert "late: its deadline is 3 s" in taken
    assert "not possible" not in taken


def test_a_plan_that_is_taken_though_nothing_is_known_of_it_is_not_said_to_be_impossible() -> None:
    unmeasured = view(models=cards(draft_card(), cloud_card(profiled=False)))
    taken = next(line for line in explained(place(unmeasured)).splitlines() if line.startswith(">"))
    assert "not known" in taken and "no measured times" in taken and "not possible" not in taken


REASON = "the share of clips that failed was higher than allowed, by all that is known of 40 sessions"


def line_change() -> LineChangeInfo:
    return LineChangeInfo(
        number=12,
        line="pocket-cloud",
        action="rollback",
        stable="pocket-cloud",
        candidate="pocket-cloud-2",
        phase="canary",
        percent=10.0,
        by="itself",
        reason=REASON,
        at_ns=NOW_NS,
    )


def policy_change() -> PolicyChangeInfo:
    values = {name: value + 1.0 for name, value in list(Policy().values().items())[:9]}
    return PolicyChangeInfo(number=3, values=values, by="operator", reason=REASON, at_ns=NOW_NS)


@pytest.mark.parametrize("width", [80, 120, 140, 200])
def test_histories_are_readable_at_any_width(width: int) -> None:
    change = policy_change()
    tables = (line_changes_table([line_change()] * 2), changes_table([change] * 2))
    for table, fixed in zip(tables, (("rollback", "itself"), ("operator",)), strict=True):
        text = shown(table, width)
        lines = text.splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= 32, text
        words = text.split()
        assert words.count("2023-11-14") == 2  # whole, twice
        assert all(words.count(word) == 2 for word in (*fixed, "failed", "sessions"))
    for name, value in change.values.items():
        assert f"{name}={value:g}" in shown(tables[1], width).replace("\n", " ")


def test_rows_that_do_not_fit_are_shown_as_blocks_without_what_there_is_none_of() -> None:
    table = Rows("id", "name", "note")
    table.add("x" * 30, "y" * 30, "")
    table.add("a", "b[red]", "one two")
    table.add("c", "-", "d")
    assert [line.rstrip() for line in shown(table, 40).splitlines()] == [
        f"id    {'x' * 30}",
        f"name  {'y' * 30}",
        "",
        "id    a",
        "name  b[red]",
        "note  one two",
        "",
        "id    c",
        "note  d",
    ]
