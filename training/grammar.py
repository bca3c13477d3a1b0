"""Grammar of the Pocket world: what a scene can hold, and the sentences that describe it.

Decides attributes and captions only. It must not know how a scene is drawn (see `world`) and needs no torch.
"""

import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white")
SIZES = ("small", "medium", "big")
MOTIONS = ("left", "right", "up", "down", "still", "grow", "shrink", "bounce", "orbit")
BACKGROUNDS = ("sunset", "night", "sea", "forest", "desert", "mountains", "city", "plain")

_SHAPE_WORDS = {
    "circle": ("circle", "circle", "circle", "ball", "disc"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "diamond": ("diamond",),
    "cross": ("cross", "cross", "plus sign"),
    "ring": ("ring", "ring", "hoop"),
}
_SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "medium": ("",), "big": ("big", "large", "large", "huge")}
_MOTION_WORDS = {
    "left": (
        "moves left",
        "moves left",
        "moving left",
        "moves to the left",
        "slides left",
        "drifts to the left",
        "goes left",
        "flies left",
        "travels from right to left",
    ),
    "right": (
        "moves right",
        "moves right",
        "moving right",
        "moves to the right",
        "slides right",
        "drifts to the right",
        "goes right",
        "flies right",
        "travels from left to right",
    ),
    "up": ("moves up", "moves up", "moving up", "moves upwards", "rises", "goes up", "floats up", "climbs upward"),
    "down": (
        "moves down",
        "moves down",
        "moving down",
        "moves downwards",
        "falls",
        "goes down",
        "sinks down",
        "drops downward",
    ),
    "still": ("stays still", "stands still", "does not move", "rests", ""),
    "grow": ("grows", "grows bigger", "growing", "expands", "gets larger"),
    "shrink": ("shrinks", "shrinks smaller", "shrinking", "gets smaller"),
    "bounce": ("bounces", "bounces up and down", "bouncing", "is bouncing"),
    "orbit": ("moves in a circle", "circles around", "orbits", "goes round and round"),
}
_BACKGROUND_WORDS = {
    "sunset": ("over a sunset sky", "over a sunset sky", "at sunset", "in a sunset", "in front of an orange sunset"),
    "night": ("over a night sky", "in the night sky", "at night", "under the stars", "in a starry night"),
    "sea": ("over the sea", "over the sea", "above the ocean", "at sea", "over blue water"),
    "forest": ("in a forest", "in the forest", "over a forest", "among trees", "in the woods"),
    "desert": ("in a desert", "in the desert", "over a desert", "over sand dunes"),
    "mountains": ("over snowy mountains", "in the mountains", "over mountains", "in front of snowy mountains"),
    "city": ("over a city", "in a city", "in front of city buildings", "over a city skyline"),
    "plain": ("", "on a plain background", "on a grey background", "over a plain grey background"),
}
_TEMPLATES = (
    "{subject} {motion} {background}",
    "{subject} {motion} {background}",
    "{subject} {motion} {background}",
    "{background}, {subject} {motion}",
    "{subject} {background} {motion}",
    "a video of {subject} that {motion} {background}",
    "{bare} {motion} {background}",
)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What one scene shows; every field is one of the module's tuples."""

    shape: str
    colour: str
    size: str
    motion: str
    background: str

    def indices(self) -> tuple[int, int, int, int, int]:
        """Positions in SHAPES, COLOURS, SIZES, MOTIONS, BACKGROUNDS, in this order."""
        return (
            SHAPES.index(self.shape),
            COLOURS.index(self.colour),
            SIZES.index(self.size),
            MOTIONS.index(self.motion),
            BACKGROUNDS.index(self.background),
        )


def sample_attributes(rng: random.Random) -> Attributes:
    """Draw a scene uniformly over the grammar, with the four straight motions twice as likely."""
    motion = rng.choice(MOTIONS + MOTIONS[:4])
    return Attributes(
        shape=rng.choice(SHAPES),
        colour=rng.choice(COLOURS),
        size=rng.choice(SIZES),
        motion=motion,
        background=rng.choice(BACKGROUNDS),
    )


def plain_caption(scene: Attributes) -> str:
    """The one canonical sentence of a scene: the first wording of every attribute."""
    size = _SIZE_WORDS[scene.size][0]
    noun = " ".join(word for word in (size, scene.colour, scene.shape) if word)
    words = ("an" if noun[0] in "aeiou" else "a", noun, _MOTION_WORDS[scene.motion][0])
    return " ".join(word for word in (*words, _BACKGROUND_WORDS[scene.background][0]) if word)


def sample_caption(scene: Attributes, rng: random.Random) -> str:
    """One of the many sentences that describe the scene; lower case, no full stop."""
    size = rng.choice(_SIZE_WORDS[scene.size])
    noun = " ".join(word for word in (size, scene.colour, rng.choice(_SHAPE_WORDS[scene.shape])) if word)
    article = "an" if noun[0] in "aeiou" else "a"
    caption = rng.choice(_TEMPLATES).format(
        subject=f"{article} {noun}",
        bare=noun,
        motion=rng.choice(_MOTION_WORDS[scene.motion]),
        background=rng.choice(_BACKGROUND_WORDS[scene.background]),
    )
    tidy = " ".join(caption.split()).replace(" ,", ",").strip(" ,")
    return tidy.removesuffix(" that")
