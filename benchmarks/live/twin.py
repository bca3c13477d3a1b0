"""The system of `compare_live` in virtual time: the same load, nodes and links, and the very objects that decide.

What a process does besides waiting (gRPC, storing, encoding) is a constant here, so its figures are not those of the
live run; but thousands of requests take seconds, and nothing else that runs on a machine moves them.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence

from adaptivegen.drafting import Wait, goes_next
from adaptivegen.nodes import HEARTBEAT_S, NodeReport
from adaptivegen.placement import Attempt, Outcome, PlacementQuery, Ticket, plan_of
from benchmarks.live.cards import CLOUD, DRAFT, FRAMES, cloud_card, draft_card
from benchmarks.live.links import Link
from benchmarks.live.load import EDGES, WORKERS, Request, Run
from benchmarks.live.sleeper import FAILS_AFTER_S, SIGMA
from benchmarks.live.system import LINKS, SCHEDULER, TENANT
from benchmarks.live.twin_parts import Job, Node, patient
from benchmarks.live.watch import PATIENCE_S, Seen
from edge_node.draft.budget import Budgets
from edge_node.draft.models import usual_s
from scheduler.decide.balanced import placing_of
from scheduler.decide.placing import PlacingName
from scheduler.decide.policy import Policy
from scheduler.decide.view import NodeTable, View
from scheduler.decide.work import work_of

LEAST_S = 1e-6  # rounding
BEGIN_NS, WARM_S = 10**18, 8.0  # warm: two requests at every edge, before the load begins
ACCEPT_S, STORE_S, COMMIT_S = 0.02, 0.02, 0.03  # of a request; of a draft; of a final
AHEAD_S = 0.3  # so long before its model should be free a worker claims its next job
CLAIM_S, FETCH_S = 0.03, 0.03  # of a job, beside asking whose turn it is; of its draft
CARDS = {DRAFT: draft_card(), CLOUD: cloud_card()}
Pairs = list[tuple[float, float, float]]


class Twin:
    """One scheduler, two edges, two workers."""

    def __init__(
        self,
        placing: PlacingName,
        requests: Sequence[Request],
        *,
        seed: int,
        run: Run,
        costs: dict[str, float],
    ) -> None:
        self._rng = random.Random(f"links {seed}")
        self._chance = random.Random(f"scheduler {seed}")
        self._view = View(nodes=NodeTable(), cards=CARDS, decider=SCHEDULER, policy=Policy().but(costs))
        self._placing = placing_of(placing, self._view)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now_s = 0.0
        behaviour = run.spells(WARM_S)
        self._edges = {name: Node(name, behaviour[name]) for name in EDGES}
        self._workers = {name: Node(name, behaviour[name]) for name in WORKERS}
        self._messages: deque[Job] = deque()
        self._budgets = {name: Budgets() for name in EDGES}
        warm = [
            Request(f"warm {n} {name}", 1.0 + 3 * n, name, "render", None, part=-1) for n in (0, 1) for name in EDGES
        ]
        self._jobs = [Job(n, Seen(one), one.at_s) for n, one in enumerate(warm)]
        self._jobs += [Job(n + len(warm), Seen(one), one.at_s + WARM_S) for n, one in enumerate(requests)]
        self.predictions: Pairs = []  # of finals after the first part: told, upper, observed

    def run(self) -> list[Seen]:
        """All requests, to their ends or to the end of patience."""
        for number, node in enumerate((*self._edges.values(), *self._workers.values())):
            self._at(0.1 * number, self._beating(node))
        for job in self._jobs:
            self._at(job.sent_s, self._call(self._ask, job))
        last_s = self._jobs[-1].sent_s + PATIENCE_S
        while self._events and self._events[0][0] <= last_s:
            self._now_s, _, act = heapq.heappop(self._events)
            act()
        return [patient(job.seen) for job in self._jobs if job.seen.request.part >= 0]

    # ---- time -------------------------------------------------------------------------------------------------

    def _at(self, when_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), act))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self._now_s + seconds, act)

    @staticmethod
    def _call(what: Callable[..., None], *given: object) -> Callable[[], None]:
        return lambda: what(*given)

    def _way_s(self, link: Link) -> float:
        return link.delay_s + self._rng.random() * link.jitter_s

    @property
    def _now_ns(self) -> int:
        return BEGIN_NS + round(self._now_s * 1e9)

    # ---- requests ---------------------------------------------------------------------------------------------

    def _ask(self, job: Job) -> None:
        """A client sends it; its edge asks the scheduler."""
        way_s = self._way_s(LINKS.clients) + ACCEPT_S
        job.accepted_s = self._now_s + way_s
        self._after(way_s + self._way_s(LINKS.scheduler), self._call(self._decide, job))

    def _decide(self, job: Job) -> None:
        request = job.seen.request
        query = PlacementQuery(
            job_id=job.job_id,
            tenant=TENANT,
            edge_id=request.edge_id,
            intent=request.intent,
            draft_model=DRAFT,
            cloud_model=CLOUD,
            width=96,
            height=96,
            frames=FRAMES,
            draft_digest=CARDS[DRAFT].digest,
            deadline_s=request.deadline_s,
            allow_reduced=request.deadline_s is not None,
        )
        job.decision = self._placing.decide(query, now_ns=self._now_ns, rng=self._chance)
        self._placing.record(query, job.decided, now_ns=self._now_ns)
        job.seen.plan, job.seen.decided_by = job.decided.plan, SCHEDULER
        self._after(self._way_s(LINKS.scheduler), self._call(self._carry_out, job))

    def _carry_out(self, job: Job) -> None:
        decision = job.decided
        if decision.makes_final:
            self._messages.append(job)
            self._after(STORE_S, self._pull)
        if not decision.makes_draft:
            return
        self._budgets[decision.edge_id].deposit()
        self._copy(job, decision.drafter)
        if decision.backup_edge_id:
            if decision.tied_after_s:
                self._after(decision.tied_after_s, self._call(self._tie, job))
            self._after(decision.backup_after_s + decision.draft_yields_s, self._call(self._hedge, job))

    # ---- drafts -----------------------------------------------------------------------------------------------

    def _copy(self, job: Job, edge_id: str) -> None:
        job.copies[edge_id] = "waiting"
        self._after(self._to(job, edge_id), self._call(self._enqueue, job, edge_id))

    def _to(self, job: Job, edge_id: str) -> float:
        """Between the accepting edge and the one that drafts."""
        return 0.0 if edge_id == job.decided.edge_id else self._way_s(LINKS.edges) + STORE_S / 2

    def _enqueue(self, job: Job, edge_id: str) -> None:
        edge = self._edges[edge_id]
        job.came_s[edge_id] = self._now_s
        edge.queue.append(job)
        self._draft_next(edge)

    def _tie(self, job: Job) -> None:
        backup = job.decided.backup_edge_id
        if job.waits and backup not in job.copies and self._budgets[job.decided.edge_id].ties.withdraw():
            self._copy(job, backup)

    def _hedge(self, job: Job) -> None:
        decision = job.decided
        backup = decision.backup_edge_id
        late = job.draft_s is None and job.under_way and backup not in job.copies
        if late and self._budgets[decision.edge_id].hedges.withdraw():
            job.late = True
            self._copy(job, backup)

    def _draft_next(self, edge: Node) -> None:
        while edge.at_hand is None and (waiting := edge.waiting):
            job = waiting[goes_next(self._waits(edge, waiting))]
            edge.queue.remove(job)
            job.copies[edge.name] = "running"
            for other, state in job.copies.items():
                if state == "waiting":  # of two that wait the first to start ends the other
                    job.copies[other] = "dropped"
            spell = edge.spell(self._now_s)
            factor = spell.factor * random.Random(f"{DRAFT} {job.seen.request.name}").lognormvariate(0.0, SIGMA)
            took_s = factor * usual_s(CARDS[DRAFT])
            edge.at_hand, edge.begun_s = job, self._now_s
            if spell.fails:
                self._after(FAILS_AFTER_S, self._call(self._draft_failed, edge, job))
                continue
            first_s = factor * CARDS[DRAFT].profile[0].first_look_ms / 1e3
            self._after(first_s, self._call(self._looked, edge, job))
            self._after(took_s, self._call(self._draft_done, edge, job, took_s))

    def _waits(self, edge: Node, waiting: Sequence[Job]) -> list[Wait]:
        return [Wait(self._now_s - job.came_s[edge.name], job.yields_s) for job in waiting]

    def _looked(self, edge: Node, job: Job) -> None:
        if edge.at_hand is job and job.seen.first_s is None:
            job.seen.first_s = self._now_s + self._to(job, edge.name) + self._way_s(LINKS.clients) - job.sent_s

    def _draft_failed(self, edge: Node, job: Job) -> None:
        if edge.at_hand is not job:  # it was stopped
            return
        edge.at_hand = None
        edge.failed_in_row += 1
        job.copies[edge.name] = "failed"
        self._draft_next(edge)
        self._after(self._to(job, edge.name), self._call(self._try_next, job, edge.name))

    def _try_next(self, job: Job, failed: str) -> None:
        home, backup = job.decided.edge_id, job.decided.backup_edge_id
        if failed != home:
            self._placing.attempted(Attempt(node_id=failed, reporter=home, ok=False), now_ns=self._now_ns)
        if job.under_way:
            return
        if home not in job.copies:
            self._copy(job, home)
        elif backup and backup not in job.copies and self._budgets[home].retries.withdraw():
            self._copy(job, backup)
        else:
            job.no_draft = True
            self._after(self._way_s(LINKS.scheduler), self._call(self._view.jobs.drafted, job.job_id))
            if job.waiting:
                job.waiting()
            elif not job.decided.makes_final:
                self._end(job, "failed", None)

    def _draft_done(self, edge: Node, job: Job, took_s: float) -> None:
        if edge.at_hand is not job:  # it was stopped
            return
        edge.at_hand = None
        edge.done(DRAFT, 4, 64, took_s)
        self._draft_next(edge)
        self._after(self._to(job, edge.name), self._call(self._drafted, job, edge.name, took_s))

    def _drafted(self, job: Job, edge_id: str, took_s: float) -> None:
        home = job.decided.edge_id
        if edge_id != home:
            self._edges[home].links[edge_id] = 2 * (LINKS.edges.delay_s + LINKS.edges.jitter_s / 2) + STORE_S / 2
            self._placing.attempted(Attempt(node_id=edge_id, reporter=home, ok=True), now_ns=self._now_ns)
        if job.draft_s is not None:
            return
        job.draft_s, job.drafted_by = self._now_s, edge_id
        for other, state in job.copies.items():
            if other != edge_id and state in ("waiting", "running"):
                job.copies[other] = "dropped"
                node = self._edges[other]
                if node.at_hand is job:
                    node.at_hand = None
                    self._draft_next(node)
        seen_s = self._now_s + STORE_S + self._way_s(LINKS.clients) - job.sent_s
        job.seen.draft_s, job.seen.first_s = seen_s, min(job.seen.first_s or seen_s, seen_s)
        self._after(self._way_s(LINKS.scheduler), self._call(self._view.jobs.drafted, job.job_id))
        if job.waiting:
            job.waiting()
        if not job.decided.makes_final:
            self._end(job, "completed", None)

    # ---- finals -----------------------------------------------------------------------------------------------

    def _pull(self) -> None:
        """Workers that are free, or will be soon, take jobs in the order that the scheduler tells."""
        for worker in self._workers.values():
            while self._messages and self._messages[0].begun:
                self._messages.popleft()
            busy = worker.at_hand is not None and worker.ends_s - self._now_s > AHEAD_S + LEAST_S
            if worker.next is not None or busy or not self._messages:
                continue
            job = next(one for one in self._messages if not one.begun)
            free_in_s = max(0.0, worker.ends_s - self._now_s)
            told = self._view.jobs.next(
                Ticket(
                    worker_id=worker.name,
                    pool="default",
                    model=CLOUD,
                    tenant=TENANT,
                    job_id=job.job_id,
                    models=(CLOUD,),
                    free_in_s=free_in_s,
                ),
                now_ns=self._now_ns,
                slots=len(self._workers),
            )
            if told is not None:
                job = self._jobs[int(told.job_id.removeprefix("vid_"))]
                job.final_steps = told.settled_steps
            job.begun, worker.next, worker.prepared = True, job, False
            self._after(2 * self._way_s(LINKS.scheduler) + CLAIM_S, self._call(self._claimed, worker, job))

    def _claimed(self, worker: Node, job: Job) -> None:
        if job.decided.makes_draft and job.draft_s is None and not job.no_draft:
            job.waiting = self._call(self._fetch, worker, job)
        else:
            self._fetch(worker, job)

    def _fetch(self, worker: Node, job: Job) -> None:
        job.waiting = None
        self._after(FETCH_S, self._call(self._prepared, worker))

    def _prepared(self, worker: Node) -> None:
        worker.prepared = True
        self._generate_next(worker)

    def _generate_next(self, worker: Node) -> None:
        job = worker.next
        if job is None or not worker.prepared or worker.at_hand is not None:
            return
        worker.next, worker.at_hand = None, job
        card, steps = CARDS[CLOUD], job.final_steps or job.decided.final_steps
        if job.decided.makes_draft and job.no_draft:
            steps, job.seen.plan = card.limits.steps_default, "cloud"
        elif job.final_steps:
            job.seen.plan = plan_of(job.decided, job.final_steps)
        factor = random.Random(f"{CLOUD} {job.seen.request.name}").lognormvariate(0.0, SIGMA)
        work = work_of(card, width=96, height=96, frames=FRAMES, steps=steps)
        took_s = factor * work.total_s if work is not None else 0.0
        worker.begun_s, worker.ends_s = self._now_s, self._now_s + took_s
        job.seen.final_steps, job.seen.gpu_s = steps, took_s
        self._after(max(0.0, took_s - AHEAD_S), self._pull)
        self._after(took_s, self._call(self._generated, worker, job, steps, took_s))

    def _generated(self, worker: Node, job: Job, steps: int, took_s: float) -> None:
        worker.at_hand, worker.ends_s = None, 0.0
        worker.done(CLOUD, steps, 96, took_s)
        self._after(COMMIT_S, self._call(self._final_done, worker, job, took_s))
        self._generate_next(worker)
        self._pull()

    def _final_done(self, worker: Node, job: Job, took_s: float) -> None:
        seen_s = self._now_s + self._way_s(LINKS.clients) - job.sent_s
        job.seen.final_s, job.seen.first_s = seen_s, min(job.seen.first_s or seen_s, seen_s)
        self._end(job, "completed", self._now_s - job.accepted_s, worker.name, took_s)

    def _end(self, job: Job, status: str, final_s: float | None, worker_id: str = "", gpu_s: float = 0.0) -> None:
        decision = job.decided
        chosen = decision.chosen()
        warm = job.seen.request.part >= 1
        if warm and chosen and chosen.final_s and final_s and job.seen.plan == decision.plan:
            self.predictions.append((chosen.final_s, chosen.final_upper_s or chosen.final_s, final_s))
        self._placing.ended(
            Outcome(
                job_id=job.job_id,
                edge_id=decision.edge_id,
                worker_id=worker_id,
                plan=job.seen.plan,
                status=status,
                decided_by=decision.decided_by,
                decided_at_ns=decision.decided_at_ns,
                draft_s=job.draft_s - job.accepted_s if job.draft_s is not None else None,
                final_s=final_s,
                drafted_by=job.drafted_by,
                draft_late=job.late and job.drafted_by != decision.drafter,
                tenant=TENANT,
                gpu_s=gpu_s,
            ),
            now_ns=self._now_ns,
        )

    # ---- heartbeats -------------------------------------------------------------------------------------------

    def _beating(self, node: Node) -> Callable[[], None]:
        def beat() -> None:
            self._placing.hear(self._report(node), now_ns=self._now_ns)
            self._after(HEARTBEAT_S, beat)

        return beat

    def _report(self, node: Node) -> NodeReport:
        node.seq += 1
        common = {
            "node_id": node.name,
            "seq": node.seq,
            "sent_at_ns": self._now_ns,
            "started_at_ns": 1,
            "grpc_address": f"{node.name}.example:1",
            "in_flight": (node.at_hand is not None) + (node.next is not None),
            "finished": tuple(node.finished),
            "failed_in_row": node.failed_in_row,
            "capacity": 1,
        }
        if node.name in self._workers:
            left_s = max(0.0, node.ends_s - self._now_s)
            at_hand = tuple(job.job_id for job in (node.at_hand, node.next) if job is not None)
            return NodeReport(
                **common, kind="worker", pool="default", models=(CLOUD,), remaining_s=left_s, at_hand=at_hand
            )
        waits = self._waits(node, node.waiting)
        count = len(waits) + int(node.at_hand is not None)
        return NodeReport(
            **common,
            kind="edge",
            models=(DRAFT,),
            lends=CARDS[DRAFT].digest,
            links=node.links,
            queued=len(waits),
            remaining_s=count * usual_s(CARDS[DRAFT]),
            elapsed_s=self._now_s - node.begun_s if node.at_hand is not None else 0.0,
        )
