"""Writes what the services load: ONNX files under the weights folder and the cards with measured times and quality."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptivegen.models.base import SplitGenerator
from adaptivegen.models.card import CardFile, ModelCard, Profile, Quality, Score, card_digest, dump_card
from adaptivegen.models.cascade import CascadeGenerator
from adaptivegen.models.cascade_onnx import CascadeOnnx
from adaptivegen.models.registry import load_card, needed_files, open_generator
from core_cloud.models.reader import Reader
from training import export, refining, report
from training.captions import sample_caption
from training.data import draw_scenes
from training.embedding import embed
from training.evaluate import Recipe, asked
from training.family import CLOUD, DRAFT, FAMILY, MIXED, PATH, PRUNED, REFINE, SHARED, TEXT_FILES, VARIANTS, VERSION
from training.scores import Scored
from training.statistics import Figure
from training.timing import hardware_name, request_for, time_model
from training.train_base import load_base
from training.train_finder import load_finder
from training.train_judge import load_judge
from training.train_layout import load_planner
from training.train_reader import load_reader
from training.train_upsampler import load_doubler, load_upsampler

KNOWN_CAPTIONS = 4000
KNOWN_SEED = 500_001
SEARCH_SEED = 830_001  # of prompts that the report, which confirms what is found, does not use


def export_family(folder: Path, weights: Path, processes: int) -> None:
    """Write the text side, all models' graphs and first cards from the checkpoints in `folder`."""
    for name in (*FAMILY, SHARED):
        (weights / name).mkdir(parents=True, exist_ok=True)
    export_text(load_reader(folder / "reader.pt")[0], weights, processes)
    shared = {logical: weights / path for logical, path in FAMILY[CLOUD].files.items()}
    export.export_planner(load_planner(folder / "planner.pt"), shared["planner"])
    export.export_finder(load_finder(folder / "finder.pt"), shared["finder"])
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.onnx"
        for name, trained in ((DRAFT, "draft"), (MIXED, "cloud"), (CLOUD, "cloud"), (PRUNED, "pruned")):
            quantised = FAMILY[name].precision == "mixed"
            export.export_base(load_base(folder / trained / "base.pt"), raw, fold=quantised)
            store = export.dynamic_int8 if quantised else export.store_half
            store(raw, weights / FAMILY[name].files["base"])
        export.export_upsampler(load_upsampler(folder / "upsampler.pt"), raw)
        export.store_half(raw, shared["upsampler"])
        export.export_doubler(load_doubler(folder / "doubler.pt"), raw)
        export.store_half(raw, shared["doubler"])
    for name in FAMILY:
        write_card(name, weights, (), {})


def export_text(reader: Reader, weights: Path, processes: int) -> None:
    """The reader's graph, and the known captions' pooled vectors as int8 (KNOWN_CAPTIONS, 384)."""
    export.export_reader(reader, weights / TEXT_FILES["reader"])
    rng = random.Random(KNOWN_SEED)
    captions = [sample_caption(scene, rng) for scene in draw_scenes(KNOWN_CAPTIONS, KNOWN_SEED, novel=None)]
    pooled = embed(captions, weights / "text", processes).pooled.astype(np.float32)
    scale = 127.0 / np.abs(pooled).max(axis=1, keepdims=True)
    np.save(weights / TEXT_FILES["captions"], np.rint(pooled * scale).astype(np.int8))


def write_card(
    name: str,
    weights: Path,
    profile: Sequence[Profile],
    quality: dict[str, Quality],
    scores: Sequence[Score] = (),
) -> ModelCard:
    """Card of the files as they are now, with these measurements."""
    member = FAMILY[name]
    files: dict[str, CardFile] = {
        logical: export.card_file(weights / path, weights) for logical, path in member.files.items()
    }
    card = ModelCard(
        name=name,
        version=VERSION,
        role=member.role,
        description=member.description,
        latent_space="pixels",
        precision=member.precision,
        files=files,
        limits=member.limits,
        refine=member.refine,
        path=PATH,
        split=member.split,
        profile=tuple(profile),
        quality=quality,
        scores=tuple(scores),
        digest=card_digest(name, VERSION, files),
    )
    (weights / name / "card.json").write_text(dump_card(card), encoding="utf-8")
    return card


