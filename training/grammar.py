"""Grammar of the Pocket world: what a scene can hold, which combinations are kept from training, how scenes are drawn.

Decides attributes only; `captions` says them in words and `world` draws them. Pure, needs no torch.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
    "brown",
    "white",
    "grey",
    "black",
)
SIZES = ("small", "medium", "big")
TEXTURES = ("plain", "striped", "dotted")
MOTIONS = (
    "left",
    "right",
    "up",
    "down",
    "diagonal-up",
    "diagonal-down",
    "clockwise",
    "anticlockwise",
    "bounce",
    "zigzag",
    "grow",
    "shrink",
    "spin",
    "still",
)
BACKGROUNDS = ("sky", "sea", "forest", "desert", "mountains", "city", "meadow", "snow", "space", "plain")
CAMERAS = ("still", "pan", "zoom")
LIGHTINGS = ("day", "dusk", "night")
MAX_OBJECTS = 3
OBJECT_ATTRIBUTES = ("shape", "colour", "size", "texture", "motion")
SCENE_ATTRIBUTES = ("background", "camera", "lighting")
OBJECT_CLASSES = (len(SHAPES), len(COLOURS), len(SIZES), len(TEXTURES), len(MOTIONS))
SCENE_CLASSES = (len(BACKGROUNDS), len(CAMERAS), len(LIGHTINGS))
ROUND = ("circle", "ring")  # a spin of these cannot be seen, so no scene asks for one
OBJECTS_NAMED = (1, 1, 1, 1, 1, 1, 2, 2, 3)  # how many objects a caption names, to choose from
FINE = ("small",)  # sizes too small to show a texture at the base model's resolution, so always plain


@dataclass(frozen=True, slots=True)
class Thing:
    """One object; every field is one of the module's tuples."""

    shape: str
    colour: str
    size: str = "medium"
    texture: str = "plain"
    motion: str = "still"

    def indices(self) -> tuple[int, int, int, int, int]:
        """Positions in the tuples of OBJECT_ATTRIBUTES, in this order."""
        return (
            SHAPES.index(self.shape),
            COLOURS.index(self.colour),
            SIZES.index(self.size),
            TEXTURES.index(self.texture),
            MOTIONS.index(self.motion),
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """One to MAX_OBJECTS objects, in the order in which captions name them, before a background."""

    things: tuple[Thing, ...]
    background: str = "plain"
    camera: str = "still"
    lighting: str = "day"

    def indices(self) -> tuple[int, int, int]:
        """Positions in the tuples of SCENE_ATTRIBUTES, in this order."""
        return (BACKGROUNDS.index(self.background), CAMERAS.index(self.camera), LIGHTINGS.index(self.lighting))


def held_out_pair(shape: str, colour: str) -> bool:
    """Whether no training scene shows this shape in this colour (one pair in eleven)."""
    return (SHAPES.index(shape) * 5 + COLOURS.index(colour) * 3) % 11 == 4


def held_out_motion(motion: str, background: str) -> bool:
    """Whether no training scene shows this motion before this background (one pair in thirteen)."""
    return (MOTIONS.index(motion) * 3 + BACKGROUNDS.index(background) * 7) % 13 == 5


def held_out(scene: Scene) -> bool:
    """Whether any combination in the scene is kept from training."""
    return any(
        held_out_pair(thing.shape, thing.colour) or held_out_motion(thing.motion, scene.background)
        for thing in scene.things
    )


def sample_scene(rng: random.Random, *, counts: Sequence[int] = OBJECTS_NAMED, novel: bool | None = False) -> Scene:
    """Draw a scene; colours differ within it.

    counts: numbers of objects to choose from. novel: False draws no held-out combination, True draws only scenes whose
    every object is one, None draws freely.
    """
    background = rng.choice(BACKGROUNDS)
    # Half of the scenes keep the two defaults that captions leave unsaid.
    camera = rng.choice(("still", "still", "pan", "zoom"))
    lighting = rng.choice(("day", "day", "dusk", "night"))
    things: list[Thing] = []
    for _ in range(rng.choice(counts)):
        thing = _sample_thing(rng)
        while not _fits(thing, things, background, novel):
            thing = _sample_thing(rng)
        things.append(thing)
    return Scene(tuple(things), background, camera, lighting)


def _sample_thing(rng: random.Random) -> Thing:
    return Thing(
        shape=rng.choice(SHAPES),
        colour=rng.choice(COLOURS),
        size=rng.choice(SIZES),
        texture=rng.choice(("plain", "plain", "striped", "dotted")),
        motion=rng.choice(MOTIONS),
    )


def _fits(thing: Thing, others: list[Thing], background: str, novel: bool | None) -> bool:
    if (thing.motion == "spin" and thing.shape in ROUND) or (thing.texture != "plain" and thing.size in FINE):
        return False
    if any(thing.colour == other.colour for other in others):
        return False
    new = held_out_pair(thing.shape, thing.colour) or held_out_motion(thing.motion, background)
    return novel is None or new == novel
