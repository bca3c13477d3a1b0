"""What a training run does: networks, sizes of the data sets, and how the time is shared out among the stages.

The time of a stage becomes a number of steps once, by timing a few on the machine; the numbers are kept in the run's
`plan.json`, so a resumed run, or one that is given that file, does exactly the same.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from adaptivegen.errors import InvalidRequest

# Stages whose length is counted in steps; `small` only where the draft has a base of its own.
STEPPED = ("planner", "finder", "base", "small", "pruned", "draft", "upsampler", "doubler")


@dataclass(frozen=True, slots=True)
class Width:
    """Size of a base transformer."""

    dim: int
    depth: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    shares: minutes of each of the STEPPED stages; steps: their numbers of steps, once they are known. small: a base of
    its own for the draft, trained before it is distilled; None distils a copy of the cloud's. batches: clips per step.
    """

    device: str
    cloud: Width
    small: Width | None
    reader_captions: int
    reader_passes: int
    clips: int
    high_clips: int
    doubled_clips: int
    judge_clips: int
    judge_passes: int
    evaluated: int
    batches: dict[str, int]
    shares: dict[str, float]
    steps: dict[str, int] = field(default_factory=dict)
    seed: int = 7

    @property
    def stepped(self) -> tuple[str, ...]:
        """The stages of this plan whose length is counted in steps."""
        return tuple(name for name in STEPPED if name != "small" or self.small is not None)

    def with_steps(self, stage: str, steps: int) -> "Plan":
        """The same with this stage's steps settled."""
        return replace(self, steps={**self.steps, stage: steps})


CPU = Plan(
    device="cpu",
    cloud=Width(192, 6),
    small=None,
    reader_captions=40_000,
    reader_passes=5,
    clips=40_000,
    high_clips=1_200,
    doubled_clips=300,
    judge_clips=13_000,
    judge_passes=5,
    evaluated=80,
    batches={"planner": 256, "finder": 32, "base": 32, "pruned": 32, "draft": 16, "upsampler": 8, "doubler": 8},
    shares={"planner": 4.0, "finder": 3.0, "base": 40.0, "pruned": 5.0, "draft": 8.0, "upsampler": 6.0, "doubler": 1.5},
)
CUDA = Plan(
    device="cuda",
    cloud=Width(384, 12),
    small=Width(192, 8),
    reader_captions=80_000,
    reader_passes=6,
    clips=200_000,
    high_clips=3_000,
    doubled_clips=600,
    judge_clips=24_000,
    judge_passes=6,
    evaluated=300,
    batches={
        "planner": 1024,
        "finder": 128,
        "base": 256,
        "small": 256,
        "pruned": 256,
        "draft": 128,
        "upsampler": 32,
        "doubler": 32,
    },
    shares={
        "planner": 0.5,
        "finder": 0.3,
        "base": 5.7,
        "small": 2.7,
        "pruned": 0.8,
        "draft": 2.5,
        "upsampler": 1.5,
        "doubler": 0.5,
    },
)
# Minutes of the whole run that `shares` are meant for.
FULL_MINUTES = {"cpu": 120.0, "cuda": 20.0}


def planned(device: str, minutes: float | None) -> Plan:
    """The plan of a device for so many minutes, by default the full ones; the stepped stages take what is left.

    Raises InvalidRequest for an unknown device or a budget too short for what does not scale.
    """
    kind = device.split(":")[0]
    if kind not in FULL_MINUTES:
        raise InvalidRequest.field("device", device, "cpu, cuda or cuda:N")
    plan = replace(CPU if kind == "cpu" else CUDA, device=device)
    whole, stepped = FULL_MINUTES[kind], sum(plan.shares.values())
    least = whole - stepped + 0.02 * stepped
    if minutes is None:
        return plan
    if minutes < least:
        raise InvalidRequest.field("minutes", minutes, f"at least {least:.0f}, which text, data and judge need")
    factor = (minutes - (whole - stepped)) / stepped
    return replace(plan, shares={name: share * factor for name, share in plan.shares.items()})


def save_plan(plan: Plan, path: Path) -> None:
    """Write as indented JSON."""
    path.write_text(json.dumps(asdict(plan), indent=1) + "\n", encoding="utf-8")


def load_plan(path: Path) -> Plan:
    """Read what `save_plan` wrote; raises InvalidRequest when it is no plan."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["cloud"] = Width(**raw["cloud"])
        raw["small"] = Width(**raw["small"]) if raw["small"] else None
        plan = Plan(**raw)
        missing = [name for name in plan.stepped if name not in plan.batches or name not in {*plan.shares, *plan.steps}]
    except (ValueError, TypeError, KeyError) as exc:
        raise InvalidRequest.field("plan", path.name, f"a plan of this version ({exc})") from exc
    if missing:
        raise InvalidRequest.field("plan", path.name, f"a plan with batches and time or steps of {', '.join(missing)}")
    return plan