def card_quality(figures: dict[str, Any]) -> dict[str, dict[str, Quality]]:
    """The figures that the cards carry, by model: attributes on one object, `all_two`, mos, and what refining keeps."""
    chosen: dict[str, dict[str, Figure]] = {}
    sections = {DRAFT: figures["draft"], CLOUD: figures["cloud"], **figures["variants"]}
    for name, section in sections.items():
        part = {key: figure for key, figure in section["one"].items() if key != "mean"}
        chosen[name] = part | {"all_two": section["two"]["all"], "mos": section["mos"]}
    refine = figures["refine"]
    kept = refine["t0"][f"{refine['default_t0']:g}"]["kept"]
    chosen[CLOUD] |= {f"refine_same_{key}": figure for key, figure in kept.items() if not key.startswith("track")}
    chosen[CLOUD] |= {"refine_track_within_3_percent": kept["track_3%"]}
    return {
        name: {key: Quality(**report.plain(figure)) for key, figure in part.items()} for name, part in chosen.items()
    }


def card_scores(lines: Sequence[Scored]) -> list[Score]:
    """The lines of the report's quality table of one model, for its card."""
    return [
        Score(
            plan=line.way.plan,
            steps=line.way.steps,
            width=line.way.side,
            height=line.way.side,
            accuracy=Quality(**report.plain(line.accuracy["mean"])),
            mos=Quality(**report.plain(line.mos)),
        )
        for line in lines
    ]


def search_refining(folder: Path, weights: Path, count: int, threads: int) -> None:
    """Try every way to refine drafts on `count` prompts; write refining.md into the folder's report and print it."""
    draft, cloud = (open_generator(name, threads=threads, weights=weights) for name in (DRAFT, CLOUD))
    recipes = {"draft": default_recipe(draft.card), "cloud": default_recipe(cloud.card)}
    judge, one = load_judge(folder / "judge.pt"), asked(count, 1, novel=True, seed=SEARCH_SEED)
    result = refining.search(draft, cloud, recipes, judge, one, print)
    text = refining.markdown(result)
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "refining.md").write_text(text + "\n", encoding="utf-8")
    best = result.best()
    print(text, "no way is good enough" if best is None else f"best: t0 {best.t0:g}, {best.steps} steps", sep="\n")


def default_recipe(card: ModelCard) -> Recipe:
    """How a model is run where nothing else is said, at its first size."""
    request = request_for(card, "", 0)
    return Recipe(request.steps, request.guidance, request.width)


def _whole_draft(folder: Path, weights: Path, threads: int) -> SplitGenerator:
    """The draft with its base in float32, to tell what int8 costs."""
    card = load_card(DRAFT, weights)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "base.onnx"
        export.export_base(load_base(folder / "draft" / "base.pt"), raw, fold=True)
        paths = {**needed_files(card, weights), "base": raw}
        return CascadeGenerator(card, CascadeOnnx(paths, threads=threads))


def measure_family(folder: Path, weights: Path, count: int, threads: int) -> None:
    """Measure times, then quality; rewrite the cards and write report and contact sheets into `folder`."""
    times = {name: time_model(name, threads, weights) for name in FAMILY}
    draft = load_card(DRAFT, weights)
    live = CascadeOnnx(needed_files(draft, weights), threads=threads)
    opened = {name: open_generator(name, threads=threads, weights=weights) for name in (CLOUD, *VARIANTS)}
    opened[DRAFT] = CascadeGenerator(draft, live)
    family = report.Family(
        draft=opened[DRAFT],
        whole=_whole_draft(folder, weights, threads),
        cloud=opened[CLOUD],
        variants={name: opened[name] for name in VARIANTS},
        live=live,
        draft_recipe=default_recipe(opened[DRAFT].card),
        cloud_recipe=default_recipe(opened[CLOUD].card),
        refine_steps=REFINE.steps,
        t0=REFINE.t0,
    )
    evaluation = report.Evaluation(family, load_judge(folder / "judge.pt"), count, print)
    figures, sheets = evaluation.run()
    figures["hardware"] = hardware_name()
    report.write(figures, sheets, folder / "report")
    for name, quality in card_quality(figures).items():
        write_card(name, weights, times[name], quality, card_scores(figures["scores"][name]))
    print((folder / "report" / "report.md").read_text(encoding="utf-8"))
