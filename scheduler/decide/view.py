"""What a decision can see: the nodes by their heartbeats, the open jobs, the model cards, the weights. Pure.

The table is one live object, updated in place. How fresh a report is, is judged by when it arrived here, never by its
sender's clock. A node is `stale` after three missed heartbeats, and forgotten some minutes later.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from adaptivegen.models.card import ModelCard
from adaptivegen.nodes import NodeKind, NodeReport
from adaptivegen.placement import FINAL_PLANS, Attempt, Outcome
from scheduler.decide.health import Healths
from scheduler.decide.hits import Hits
from scheduler.decide.jobs import OpenJob, SentDraft
from scheduler.decide.learn import LEAST_S, MOST_FACTOR
from scheduler.decide.learned import Learned
from scheduler.decide.ledger import OpenJobs
from scheduler.decide.loads import Loads
from scheduler.decide.node import FRESH_FOR_S, Node, NodeCondition
from scheduler.decide.policy import Policy
from scheduler.decide.quota import AdmissionSettings, Quotas
from scheduler.decide.readings import Readings
from scheduler.decide.select import SelectSettings
from scheduler.decide.sessions import Sessions
from scheduler.decide.stored import Stored

FORGET_AFTER_S = 600.0
MAX_NODES = 4096
MAX_PAIRS = 16_384  # of edges between which drafts were placed lately
Verdict = Literal["accepted", "old", "full"]


class NodeTable:
    """All nodes heard of. `repr` shows its state."""

    def __init__(self, *, max_nodes: int = MAX_NODES) -> None:
        self._max_nodes = max_nodes
        self._nodes: dict[str, Node] = {}
        self._serving: dict[tuple[NodeKind, str], dict[str, Node]] = {}
        self._drained: frozenset[str] = frozenset()
        self._digest = 0

    def __repr__(self) -> str:
        return f"NodeTable(nodes={sorted(self._nodes)}, drained={sorted(self._drained)})"

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def get(self, node_id: str) -> Node | None:
        """The node, whatever its condition."""
        return self._nodes.get(node_id)

    # ---- nodes ------------------------------------------------------------------------------------------------

    def observe(self, report: NodeReport, *, now_ns: int) -> Verdict:
        """Take a report that arrived now. `old`: not newer than the one held; `full`: too many nodes.

        A restarted node starts a new life (`started_at_ns`), in which `seq` begins again. One whose clock was set
        back before it restarted looks older, and is taken once its old life has aged out.
        """
        known = self._nodes.get(report.node_id)
        if known is None:
            if len(self._nodes) >= self._max_nodes:
                return "full"
            known = Node(report, now_ns, drained=report.node_id in self._drained)
            self._nodes[report.node_id] = known
            self._serves(known)
        else:
            newer = (report.started_at_ns, report.seq) > (known.report.started_at_ns, known.report.seq)
            if not newer and known.age_s(now_ns) <= FRESH_FOR_S:
                return "old"
            if not newer and report == known.report:
                return "old"  # the very same message, however late: no sign of life
            before = (known.report.kind, known.report.models, known.report.line)
            known.hear(report, now_ns=now_ns)
            if before != (report.kind, report.models, report.line):
                self._serves(known)
        self._mark(known)
        return "accepted"

    def _serves(self, node: Node) -> None:
        """Keep the index of who serves what in step with one node."""
        report = node.report
        for nodes in self._serving.values():
            nodes.pop(report.node_id, None)
        for model in (*report.models, *([_of_line(report.line)] if report.line else [])):
            self._serving.setdefault((report.kind, model), {})[report.node_id] = node
        self._serving = {key: nodes for key, nodes in self._serving.items() if nodes}

    def expire(self, now_ns: int) -> list[str]:
        """Forget nodes silent for long; returns their ids. (Stale ones are shown, and never chosen.)"""
        gone = [node_id for node_id, node in self._nodes.items() if node.age_s(now_ns) > FORGET_AFTER_S]
        for node_id in gone:
            self._digest ^= self._nodes.pop(node_id).fingerprint
            for nodes in self._serving.values():
                nodes.pop(node_id, None)
        return gone

    def set_drained(self, node_ids: Iterable[str]) -> None:
        """The nodes operators keep out of rotation now, whatever their reports say."""
        self._drained = frozenset(node_ids)
        for node_id, node in self._nodes.items():
            if node.drained != (node_id in self._drained):
                node.drained = node_id in self._drained
                self._mark(node)

    @property
    def drained(self) -> frozenset[str]:
        """Ids of the nodes operators keep out of rotation, known or not."""
        return self._drained

    def serving(self, kind: NodeKind, model: str, *, now_ns: int) -> list[Node]:
        """Nodes of a kind that serve `model`, and are healthy as far as that goes."""
        nodes = self._serving.get((kind, model), {}).values()
        return [node for node in nodes if node.condition(now_ns, model=model) == "healthy"]

    def last_pool(self, model: str, line: str = "") -> str | None:
        """The pool of the worker for `model`, or of its line, heard of last, in whatever condition."""
        workers = [node for node in self if node.report.kind == "worker"]
        known = [node for node in workers if model in node.report.models or (line and node.report.line == line)]
        return max(known, key=lambda node: (node.received_at_ns, node.report.node_id)).report.pool if known else None

    # ---- work under way ---------------------------------------------------------------------------------------

    def dispatch_draft(self, edge_id: str, work_s: float, *, now_ns: int, tenant: str = "") -> None:
        """A tenant's draft was placed on this edge; a report will include it soon."""
        node = self._nodes.get(edge_id)
        if node is not None:
            node.send(work_s, now_ns=now_ns, tenant=tenant)
            self._mark(node)

    # ---- identity ---------------------------------------------------------------------------------------------

    def digest(self) -> str:
        """A name for this state: equal digests, equal reports and drains. 16 hex digits."""
        return hashlib.blake2b(f"{self._digest:x}".encode(), digest_size=8).hexdigest()

    def _mark(self, node: Node) -> None:
        """Keep the digest in step with one changed node: the exclusive or of all nodes' fingerprints."""
        report = node.report
        text = f"{report.node_id} {report.started_at_ns} {report.seq} {node.drained} {node.dispatched_s}"
        fingerprint = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())
        self._digest ^= node.fingerprint ^ fingerprint
        node.fingerprint = fingerprint


