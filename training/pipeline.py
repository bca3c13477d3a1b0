"""The stages of a training run in their order, each skipped when done and resumed when interrupted.

Owns the run's folder: plan.json, data set, checkpoints, loss curves. What is published goes to the weights folder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from adaptivegen.models.registry import WEIGHTS
from core_cloud.models.convolution import FrameDoubler, SharpenerParams
from core_cloud.models.enlarge import SpaceTimeUpsampler, UpsamplerParams
from core_cloud.models.finder import Finder, FinderParams
from core_cloud.models.layout import Planner, PlannerParams
from core_cloud.models.video import HEAD, BaseParams, BaseTransformer
from training import distil, publish, train_base, train_finder, train_layout, train_upsampler
from training.data import Dataset, build, load
from training.family import ATTENDING, KV_POOL
from training.fit import Report, Steps, read_checkpoint
from training.plan import Plan, Width, save_plan
from training.text_export import export_text_encoder
from training.train_judge import JudgeSettings, train_judge
from training.train_reader import ReaderSettings, load_reader, train_reader

STAGES = (
    "text",
    "reader",
    "data",
    "planner",
    "finder",
    "base",
    "pruned",
    "draft",
    "upsampler",
    "doubler",
    "judge",
    "export",
    "evaluate",
)


@dataclass(slots=True)
class Training:
    """A run in `folder` by `plan`, publishing into `weights`."""

    folder: Path
    plan: Plan
    threads: int = 2
    weights: Path = WEIGHTS
    compiled: bool = True

    @property
    def text_folder(self) -> Path:
        """Where the text encoder is."""
        return self.weights / "text"

    def run(self, stages: Sequence[str] = STAGES) -> None:
        """These stages in their order."""
        for stage in stages:
            torch.manual_seed(0)  # for every stage, so that a run may be cut into stages anywhere
            getattr(self, stage)()

    def text(self) -> None:
        """Export the text encoder, unless it is there."""
        if not (self.text_folder / "encoder.onnx").exists():
            export_text_encoder(self.text_folder)

    def reader(self) -> None:
        """Train the reader on captions."""
        path = self.folder / "reader.pt"
        if not path.exists():
            settings = ReaderSettings(captions=self.plan.reader_captions, passes=self.plan.reader_passes)
            with _bar("reader", 1.0) as show:
                train_reader(path, self.text_folder, settings, self.threads, show)

    def data(self) -> None:
        """Render the clips and read their captions."""
        folder = self.folder / "data"
        if not (folder / "captions.json").exists():
            reader, _ = load_reader(self.folder / "reader.pt")
            with _bar("data", 2.0) as show:
                build(
                    folder,
                    self.plan.clips,
                    self.plan.seed,
                    reader,
                    self.text_folder,
                    lambda name, share: show(share + (name == "captions"), 0.0),
                    device=self.plan.device,
                    processes=self.threads,
                )

    def planner(self) -> None:
        """Train the planner that both models share."""
        path = self.folder / "planner.pt"
        if self._done("planner", path):
            return
        settings = train_layout.PlannerSettings(
            steps=self._steps("planner"), batch=self.plan.batches["planner"], device=self.plan.device
        )
        with _bar("planner") as show:
            train_layout.train_planner(Planner(PlannerParams()), self._dataset(), path, settings, show)

    def finder(self) -> None:
        """Train the finder that both models share."""
        path = self.folder / "finder.pt"
        if self._done("finder", path):
            return
        settings = train_finder.FinderSettings(
            steps=self._steps("finder"), batch=self.plan.batches["finder"], device=self.plan.device
        )
        with _bar("finder") as show:
            train_finder.train_finder(Finder(FinderParams()), self._dataset(), path, settings, show)

    def base(self) -> None:
        """Train the cloud's base, and the draft's where it has one of its own."""
        self._train_base("base", "cloud", lambda: fresh(self.plan.cloud))
        if self.plan.small is not None:
            small = self.plan.small
            self._train_base("small", "small", lambda: fresh(small))

    def pruned(self) -> None:
        """Train the cloud's base on with most of its attention taken away."""

        def build() -> BaseTransformer:
            whole = train_base.load_base(self.folder / "cloud" / "base.pt")
            return train_base.pruned(whole, kv_pool=KV_POOL, attending=ATTENDING)

        self._train_base("pruned", "pruned", build, muon_rate=0.004, adam_rate=8e-4, seed=5)

    def _train_base(self, stage: str, name: str, build: Callable[[], BaseTransformer], **changed: Any) -> None:
        path = self.folder / name / "base.pt"
        if self._done(stage, path):
            return
        settings = train_base.BaseSettings(
            steps=self._steps(stage),
            batch=self.plan.batches[stage],
            device=self.plan.device,
            compiled=self.compiled,
            **changed,
        )
        with _bar(stage) as show:
            train_base.train_base(build(), self._dataset(), path, settings, show)

    def draft(self) -> None:
        """Distil the draft from the cloud's base."""
        path = self.folder / "draft" / "base.pt"
        if self._done("draft", path):
            return
        teacher = train_base.load_base(self.folder / "cloud" / "base.pt")
        source = "small" if self.plan.small is not None else "cloud"
        student = train_base.load_base(self.folder / source / "base.pt")
        settings = distil.DistilSettings(
            steps=self._steps("draft"),
            batch=self.plan.batches["draft"],
            device=self.plan.device,
            compiled=self.compiled,
        )
        with _bar("draft") as show:
            distil.train_draft(student, teacher, self._dataset(), path, settings, show)

    def upsampler(self) -> None:
        """Train the upsampler that both models share, on renders and on what the base makes of them."""
        path = self.folder / "upsampler.pt"
        if self._done("upsampler", path):
            return
        dataset = self._dataset()
        count = min(self.plan.high_clips, len(dataset))
        high = train_upsampler.render_high(dataset, count, self.folder / "high.npy")
        base = train_base.load_base(self.folder / "cloud" / "base.pt")
        made = train_upsampler.reconstructions(base, dataset, count, seed=3, device=self.plan.device)
        settings = self._upsampler_settings("upsampler")
        with _bar("upsampler") as show:
            model = SpaceTimeUpsampler(UpsamplerParams())
            train_upsampler.train_upsampler(model, dataset, high, made, path, settings, show)

    def doubler(self) -> None:
        """Train the frame doubler behind the upsampler."""
        path = self.folder / "doubler.pt"
        if self._done("doubler", path):
            return
        upsampler = train_upsampler.load_upsampler(self.folder / "upsampler.pt")
        dataset = self._dataset()
        count = min(self.plan.doubled_clips, len(dataset))
        pairs = train_upsampler.doubling_pairs(upsampler, dataset, count, self.plan.device)
        settings = self._upsampler_settings("doubler")
        with _bar("doubler") as show:
            train_upsampler.train_doubler(FrameDoubler(SharpenerParams()), *pairs, path, settings, show)

    def _upsampler_settings(self, stage: str) -> train_upsampler.UpsamplerSettings:
        return train_upsampler.UpsamplerSettings(
            steps=self._steps(stage), batch=self.plan.batches[stage], device=self.plan.device
        )

    def judge(self) -> None:
        """Train the judge of the evaluation."""
        path = self.folder / "judge.pt"
        if not path.exists():
            settings = JudgeSettings(
                clips=self.plan.judge_clips, passes=self.plan.judge_passes, device=self.plan.device
            )
            with _bar("judge", 1.0) as show:
                train_judge(path, settings, show)

    def export(self) -> None:
        """Write graphs and first cards."""
        publish.export_family(self.folder, self.weights, self.threads)

    def evaluate(self) -> None:
        """Measure the family and write report, cards and contact sheets."""
        publish.measure_family(self.folder, self.weights, self.plan.evaluated, self.threads)

    def refining(self) -> None:
        """Search from where and in how many steps drafts are best refined; no part of a whole run."""
        publish.search_refining(self.folder, self.weights, max(1, self.plan.evaluated // 2), self.threads)

    def _dataset(self) -> Dataset:
        dataset = load(self.folder / "data")
        return dataset if self.plan.device == "cpu" else dataset.to(self.plan.device)

    def _done(self, stage: str, path: Path) -> bool:
        """Whether a checkpoint has all the steps that the plan settled for it."""
        if stage not in self.plan.steps or not path.exists():
            return False
        return bool(read_checkpoint(path)["step"] >= self.plan.steps[stage])

    def _steps(self, stage: str) -> Steps:
        """The settled number of steps, or how to settle it from the time one takes."""
        if stage in self.plan.steps:
            return self.plan.steps[stage]

        def settle(seconds: float) -> int:
            steps = max(40, int(self.plan.shares[stage] * 60 / seconds))
            self.plan = self.plan.with_steps(stage, steps)
            save_plan(self.plan, self.folder / "plan.json")
            return steps

        return settle


def fresh(width: Width) -> BaseTransformer:
    """An untrained base of this size."""
    return BaseTransformer(BaseParams(dim=width.dim, depth=width.depth, heads=width.dim // HEAD))


@contextmanager
def _bar(name: str, total: float = 1.0) -> Iterator[Report]:
    """A progress bar over `total` that also shows the loss."""
    with Progress() as progress:
        task = progress.add_task(name, total=total)
        yield lambda share, loss: progress.update(task, completed=share, description=f"{name}: loss {loss:.4f}")
