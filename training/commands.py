"""The command line of the training: every stage a subcommand, each resumable or quick to repeat.

The order: text, data, base, upsampler, grow, doubler, recogniser, export, evaluate. `--folder` keeps everything but
the exported weights.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from adaptivegen.models.registry import WEIGHTS
from adaptivegen.models.text import TextEncoder
from core_cloud.models.pocket import BaseParams, BaseTransformer
from core_cloud.models.upsampler import FrameDoubler, SharpenerParams, SpaceTimeUpsampler, UpsamplerParams
from training import data, publish, train, train_upsampler
from training.recogniser import train_recogniser
from training.text_export import export_text_encoder

Report = Callable[[float, int, float], None]


def build_parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("pocket-training"), help="data sets and checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where text encoder, graphs and cards go")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    stages = parser.add_subparsers(dest="stage", required=True)
    stages.add_parser("text", help="export the text encoder into the weights folder")
    stage = stages.add_parser("data", help="render the data set and embed its captions")
    stage.add_argument("--clips", type=int, default=30_000)
    stage.add_argument("--seed", type=int, default=7)
    stage = stages.add_parser("base", help="train the base transformer")
    _add_budget(stage, 40.0)
    stage.add_argument("--name", default="draft", help="folder of the checkpoint")
    stage.add_argument("--dim", type=int, default=192)
    stage.add_argument("--depth", type=int, default=6)
    stage.add_argument("--batch", type=int, default=32)
    stage.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    stage = stages.add_parser("grow", help="deepen the draft's base without changing it and train on, for the cloud")
    _add_budget(stage, 8.0)
    stage.add_argument("--depth", type=int, default=9)
    stage.add_argument("--batch", type=int, default=32)
    stage = stages.add_parser("upsampler", help="train the space-time upsampler of a base")
    _add_budget(stage, 8.0)
    stage.add_argument("--name", default="draft")
    stage.add_argument("--clips", type=int, default=1000)
    stage.add_argument("--grow", type=int, default=0, help="start from the draft's upsampler at this depth")
    stage = stages.add_parser("doubler", help="train the frame doubler behind the cloud's upsampler")
    _add_budget(stage, 4.0)
    stages.add_parser("recogniser", help="train the judge")
    stages.add_parser("export", help="write the ONNX files and cards of both models")
    stage = stages.add_parser("evaluate", help="measure accuracy and times and write them into the cards")
    stage.add_argument("--clips", type=int, default=96)
    stage.add_argument("--sheet", type=Path, default=None, help="PNG of drafts above finals")
    stages.add_parser("curve", help="write loss.png beside every loss.csv")
    return parser


def _add_budget(stage: argparse.ArgumentParser, minutes: float) -> None:
    group = stage.add_mutually_exclusive_group()
    group.add_argument("--minutes", type=float, default=minutes, help=f"training time (default {minutes:g})")
    group.add_argument("--hours", type=float, default=None)


def main(arguments: Sequence[str]) -> int:
    """Run one stage; returns the exit code."""
    options = build_parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    options.folder.mkdir(parents=True, exist_ok=True)
    if getattr(options, "hours", None) is not None:
        options.minutes = options.hours * 60.0
    STAGES[options.stage](options)
    return 0


def _bar(minutes: float, run: Callable[[Report], object]) -> None:
    """Run with a progress bar over the time budget that shows step and loss."""
    with Progress() as progress:
        task = progress.add_task("starting", total=minutes)
        run(lambda spent, step, loss: progress.update(task, completed=spent, description=f"{step}: loss {loss:.4f}"))


def _text(options: argparse.Namespace) -> None:
    export_text_encoder(options.weights / "text")


def _data(options: argparse.Namespace) -> None:
    encoder = TextEncoder(options.weights / "text", threads=options.threads)
    with Progress() as progress:
        tasks = {name: progress.add_task(name, total=1.0) for name in ("clips", "captions")}
        data.build(
            options.folder / "data",
            options.clips,
            options.seed,
            encoder,
            lambda name, share: progress.update(tasks[name], completed=share),
            options.device,
        )


def _settings(options: argparse.Namespace) -> train.TrainSettings:
    compiled = bool(getattr(options, "compile", True))
    return train.TrainSettings(minutes=options.minutes, batch=options.batch, device=options.device, compiled=compiled)


def _base(options: argparse.Namespace) -> None:
    dataset = data.load(options.folder / "data")
    model = BaseTransformer(BaseParams(dim=options.dim, depth=options.depth, heads=options.dim // 64))
    tokens, mask, _ = dataset.text(np.arange(min(2000, len(dataset))))
    model.standardise.fit(tokens, mask)
    settings = _settings(options)
    _bar(
        options.minutes,
        lambda report: train.train_base(model, dataset, options.folder / options.name, settings, report),
    )


def _grow(options: argparse.Namespace) -> None:
    model = train.grow(train.load_base(options.folder / "draft" / "base.pt"), options.depth)
    settings = replace(_settings(options), muon_rate=0.004, adam_rate=6e-4)
    dataset = data.load(options.folder / "data")
    _bar(options.minutes, lambda report: train.train_base(model, dataset, options.folder / "cloud", settings, report))


def _upsampler(options: argparse.Namespace) -> None:
    dataset = data.load(options.folder / "data")
    high = train_upsampler.render_high(dataset, options.clips, options.folder / "high.npy")
    base = train.load_base(options.folder / options.name / "base.pt")
    made = train_upsampler.reconstructions(base, dataset, options.clips, seed=3, device=options.device)
    if options.grow:
        small = train_upsampler.load_upsampler(options.folder / "draft" / "upsampler.pt")
        model = train_upsampler.grow_upsampler(small, options.grow)
    else:
        model = SpaceTimeUpsampler(UpsamplerParams())
        tokens, mask, _ = dataset.text(np.arange(min(2000, len(dataset))))
        model.standardise.fit(tokens, mask)
    _bar(
        options.minutes,
        lambda report: train_upsampler.train_upsampler(
            model,
            dataset,
            high,
            made,
            options.folder / options.name / "upsampler.pt",
            options.minutes,
            report,
            device=options.device,
        ),
    )


def _doubler(options: argparse.Namespace) -> None:
    dataset = data.load(options.folder / "data")
    upsampler = train_upsampler.load_upsampler(options.folder / "cloud" / "upsampler.pt")
    frames, target = train_upsampler.doubling_pairs(upsampler, dataset, 250)
    _bar(
        options.minutes,
        lambda report: train_upsampler.train_doubler(
            FrameDoubler(SharpenerParams()),
            frames,
            target,
            options.folder / "cloud" / "doubler.pt",
            options.minutes,
            report,
            device=options.device,
        ),
    )


def _recogniser(options: argparse.Namespace) -> None:
    with Progress() as progress:
        task = progress.add_task("recogniser", total=8)
        train_recogniser(
            options.folder / "recogniser.pt", report=lambda epoch, _: progress.update(task, completed=epoch + 1)
        )


def _export(options: argparse.Namespace) -> None:
    publish.export_models(options.folder, options.weights)


def _evaluate(options: argparse.Namespace) -> None:
    publish.measure_models(options.folder, options.weights, options.clips, options.threads, options.sheet)


def _curve(options: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for path in sorted(options.folder.glob("*/loss.csv")):
        with path.open(newline="") as file:
            rows = [(float(row["minutes"]), float(row["loss"])) for row in csv.DictReader(file)]
        figure, axis = plt.subplots(figsize=(6, 3))
        axis.semilogy([row[0] for row in rows], [row[1] for row in rows])
        axis.set_xlabel("minutes of training")
        axis.set_ylabel("velocity loss")
        figure.tight_layout()
        figure.savefig(path.with_suffix(".png"), dpi=100)
        plt.close(figure)


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "text": _text,
    "data": _data,
    "base": _base,
    "grow": _grow,
    "upsampler": _upsampler,
    "doubler": _doubler,
    "recogniser": _recogniser,
    "export": _export,
    "evaluate": _evaluate,
    "curve": _curve,
}
