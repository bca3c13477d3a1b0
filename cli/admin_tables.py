"""How the answers of `adaptivegen admin` are shown: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from adaptivegen.placement import Candidate, Decision
    from adaptivegen.rpc.admin_rows import (
        AccuracyInfo,
        AuditInfo,
        ChanceInfo,
        DeadLetterInfo,
        Explanation,
        JobInfo,
        LineChangeInfo,
        LineInfo,
        LineNodeInfo,
        LoadInfo,
        NodeInfo,
        PaceInfo,
        PolicyChangeInfo,
        PolicyValueInfo,
        PoolInfo,
        Purged,
        QuotaChangeInfo,
        SizeInfo,
        TenantInfo,
        WayInfo,
    )
    from scheduler.decide.fit import Fit

MIB = 1024 * 1024
TABLE_CHARS = 140


def print_json(value: object) -> None:
    """To standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def shown(text: str) -> str:
    """Without what a terminal would obey: names and reasons come from others."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(escape(shown(str(cell))) for cell in cells))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    return table


def open_console() -> Console:
    """At least `TABLE_CHARS` wide: a narrow terminal wraps whole lines, which leaves ids in one piece to copy."""
    return Console(width=max(TABLE_CHARS, Console().width))


def purge_table(kind: str, done: Purged, *, dry_run: bool) -> Table:
    """What a purge has done, or would do."""
    table = _table("purge", "jobs looked at", "videos", "bytes", "failed", "done")
    _row(table, kind, done.examined, done.videos, done.bytes, done.failed, "no, a dry run" if dry_run else "yes")
    return table


def nodes_table(nodes: list[NodeInfo]) -> Table:
    """One line for each node."""
    table = _table("node", "kind", "state", "address", "models", "running", "queued", "work", "cpu", "memory", "heard")
    for node in nodes:
        _row(
            table,
            node.node_id,
            node.kind,
            node.state,
            node.http_url or node.address,
            " ".join(node.models),
            node.in_flight,
            node.queued,
            f"{node.remaining_s:.1f} s",
            f"{node.cpu_percent:.0f} %",
            f"{node.memory_bytes / MIB:.0f} MiB",
            f"{node.report_age_s:.1f} s ago",
        )
    return table


def paces_table(paces: Iterable[PaceInfo]) -> Table:
    """How fast nodes are against their cards."""
    table = _table("node", "model", "times of its card", "observed")
    for pace in paces:
        _row(table, pace.node_id, pace.model, f"{pace.factor:.2f}", pace.observations)
    return table


def accuracies_table(accuracies: Iterable[AccuracyInfo]) -> Table:
    """How good predictions were."""
    table = _table("predicted", "outcomes", "within the upper", "off by", "upper now")
    for part in accuracies:
        covered = f"{100 * part.covered / part.outcomes:.0f} %" if part.outcomes else "-"
        _row(table, part.part, part.outcomes, covered, f"{100 * part.error:.0f} %", f"{part.upper:.2f} times")
    return table


def sizes_table(sizes: Iterable[SizeInfo]) -> Table:
    """How large clips are."""
    table = _table("clips of", "with pixels, about", "bytes for a pixel", "learned from")
    for size in sizes:
        _row(table, size.model, size.pixels, f"{size.bytes_per_pixel:.4f}", f"{size.clips} clips")
    return table


def ways_table(ways: Iterable[WayInfo]) -> Table:
    """What moving bytes takes."""
    table = _table("node", "way", "delay", "rate")
    for way in ways:
        _row(table, way.node_id, way.way, f"{way.delay_s:.3f} s", f"{_bytes(way.bytes_per_s)}/s")
    return table


def loads_table(loads: Iterable[LoadInfo]) -> Table:
    """What is being loaded."""
    table = _table("node", "loads", "for")
    for load in loads:
        left = "not known how long" if load.left_s is None else f"{load.left_s:.1f} s more"
        _row(table, load.node_id, load.model, left)
    return table


def chances_table(chances: Iterable[ChanceInfo]) -> Table:
    """How likely requests are answered with what is there, and how good that was known."""
    table = _table("edge", "tenant", "chance that it is", "now", "requests", "expected", "seen", "Brier")
    for one in chances:
        figures = (f"{100 * one.chance:.0f} %", one.requests, f"{one.expected:.1f}", one.seen, f"{one.brier:.3f}")
        _row(table, one.edge_id, one.tenant or "(all)", one.what, *figures)
    return table


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def jobs_table(jobs: list[JobInfo]) -> Table:
    """One line for each job."""
    table = _table("job", "tenant", "status", "plan", "edge", "worker", "done", "claims", "created", "took", "error")
    for job in jobs:
        took_s = (job.completed_at_ns - job.created_at_ns) / 1e9 if job.completed_at_ns else None
        _row(
            table,
            job.id,
            job.tenant,
            job.status,
            job.plan,
            job.edge_id,
            job.worker_id or "-",
            f"{job.progress_percent} %",
            job.attempts,
            _moment(job.created_at_ns),
            _seconds(took_s),
            f"{job.error_code}: {job.error_message}" if job.error_code else "-",
        )
    return table


def dead_letters_table(letters: list[DeadLetterInfo]) -> Table:
    """One line for each message that was given up."""
    table = _table("given up", "pool", "tenant", "job", "size", "reason")
    for letter in letters:
        job = letter.job_id or "(unreadable)"
        size = f"{letter.size_bytes} B"
        _row(table, _moment(letter.at_ns), letter.pool, letter.tenant or "-", job, size, letter.reason)
    return table


def pools_table(pools: list[PoolInfo]) -> Table:
    """One line for each pool, and why it should have so many workers."""
    table = _table("pool", "workers", "should be", "waiting", "work waiting", "at hand", "arriving", "because")
    for pool in pools:
        _row(
            table,
            pool.pool,
            pool.workers,
            f"{pool.desired}{' (panic)' if pool.panic else ''}",
            pool.waiting,
            f"{pool.waiting_s:.1f} s",
            f"{pool.at_hand_s:.1f} s",
            f"{pool.arriving:.1f} s/s",
            pool.reason,
        )
    return table


def policy_table(values: Iterable[PolicyValueInfo]) -> Table:
    """One line for each value."""
    table = _table("policy", "in force", "as started")
    for value in values:
        _row(table, value.name, f"{value.in_force:g}", f"{value.configured:g}")
    return table


def changes_table(changes: Iterable[PolicyChangeInfo]) -> Table:
    """One line for each change of the policy."""
    table = _table("change", "made", "by", "differs from the settings in", "reason")
    for change in changes:
        differing = ", ".join(f"{name}={value:g}" for name, value in sorted(change.values.items()))
        _row(table, change.number, _moment(change.at_ns), change.by, differing or "nothing", change.reason or "-")
    return table


def tenants_table(tenants: Iterable[TenantInfo]) -> Table:
    """One line for each tenant: what it uses of what it may."""
    table = _table(
        "tenant", "jobs", "worker time in the last hour", "open jobs need", "stored", "weight", "priority", "own values"
    )
    for one in tenants:
        _row(
            table,
            one.tenant,
            _of(f"{one.open_jobs}", one.concurrent_jobs),
            _of(f"{one.used_gpu_s:.1f} s", one.gpu_seconds_per_hour),
            f"{one.reserved_gpu_s:.1f} s",
            "not counted"
            if one.stored is None
            else _of(f"{one.stored / MIB:.1f}", one.stored_bytes, unit=MIB) + " MiB",
            f"{one.weight:g}",
            "yes" if one.priority else "no",
            ", ".join(one.own),
        )
    return table


def _of(used: str, limit: float | None, *, unit: float = 1.0) -> str:
    return used if limit is None else f"{used} of {limit / unit:.6g}"


def quota_changes_table(changes: Iterable[QuotaChangeInfo]) -> Table:
    """One line for each change of a tenant's quota."""
    table = _table("number", "when", "by", "tenant", "own values after it", "because")
    for change in changes:
        values = ", ".join(f"{name}={value:g}" for name, value in sorted(change.values.items())) or "none"
        _row(table, change.number, _moment(change.at_ns), change.by, change.tenant, values, change.reason)
    return table


