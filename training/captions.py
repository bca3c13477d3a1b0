"""Sentences that describe scenes: many wordings and orders, some of them kept from training.

Unsaid means the default: medium size, plain texture, plain background, still camera, daylight, and often "still".
Pure, needs no torch.
"""

import random
from dataclasses import dataclass

from training.grammar import Scene, Thing


@dataclass(frozen=True, slots=True)
class Words:
    """Wordings of one value: those that training sees, the commonest first, and those held out."""

    seen: tuple[str, ...]
    held: tuple[str, ...] = ()

    def pick(self, rng: random.Random, held: bool) -> str:
        """One wording, in two cases of five one of the two commonest; of the held-out ones where asked for."""
        if held and self.held:
            return rng.choice(self.held)
        return rng.choice(self.seen[:2] if rng.random() < 0.4 else self.seen)


def _words(seen: str, held: str = "") -> Words:
    """Wordings separated by commas; a dot stands for saying nothing."""
    parts = ("" if word.strip() == "." else word.strip() for word in seen.split(","))
    return Words(tuple(parts), tuple(word.strip() for word in held.split(",") if held))


SHAPE_WORDS = {
    "circle": _words("circle, ball, disc, orb, dot, round shape, marble", "sphere"),
    "square": _words("square, box, block, tile, square shape, crate", "cube"),
    "triangle": _words("triangle, triangle shape, wedge, three-sided shape, triangular block", "pyramid"),
    "star": _words("star, five-pointed star, star shape, pointed star", "starlet"),
    "heart": _words("heart, heart shape, valentine, heart symbol", "love heart"),
    "diamond": _words("diamond, rhombus, diamond shape, kite", "lozenge"),
    "cross": _words("cross, plus sign, cross shape, plus symbol", "plus"),
    "ring": _words("ring, hoop, loop, hollow circle, ring shape, wheel rim", "doughnut"),
}
COLOUR_WORDS = {
    "red": _words("red, bright red, scarlet, ruby red, cherry red, blood-red, vermilion", "crimson"),
    "orange": _words("orange, bright orange, amber, pumpkin orange, apricot", "tangerine"),
    "yellow": _words("yellow, golden, bright yellow, sunny yellow, canary yellow, mustard", "lemon yellow"),
    "green": _words("green, lime green, grass-green, forest green, jade, olive green", "emerald"),
    "cyan": _words("cyan, turquoise, teal, aquamarine, light cyan", "aqua"),
    "blue": _words("blue, navy blue, royal blue, deep blue, cobalt, azure blue", "sapphire blue"),
    "purple": _words("purple, violet, plum purple, lavender, deep purple, mauve", "lilac"),
    "pink": _words("pink, hot pink, rosy, bubblegum pink, fuchsia, salmon pink", "rose pink"),
    "brown": _words("brown, dark brown, coffee brown, chestnut, mahogany, earthy brown", "chocolate brown"),
    "white": _words("white, pure white, ivory, milky white, chalk-white", "snow white"),
    "grey": _words("grey, gray, silver, ash grey, slate grey", "silver grey"),
    "black": _words("black, pitch-black, ebony, coal black, inky black", "jet black"),
}
SIZE_WORDS = {
    "small": _words("small, little, mini, miniature, undersized", "tiny"),
    "medium": _words("., ., ., medium, medium-sized, normal-sized"),
    "big": _words("big, large, giant, massive, oversized", "huge"),
}
TEXTURE_WORDS = {
    "plain": _words("., ., ., ., plain, solid"),
    "striped": _words("striped, stripy, lined, zebra-striped", "banded"),
    "dotted": _words("dotted, spotted, polka-dot, spotty, dotty", "speckled"),
}
# Third person; `participle` makes the "-ing" form.
MOTION_WORDS = {
    "left": _words(
        "moves left, moves to the left, slides left, flies to the left, goes leftwards, drifts left, heads left, "
        "travels from right to left, glides towards the left",
        "drifts west",
    ),
    "right": _words(
        "moves right, moves to the right, slides right, flies to the right, goes rightwards, drifts right, "
        "heads right, travels from left to right, glides towards the right",
        "drifts east",
    ),
    "up": _words("moves up, moves upwards, rises, floats up, goes up, ascends, drifts upwards, lifts up", "climbs"),
    "down": _words(
        "moves down, moves downwards, falls, sinks down, goes down, descends, drifts downwards, lowers itself", "drops"
    ),
    "diagonal-up": _words(
        "moves diagonally up, moves up and to the right, moves diagonally upwards, slides diagonally up, "
        "rises diagonally, drifts to the upper right",
        "climbs diagonally",
    ),
    "diagonal-down": _words(
        "moves diagonally down, moves down and to the right, moves diagonally downwards, slides diagonally down, "
        "sinks diagonally, drifts to the lower right",
        "falls diagonally",
    ),
    "clockwise": _words(
        "circles clockwise, moves in a clockwise circle, orbits clockwise, moves clockwise, loops around clockwise",
        "goes round clockwise",
    ),
    "anticlockwise": _words(
        "circles anticlockwise, moves in an anticlockwise circle, orbits counterclockwise, moves counterclockwise, "
        "loops around counterclockwise",
        "goes round anticlockwise",
    ),
    "bounce": _words("bounces, bounces up and down, hops, leaps, bobs up and down, springs up and down", "jumps"),
    "zigzag": _words("zigzags, moves in a zigzag, zig-zags to the right, wiggles along, follows a zigzag", "weaves"),
    "grow": _words("grows, grows bigger, expands, swells, becomes bigger, inflates", "gets larger"),
    "shrink": _words("shrinks, shrinks away, contracts, becomes smaller, dwindles, deflates", "gets smaller"),
    "spin": _words("spins, rotates, turns around itself, spins in place, whirls, revolves on the spot", "twirls"),
    "still": _words(
        "stays still, ., stands still, rests, stays in place, remains where it is, ., waits", "does not move"
    ),
}
BACKGROUND_WORDS = {
    "sky": _words(
        "in the sky, over the sky, in front of clouds, up in the air, before drifting clouds", "among clouds"
    ),
    "sea": _words(
        "over the sea, above the sea, at sea, over the ocean, over blue water, off the coast", "over the waves"
    ),
    "forest": _words("in a forest, in the forest, in front of a forest, in the woods, before fir trees", "among trees"),
    "desert": _words("in a desert, in the desert, over a desert, over dry sand, in the Sahara", "over sand dunes"),
    "mountains": _words(
        "over mountains, in the mountains, in front of mountains, in the Alps, before snowy summits",
        "over mountain peaks",
    ),
    "city": _words(
        "over a city, in a city, in front of a city skyline, downtown, before skyscrapers", "in front of tall buildings"
    ),
    "meadow": _words("in a meadow, over a meadow, over green grass, on a grassy field, in a pasture", "on a lawn"),
    "snow": _words("in the snow, while it snows, over snow, in a snowstorm, in a winter landscape", "in a snowy field"),
    "space": _words("in space, in outer space, among the stars, in a galaxy, in the universe", "in the cosmos"),
    "plain": _words(
        "., ., ., on a plain background, in front of a plain wall, before a beige wall", "with nothing behind"
    ),
}
# A sky is often named together with its light.
LIT_SKIES = {
    "day": _words("over a blue sky, in a bright sky, in a sunny sky", "in a clear sky"),
    "dusk": _words("over a sunset sky, in a sunset, over a red evening sky", "in front of an orange sunset"),
    "night": _words("over a night sky, in the night sky, in a moonlit sky", "under a dark sky"),
}
LIGHTING_WORDS = {
    "day": _words("., ., ., ., ., by day, in daylight, at midday, in the sunshine, on a sunny day", "at noon"),
    "dusk": _words("at dusk, at sunset, in the evening, at sundown, as the sun sets, in evening light", "at twilight"),
    "night": _words(
        "at night, by night, in the dark, in the middle of the night, after dark, in moonlight", "at midnight"
    ),
}
CAMERA_WORDS = {
    "still": _words("., ., ., ., the camera stands still, static shot", "a fixed camera"),
    "pan": _words(
        "the camera pans, the camera pans sideways, panning shot, the camera swings sideways, a pan",
        "the camera sweeps across",
    ),
    "zoom": _words(
        "the camera zooms in, zooming in, the camera moves closer, zoom shot, the camera gets nearer", "a slow zoom"
    ),
}
_IRREGULAR = {
    "hops": "hopping",
    "spins": "spinning",
    "drops": "dropping",
    "gets": "getting",
    "goes": "going",
    "flies": "flying",
    "zigzags": "zigzagging",
    "zig-zags": "zig-zagging",
}


