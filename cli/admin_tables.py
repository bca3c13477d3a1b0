"""How the answers of `adaptivegen admin` are shown: tables for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console

from cli.rows import Rows

if TYPE_CHECKING:
    from adaptivegen.rpc.admin_rows import (
        AccuracyInfo,
        AuditInfo,
        ChanceInfo,
        DeadLetterInfo,
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


def open_console() -> Console:
    """As wide as the terminal; into a file or another program, where COLUMNS does not say otherwise, `TABLE_CHARS`."""
    return Console(width=shutil.get_terminal_size((TABLE_CHARS, 24)).columns)


def purge_table(kind: str, done: Purged, *, dry_run: bool) -> Rows:
    """What a purge has done, or would do."""
    table = Rows("purge", "jobs looked at", "videos", "bytes", "failed", "done")
    table.add(kind, done.examined, done.videos, done.bytes, done.failed, "no, a dry run" if dry_run else "yes")
    return table


def nodes_table(nodes: list[NodeInfo]) -> Rows:
    """One line for each node."""
    table = Rows(
        "node",
        "kind",
        "state",
        "address",
        "models",
        "running",
        "queued",
        "work",
        "cpu",
        "memory",
        "heard",
        prose=("models",),
    )
    for node in nodes:
        table.add(
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


def paces_table(paces: Iterable[PaceInfo]) -> Rows:
    """How fast nodes are against their cards."""
    table = Rows("node", "model", "times of its card", "observed")
    for pace in paces:
        table.add(pace.node_id, pace.model, f"{pace.factor:.2f}", pace.observations)
    return table


def accuracies_table(accuracies: Iterable[AccuracyInfo]) -> Rows:
    """How good predictions were."""
    table = Rows("predicted", "outcomes", "within the upper", "off by", "upper now")
    for part in accuracies:
        covered = f"{100 * part.covered / part.outcomes:.0f} %" if part.outcomes else "-"
        table.add(part.part, part.outcomes, covered, f"{100 * part.error:.0f} %", f"{part.upper:.2f} times")
    return table


def sizes_table(sizes: Iterable[SizeInfo]) -> Rows:
    """How large clips are."""
    table = Rows("clips of", "with pixels, about", "bytes for a pixel", "learned from")
    for size in sizes:
        table.add(size.model, size.pixels, f"{size.bytes_per_pixel:.4f}", f"{size.clips} clips")
    return table


def ways_table(ways: Iterable[WayInfo]) -> Rows:
    """What moving bytes takes."""
    table = Rows("node", "way", "delay", "rate")
    for way in ways:
        table.add(way.node_id, way.way, f"{way.delay_s:.3f} s", f"{in_bytes(way.bytes_per_s)}/s")
    return table


def loads_table(loads: Iterable[LoadInfo]) -> Rows:
    """What is being loaded."""
    table = Rows("node", "loads", "for")
    for load in loads:
        left = "not known how long" if load.left_s is None else f"{load.left_s:.1f} s more"
        table.add(load.node_id, load.model, left)
    return table


def chances_table(chances: Iterable[ChanceInfo]) -> Rows:
    """How likely requests are answered with what is there, and how good that was known."""
    table = Rows("edge", "tenant", "chance that it is", "now", "requests", "expected", "seen", "Brier")
    for one in chances:
        figures = (f"{100 * one.chance:.0f} %", one.requests, f"{one.expected:.1f}", one.seen, f"{one.brier:.3f}")
        table.add(one.edge_id, one.tenant or "(all)", one.what, *figures)
    return table


def in_bytes(value: float) -> str:
    """With the unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def jobs_table(jobs: list[JobInfo]) -> Rows:
    """One line for each job."""
    table = Rows("job", "tenant", "status", "plan", "edge", "worker", "done", "claims", "created", "took", "error")
    for job in jobs:
        took_s = (job.completed_at_ns - job.created_at_ns) / 1e9 if job.completed_at_ns else None
        table.add(
            job.id,
            job.tenant,
            job.status,
            job.plan,
            job.edge_id,
            job.worker_id or "-",
            f"{job.progress_percent} %",
            job.attempts,
            moment(job.created_at_ns),
            in_seconds(took_s),
            f"{job.error_code}: {job.error_message}" if job.error_code else "-",
        )
    return table


def dead_letters_table(letters: list[DeadLetterInfo]) -> Rows:
    """One line for each message that was given up."""
    table = Rows("given up", "pool", "tenant", "job", "size", "reason")
    for letter in letters:
        job = letter.job_id or "(unreadable)"
        size = f"{letter.size_bytes} B"
        table.add(moment(letter.at_ns), letter.pool, letter.tenant or "-", job, size, letter.reason)
    return table


