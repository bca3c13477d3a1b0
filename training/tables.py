"""The report's figures as Markdown tables, for docs/models.md. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.family import DRAFT
from training.grammar import OBJECT_ATTRIBUTES, SCENE_ATTRIBUTES
from training.scores import Scored
from training.statistics import Figure

ROWS = (*OBJECT_ATTRIBUTES, *SCENE_ATTRIBUTES, "count", "all")


def percent(figure: Figure | None) -> str:
    """A share as "97 % (91-99)"."""
    if figure is None:
        return ""
    return f"{100 * figure.value:.0f} % ({100 * figure.low:.0f}-{100 * figure.high:.0f})"


def number(figure: Figure) -> str:
    """A mean as "0.021 (0.018-0.024)"; without its interval where there is none."""
    if figure.low == figure.high:
        return f"{figure.value:.3g}"
    return f"{figure.value:.3g} ({figure.low:.3g}-{figure.high:.3g})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shares(names: Sequence[str], columns: Mapping[str, Mapping[str, Figure]]) -> str:
    """One row per figure, one column per set of clips, with the numbers of clips in the head."""
    heads = [f"{head}, n={max(figure.n for figure in column.values())}" for head, column in columns.items()]
    kept = [name for name in names if any(name in column for column in columns.values())]
    return table(["", *heads], [[name, *(percent(column.get(name)) for column in columns.values())] for name in kept])


def markdown(figures: Mapping[str, Any]) -> str:
    """All tables of a report, each under its heading."""
    parts = {**_accuracies(figures), **_beside_accuracy(figures)}
    return "\n\n".join(f"### {title}\n{text}" for title, text in parts.items()) + "\n"


def _accuracies(figures: Mapping[str, Any]) -> dict[str, str]:
    """Tables, by heading, of what is right in clips of the models and their variants."""
    draft, cloud, refine = figures["draft"], figures["cloud"], figures["refine"]
    split, default = refine["split"], refine["t0"][f"{refine['default_t0']:g}"]
    return {
        "One object, held-out combinations": shares(
            ROWS,
            {
                "draft": draft["one"],
                "draft in float32": draft["whole"],
                "cloud from noise": cloud["one"],
                "cloud refining the draft": default["accuracy"],
                "judge on renders": figures["judge"],
            },
        ),
        "Two objects": shares(ROWS, {"draft": draft["two"], "cloud from noise": cloud["two"]}),
        "The cloud's variants, one object and two": shares(
            ROWS,
            {
                f"{name}, {objects}": section[objects]
                for name, section in {"cloud": cloud, **figures["variants"]}.items()
                for objects in ("one", "two")
            },
        ),
        "Begun by the cloud, finished by the draft": shares(
            ROWS, {f"split at {split['at']:g}, {split['steps'][0]} and {split['steps'][1]} steps": split["accuracy"]}
        ),
        "The draft's words and steps": shares(
            ROWS,
            {
                "held-out wordings": draft["paraphrased"],
                "out of grammar": draft["out_of_grammar"],
                **{f"{line.way.steps} steps": line.accuracy for line in figures["scores"][DRAFT]},
            },
        ),
    }


def _beside_accuracy(figures: Mapping[str, Any]) -> dict[str, str]:
    """Tables, by heading, of what goes on from given frames, of plans, motions and distances."""
    draft, cloud, refine = figures["draft"], figures["cloud"], figures["refine"]
    return {
        "The draft on frames of renders": shares((*ROWS, "track_3%"), draft["tasks"]),
        "Live: streams redrawn in other colours, by strength and steps per chunk": shares(
            (*ROWS, "track_3%"),
            {f"strength {tried}": part["accuracy"] for tried, part in figures["live"].items()},
        ),
        "What a final keeps of its draft": shares(
            (*OBJECT_ATTRIBUTES, *SCENE_ATTRIBUTES, "kept", "track_3%"),
            {
                **{f"refined from t0 {t0}": part["kept"] for t0, part in refine["t0"].items()},
                "from noise, the same seed": refine["same_seed"],
                "from noise, another seed": refine["independent"],
            },
        ),
        "Quality by model, plan, steps and size": table(
            ["", "plan", "steps", "pixels", "attributes as asked", "mos"],
            [
                [name, line.way.plan, str(line.way.steps), str(line.way.side), *opinion(line)]
                for name, lines in figures["scores"].items()
                for line in lines
            ],
        ),
        "Motions": shares(tuple(draft["motions"]), {"draft": draft["motions"], "cloud from noise": cloud["motions"]}),
        "Distances": distances(draft, cloud),
        "Change where live chunks meet, of that elsewhere": table(
            ["", "redrawn", "the stream itself"],
            [
                [f"strength {tried}", number(part["jump"]), number(part["jump_real"])]
                for tried, part in figures["live"].items()
            ],
        ),
    }


def opinion(line: Scored) -> tuple[str, str]:
    """Mean accuracy and Q of a line of the quality table."""
    return percent(line.accuracy["mean"]), number(line.mos)


def distances(draft: Mapping[str, Any], cloud: Mapping[str, Any]) -> str:
    """What is no share: Frechet distance, tracks, flicker, diversity, opinion."""

    def row(title: str, name: str, real: str = "") -> list[str]:
        return [title, *(number(part[name]) if name in part else "" for part in (draft, cloud)), real]

    return table(
        ["", "draft", "cloud from noise", "renders"],
        [
            row("Frechet distance to renders", "frechet", number(draft["frechet_real"])),
            row("trajectory error, frame widths", "trajectory_error", number(draft["trajectory_error_real"])),
            row("flicker, of 255", "flicker", number(cloud["flicker_real"])),
            row("diversity across seeds", "diversity", "1"),
            row("mos", "mos"),
        ],
    )
