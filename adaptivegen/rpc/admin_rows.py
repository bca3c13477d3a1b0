"""What operators are told: plain data, as the admin service's answers hold it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from adaptivegen.experience import Rated
from adaptivegen.placement import Decision


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node as a scheduler sees it; `state` is healthy, ejected, stale, draining or loading."""

    node_id: str
    kind: str
    address: str
    http_url: str
    state: str
    models: tuple[str, ...]
    in_flight: int
    queued: int
    remaining_s: float
    report_age_s: float
    cpu_percent: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One job, as far as an operator needs it. Times are wall nanoseconds, 0 where not yet."""

    id: str
    tenant: str
    status: str
    plan: str
    edge_id: str
    worker_id: str
    progress_percent: int
    attempts: int
    created_at_ns: int
    completed_at_ns: int
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """A message that was given up; tenant and job are empty where it named none. `at_ns` is wall nanoseconds."""

    pool: str
    tenant: str
    job_id: str
    reason: str
    at_ns: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PaceInfo:
    """How fast a node is for a model: the factor of the card's times, after so many observations."""

    node_id: str
    model: str
    factor: float
    observations: int


@dataclass(frozen=True, slots=True)
class AccuracyInfo:
    """How good predictions of one part were: "draft", or "final" and its plan.

    covered: outcomes within the upper prediction they were told with; error: mean absolute share by which the last ones
    were off; upper: the upper prediction now, as a multiple of the middle one.
    """

    part: str
    outcomes: int
    covered: int
    error: float
    upper: float


@dataclass(frozen=True, slots=True)
class SizeInfo:
    """How large a model's clips are of about so many pixels, all frames together: bytes of their files for a pixel,
    learned from so many clips."""

    model: str
    pixels: int
    bytes_per_pixel: float
    clips: int


@dataclass(frozen=True, slots=True)
class WayInfo:
    """What moving bytes takes a node lately. way: an edge whose drafts it fetches, `store.put`, or `store.get`."""

    node_id: str
    way: str
    delay_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class LoadInfo:
    """A model that a node is loading; left_s: None where nothing can be promised, as of an overdue load."""

    node_id: str
    model: str
    left_s: float | None


@dataclass(frozen=True, slots=True)
class ChanceInfo:
    """A chance that was learned at an edge. what: `known`, that a request's final is stored already, or `cached`, that
    such a final is in the edge's cache; tenant: empty for all of the edge's.

    requests: that it was learned from; expected: of them, as the chance was each time; seen: that really were so;
    brier: mean squared difference of the two, 0 is perfect.
    """

    edge_id: str
    tenant: str
    what: str
    chance: float
    requests: int
    expected: float
    seen: int
    brier: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a scheduler has learned."""

    paces: tuple[PaceInfo, ...]
    accuracies: tuple[AccuracyInfo, ...]
    sizes: tuple[SizeInfo, ...] = ()
    ways: tuple[WayInfo, ...] = ()
    loads: tuple[LoadInfo, ...] = ()
    chances: tuple[ChanceInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """One pool of workers. desired: workers that there should be; waiting_s and at_hand_s: predicted seconds of jobs
    that wait and of what is left of those at hand; arriving: seconds of work per second."""

    pool: str
    workers: int
    desired: int
    waiting: int
    waiting_s: float
    at_hand_s: float
    arriving: float
    panic: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Scaled:
    """What was done to have so many workers in rotation: ids drained and put back, and how many must be started."""

    drained: tuple[str, ...]
    put_back: tuple[str, ...]
    missing: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job was placed as it was; `notes` say what was done otherwise than decided, and what its two models are to
    one another."""

    job: JobInfo
    decision: Decision
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DecisionInfo:
    """One of the last decisions. draft_s, final_s, qoe, moved_bytes: as predicted of the chosen plan; refused: code of
    the error."""

    at_ns: int
    job_id: str
    tenant: str
    plan: str
    edge_id: str
    draft_edge_id: str
    pool: str
    draft_s: float | None
    final_s: float | None
    qoe: float | None
    moved_bytes: float | None
    reasons: tuple[str, ...]
    refused: str
    refused_param: str


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; empty means all, limit 0 the default."""

    tenant: str = ""
    status: str = ""
    limit: int = 0


@dataclass(frozen=True, slots=True)
class PolicyValueInfo:
    """One value of the policy: as it is in force, and as the scheduler was started with."""

    name: str
    in_force: float
    configured: float


@dataclass(frozen=True, slots=True)
class PolicyChangeInfo:
    """A change of the policy. values: all that then differed from the settings; at_ns: wall nanoseconds."""

    number: int
    values: dict[str, float]
    by: str
    reason: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """What holds for a tenant, None where it is not limited, and what it uses. own: names of the values set for it.

    used_gpu_s: seconds of workers in the last hour; reserved_gpu_s: that its open jobs are predicted to need; stored:
    bytes of its videos and uploads, None where they are not counted.
    """

    tenant: str
    own: tuple[str, ...]
    gpu_seconds_per_hour: float | None
    concurrent_jobs: float | None
    stored_bytes: float | None
    weight: float
    priority: bool
    used_gpu_s: float
    reserved_gpu_s: float
    open_jobs: int
    stored: int | None


@dataclass(frozen=True, slots=True)
class QuotaChangeInfo:
    """A change of a tenant's quota. values: its own after it; at_ns: wall nanoseconds."""

    number: int
    tenant: str
    values: dict[str, float]
    by: str
    reason: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class GateInfo:
    """One comparison of a rollout: by how much the candidate is worse (None: by anything), and what it may be; verdict:
    harm, passed, open, or unmeasured where there is nothing to compare with."""

    name: str
    stable: float | None
    candidate: float | None
    worse_low: float | None
    worse_high: float | None
    limit: float
    verdict: str
    needed: bool


