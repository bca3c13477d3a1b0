"""How many workers are advised: enough for what arrives and waits, not fewer too soon; the least to lose go first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import pytest

from adaptivegen.errors import SettingsInvalid
from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Ticket
from scheduler.decide.elastic import Advice, ElasticSettings, Load, Scaler, by_pool, pool_load, scale_order
from tests.unit.scheduler.builders import NOW_NS, open_job, report, table, view


@dataclass
class Pool:
    """A pool in virtual time: a queue of jobs, workers that take them, and an operator who follows advice at once."""

    scaler: Scaler
    workers: int = 1
    start_s: float = 1000.0
    most: int = 64
    now_s: float = 0.0
    queue: deque[float] = field(default_factory=deque)
    at_hand: list[float] = field(default_factory=list)
    history: list[Advice] = field(default_factory=list)

    def second(self, *jobs_s: float, follow: bool = True) -> Advice:
        """One second: these jobs arrive, work is done, advice is asked for."""
        self.queue.extend(jobs_s)
        self.at_hand = [left_s - 1.0 for left_s in self.at_hand if left_s > 1.0]
        while self.queue and len(self.at_hand) < self.workers:
            self.at_hand.append(self.queue.popleft())
        self.now_s += 1.0
        load = Load(
            at_s=self.start_s + self.now_s,
            workers=self.workers,
            slots=self.workers,
            busy_slots=len(self.at_hand),
            at_hand_s=sum(self.at_hand),
            waiting=len(self.queue),
            waiting_s=sum(self.queue),
        )
        advice = self.scaler.observe(load)
        self.history.append(advice)
        if follow:
            self.workers = max(advice.workers, len(self.at_hand))
        return advice

    def seconds(self, count: int, *jobs_s: float, follow: bool = True) -> list[int]:
        """The workers advised in each of so many seconds, in each of which these jobs arrive."""
        return [self.second(*jobs_s, follow=follow).workers for _ in range(count)]


def idle(at_s: float, **changes: object) -> Load:
    values = {"workers": 1, "slots": 1, "busy_slots": 0, "at_hand_s": 0.0, "waiting": 0, "waiting_s": 0.0}
    return Load(at_s=at_s, **{**values, **changes})  # type: ignore[arg-type]


def test_an_idle_pool_keeps_the_fewest_allowed() -> None:
    assert Scaler(ElasticSettings(min_workers=2)).observe(idle(1.0)).workers == 2
    none = idle(1.0, workers=0, slots=0)
    assert Scaler(ElasticSettings(min_workers=0)).observe(none).workers == 0


def test_one_long_job_asks_for_no_second_worker_than_use_wants() -> None:
    """A job cannot be divided: that it is long is no reason for many workers."""
    pool = Pool(Scaler())
    advised = [pool.second(3600.0).workers, *pool.seconds(120)]
    assert max(advised) == 2  # one is busy all the time, and 70 % are wanted


def test_a_pool_of_none_gets_one_as_soon_as_a_job_waits() -> None:
    pool = Pool(Scaler(ElasticSettings(min_workers=0)), workers=0)
    assert pool.seconds(5) == [0] * 5
    assert pool.second(20.0).workers >= 1


def test_steady_work_gets_the_workers_that_are_busy_for_the_share_asked_for() -> None:
    """Five seconds of work per second at 70 %: eight workers, found from one and kept."""
    pool = Pool(Scaler())
    pool.seconds(900, *[1.0] * 5)
    assert set(pool.seconds(600, *[1.0] * 5)) == {8}
    assert not pool.queue


@pytest.mark.parametrize("job_s", [1.0, 2.5, 10.0, 60.0])
def test_a_jump_in_demand_is_met_within_the_time_of_draining(job_s: float) -> None:
    """From nothing to eight seconds of work per second: after a minute and a half nothing waits for over 30 s."""
    pool = Pool(Scaler())
    due, arrivals = 0.0, []
    for _ in range(400):
        due += 8.0
        count = int(due / job_s)
        due -= count * job_s
        arrivals.append(count)
    for second, count in enumerate(arrivals):
        advice = pool.second(*[job_s] * count)
        if second > 90:
            assert advice.load.waiting_s <= 30.0 * pool.workers
    assert len(pool.queue) <= max(1, pool.workers)
    assert 8 <= pool.workers <= 30


def test_a_burst_makes_panic_and_nothing_is_taken_away_in_it() -> None:
    pool = Pool(Scaler(ElasticSettings(stabilise_s=0.0)))
    pool.seconds(100)
    pool.second(*[5.0] * 60)
    advised = pool.seconds(59)
    assert any(advice.panic for advice in pool.history)
    assert max(advised) >= 8
    in_panic = [advice.workers for advice in pool.history if advice.panic]
    assert in_panic == sorted(in_panic)
    later = pool.seconds(200)
    assert later[-1] == 1
    assert not pool.history[-1].panic


def test_fewer_are_asked_for_only_after_fewer_were_enough_for_the_whole_while() -> None:
    pool = Pool(Scaler(ElasticSettings(stabilise_s=300.0)))
    pool.seconds(600, *[1.0] * 5)
    high = pool.workers
    calm = pool.seconds(300)
    assert set(calm[:280]) == {high}
    assert pool.seconds(120)[-1] == 1


def test_a_load_that_comes_and_goes_does_not_make_workers_come_and_go() -> None:
    """A busy minute in every three: the advice settles after the first, instead of following each."""
    pool = Pool(Scaler())
    for _ in range(3):
        pool.seconds(60, *[1.0] * 6)
        pool.seconds(120)
    settled = [*pool.seconds(60, *[1.0] * 6), *pool.seconds(120)]
    assert len(set(settled)) <= 2


def test_what_another_scheduler_placed_counts_as_well() -> None:
    """Nothing waits and nothing was placed here, but all four workers are busy: 4 / 0.7."""
    scaler = Scaler()
    loads = [idle(float(second), workers=4, slots=4, busy_slots=4, at_hand_s=20.0) for second in range(60)]
    assert [scaler.observe(load).workers for load in loads][-1] == 6


def test_workers_of_several_slots_are_counted_by_their_slots() -> None:
    scaler = Scaler()
    loads = [idle(float(second), workers=2, slots=8, busy_slots=8, at_hand_s=40.0) for second in range(60)]
    assert [scaler.observe(load).workers for load in loads][-1] == 3  # 8 / 0.7 slots, of four each


def test_the_most_allowed_is_never_exceeded_and_the_reason_says_so() -> None:
    advice = Scaler(ElasticSettings(max_workers=3)).observe(idle(1.0, waiting=500, waiting_s=5000.0))
    assert advice.workers == 3
    assert "allowed are 1 to 3" in advice.reason


def test_whoever_just_began_to_look_takes_nobody_away() -> None:
    """What the workers were needed for before is not known: after a start, and after a while of seeing nothing."""
    scaler = Scaler()
    loads = [idle(float(second), workers=20, slots=20, busy_slots=3) for second in range(400)]
    advised = [scaler.observe(load).workers for load in loads]
    assert set(advised[:299]) == {20} and advised[399] == 20  # held for as long again, as all that was enough
    calm = [scaler.observe(idle(400.0 + second, workers=20, slots=20, busy_slots=3)).workers for second in range(300)]
    assert calm[-1] == 5
    back = scaler.observe(idle(2000.0, workers=20, slots=20, busy_slots=3))
    assert back.workers == 20


def test_jobs_that_were_waiting_when_looking_began_are_no_arrivals() -> None:
    scaler = Scaler()
    loads = [idle(float(second), waiting=30, waiting_s=300.0, busy_slots=1) for second in range(10)]
    assert [scaler.observe(load).workers for load in loads][-1] == 12  # 1 / 0.7 busy, and 300 s within 30 s


def test_a_new_prediction_of_what_waits_is_no_arrival() -> None:
    scaler = Scaler()
    for second in range(60):
        advice = scaler.observe(
            idle(float(second), waiting=10, waiting_s=100.0 if second < 30 else 400.0, busy_slots=1)
        )
    assert advice.arriving == pytest.approx(1.0)


def test_a_time_that_goes_back_changes_nothing_that_was_known() -> None:
    scaler = Scaler()
    scaler.observe(idle(1000.0, busy_slots=1))
    assert scaler.observe(idle(10.0, busy_slots=1)).workers == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drain_target_s", 0.0),
        ("drain_target_s", float("nan")),
        ("utilisation", 1.5),
        ("panic_ratio", 1.0),
        ("panic_s", 61.0),
        ("min_workers", 65),
        ("max_workers", 5000),
        ("stabilise_s", -1.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        ElasticSettings(**{name: value})  # type: ignore[arg-type]
    assert refused.value.param is not None
    assert str(value) in refused.value.message or str(int(value)) in refused.value.message


def test_the_load_is_that_of_the_pools_healthy_workers() -> None:
    seen = view(
        report("edge-1", in_flight=3, remaining_s=9.0),
        report("worker-1", in_flight=1, remaining_s=4.0),
        report("worker-2", capacity=2, in_flight=1),  # with a job that has outlasted its prediction
        report("worker-3", draining=True, in_flight=1, remaining_s=7.0),
        report("worker-4", ready=False),
        report("worker-5", pool="other", in_flight=1, remaining_s=5.0),
    )
    seen.jobs.place(open_job(work_s=12.0))
    load = pool_load(seen, "default", by_pool(seen)["default"], now_ns=NOW_NS)
    assert (load.workers, load.slots, load.busy_slots) == (2, 3, 2)
    assert (load.waiting, load.waiting_s, load.at_hand_s, load.outstanding_s) == (1, 12.0, 4.0, 16.0)
    silent = pool_load(seen, "default", by_pool(seen)["default"], now_ns=NOW_NS + 60 * 10**9)
    assert silent.workers == 0


def order(
    *reports: NodeReport, wanted: int, scaled_in: tuple[str, ...] = (), drained: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    seen = view(*reports)
    seen.nodes.set_drained([*scaled_in, *drained])
    found = scale_order(seen, by_pool(seen)["default"], wanted, scaled_in=frozenset(scaled_in), now_ns=NOW_NS)
    return found.drain, found.put_back, found.missing


def test_who_has_the_least_to_lose_is_drained_first() -> None:
    pool = [
        report("worker-1", in_flight=1, remaining_s=9.0),
        report("worker-2", in_flight=1, remaining_s=2.0),
        report("worker-3"),
        report("worker-4", started_at_ns=NOW_NS - 10),
        report("worker-5", ready=False),
    ]
    line = ("worker-5", "worker-4", "worker-3", "worker-2", "worker-1")
    for wanted in range(5):
        assert order(*pool, wanted=wanted) == (line[: 5 - wanted], (), 0)
    assert order(*pool, wanted=5) == ((), (), 0)


def test_what_a_worker_has_before_it_counts_also_where_its_heartbeat_does_not_tell_of_it() -> None:
    seen = view(
        report("worker-1", in_flight=1, at_hand=("nearly-done",), remaining_s=2.0),
        report("worker-2", in_flight=2, at_hand=("soon-done", "behind"), remaining_s=1.0),
        report("worker-3", in_flight=1, at_hand=("waits-for-its-draft",)),
        report("worker-4", started_at_ns=NOW_NS - 10),
        report("worker-5"),
    )
    jobs = seen.jobs
    for job_id, work_s in (("nearly-done", 9.0), ("soon-done", 9.0), ("behind", 4.0), ("waits-for-its-draft", 7.0)):
        jobs.place(open_job(job_id, work_s=work_s))
    for worker, held in (("1", ["nearly-done"]), ("2", ["soon-done", "behind"]), ("3", ["waits-for-its-draft"])):
        jobs.shown(f"worker-{worker}", held, now_ns=NOW_NS)
    jobs.place(open_job("told", work_s=3.0))
    ticket = Ticket(worker_id="worker-4", pool="default", model="pocket-cloud", tenant="local", job_id="told")
    assert jobs.next(ticket, now_ns=NOW_NS) is not None
    found = scale_order(seen, by_pool(seen)["default"], 0, scaled_in=frozenset(), now_ns=NOW_NS)
    assert found.drain == ("worker-5", "worker-1", "worker-4", "worker-2", "worker-3")


def test_those_scaled_in_are_put_back_before_any_is_missing() -> None:
    pool = [report(f"worker-{number}", draining=number > 1) for number in range(1, 5)]
    scaled_in = ("worker-2", "worker-3")
    assert order(*pool, wanted=2, scaled_in=scaled_in) == ((), ("worker-3",), 0)
    drain, put_back, missing = order(*pool, wanted=5, scaled_in=scaled_in)
    assert (drain, set(put_back), missing) == ((), set(scaled_in), 2)


def test_one_that_was_scaled_in_and_is_ending_is_missing() -> None:
    pool = [report("worker-1"), report("worker-2", draining=True, ending=True)]
    assert order(*pool, wanted=2, scaled_in=("worker-2",)) == ((), (), 1)


def test_what_an_operator_drained_and_what_is_ending_or_silent_is_left_alone() -> None:
    pool = [report("worker-1"), report("worker-2"), report("worker-3", draining=True)]
    assert order(*pool, wanted=2, drained=("worker-2",)) == ((), (), 1)
    seen = replace(view(), nodes=table(report("worker-1"), now_ns=NOW_NS - 60 * 10**9))
    silent = scale_order(seen, by_pool(seen)["default"], 1, scaled_in=frozenset({"worker-1"}), now_ns=NOW_NS)
    assert (silent.put_back, silent.missing) == ((), 1)
