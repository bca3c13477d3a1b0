"""The command line of the training: the whole run, or one of its stages.

`python -m training --device cpu --hours 2` makes the family in two hours, `--plan training/shipped-plan.json` the one
that is shipped in half an hour more, `--device cuda --minutes 20` a larger one.
Every stage is skipped when done and resumed when interrupted.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.registry import WEIGHTS
from training.pipeline import STAGES, Training
from training.plan import Plan, load_plan, planned, save_plan

OTHERS = ("refining", "curve")  # what is run alone only


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stage", nargs="?", default="all", choices=("all", *STAGES, *OTHERS), help="default: all")
    parser.add_argument("--folder", type=Path, default=Path("pocket-training"), help="data sets and checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where text encoder, graphs and cards go")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--plan", type=Path, default=None, help="a plan.json to follow exactly, instead of a time")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=None, help="time of the whole run")
    length.add_argument("--hours", type=float, default=None)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run all stages or one; returns the exit code."""
    options = build_parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        plan = settled_plan(options)
        training = Training(options.folder, plan, options.threads, options.weights, options.compile)
        if options.stage != "curve":
            training.run(STAGES if options.stage == "all" else (options.stage,))
        draw_curves(options.folder)
    except InvalidRequest as exc:
        print(f"error: {exc}")
        return 2
    return 0


def settled_plan(options: argparse.Namespace) -> Plan:
    """The folder's own plan where a run was begun there, else the given one, else one for the time."""
    kept = options.folder / "plan.json"
    if options.plan is not None:
        plan = load_plan(options.plan)
    elif kept.exists():
        plan = load_plan(kept)
    else:
        minutes = options.hours * 60.0 if options.hours is not None else options.minutes
        plan = planned(options.device, minutes)
    if plan.device.split(":")[0] != options.device.split(":")[0]:
        raise InvalidRequest.field("device", options.device, f"{plan.device}, which the plan was made for")
    save_plan(plan, kept)
    return plan


def draw_curves(folder: Path) -> None:
    """A PNG of the loss beside every CSV of it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for path in sorted((*folder.glob("*.csv"), *folder.glob("*/*.csv"))):
        with path.open(newline="") as file:
            rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
        figure, axis = plt.subplots(figsize=(6, 3))
        axis.semilogy([row[0] for row in rows], [row[1] for row in rows])
        axis.set_xlabel("steps")
        axis.set_ylabel("loss")
        figure.tight_layout()
        figure.savefig(path.with_suffix(".png"), dpi=100)
        plt.close(figure)
