"""What a scheduler tells Prometheus, read from its view when it is scraped.

An autoscaler scales a pool by `adaptivegen_scheduler_workers_desired`; of several schedulers the largest counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from adaptivegen.rpc.admin_rows import LineInfo
from scheduler.decide.elastic import Advice
from scheduler.decide.view import View
from scheduler.scaling import Scaling
from scheduler.steady import SteadyTime


class SchedulerMetrics(Collector):
    """Nodes by state, pools with their load and the workers they should have, how good predictions were, and what was
    decided. plans: how often each plan was, with what it was about where it was a refusal; lines: with their
    rollouts."""

    def __init__(
        self,
        view: View,
        scaling: Scaling,
        *,
        time: SteadyTime,
        plans: Mapping[tuple[str, str], int] | None = None,
        lines: Callable[[], Sequence[LineInfo]] = lambda: (),
    ) -> None:
        self._plans = plans if plans is not None else {}
        self._view = view
        self._scaling = scaling
        self._lines = lines
        self._time = time
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now; times in seconds."""
        yield self._nodes()
        yield from self._pools()
        yield from self._predictions()
        yield from self._chances()
        yield from self._placements()
        yield from self._rollouts()

    def _nodes(self) -> Metric:
        now_ns = self._time.now_ns()
        counts = Counter((node.report.kind, self._view.state(node, now_ns)) for node in self._view.nodes)
        family = GaugeMetricFamily("adaptivegen_scheduler_nodes", "Nodes known, by state", labels=("kind", "state"))
        for labels, count in sorted(counts.items()):
            family.add_metric(labels, count)
        return family

    def _pools(self) -> Iterator[Metric]:
        for name, text, read in _POOLS:
            family = GaugeMetricFamily(f"adaptivegen_scheduler_{name}", text, labels=("pool",))
            for pool, advice in self._scaling.advice.items():
                family.add_metric((pool,), read(advice))
            yield family

    def _placements(self) -> Iterator[Metric]:
        placed = CounterMetricFamily("adaptivegen_scheduler_placements", "Requests placed, by plan", labels=("plan",))
        refused = CounterMetricFamily(
            "adaptivegen_scheduler_refusals", "Requests refused, by what it was about", labels=("param",)
        )
        for (plan, param), count in sorted(self._plans.items()):
            if plan == "refuse":
                refused.add_metric((param,), count)
            else:
                placed.add_metric((plan,), count)
        open_jobs = GaugeMetricFamily("adaptivegen_scheduler_open_jobs", "Jobs that have not ended")
        open_jobs.add_metric((), len(self._view.jobs))
        yield from (placed, refused, open_jobs)

    def _rollouts(self) -> Iterator[Metric]:
        share = GaugeMetricFamily(
            "adaptivegen_scheduler_version_percent", "Sessions that a version serves", labels=("line", "version")
        )
        harm = GaugeMetricFamily(
            "adaptivegen_scheduler_rollout_gate",
            "Gates of a rollout: 1 passed, 0 open, -1 harm",
            labels=("line", "version", "gate"),
        )
        for line in self._lines():
            share.add_metric((line.line, line.stable), 100.0 - line.percent)
            if line.candidate:
                share.add_metric((line.line, line.candidate), line.percent)
                for gate in line.gates:
                    verdict = {"passed": 1, "open": 0, "harm": -1}.get(gate.verdict)
                    if verdict is not None:  # there is something to compare with
                        harm.add_metric((line.line, line.candidate, gate.name), verdict)
        yield from (share, harm)

    def _chances(self) -> Iterator[Metric]:
        labels = ("edge", "what")
        chance = GaugeMetricFamily(
            "adaptivegen_scheduler_repeat_chance",
            "Chance that a request's final is stored (known), or such a final in the edge's cache (cached)",
            labels=labels,
        )
        requests = CounterMetricFamily(
            "adaptivegen_scheduler_repeat_requests", "Requests that these chances were learned from", labels=labels
        )
        expected = CounterMetricFamily(
            "adaptivegen_scheduler_repeats_expected", "Of these, as the chance was each time", labels=labels
        )
        seen = CounterMetricFamily("adaptivegen_scheduler_repeats_seen", "Of these, that were so", labels=labels)
        brier = GaugeMetricFamily(
            "adaptivegen_scheduler_repeat_brier", "Mean squared difference of chance and what came", labels=labels
        )
        for known in self._view.hits.all():
            if known.tenant:
                continue
            at = known.edge_id, known.what
            chance.add_metric(at, known.chance)
            requests.add_metric(at, known.seen)
            expected.add_metric(at, known.expected)
            seen.add_metric(at, known.came)
            brier.add_metric(at, known.brier)
        yield from (chance, requests, expected, seen, brier)

    def _predictions(self) -> Iterator[Metric]:
        seen = CounterMetricFamily(
            "adaptivegen_scheduler_outcomes", "Outcomes that could be compared with a prediction", labels=("part",)
        )
        covered = CounterMetricFamily(
            "adaptivegen_scheduler_outcomes_covered", "Of these, within their upper prediction", labels=("part",)
        )
        error = GaugeMetricFamily(
            "adaptivegen_scheduler_prediction_error",
            "Mean absolute share by which the last predictions were off",
            labels=("part",),
        )
        for part, spread in self._view.learned.spreads:
            seen.add_metric((part,), spread.seen)
            covered.add_metric((part,), spread.covered)
            error.add_metric((part,), spread.error)
        yield from (seen, covered, error)


_POOLS: tuple[tuple[str, str, Callable[[Advice], float]], ...] = (
    ("backlog_gpu_seconds", "Predicted seconds of the jobs that no worker has taken", lambda a: a.load.waiting_s),
    ("outstanding_gpu_seconds", "The same with what is left of the jobs at hand", lambda a: a.load.outstanding_s),
    ("jobs_waiting", "Jobs that no worker has taken", lambda a: a.load.waiting),
    ("arriving_gpu_seconds_per_second", "Work that arrives, over the last minute", lambda a: a.arriving),
    ("workers", "Healthy workers", lambda a: a.load.workers),
    ("workers_desired", "Workers that there should be", lambda a: a.workers),
    (
        "advice_at_seconds",
        "When the load was looked at, wall time; old while the broker is away",
        lambda a: a.load.at_s,
    ),
    ("panic", "1 while demand has outrun the workers so far that none may be taken away", lambda a: a.panic),
)