def _of_line(line: str) -> str:
    """Under which the nodes of a line are found; no model is called so."""
    return f"@{line}"


@dataclass(slots=True)
class View:
    """Everything a decision depends on besides the query, the time and chance; nodes, jobs, policy and learning change.

    stored: bytes of tenants' videos, where they are limited.
    """

    nodes: NodeTable
    cards: Mapping[str, ModelCard]
    decider: str
    default_pool: str = "default"
    policy: Policy = field(default_factory=Policy)
    learned: Learned = field(default_factory=Learned)
    healths: Healths = field(default_factory=Healths)
    sessions: Sessions = field(default_factory=Sessions)
    loads: Loads = field(default_factory=Loads)
    hits: Hits = field(default_factory=Hits)
    select: SelectSettings = field(default_factory=SelectSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    quotas: Quotas = field(default_factory=Quotas)
    readings: Readings = field(default_factory=Readings)
    stored: Stored = field(default_factory=Stored)
    _hashed: tuple[Policy, str] | None = field(default=None, init=False, repr=False, compare=False)  # for the digest
    jobs: OpenJobs = field(init=False)
    _sent: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.jobs = OpenJobs(self.quotas)

    def hear(self, report: NodeReport, *, now_ns: int) -> Verdict:
        """Take a heartbeat that arrived now; see `NodeTable.observe`. What it says was finished is learned from, what
        it says has failed counts against it."""
        known = self.nodes.get(report.node_id)
        life = known.report.started_at_ns if known is not None else None
        verdict = self.nodes.observe(report, now_ns=now_ns)
        if verdict == "accepted":
            if life != report.started_at_ns:
                self.healths.enter(report.node_id, now_s=now_ns / 1e9)
            self.healths.hear(report.node_id, report.failed_in_row, now_s=now_ns / 1e9)
            self.learned.hear(report, self.cards, now_ns=now_ns)
            self.loads.hear(report, now_ns=now_ns)
            self.hits.hear(report)
            if report.kind == "worker":
                first, behind = report.at_hand[: max(1, report.capacity)], report.at_hand[max(1, report.capacity) :]
                generated = (*(first if report.remaining_s > 0 else ()), *report.storing)
                held = (*report.at_hand, *report.storing)
                self.jobs.shown(report.node_id, held, now_ns=now_ns, generating=generated, behind=behind)
        return verdict

    def attempted(self, attempt: Attempt, *, now_ns: int) -> None:
        """An edge tells how it went when it asked another; of other nodes it has nothing to tell."""
        node = self.nodes.get(attempt.node_id)
        if node is not None and node.report.kind == "edge":
            self.healths.attempted(attempt.node_id, attempt.reporter, attempt.ok, now_s=now_ns / 1e9)

    def hear_of(self, job: OpenJob, *, now_ns: int) -> None:
        """Another scheduler has just placed a job: what it sent out counts here, too, and its session stays there. Of a
        job that is known here, or was, the draft is no news. (One that is placed here after that counts twice until
        the next heartbeat.)"""
        if job.sent is not None and job.job_id not in self.jobs and not self.jobs.has_ended(job.job_id):
            self.send(job.sent, tenant=job.tenant, now_ns=now_ns, heard=True)
        self.jobs.hear_of(job, now_ns=now_ns)

    def send(self, draft: SentDraft, *, tenant: str, now_ns: int, heard: bool = False) -> None:
        """A tenant's draft was placed at an edge; heard: by another scheduler."""
        now_s, pair, edge_id = now_ns / 1e9, (draft.asked_by, draft.edge_id), draft.edge_id
        self.nodes.dispatch_draft(edge_id, draft.work_s, now_ns=now_ns, tenant=tenant)
        if not heard or self.sessions.gives_way(tenant, draft.session, edge_id=edge_id, now_s=now_s):
            self.sessions.note(tenant, draft.session, edge_id=edge_id, gain=draft.gain, now_s=now_s)
        self._sent[pair] = now_s
        self._sent.move_to_end(pair)
        while len(self._sent) > MAX_PAIRS:
            self._sent.popitem(last=False)

    def sent_s(self, asking: str, drafting: str) -> float:
        """When one was placed there last; long ago where none was."""
        return self._sent.get((asking, drafting), -math.inf)

    def state(self, node: Node, now_ns: int) -> NodeCondition | Literal["ejected"]:
        """The node's condition as operators see it: a healthy one may have been ejected, unless most were."""
        condition, report, now_s = node.condition(now_ns), node.report, now_ns / 1e9
        if condition != "healthy" or not self.healths.ejected(report.node_id, now_s=now_s):
            return condition
        alike = self.in_rotation(report.kind, report.models[0], now_ns=now_ns) if report.models else [node]
        return condition if node in alike else "ejected"

    def in_rotation(self, kind: NodeKind, model: str, *, now_ns: int, asker: str = "") -> list[Node]:
        """Healthy nodes of a kind that serve `model` and are not ejected; asker: see `Healths.ejected`."""
        nodes = self.nodes.serving(kind, model, now_ns=now_ns)
        return self.healths.in_rotation(nodes, lambda node: node.report.node_id, now_s=now_ns / 1e9, asker=asker)

    def workers(self, model: str, *, now_ns: int, line: str = "") -> dict[str, list[Node]]:
        """Healthy workers that serve `model` and are not ejected, by pool; where there is none, those of its line,
        which make its jobs by the version they have."""
        pools: dict[str, list[Node]] = {}
        found = self.in_rotation("worker", model, now_ns=now_ns)
        for node in found or (self.in_rotation("worker", _of_line(line), now_ns=now_ns) if line else ()):
            pools.setdefault(node.report.pool, []).append(node)
        return pools

    def loading(self, model: str, *, now_ns: int, line: str = "") -> Iterator[tuple[float, Node]]:
        """Workers that are loading `model` or, where they were started with that line, a version of it, and the seconds
        until they should have it; not those of which nothing can be promised."""
        for node in self.nodes:
            report = node.report
            if report.kind != "worker" or not report.loading or node.condition(now_ns) not in ("healthy", "loading"):
                continue
            if self.healths.ejected(report.node_id, now_s=now_ns / 1e9):
                continue
            models = [one.model for one in report.loading if one.model == model or (line and report.line == line)]
            left_s = [self.loads.left_s(report.node_id, name, now_ns=now_ns) for name in models]
            promised = [seconds for seconds in left_s if seconds is not None]
            if promised:
                yield min(promised), node

    def free_at_s(self, node: Node, *, now_ns: int) -> list[float]:
        """When each place of a worker becomes free, in seconds from now: by its report, and by what is known here of
        jobs that it was told since, that have ended since, or that it has and does not generate yet: a draft is waited
        for, or the model is at another, beside which a worker claims its next."""
        report, told = node.report, self.jobs.told(node.report.node_id)
        if told:
            shown = (*report.at_hand, *report.storing)
            told = tuple(job_id for job_id in told if job_id not in shown)[-node.slots :]
        if not told and not report.at_hand:
            return node.slots_free_at_s(now_ns)
        by_report = node.slots_free_at_s(now_ns) if report.remaining_s else []
        at_work = dict(zip(report.at_hand, by_report, strict=False))
        free_s = [0.0] * node.slots
        for job_id in (*report.at_hand, *told):
            if not self.jobs.has_ended(job_id):
                left_s = at_work[job_id] if job_id in at_work else self.jobs.left_s(job_id, now_ns=now_ns)
                heapq.heapreplace(free_s, free_s[0] + left_s)
        return free_s

    def draft_factor(self, edge_id: str, model: str, *, now_ns: int, asker: str = "") -> float:
        """By how much the card's times of a draft are to be multiplied at this edge now: as learned, and at least what
        a last draft that was far slower than that, as the edge or the asker saw it, or the one at hand, gives reason to
        expect."""
        factor = self.learned.edge_factor(edge_id, model, now_s=now_ns / 1e9, asker=asker)
        node = self.nodes.get(edge_id)
        if node is None:
            return factor
        report = node.report
        if not report.in_flight or not report.remaining_s:
            return factor
        card_s = report.remaining_s / (report.in_flight + report.queued)
        if card_s < LEAST_S:
            return factor
        return max(factor, min(report.elapsed_s / card_s, MOST_FACTOR))  # so slow it is, if it were done now

    def pools(self) -> tuple[str, ...]:
        """Pools of all known workers and open jobs, sorted."""
        return tuple(sorted({*self.jobs.pools(), *(n.report.pool for n in self.nodes if n.report.kind == "worker")}))

    def expire(self, *, now_ns: int) -> list[str]:
        """Forget nodes that were silent for long, and what was learned of them; returns their ids."""
        gone = self.nodes.expire(now_ns)
        for node_id in gone:
            self.learned.forget(node_id)
            self.jobs.gone(node_id)
            self.healths.leave(node_id)
            self.loads.forget(node_id)
            self.hits.forget(node_id)
        return gone

    def ended(self, outcome: Outcome, *, now_ns: int) -> dict[str, float]:
        """A job is over: its work no longer waits, its tenant is charged, and predictions learn from it; see
        `Learned.outcome`. The outcome of an older decision, such as of a draft, does not end what was decided since."""
        self._sized(outcome)
        told = outcome.status == "completed" and (outcome.gpu_s > 0 or outcome.plan not in FINAL_PLANS)
        gpu_s = outcome.gpu_s if told else None
        job = self.jobs.get(outcome.job_id)
        if self.quotas.limits_storage:
            self.stored.made(job.tenant if job is not None else outcome.tenant, outcome)
        if job is not None and not 0 < outcome.decided_at_ns < job.decided_at_ns:
            self.jobs.settle(outcome.job_id, gpu_s=gpu_s, now_ns=now_ns, decided_at_ns=max(0, outcome.decided_at_ns))
        elif job is None and gpu_s:
            self.jobs.settle_unknown(outcome.job_id, outcome.tenant, gpu_s, outcome.decided_at_ns, now_ns=now_ns)
        return self.learned.outcome(outcome, decider=self.decider, now_s=now_ns / 1e9)

    def _sized(self, outcome: Outcome) -> None:
        """Files that were made tell how large such files are."""
        final, draft = self.cards.get(outcome.made_with or outcome.cloud_model), self.cards.get(outcome.drafted_with)
        if final is not None and outcome.final_bytes:
            self.learned.sized(final, size_bytes=outcome.final_bytes, pixels=outcome.pixels)
        if draft is not None and outcome.draft_bytes:
            self.learned.sized(draft, size_bytes=outcome.draft_bytes, pixels=outcome.draft_pixels)

    def digest(self) -> str:
        """A name for this state: equal digests of one scheduler, equal nodes, jobs, quotas and what is used
        of them as heard here, learning, ejections, policy."""
        used = f"{self.jobs.revision:x}.{self.jobs.usage.revision:x}.{self.quotas.revision:x}.{self.stored.revision:x}"
        learned = f"{self.learned.revision:x}.{self.hits.revision:x}.{self.healths.revision:x}.{used}"
        if self._hashed is None or self._hashed[0] is not self.policy:
            self._hashed = self.policy, f"{hash(self.policy) & 0xFFFF_FFFF:x}"
        return f"{self.nodes.digest()}-{learned}-{self._hashed[1]}"
