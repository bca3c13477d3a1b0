"""How decisions are shown: the last ones in a table, one with all that was weighed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console

from cli.admin_tables import in_bytes, in_seconds, moment
from cli.rows import Rows, shown

if TYPE_CHECKING:
    from adaptivegen.placement import Candidate, Decision
    from adaptivegen.rpc.admin_rows import DecisionInfo, Explanation


def decisions_table(decisions: Iterable[DecisionInfo]) -> Rows:
    """One line for each decision, with the first of its reasons."""
    table = Rows("decided", "job", "tenant", "plan", "edge", "draft, final", "QoE", "because", prose=("edge",))
    for one in decisions:
        table.add(
            moment(one.at_ns).partition("-")[2],  # of this year, or the last days of the one before
            one.job_id,
            one.tenant,
            one.plan,
            f"{one.edge_id} ({one.draft_edge_id} drafts)" if one.draft_edge_id else one.edge_id,
            f"{in_seconds(one.draft_s)}, {in_seconds(one.final_s)}" if one.qoe is not None else "-",
            "-" if one.qoe is None else f"{one.qoe:.2f}",
            one.reasons[0] if one.reasons else "-",
        )
    return table


def print_explanation(console: Console, found: Explanation) -> None:
    """A job, its candidates, the reasons, and notes."""
    job, decision = found.job, found.decision
    console.print(f"{job.id} of tenant {job.tenant}: {job.status}", highlight=False, markup=False)
    console.print(
        f"Plan {decision.plan} was decided by {decision.decided_by} at {moment(decision.decided_at_ns)} "
        f"(edge {decision.edge_id}, pool {decision.pool or '-'}, view {decision.view_digest or '-'}).",
        highlight=False,
        markup=False,
    )
    console.print(_candidates_table(decision.candidates, decision.plan))
    if len(decision.draft_places) > 1:
        console.print(_places_table(decision))
    for heading, lines in (("Reasons", decision.reasons), ("Notes", found.notes)):
        if lines:
            console.print(f"{heading}:", highlight=False)
            for line in lines:
                console.print(f"  - {shown(line)}", highlight=False, markup=False)


def _candidates_table(candidates: tuple[Candidate, ...], chosen: str) -> Rows:
    table = Rows("", "plan", "first look", "draft", "final", "QoE", "cloud time", "moved", "score", "because")
    for candidate in candidates:
        taken = candidate.plan == chosen
        late = taken and not candidate.feasible and candidate.gpu_s > 0.0  # of what cannot be predicted there is none
        known = candidate.feasible or late
        table.add(
            ">" if taken else "",
            candidate.plan,
            in_seconds(candidate.first_look_s),
            in_seconds(candidate.draft_s),
            in_seconds(candidate.final_s),
            f"{candidate.qoe:.2f}" if known else "-",
            in_seconds(candidate.gpu_s) if known else "-",
            in_bytes(candidate.moved_bytes) if known else "-",
            f"{candidate.score:.2f}" if known else _unknown(taken=taken),
            f"late: {candidate.reason}" if late else candidate.reason,
        )
    return table


def _unknown(*, taken: bool) -> str:
    return "not known" if taken else "not possible"


def _places_table(decision: Decision) -> Rows:
    """The edges that could draft, the one that does first."""
    table = Rows("", "edge", "draft", "work ahead", "")
    for place in decision.draft_places:
        drafts = place.edge_id == decision.drafter
        backup = f"too, where there is no draft after {decision.backup_after_s:.2f} s"
        said = backup if place.edge_id == decision.backup_edge_id else ""
        table.add(">" if drafts else "", place.edge_id, in_seconds(place.draft_s), f"{place.load_s:.1f} s", said)
    return table
