"""What operators see of predictions and of why a job was placed so."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from adaptivegen.nodes import Loading, Way
from adaptivegen.rpc.admin_rows import Explanation, JobInfo
from cli.admin_tables import chances_table, loads_table, print_explanation, sizes_table, ways_table
from scheduler.decide.view import View
from scheduler.predictions import MOST, predictions
from tests.unit.scheduler.builders import JOB, NOW_NS, cloud_card, place, report, view


def shown(table: Table) -> str:
    console = Console(width=160, file=StringIO())
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


def test_an_explanation_tells_the_bytes_of_every_plan_that_is_possible() -> None:
    job = JobInfo(JOB, "local", "queued", "refine", "edge-1", "", 0, 0, NOW_NS, 0, "", "")
    console = Console(width=200, file=StringIO())
    print_explanation(console, Explanation(job, place(view()), ()))
    assert isinstance(console.file, StringIO)
    lines = {line.replace(">", "").split()[0]: line for line in console.file.getvalue().splitlines() if line.strip()}
    assert "115 KiB" in lines["refine"] and "92 KiB" in lines["cloud"]  # 30 bytes for a thousand pixels
    assert "KiB" not in lines["hit"]
