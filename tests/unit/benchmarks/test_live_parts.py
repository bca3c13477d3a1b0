"""The parts of the live comparison that need no system: loads, conduct, cards, the sleeping model, the figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.errors import InternalError
from adaptivegen.models.base import GenerationCancelled, GenerationInput, StepReport
from adaptivegen.models.registry import load_card
from benchmarks.compare_live import joined, report
from benchmarks.live.cards import CLOUD, DRAFT, cloud_card, draft_card, write_cards
from benchmarks.live.conduct import Spell, conduct_at, write_conduct
from benchmarks.live.figures import FRUGAL, OURS, Figures, at_equal_gpu, figures, predicted, qoe_of, verdicts
from benchmarks.live.load import EDGES, Request, Run, arrivals
from benchmarks.live.sleeper import SleepingModel
from benchmarks.live.watch import PATIENCE_S, Seen
from scheduler.decide.work import draft_work, work_of


def test_a_load_is_the_same_for_the_same_seed() -> None:
    load = arrivals(7, 60.0)
    assert load == arrivals(7, 60.0) != arrivals(8, 60.0)
    assert [one.at_s for one in load] == sorted(one.at_s for one in load)
    assert 55 <= len(load) <= 115  # 54 of the stream and 30 in bursts are meant
    assert {one.edge_id for one in load} == set(EDGES)
    assert all(one.intent == "render" for one in load if one.deadline_s)


def test_parts_follow_one_another_and_are_drawn_anew() -> None:
    load = Run(parts=2, seconds=30.0).requests(7)
    assert [one for one in load if one.part == 0] == arrivals(7, 30.0)
    second = [one for one in load if one.part == 1]
    assert len(second) == len(arrivals(8, 30.0)) and all(30.0 <= one.at_s < 61.0 for one in second)
    assert len({one.name for one in load}) == len(load)


def test_one_edge_is_well_at_any_time() -> None:
    run = Run(parts=2, seconds=20.0)
    ill = run.spells(100.0)
    for tenth in range(400):
        now_s = 100.0 + tenth / 10
        assert sum(any(spell.from_s <= now_s < spell.until_s for spell in ill[name]) for name in EDGES) <= 1
    assert any(ill.values()) and not any(replace(run, calm=True).spells(100.0).values())


def test_conduct_holds_for_its_time(tmp_path: Path) -> None:
    write_conduct(tmp_path / "conduct" / "edge-1.json", [Spell(1.0, 2.0, factor=3.0), Spell(2.0, 3.0, fails=True)])
    read = [conduct_at(tmp_path / "conduct" / "edge-1.json", at_s) for at_s in (0.5, 1.0, 2.0, 3.0)]
    assert [(spell.factor, spell.fails) for spell in read] == [(1.0, False), (3.0, False), (1.0, True), (1.0, False)]


def test_cards_are_read_back_and_tell_the_times_they_say(tmp_path: Path) -> None:
    write_cards(tmp_path)
    assert load_card(DRAFT, tmp_path) == draft_card()
    assert load_card(CLOUD, tmp_path) == cloud_card()
    work = draft_work(draft_card(), width=96, height=96, frames=8)
    assert work is not None and work.total_s == pytest.approx(0.434) and not work.note
    refined = work_of(cloud_card(), width=96, height=96, frames=8, steps=8)
    assert refined is not None and refined.total_s == pytest.approx(0.814)


def wanted(**changes: object) -> GenerationInput:
    values = {"prompt": "p", "seed": 3, "width": 64, "height": 64, "frames": 8, "steps": 4, "guidance": 1.0, **changes}
    return GenerationInput(**values)  # type: ignore[arg-type]


def model(folder: Path, *held: Spell) -> SleepingModel:
    write_conduct(folder / "conduct.json", held)
    quick = draft_card().profile[0].model_copy(update={"step_ms": 1.0, "text_ms": 0.0, "upsample_ms": 0.0})
    return SleepingModel(draft_card().model_copy(update={"profile": (quick,)}), folder / "conduct.json", ManualClock())


def test_the_sleeping_model_reports_each_step_and_makes_the_same_clip_again(tmp_path: Path) -> None:
    steps: list[StepReport] = []
    made = model(tmp_path).generate(wanted(), on_step=steps.append, should_stop=lambda: False)
    again = model(tmp_path).generate(wanted(), on_step=lambda _: None, should_stop=lambda: False)
    assert made.shape == (8, 64, 64, 3) and np.array_equal(made, again)
    assert [(one.step, one.steps, one.look is not None) for one in steps] == [(n, 4, True) for n in (1, 2, 3, 4)]


def test_the_sleeping_model_stops_and_fails_as_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(GenerationCancelled):
        model(tmp_path).generate(wanted(), on_step=lambda _: None, should_stop=lambda: True)
    with pytest.raises(InternalError):
        model(tmp_path, Spell(0.0, 1e18, fails=True)).generate(
            wanted(), on_step=lambda _: None, should_stop=lambda: False
        )


def seen(intent: str = "render", deadline_s: float | None = None, **changes: object) -> Seen:
    request = Request("r", 0.0, "edge-1", intent, deadline_s)  # type: ignore[arg-type]
    return Seen(request, decided_by="scheduler-1", **changes)  # type: ignore[arg-type]


def test_qoe_is_that_of_the_formula() -> None:
    assert qoe_of(seen()) == 1.0
    assert qoe_of(seen("iterate", draft_s=0.4)) == pytest.approx(1 + 0.5 * 2.4)
    whole = seen(draft_s=0.4, final_s=3.0, plan="refine", final_steps=8)
    assert qoe_of(whole) == pytest.approx(1 + 0.15 * 2.4 + 0.85 * 3.5)
    reduced = seen(draft_s=0.4, final_s=3.0, plan="reduced", final_steps=4)
    assert qoe_of(reduced) == pytest.approx(1 + 0.15 * 2.4 + 0.85 * 3.2)
    noise = seen(final_s=3.0, plan="cloud", final_steps=16)
    assert qoe_of(noise) == pytest.approx(1 + 0.85 * 3.6)


def test_what_never_comes_counts_as_the_whole_patience() -> None:
    found = figures(
        [
            seen(deadline_s=4.0, first_s=0.2, draft_s=0.4, final_s=4.1, plan="refine", final_steps=8, gpu_s=0.8),
            seen(deadline_s=4.0, first_s=0.2, draft_s=0.4, final_s=3.9, plan="refine", final_steps=8, gpu_s=0.8),
            seen("iterate", first_s=0.2, draft_s=0.4),
            seen(refused="rate_limited"),
        ],
        "scheduler-1",
    )
    assert (found.deadlines, found.gpu_s, found.requests, found.unplaced) == (0.5, 0.4, 4, 0)
    assert found.final_p95_s > 0.9 * PATIENCE_S and found.first_p95_s > 0.8 * PATIENCE_S


def run(qoe: float, gpu_s: float) -> Figures:
    return Figures(qoe, 1.0, 0.5, 3.0, 0.9, gpu_s, 30, 0)


def test_verdicts_need_more_than_chance() -> None:
    runs = {
        OURS: [run(4.0 + n / 100, 0.8) for n in range(5)],
        "less": [run(3.5 + n / 90, 0.8) for n in range(5)],
        "alike": [run(4.0 + (-1) ** n * n / 10, 0.8) for n in range(5)],
    }
    told = verdicts(runs)
    assert (told["qoe"]["less"]["ours"], told["qoe"]["alike"]["ours"]) == ("better", "tied")
    assert told["first_p95_s"]["less"]["ours"] == "tied"


def test_equal_gpu_seconds_lie_between_our_weights() -> None:
    runs = {
        OURS: [run(4.0, 0.8)] * 3,
        FRUGAL: [run(3.0, 0.4)] * 3,
        "half": [run(3.2, 0.6)] * 3,
        "more": [run(3.9, 1.6)] * 3,
        "less": [run(1.5, 0.2)] * 3,
    }
    told = at_equal_gpu(runs)
    assert told["half"]["mean"] == pytest.approx(0.3, abs=0.04) and told["half"]["ours"] == "better"
    assert told["more"]["mean"] == pytest.approx(0.1)
    assert told["less"] == {"ours": "below what ours can do"}
    with_drafts_alone = at_equal_gpu({**runs, "always_edge": [run(1.5, 0.0)] * 3})
    assert with_drafts_alone["less"]["mean"] == pytest.approx(0.75, abs=0.03)


def test_predictions_are_summed_up() -> None:
    told = predicted([(1.0, 1.5, 1.25), (2.0, 2.4, 2.5)])
    assert told["mape"] == pytest.approx(0.2) and told["bias"] == pytest.approx(-0.2)
    assert told["coverage"] == 0.5
    assert predicted([]) == {"finals": 0}


def written(path: Path, first: int, *, load: float = 1.3, **runs: int) -> Path:
    """What a run would have written: so many parts of each policy, all alike."""
    part: dict[str, float] = {
        "qoe": 4.0,
        "first_p95_s": 1.0,
        "draft_mean_s": 0.5,
        "final_p95_s": 3.0,
        "deadlines": 1.0,
        "gpu_s": 0.8,
    }
    part |= {"requests": 20, "unplaced": 0}
    arrivals = {"load": load, "seconds": 20.0, "calm": False, "seeds": [first, first + 1]}
    whole: dict[str, object] = {"command": f"--seed {first}", "hardware": "two cores", "arrivals": arrivals}
    whole |= {"runs": {name: [part] * many for name, many in runs.items()}}
    whole |= {"pairs": [[3.0, 4.0, 3.5]], "load_average": [0.5], "seen": [], "cores_used": 0.4}
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


def test_runs_that_were_written_are_told_as_one(tmp_path: Path) -> None:
    first = written(tmp_path / "1.json", 1, ours=4, peak_ewma=4)
    second = written(tmp_path / "2.json", 5, ours=2, prequal=2, peak_ewma=2)  # which not all ran
    found, commands = joined([first, second])
    assert {name: len(runs) for name, runs in found.runs.items()} == {"ours": 6, "peak_ewma": 6}
    assert found.pairs == [(3.0, 4.0, 3.5)] * 2
    assert commands == ["--seed 1 (two cores)", "--seed 5 (two cores)"]
    assert report(found)["cores_used"] == 0.4


def test_runs_of_arrivals_loads_or_policies_that_do_not_go_together_are_not_told_as_one(tmp_path: Path) -> None:
    first = written(tmp_path / "1.json", 1, ours=4, peak_ewma=4)
    for other, why in (
        (written(tmp_path / "2.json", 2, ours=4, peak_ewma=4), "same arrivals"),  # seed 2 is in both
        (written(tmp_path / "3.json", 9, load=0.6, ours=4, peak_ewma=4), "same load"),
        (written(tmp_path / "4.json", 9, ours=2, peak_ewma=1), "as often"),
        (written(tmp_path / "5.json", 9, prequal=4), "no policy"),
    ):
        with pytest.raises(ValueError, match=why):
            joined([first, other])