def sample_caption(scene: Scene, rng: random.Random, *, held: bool = False) -> str:
    """One of the many sentences that describe the scene; lower case, no full stop.

    held: use the wordings kept from training wherever a value has one.
    """
    moving = rng.random() < 0.4  # "moving left" instead of "moves left"
    clauses = [_clause(thing, rng, held, moving) for thing in scene.things]
    place, light = _place(scene, rng, held)
    camera = CAMERA_WORDS[scene.camera].pick(rng, held)
    subject = _joined(clauses, rng)
    order = rng.randrange(4)
    if order == 0 and (place or light):
        sentence = f"{place} {light}, {subject}, {camera}"
    elif order == 1:
        opening = rng.choice(("a video of", "a clip of", "")) if moving else ""
        sentence = f"{opening} {subject} {light} {place}, {camera}"
    elif order == 2:
        sentence = f"{camera}, {subject} {place} {light}"
    else:
        sentence = f"{subject} {place} {light}, {camera}"
    return _tidy(sentence)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _clause(thing: Thing, rng: random.Random, held: bool, moving: bool) -> str:
    words = [
        SIZE_WORDS[thing.size].pick(rng, held),
        TEXTURE_WORDS[thing.texture].pick(rng, held),
        COLOUR_WORDS[thing.colour].pick(rng, held),
        SHAPE_WORDS[thing.shape].pick(rng, held),
    ]
    if rng.random() < 0.15 and words[1]:
        words[0], words[1] = words[1], words[0]
    noun = " ".join(word for word in words if word)
    motion = MOTION_WORDS[thing.motion].pick(rng, held)
    if rng.random() >= 0.1:
        noun = _with_article(noun)
    return f"{noun} {participle(motion) if moving else motion}"


