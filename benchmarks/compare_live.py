"""Our placing against known policies on a running system: `python -m benchmarks.compare_live`.

Real processes: nats-server, a scheduler, two edges, two workers; their models sleep instead of computing
(`live.sleeper`), everything else is as it is. Links delay and jitter (`live.links`). Requests come through the SDK, as
a Poisson stream with bursts in between; the first edge's model fails at once for a while, twice, and later the second
edge's takes three times as long (`live.load`). Arrivals, intents, deadlines and how long a generation takes but for the
node are the same under every policy of one run. The policies take turns in an order drawn for every run, each with a
scheduler that has learned nothing yet and sees a few requests to their ends before the run counts. A run has parts,
each with its own arrivals and the same misbehaviour; the parts are what is compared by pairs. Parts of one run follow
one another on one scheduler, so they are not quite independent. `--load` says how much is asked for, as a share of what
the workers can do; with `--calm` no node misbehaves.

ours         as it is, with its default policy
ours_frugal  the same, with 3 QoE points in place of 1 for a cloud second when iterating, and
ours_lavish  with none: for comparing at equal GPU-seconds
the others   `scheduler.decide.balanced`, by the scheduler's setting `placing`; their finals are begun as they came, but
             those of peak_ewma_turns in our order

With `--join` nothing is run: what earlier runs of the same load have written (`--json`) is told as one, such as of two
systems that ran side by side on one machine, of the policies that all of them ran; `cores used` is then the most of
one of them.

Prints, in Markdown: each measure by policy with its 95 % interval over the parts; ours less the others' by pairs of
parts, after Holm; our QoE at equal GPU-seconds; how good our predictions of finals were, without a scheduler's first
WARM_S seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.clock import Clock, SystemClock
from benchmarks.live.figures import (
    FRUGAL,
    LAVISH,
    MEASURES,
    OURS,
    OWN,
    Figures,
    at_equal_gpu,
    figures,
    pair_lines,
    predicted,
    table,
    verdicts,
)
from benchmarks.live.load import LOAD, Run
from benchmarks.live.system import LINKS, SCHEDULER, LiveSystem, running
from benchmarks.live.watch import Seen, predictions, run_load
from benchmarks.machine import hardware
from scheduler.decide.placing import PLACINGS

POLICIES = (*OWN, *(name for name in PLACINGS if name != OURS))
COSTS = {FRUGAL: "3", LAVISH: "0"}
WARM_S = 10.0  # of a scheduler's life, before its predictions are counted
Pairs = list[tuple[float, float, float]]


@dataclass(slots=True)
class Found:
    """What all runs gave. cores: CPU seconds by wall seconds, of all processes together."""

    runs: dict[str, list[Figures]] = field(default_factory=dict)
    pairs: Pairs = field(default_factory=list)
    cores: float = 0.0
    loads: list[float] = field(default_factory=list)
    seen: list[dict[str, object]] = field(default_factory=list)


async def one_run(
    system: LiveSystem, blob: BlobStore, policy: str, *, number: int, seed: int, run: Run
) -> tuple[list[Seen], Path]:
    """One policy's run; returns what its clients saw and the folder of its decision log."""
    log = system.folder / "decisions" / f"{policy}-{number}"
    costs = {"COST_ITERATE": COSTS[policy]} if policy in COSTS else {}
    requests = run.requests(seed + number * run.parts)
    async with system.scheduler(OURS if policy in OWN else policy, log, **costs):
        return await run_load(system, requests, blob, tag=f"{policy} {number}", run=run), log


def by_part(seen: Sequence[Seen]) -> list[Figures]:
    """The figures of each part of a run."""
    parts = sorted({one.request.part for one in seen})
    return [figures([one for one in seen if one.request.part == part], SCHEDULER) for part in parts]


async def measure(options: argparse.Namespace, policies: Sequence[str], *, clock: Clock) -> Found:
    """All runs."""
    found, order = Found({name: [] for name in policies}), random.Random(options.seed)
    run = Run(options.parts, options.seconds, options.load, calm=options.calm)
    with tempfile.TemporaryDirectory(prefix="adaptivegen-live-", ignore_cleanup_errors=True) as name:
        async with running(Path(name), LINKS, clock=clock, rng=random.Random(options.seed)) as system:
            blob = open_store(system.store_url)
            began_s, used_s = clock.monotonic_s(), system.cpu_s()
            for number in range(options.runs):
                for policy in order.sample(policies, len(policies)):
                    seen, log = await one_run(system, blob, policy, number=number, seed=options.seed, run=run)
                    found.seen += [{"policy": policy, "run": number, **asdict(one)} for one in seen]
                    parts = by_part(seen)
                    found.runs[policy] += parts
                    found.loads.append(psutil.getloadavg()[0])
                    if policy == OURS:
                        found.pairs += predictions(log, after_s=WARM_S)
                    for part in parts:
                        say(f"run {number + 1} of {options.runs}, {policy}: {_short(part)}")
            found.cores = (system.cpu_s() - used_s) / (clock.monotonic_s() - began_s)
            await blob.close()
    return found


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def _short(one: Figures) -> str:
    told = " ".join(f"{measure.name}={measure.of(one):.3f}" for measure in MEASURES)
    return f"{told} draft={one.draft_mean_s:.3f} requests={one.requests} unplaced={one.unplaced}"