def lines_table(lines: Iterable[LineInfo]) -> Table:
    """One line for each model."""
    table = _table("model", "served by", "before", "tried", "phase", "share", "sessions", "nodes")
    for line in lines:
        phase = f"{line.phase}, paused" if line.paused else line.phase
        nodes = "; ".join(f"{node.node_id}: {_loaded(node)}" for node in line.nodes) or "none"
        share = f"{line.percent:g} %" if line.candidate else "-"
        _row(
            table,
            line.line,
            line.stable,
            line.previous or "-",
            line.candidate or "-",
            phase,
            share,
            line.sessions,
            nodes,
        )
    return table


def _loaded(node: LineNodeInfo) -> str:
    refused = [f"not {version} ({reason})" for version, reason in sorted(node.refused.items())]
    return ", ".join((*node.loaded, *refused))


def gates_table(line: LineInfo) -> Table:
    """One line for each comparison of a rollout."""
    table = _table(f"gate of {line.candidate}", line.stable, line.candidate, "worse by", "may be", "verdict", "needed")
    for gate in line.gates:
        worse = f"{_figure(gate.worse_low)} to {_figure(gate.worse_high)}"
        needed = "to be promoted" if gate.needed else "not to harm"
        cells = (_figure(gate.stable), _figure(gate.candidate), worse, f"{gate.limit:.3g}", gate.verdict, needed)
        _row(table, gate.name, *cells)
    return table


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"