def participle(verb_phrase: str) -> str:
    """ "moves left" -> "moving left"; an empty phrase stays empty."""
    if not verb_phrase:
        return ""
    verb, _, rest = verb_phrase.partition(" ")
    if verb == "does":
        return "not moving"
    stem = verb.removesuffix("s")
    form = _IRREGULAR.get(verb) or (stem.removesuffix("e") if stem.endswith("e") else stem) + "ing"
    return f"{form} {rest}".strip()


def _place(scene: Scene, rng: random.Random, held: bool) -> tuple[str, str]:
    if scene.background == "sky" and rng.random() < 0.6:
        return LIT_SKIES[scene.lighting].pick(rng, held), ""
    return BACKGROUND_WORDS[scene.background].pick(rng, held), LIGHTING_WORDS[scene.lighting].pick(rng, held)


def _joined(clauses: list[str], rng: random.Random) -> str:
    if len(clauses) == 1:
        return clauses[0]
    link = rng.choice((" and ", " and ", " while ", " next to ")) if len(clauses) == 2 else rng.choice((" and ", ", "))
    return ", ".join(clauses[:-1]) + link + clauses[-1]


def _tidy(sentence: str) -> str:
    words = " ".join(sentence.split()).replace(" ,", ",")
    while ",," in words or ", ," in words:
        words = words.replace(", ,", ",").replace(",,", ",")
    return words.strip(" ,")
