"""From what clients saw to figures: of one part of a run, then of all of each policy against ours. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.live.cards import cloud_card, draft_card
from benchmarks.live.paired import Interval, holm, interval, paired, quantile
from benchmarks.live.watch import PATIENCE_S, Seen
from scheduler.decide.qoe import QoeSettings, qoe, quality_of

OURS, FRUGAL, LAVISH, NO_CLOUD = "ours", "ours_frugal", "ours_lavish", "always_edge"
OWN = (OURS, FRUGAL, LAVISH)  # at several prices of a cloud second
NEAR = 0.02


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one part of a run. A first frame, or a final that a render asked for, that never came counts as PATIENCE_S.

    qoe: mean, by the project's formula and its default policy, 1 where nothing came; first_p95_s, final_p95_s: of all
    requests, and of the renders; deadlines: share of those that had one whose final came in time; gpu_s: seconds of a
    worker per request, by the manifests; unplaced: requests that no scheduler decided on, or that were refused.
    """

    qoe: float
    first_p95_s: float
    draft_mean_s: float
    final_p95_s: float
    deadlines: float
    gpu_s: float
    requests: int
    unplaced: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One objective: its column, and whether more of it is better."""

    name: str
    title: str
    more: bool
    of: Callable[[Figures], float]


MEASURES = (
    Measure("qoe", "mean QoE", True, lambda found: found.qoe),
    Measure("first_p95_s", "first frame, 95 %", False, lambda found: found.first_p95_s),
    Measure("final_p95_s", "final, 95 %", False, lambda found: found.final_p95_s),
    Measure("deadlines", "deadlines met", True, lambda found: found.deadlines),
    Measure("gpu_s", "GPU-s a request", False, lambda found: found.gpu_s),
)


def qoe_of(seen: Seen) -> float:
    """Of one request, from what its client saw and the qualities that the cards tell."""
    settings, draft, cloud = QoeSettings(), draft_card(), cloud_card()
    drafted = seen.draft_s is not None
    refined = seen.plan == "refine" or (seen.plan == "reduced" and drafted)
    return qoe(
        settings,
        intent=seen.request.intent,
        draft_quality=quality_of(
            draft, "draft", steps=draft.limits.steps_default, width=64, height=64, assumed=settings.unmeasured_draft
        ),
        draft_s=seen.draft_s,
        final_quality=quality_of(
            cloud,
            "refine" if refined else "cloud",
            steps=seen.final_steps or cloud.limits.steps_default,
            width=96,
            height=96,
            assumed=settings.unmeasured_final,
        ),
        final_s=seen.final_s,
    )


def figures(seen: Sequence[Seen], scheduler: str) -> Figures:
    """Of one part, of which there is one request at least."""
    renders = [one for one in seen if one.request.intent == "render"]
    due = [one for one in renders if one.request.deadline_s is not None]
    met = [one for one in due if one.final_s is not None and one.final_s <= (one.request.deadline_s or 0.0)]
    drafts = [one.draft_s for one in seen if one.draft_s is not None]
    return Figures(
        qoe=statistics.fmean(qoe_of(one) for one in seen),
        first_p95_s=quantile([_or_never(one.first_s) for one in seen], 0.95),
        draft_mean_s=statistics.fmean(drafts) if drafts else math.nan,
        final_p95_s=quantile([_or_never(one.final_s) for one in renders], 0.95),
        deadlines=len(met) / len(due) if due else math.nan,
        gpu_s=statistics.fmean(one.gpu_s for one in seen),
        requests=len(seen),
        unplaced=sum(one.decided_by != scheduler for one in seen),
    )


def _or_never(seconds: float | None) -> float:
    return seconds if seconds is not None else PATIENCE_S


def table(runs: Mapping[str, Sequence[Figures]]) -> list[str]:
    """In Markdown: the mean of each measure over the parts, with half of its 95 % interval."""
    lines = [f"| policy | {' | '.join(measure.title for measure in MEASURES)} |", "| --- |" + " --- |" * len(MEASURES)]
    for name, found in runs.items():
        cells = []
        for measure in MEASURES:
            told = interval([value for one in found if not math.isnan(value := measure.of(one))] or [math.nan])
            cells.append(f"{told.mean:.3f} ± {told.half:.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def verdicts(runs: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, dict[str, float | str]]]:
    """By measure and other policy: ours less theirs over pairs of parts, its interval, p after Holm over the policies,
    and in a word whether ours is better, worse, or whether that cannot be told."""
    others = [name for name in runs if name not in OWN]
    found: dict[str, dict[str, dict[str, float | str]]] = {}
    for measure in MEASURES:
        off = {name: _paired(measure, runs[OURS], runs[name]) for name in others}
        adjusted = holm({name: one.p for name, one in off.items()})
        found[measure.name] = {
            name: {**asdict(one), "p_holm": adjusted[name], "ours": _word(one.mean, adjusted[name], measure.more)}
            for name, one in off.items()
        }
    return found


def _paired(measure: Measure, ours: Sequence[Figures], theirs: Sequence[Figures]) -> Interval:
    """Of the parts in which both have the measure; where nobody had a deadline none was met or missed."""
    pairs = [(measure.of(mine), measure.of(other)) for mine, other in zip(ours, theirs, strict=True)]
    both = [pair for pair in pairs if not any(math.isnan(value) for value in pair)]
    return paired([mine for mine, _ in both], [other for _, other in both]) if both else interval([math.nan])


def _word(mean: float, p: float, more: bool) -> str:
    if math.isnan(p):
        return "one part"
    if p >= 0.05:
        return "tied"
    return "better" if (mean > 0) == more else "worse"


def pair_lines(by_policy: Mapping[str, Mapping[str, float | str]]) -> list[str]:
    """What `verdicts` says of one measure, or `at_equal_gpu`, a line for each policy."""
    return [
        f"  {name}: {told['mean']:+.3f} ± {told['half']:.3f}, p {told['p_holm']:.4f}: {told['ours']}"
        if "mean" in told
        else f"  {name}: {told['ours']}"
        for name, told in by_policy.items()
    ]


def at_equal_gpu(runs: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, float | str]]:
    """By other policy: our QoE at its GPU-seconds, less its own, over pairs of parts.

    Ours is known at several prices of a cloud second, and without any cloud second as `always_edge`, where these were
    run. Between two of these our QoE is taken to lie on the line between them, which mixing the two would give; above
    all, ours is the one with most QoE, with fewer GPU-seconds than the other has.
    """
    others = [name for name in runs if name not in (*OWN, NO_CLOUD)]
    known = [name for name in (*OWN, NO_CLOUD) if name in runs]
    found: dict[str, dict[str, float | str]] = {}
    off = {}
    for name in others:
        ours = [_qoe_at(one.gpu_s, [runs[point][part] for point in known]) for part, one in enumerate(runs[name])]
        if any(math.isnan(value) for value in ours):
            found[name] = {"ours": "below what ours can do"}
        else:
            off[name] = paired(ours, [one.qoe for one in runs[name]])
    adjusted = holm({name: one.p for name, one in off.items()})
    for name, one in off.items():
        found[name] = {**asdict(one), "p_holm": adjusted[name], "ours": _word(one.mean, adjusted[name], True)}
    return found


def _qoe_at(gpu_s: float, known: Sequence[Figures]) -> float:
    """Ours at so many GPU-seconds, on lines between what it does; NEAR: share by which our dearest point may exceed
    them before ours is said to need more."""
    points = sorted((one.gpu_s, one.qoe) for one in known)
    if gpu_s < points[0][0]:
        return math.nan
    if gpu_s >= points[-1][0] / (1.0 + NEAR):
        return max(value for _, value in points)
    below = [point for point in points if point[0] <= gpu_s]
    (low_s, low), (high_s, high) = below[-1], next(point for point in points if point[0] > gpu_s)
    return low + (gpu_s - low_s) / (high_s - low_s) * (high - low)


def predicted(pairs: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    """How good predictions of finals were, from predicted, upper and observed seconds: the mean absolute error as a
    share of the observed, its median, and the share of observed times below the upper ones."""
    if not pairs:
        return {"finals": 0}
    errors = [abs(told - seen) / seen for told, _, seen in pairs]
    return {
        "finals": len(pairs),
        "mape": statistics.fmean(errors),
        "median_error": statistics.median(errors),
        "bias": statistics.fmean((told - seen) / seen for told, _, seen in pairs),
        "coverage": statistics.fmean(seen <= upper for _, upper, seen in pairs),
    }