def line_changes_table(changes: Iterable[LineChangeInfo]) -> Table:
    """One line for each change of a model's versions."""
    table = _table("number", "when", "by", "model", "action", "served by", "tried", "because")
    for change in changes:
        tried = f"{change.candidate} ({change.phase}, {change.percent:g} %)" if change.candidate else "-"
        cells = (change.by, change.line, change.action, change.stable, tried, change.reason)
        _row(table, change.number, _moment(change.at_ns), *cells)
    return table


def audit_table(entries: Iterable[AuditInfo]) -> Table:
    """One line for each change that was ordered."""
    table = _table("ordered", "by", "action", "target", "with", "outcome")
    for entry in entries:
        details = ", ".join(f"{name}={value}" for name, value in sorted(entry.details.items()))
        _row(table, _moment(entry.at_ns), entry.by, entry.action, entry.target, details or "-", entry.outcome)
    return table


def fit_table(found: Fit) -> Table:
    """One line for each value: now, and what the ratings say."""
    table = _table("policy", "now", "fitted", "95 % interval", "")
    for value in found.values:
        said = "another than now" if value.told_apart else "not told apart from now"
        _row(table, value.name, f"{value.now:.3g}", f"{value.fitted:.3g}", f"{value.low:.3g} to {value.high:.3g}", said)
    return table


def print_explanation(console: Console, found: Explanation) -> None:
    """A job, its candidates, the reasons, and what was done otherwise."""
    job, decision = found.job, found.decision
    console.print(f"{job.id} of tenant {job.tenant}: {job.status}", highlight=False, markup=False)
    console.print(
        f"Plan {decision.plan} was decided by {decision.decided_by} at {_moment(decision.decided_at_ns)} "
        f"(edge {decision.edge_id}, pool {decision.pool or '-'}, view {decision.view_digest or '-'}).",
        highlight=False,
        markup=False,
    )
    console.print(_candidates_table(decision.candidates, decision.plan))
    if len(decision.draft_places) > 1:
        console.print(_places_table(decision))
    for heading, lines in (("Reasons", decision.reasons), ("What was done otherwise", found.notes)):
        if lines:
            console.print(f"{heading}:", highlight=False)
            for line in lines:
                console.print(f"  - {shown(line)}", highlight=False, markup=False)


def _candidates_table(candidates: tuple[Candidate, ...], chosen: str) -> Table:
    table = _table("", "plan", "first look", "draft", "final", "QoE", "cloud time", "moved", "score", "because")
    for candidate in candidates:
        known = candidate.feasible
        _row(
            table,
            ">" if candidate.plan == chosen else "",
            candidate.plan,
            _seconds(candidate.first_look_s),
            _seconds(candidate.draft_s),
            _seconds(candidate.final_s),
            f"{candidate.qoe:.2f}" if known else "-",
            _seconds(candidate.gpu_s) if known else "-",
            _bytes(candidate.moved_bytes) if known else "-",
            f"{candidate.score:.2f}" if known else "not possible",
            candidate.reason,
        )
    return table


def _places_table(decision: Decision) -> Table:
    """The edges that could draft, the one that does first."""
    table = _table("", "edge", "draft", "work ahead", "")
    for place in decision.draft_places:
        drafts = place.edge_id == decision.drafter
        backup = f"too, where there is no draft after {decision.backup_after_s:.2f} s"
        said = backup if place.edge_id == decision.backup_edge_id else ""
        _row(table, ">" if drafts else "", place.edge_id, _seconds(place.draft_s), f"{place.load_s:.1f} s", said)
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S") if at_ns else "-"