def pools_table(pools: list[PoolInfo]) -> Rows:
    """One line for each pool, and why it should have so many workers."""
    table = Rows("pool", "workers", "should be", "waiting", "work waiting", "at hand", "arriving", "because")
    for pool in pools:
        table.add(
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


def policy_table(values: Iterable[PolicyValueInfo]) -> Rows:
    """One line for each value."""
    table = Rows("policy", "in force", "as started")
    for value in values:
        table.add(value.name, f"{value.in_force:g}", f"{value.configured:g}")
    return table


def changes_table(changes: Iterable[PolicyChangeInfo]) -> Rows:
    """One line for each change of the policy."""
    differs = "differs from the settings in"
    table = Rows("change", "made", "by", differs, "reason", prose=(differs,))
    for change in changes:
        differing = ", ".join(f"{name}={value:g}" for name, value in sorted(change.values.items()))
        table.add(change.number, moment(change.at_ns), change.by, differing or "nothing", change.reason or "-")
    return table


def tenants_table(tenants: Iterable[TenantInfo]) -> Rows:
    """One line for each tenant: what it uses of what it may."""
    table = Rows(
        "tenant", "jobs", "worker time in the last hour", "open jobs need", "stored", "weight", "priority", "own values"
    )
    for one in tenants:
        table.add(
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


def quota_changes_table(changes: Iterable[QuotaChangeInfo]) -> Rows:
    """One line for each change of a tenant's quota."""
    table = Rows("number", "when", "by", "tenant", "own values after it", "because", prose=("own values after it",))
    for change in changes:
        values = ", ".join(f"{name}={value:g}" for name, value in sorted(change.values.items())) or "none"
        table.add(change.number, moment(change.at_ns), change.by, change.tenant, values, change.reason)
    return table


def lines_table(lines: Iterable[LineInfo]) -> Rows:
    """One line for each model."""
    table = Rows("model", "served by", "before", "tried", "phase", "share", "sessions", "nodes")
    for line in lines:
        phase = f"{line.phase}, paused" if line.paused else line.phase
        nodes = "; ".join(f"{node.node_id}: {_loaded(node)}" for node in line.nodes) or "none"
        share = f"{line.percent:g} %" if line.candidate else "-"
        table.add(
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


def gates_table(line: LineInfo) -> Rows:
    """One line for each comparison of a rollout."""
    table = Rows(f"gate of {line.candidate}", line.stable, line.candidate, "worse by", "may be", "verdict", "needed")
    for gate in line.gates:
        worse = f"{_figure(gate.worse_low)} to {_figure(gate.worse_high)}"
        needed = "to be promoted" if gate.needed else "not to harm"
        cells = (_figure(gate.stable), _figure(gate.candidate), worse, f"{gate.limit:.3g}", gate.verdict, needed)
        table.add(gate.name, *cells)
    return table


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}"


def line_changes_table(changes: Iterable[LineChangeInfo]) -> Rows:
    """One line for each change of a model's versions."""
    table = Rows("number", "when", "by", "model", "action", "served by", "tried", "because", prose=("tried",))
    for change in changes:
        tried = f"{change.candidate} ({change.phase}, {change.percent:g} %)" if change.candidate else "-"
        cells = (change.by, change.line, change.action, change.stable, tried, change.reason)
        table.add(change.number, moment(change.at_ns), *cells)
    return table


def audit_table(entries: Iterable[AuditInfo]) -> Rows:
    """One line for each change that was ordered."""
    table = Rows("ordered", "by", "action", "target", "with", "outcome", prose=("target", "with"))
    for entry in entries:
        details = ", ".join(f"{name}={value}" for name, value in sorted(entry.details.items()))
        table.add(moment(entry.at_ns), entry.by, entry.action, entry.target, details or "-", entry.outcome)
    return table


def fit_table(found: Fit) -> Rows:
    """One line for each value: now, and what the ratings say."""
    table = Rows("policy", "now", "fitted", "95 % interval", "")
    for value in found.values:
        said = "another than now" if value.told_apart else "not told apart from now"
        table.add(value.name, f"{value.now:.3g}", f"{value.fitted:.3g}", f"{value.low:.3g} to {value.high:.3g}", said)
    return table


def in_seconds(value: float | None) -> str:
    """Seconds, where there are any."""
    return "-" if value is None else f"{value:.2f} s"


def moment(at_ns: int) -> str:
    """Wall nanoseconds as UTC; nothing for 0."""
    return datetime.fromtimestamp(at_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%S") if at_ns else "-"
