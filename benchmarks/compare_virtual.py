"""Our placing against known policies in virtual time: `python -m benchmarks.compare_virtual`.

The load, nodes and links of `compare_live` with the very objects that decide (`live.twin`), over many more arrivals:
RUNS runs of three parts for each load, with a scheduler each that has learned nothing yet. Nothing is timed, so nothing
else on the machine moves the figures; what a process does besides waiting is a constant.

Prints, in Markdown and for each load: each measure by policy with its 95 % interval over the runs (the parts of a run
follow one another on one scheduler, so runs are what is compared); ours less the others' by pairs, after Holm; our QoE
at equal GPU-seconds; how good our predictions of finals were, without those of the first part.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.compare_live import COSTS, POLICIES
from benchmarks.live.figures import OURS, OWN, Figures, at_equal_gpu, figures, pair_lines, predicted, table, verdicts
from benchmarks.live.load import Run
from benchmarks.live.system import SCHEDULER
from benchmarks.live.twin import Pairs, Twin
from scheduler.decide.placing import PlacingName

LOADS = (0.6, 1.0, 1.3)
RUNS, PARTS, SECONDS = 24, 3, 20.0


def one_run(policy: str, run: Run, seed: int) -> tuple[Figures, Pairs]:
    """The figures of one run, and what was predicted of finals after its first part."""
    placing: PlacingName = OURS if policy in OWN else policy  # type: ignore[assignment]
    costs = {"cost_iterate": float(COSTS[policy])} if policy in COSTS else {}
    twin = Twin(placing, run.requests(seed), seed=seed, run=run, costs=costs)
    return figures(twin.run(), SCHEDULER), twin.predictions


def compare(policies: Sequence[str], run: Run, *, runs: int, seed: int) -> None:
    """Run and print."""
    found: dict[str, list[Figures]] = {name: [] for name in policies}
    pairs: Pairs = []
    for number in range(runs):
        for policy in policies:
            one, predictions = one_run(policy, run, seed + number * PARTS)
            found[policy].append(one)
            pairs += predictions if policy == OURS else []
    print(f"\n## Load {run.load:g}{', all nodes well' if run.calm else ''}\n\n" + "\n".join(table(found)))
    compared = OURS in found and len(found) > 1
    told = {**verdicts(found), "qoe at equal GPU-seconds": at_equal_gpu(found)} if compared else {}
    for measure, by_policy in told.items():
        print(f"\n{measure}, ours less theirs:\n" + "\n".join(pair_lines(by_policy)))
    if pairs:
        print(f"\npredictions of finals: {predicted(pairs)}", flush=True)


def main() -> int:
    """Compare at every load; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--loads", default=",".join(f"{load:g}" for load in LOADS))
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--calm", action="store_true", help="no node misbehaves")
    options = parser.parse_args()
    policies = [name for name in options.policies.split(",") if name]
    if unknown := set(policies) - set(POLICIES):
        parser.error(f"no such policies: {', '.join(sorted(unknown))}; known: {', '.join(POLICIES)}")
    for load in options.loads.split(","):
        run = Run(PARTS, SECONDS, float(load), calm=options.calm)
        compare(policies, run, runs=options.runs, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