def report(found: Found) -> dict[str, object]:
    """Everything that is told, for the JSON file."""
    compared = OURS in found.runs and len(found.runs) > 1
    return {
        "runs": {name: [asdict(one) for one in runs] for name, runs in found.runs.items()},
        "ours_less_others": verdicts(found.runs) if compared else {},
        "qoe_at_equal_gpu_s": at_equal_gpu(found.runs) if compared and len({*OWN} & {*found.runs}) > 1 else {},
        "predictions": predicted(found.pairs),
        "cores_used": round(found.cores, 3),
        "load_average": [round(load, 2) for load in found.loads],
        "pairs": found.pairs,
        "seen": found.seen,
    }


def joined(paths: Sequence[Path]) -> tuple[Found, list[str]]:
    """What earlier runs found, as one, and their commands. Raises OSError, and ValueError, KeyError or TypeError for
    what is no such file, of another load, or of arrivals that would count twice."""
    wholes = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    seeds = [seed for whole in wholes for seed in whole["arrivals"]["seeds"]]
    if len(set(seeds)) != len(seeds):
        raise ValueError("some are of the same arrivals, which would count twice")
    if len({json.dumps({**whole["arrivals"], "seeds": []}, sort_keys=True) for whole in wholes}) != 1:
        raise ValueError("not all are of the same load")
    found = Found()
    for whole in wholes:
        for name, runs in whole["runs"].items():
            if all(name in other["runs"] for other in wholes):
                found.runs.setdefault(name, []).extend(Figures(**one) for one in runs)
        found.pairs += [tuple(pair) for pair in whole["pairs"]]
        found.loads += whole["load_average"]
        found.seen += whole["seen"]
        found.cores = max(found.cores, whole["cores_used"])
    if len({len(runs) for runs in found.runs.values()}) != 1:
        raise ValueError("no policy is in all, or not all of these policies were run as often as the others")
    return found, [f"{whole['command']} ({whole['hardware']})" for whole in wholes]


def show(found: Found, told: dict[str, object]) -> None:
    """The tables for a person."""
    print("\n".join(table(found.runs)))
    for measure, by_policy in verdicts(found.runs).items() if told["ours_less_others"] else ():
        print(f"\n{measure}, ours less theirs:")
        print("\n".join(pair_lines(by_policy)))
    if told["qoe_at_equal_gpu_s"]:
        print("\nqoe at equal GPU-seconds, ours less theirs:")
        print("\n".join(pair_lines(at_equal_gpu(found.runs))))
    print(f"\npredictions of finals: {told['predictions']}")
    loads = found.loads
    print(f"cores used: {found.cores:.2f}; load average while it ran: {min(loads):.1f} to {max(loads):.1f}")


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2, help="of every policy")
    parser.add_argument("--parts", type=int, default=3, help="of every run, which are compared one by one")
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals in each part")
    parser.add_argument("--load", type=float, default=LOAD, help="arrivals, as a share of what the workers can do")
    parser.add_argument("--policies", default=",".join(POLICIES), help="comma-separated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calm", action="store_true", help="no node misbehaves")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--join", type=Path, nargs="+", help="such files of earlier runs, to be told as one")
    options = parser.parse_args()
    if options.join:
        try:
            found, commands = joined(options.join)
        except (OSError, ValueError, KeyError, TypeError) as exc:
            parser.error(f"--join: {exc!r}")
        if options.json is not None:
            parser.error("--json: what is joined is not written again")
        print("\n".join(f"command:  {command}" for command in commands) + "\n")
        show(found, report(found))
        return 0
    policies = [name for name in options.policies.split(",") if name]
    if unknown := set(policies) - set(POLICIES):
        parser.error(f"no such policies: {', '.join(sorted(unknown))}; known: {', '.join(POLICIES)}")
    machine = hardware()
    command = f"python -m benchmarks.compare_live --runs {options.runs} --parts {options.parts}"
    command += f" --seconds {options.seconds:g} --load {options.load:g} --seed {options.seed}"
    command += f" --policies {options.policies}{' --calm' if options.calm else ''}"
    found = asyncio.run(measure(options, policies, clock=SystemClock()))
    told = report(found)
    print(f"hardware: {machine}\ncommand:  {command}\n")
    show(found, told)
    if options.json is not None:
        arrivals = {"load": options.load, "seconds": options.seconds, "calm": options.calm}
        seeds = list(range(options.seed, options.seed + options.runs * options.parts))
        asked = {"command": command, "arrivals": {**arrivals, "seeds": seeds}}
        whole = {"benchmark": "live", "hardware": machine, **asked, **told}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