@dataclass(frozen=True, slots=True)
class LineNodeInfo:
    """A node of a line: the versions it has loaded, and those that it could not load, with why."""

    node_id: str
    loaded: tuple[str, ...]
    refused: dict[str, str]


@dataclass(frozen=True, slots=True)
class LineInfo:
    """A name that clients ask for and the version that serves it; while another is tried, how that goes.

    phase: steady, trial, loading or canary; percent: of the sessions, to the candidate; sessions: that it has served,
    as far as they count; phase_s: since this phase or stage began; waits_for: what must come before its next step, in
    words.
    """

    line: str
    stable: str
    previous: str
    candidate: str
    phase: str
    paused: bool
    percent: float
    stages: tuple[float, ...]
    sessions: int
    phase_s: float
    gates: tuple[GateInfo, ...]
    nodes: tuple[LineNodeInfo, ...]
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LineChangeInfo:
    """A change of a line, and how the line is after it. at_ns: wall nanoseconds."""

    number: int
    line: str
    action: str
    stable: str
    candidate: str
    phase: str
    percent: float
    by: str
    reason: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class RolloutOrder:
    """Which version is to be tried for a line, and how; what is None is as by default."""

    line: str
    version: str
    reason: str = ""
    stages: tuple[float, ...] = ()
    stage_s: float | None = None
    min_outcomes: int | None = None
    max_s: float | None = None
    risk: float | None = None
    max_more_failures: float | None = None
    max_slower: float | None = None
    max_fewer_stars: float | None = None

    def plan(self) -> dict[str, object]:
        """What was said of the plan."""
        said = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in said.items() if name not in NO_PLAN and value not in (None, ())}


NO_PLAN = ("line", "version", "reason")
LONGEST_AGE_S = 100 * 365 * 86400.0  # of videos that are purged


@dataclass(frozen=True, slots=True)
class PurgeOrder:
    """Which videos are to be purged: those of which all that is said holds. model: a version, by name or digest;
    after: where the batch before ended; limit: videos of one batch, 0 for the default."""

    ids: tuple[str, ...] = ()
    tenant: str = ""
    content_key: str = ""
    model: str = ""
    older_than_s: float | None = None
    dry_run: bool = False
    after: str = ""
    limit: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Purged:
    """One batch: jobs that were looked at, videos that were purged (or would be) and their bytes, those that could not
    be, and where the next begins; empty where there is none."""

    examined: int
    videos: int
    bytes: int
    failed: int
    next: str


@dataclass(frozen=True, slots=True)
class AuditInfo:
    """A change that an operator ordered. at_ns: wall nanoseconds; outcome: `done` and what, `ordered` where it is
    not known how it ended, or the error."""

    at_ns: int
    scheduler: str
    by: str
    action: str
    target: str
    details: dict[str, str]
    outcome: str


@dataclass(frozen=True, slots=True)
class Ratings:
    """Ratings that tell how long was waited, newest first, and how many do not and were left out."""

    ratings: tuple[Rated, ...]
    left_out: int
