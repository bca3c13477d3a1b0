"""The decision log: what is written is read back whole, in bounds, and never stands in a decision's way."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the extra decisions (pyarrow) is not installed")

import pyarrow as pa
import pyarrow.parquet as parquet
from structlog.testing import capture_logs

from adaptivegen.clock import ManualClock
from adaptivegen.errors import SettingsInvalid
from scheduler.decision_log import MAX_WAITING, DecisionLog, read_log
from scheduler.placement import Placement
from scheduler.steady import SteadyTime
from tests.unit.scheduler.builders import outcome, place, query, report, view

DOCUMENT = Path(__file__).parents[3] / "docs" / "architecture.md"


def make(folder: Path, clock: ManualClock | None = None, *, max_bytes: int = 2**20) -> DecisionLog:
    return DecisionLog(folder, node_id="scheduler-1", clock=clock or ManualClock(), max_bytes=max_bytes)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def test_decisions_come_back_whole_with_their_outcomes(tmp_path: Path) -> None:
    clock = ManualClock()
    log = make(tmp_path / "log", clock)
    seen = view(report("edge-1"), report("worker-1"), report("worker-2", pool="other"))
    service = Placement(seen, time=SteadyTime(clock), rng=random.Random(1), log=log)
    first = await service.place(query(requested_plan="cloud"))
    await log.flush()
    await clock.advance(1.0)
    second = await service.place(query(job_id="vid_2", intent="iterate"))
    await service.observe(outcome(second, final_s=7.5))
    await service.observe(outcome(second, decided_by="scheduler-2", final_s=7.5))  # another's
    await log.close()
    one, other = read_log(tmp_path / "log")
    assert (one.decision, one.outcome) == (first, None)
    assert one.query == query(requested_plan="cloud")
    assert (other.decision, other.outcome) == (second, outcome(second, final_s=7.5))
    assert one.decision.propensity == 0.5  # two pools were equal
    assert log.lost == 0


async def test_the_oldest_files_go_beyond_the_bound(tmp_path: Path) -> None:
    clock = ManualClock()
    log = make(tmp_path, clock, max_bytes=40_000)
    for number in range(20):
        log.decided(query(job_id=f"vid_{number}"), place(view(), query(job_id=f"vid_{number}")))
        await log.flush()
        await clock.advance(1.0)
    kept = [entry.decision.job_id for entry in read_log(tmp_path)]
    assert held(tmp_path) <= 40_000
    assert 0 < len(kept) < 20
    assert kept == [f"vid_{number}" for number in range(20 - len(kept), 20)]


async def test_files_of_others_are_let_be(tmp_path: Path) -> None:
    clock = ManualClock()
    log = make(tmp_path, clock, max_bytes=1)
    names = ("mine.parquet", "decisions.parquet", "decisions-a-1.part")
    for name in names:
        (tmp_path / name).write_text("not the log's")
    log.decided(query(), place(view()))
    await log.flush()
    assert names_in(tmp_path) == sorted(names)
    assert not list(read_log(tmp_path))


async def test_rows_that_cannot_be_written_are_counted(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.decided(query(), place(view()).model_copy(update={"decided_at_ns": 2**80}))
    await log.close()
    assert log.lost == 1
    assert not names_in(tmp_path)


async def test_a_folder_that_cannot_be_written_costs_rows_and_no_decision(tmp_path: Path) -> None:
    log = make(tmp_path / "log")
    (tmp_path / "log").rmdir()
    (tmp_path / "log").write_text("in the way")
    log.decided(query(), place(view()))
    await log.flush()
    assert log.lost == 1


def test_rows_in_memory_are_bounded(tmp_path: Path) -> None:
    log = make(tmp_path)
    decided = place(view())
    for _ in range(MAX_WAITING + 3):
        log.ended(outcome(decided, final_s=7.5))
    assert log.lost == 3


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsInvalid) as caught:
        make(tmp_path / "file" / "log")
    assert caught.value.param == "decision_log"


def _cut(path: Path) -> None:
    """As a disk that ran full or was torn away leaves it."""
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    """The footer is whole, what it points to is not."""
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(0xFF ^ byte for byte in data[4 : len(data) // 2])
    path.write_bytes(data)


def _other_rows(path: Path) -> None:
    """A Parquet file, but not of decisions."""
    parquet.write_table(pa.Table.from_pylist([{"query": None, "decision": {"plan": "none"}}]), path)


@pytest.mark.parametrize("damage", [_cut, _flip, _other_rows])
@pytest.mark.parametrize("kind", ["decisions", "outcomes"])
async def test_a_damaged_file_is_left_out_and_named_and_the_others_are_read(
    tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    clock = ManualClock()
    log, decided = make(tmp_path, clock), []
    for number in range(3):
        decided.append(place(view(), query(job_id=f"vid_{number}")).model_copy(update={"decided_at_ns": number + 1}))
        log.decided(query(job_id=f"vid_{number}"), decided[-1])
        log.ended(outcome(decided[-1], final_s=7.5))
        await log.flush()
        await clock.advance(1.0)
    await log.close()
    damaged = [name for name in names_in(tmp_path) if name.startswith(kind)][1]
    damage(tmp_path / damaged)
    with capture_logs() as lines:
        read = list(read_log(tmp_path))
    assert [line["file"] for line in lines if line["event"] == "decision_log_file_left_out"] == [damaged]
    went = [outcome(one, final_s=7.5) for one in decided]
    whole = [0, 2] if kind == "decisions" else [0, 1, 2]
    assert [one.decision for one in read] == [decided[number] for number in whole]
    assert [one.outcome for one in read] == [
        None if (kind, number) == ("outcomes", 1) else went[number] for number in whole
    ]


async def test_a_log_of_before_bytes_and_transfers_were_predicted_is_still_read(tmp_path: Path) -> None:
    log, decision, went = make(tmp_path), place(view()), outcome(place(view()), final_s=7.5)
    log.decided(query(), decision)
    log.ended(went)
    await log.close()
    for name in names_in(tmp_path):
        _as_before(tmp_path / name)
    (logged,) = read_log(tmp_path)
    bare = [one.model_copy(update=dict.fromkeys(("moved_bytes", "transfer_s"), 0.0)) for one in decision.candidates]
    assert logged.decision == decision.model_copy(update={"candidates": tuple(bare)})
    assert logged.outcome == went


def _as_before(path: Path) -> None:
    """Rewrite a file as a version did that did not know of these columns."""
    rows = parquet.read_table(path).to_pylist()
    for row in rows:
        for candidate in row.get("decision", {}).get("candidates", ()):
            for name in ("moved_bytes", "transfer_s", "load_s"):
                del candidate[name]
        for name in ("final_bytes", "draft_model", "draft_pixels", "draft_bytes", "final_steps"):
            row.get("outcome", {name: None}).pop(name)
    parquet.write_table(pa.Table.from_pylist(rows), path)


async def test_the_example_of_the_documents_reads_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, decision = make(tmp_path), place(view())
    log.decided(query(), decision)
    log.ended(outcome(decision, final_s=7.5))
    await log.close()
    section = DOCUMENT.read_text(encoding="utf-8").partition("## The decision log")[2].partition("\n## ")[0]
    example = section.partition("```python\n")[2].partition("```")[0]
    exec(example.replace("/var/lib/adaptivegen/decisions", str(tmp_path)), {})
    chosen = decision.chosen()
    assert chosen is not None
    assert capsys.readouterr().out == f"refine 1.0 {chosen.final_s} 7.5\n"
    for column in ("job_id", "query", "decision", "outcome"):
        assert f"`{column}`" in section
