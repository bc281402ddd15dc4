"""Nano's world: what a scene may hold, and the words for it. No pixels here (clips.py draws), no tokens (tokenizer.py).

A scene is drawn from a seeded numpy generator, so (seed, index) names a clip for ever. Captions are drawn separately, so that
one clip can be described in many ways.
"""
from dataclasses import dataclass
import hashlib

COLOURS = {
    "red": (225, 40, 40), "orange": (245, 140, 20), "yellow": (245, 220, 40), "green": (40, 190, 60), "cyan": (40, 205, 215),
    "blue": (40, 80, 235), "purple": (140, 50, 190), "pink": (250, 130, 190), "white": (245, 245, 245),
}
GROUNDS = {
    "black": (16, 16, 20), "gray": (110, 110, 115), "white": (236, 236, 232), "blue": (52, 72, 130), "green": (48, 98, 64), "brown": (104, 74, 50),
}
SHAPES = ("circle", "square", "triangle", "star", "ring")
SIZES = {"small": 0.14, "medium": 0.19, "large": 0.25}  # radius as a share of the shorter side
MOTIONS = ("left", "right", "up", "down", "diagonal", "bounce", "circle", "grow", "shrink", "spin", "still")
BACKGROUNDS = ("plain", "gradient", "stripes", "floor")
TURNLESS = ("circle", "ring")  # shapes whose spinning cannot be seen


@dataclass(frozen=True)
class Thing:
    colour: str
    shape: str
    size: str
    motion: str
    heading: tuple  # diagonal: (±1, ±1); circle and spin: (±1, 0) = clockwise or not


@dataclass(frozen=True)
class Scene:
    things: tuple
    background: str
    ground: str


def held_out(colour: str, shape: str, motion: str) -> bool:
    """True for the tenth of all colour-shape-motion triples that training never sees; decided by a hash, once and for all."""
    return hashlib.sha256(f"{colour} {shape} {motion}".encode()).digest()[0] < 26


def draw_thing(rng, held: bool | None = False, motions=MOTIONS) -> Thing:
    """`held`: only held-out triples (True), none of them (False), or any (None)."""
    while True:
        colour, shape, motion = (str(rng.choice(list(x))) for x in (COLOURS, SHAPES, motions))
        if motion == "spin" and shape in TURNLESS:
            continue
        if held is None or held_out(colour, shape, motion) == held:
            break
    sign = lambda: int(rng.integers(2)) * 2 - 1
    heading = (sign(), sign()) if motion == "diagonal" else (sign(), 0)
    return Thing(colour, shape, str(rng.choice(list(SIZES))), motion, heading)


def draw_scene(rng, things: int = 1, held: bool | None = False, motions=MOTIONS) -> Scene:
    if things == 1:
        drawn = (draw_thing(rng, held, motions),)
    else:
        while True:
            drawn = tuple(draw_thing(rng, held, motions) for _ in range(things))
            if len({t.colour for t in drawn}) == things:
                break
    background = str(rng.choice(BACKGROUNDS))
    while True:
        ground = str(rng.choice(list(GROUNDS)))
        if all(ground != thing.colour for thing in drawn):
            return Scene(drawn, background, ground)


# ---- words -------------------------------------------------------------------------------------------------------------------

COLOUR_WORDS = {"cyan": ("cyan", "turquoise"), "purple": ("purple", "violet"), "pink": ("pink",), "red": ("red",), "white": ("white",)}
SHAPE_WORDS = {
    "circle": ("circle", "ball", "disc", "disk", "circle", "ball"), "square": ("square", "box", "square"),
    "triangle": ("triangle",), "star": ("star",), "ring": ("ring", "donut", "hoop", "ring"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("medium", "medium-sized"), "large": ("large", "big", "huge")}
GROUND_WORDS = {"gray": ("gray", "grey")}
SIDES = {-1: "left", 1: "right"}
MOTION_WORDS = {
    "left": ("moves left", "moves to the left", "slides left", "goes left", "travels to the left", "drifts left", "moving left",
             "moves from right to left", "slides to the left", "flies left"),
    "right": ("moves right", "moves to the right", "slides right", "goes right", "travels to the right", "drifts right", "moving right",
              "moves from left to right", "slides to the right", "flies right"),
    "up": ("moves up", "rises", "goes up", "floats up", "moves upward", "climbs", "moving up", "rises slowly", "moves to the top"),
    "down": ("moves down", "falls", "goes down", "sinks", "moves downward", "drops", "moving down", "falls slowly", "moves to the bottom"),
    "diagonal": ("moves diagonally", "slides diagonally", "goes diagonally", "moving diagonally"),
    "bounce": ("bounces", "bounces up and down", "is bouncing", "jumps up and down", "hops", "bouncing"),
    "circle": ("moves in a circle", "circles around", "goes around in a circle", "orbits", "moving in circles", "travels in a circle"),
    "grow": ("grows", "gets bigger", "grows larger", "expands", "becomes bigger", "growing", "is growing"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller", "shrinking", "is shrinking", "contracts"),
    "spin": ("spins", "rotates", "turns around", "is spinning", "spinning", "spins in place", "is rotating"),
    "still": ("stays still", "does not move", "stands still", "rests", "is still", "stays in place", "sits still"),
}


def _pick(rng, words):
    return words[int(rng.integers(len(words)))]


def _motion_words(rng, thing: Thing) -> str:
    if thing.motion == "diagonal" and rng.random() < 0.7:
        row, side = ("top", "upper")[int(rng.integers(2))] if thing.heading[1] < 0 else ("bottom", "lower")[int(rng.integers(2))], SIDES[thing.heading[0]]
        return _pick(rng, (f"moves diagonally to the {row} {side}", f"moves to the {row} {side}", f"slides to the {row} {side} corner"))
    return _pick(rng, MOTION_WORDS[thing.motion])


def _noun(rng, thing: Thing) -> str:
    colour = _pick(rng, COLOUR_WORDS.get(thing.colour, (thing.colour,)))
    shape = _pick(rng, SHAPE_WORDS[thing.shape])
    size = _pick(rng, SIZE_WORDS[thing.size]) + " " if rng.random() < 0.5 else ""
    if rng.random() < 0.06:
        return f"{size}{shape} that is {colour} and"
    return f"{size}{colour} {shape}"


def _place(rng, scene: Scene) -> str:
    ground = _pick(rng, GROUND_WORDS.get(scene.ground, (scene.ground,)))
    if scene.background == "floor":
        return f"{_pick(rng, ('on', 'over', 'above'))} a {ground} {_pick(rng, ('floor', 'floor', 'ground'))}"
    pattern = {"plain": ("", "", "plain "), "gradient": ("gradient ", "shaded ", ""), "stripes": ("striped ", "striped ", "stripy ")}[scene.background]
    return f"{_pick(rng, ('on', 'against', 'over', 'in front of'))} a {_pick(rng, pattern)}{ground} background"


def caption(rng, scene: Scene) -> str:
    """One of many descriptions; the background is named in two of three."""
    article = lambda noun: _pick(rng, ("an " if noun[0] in "aeio" else "a ", "an " if noun[0] in "aeio" else "a ", "the ", "")) + noun
    parts = []
    for thing in scene.things:
        noun = _noun(rng, thing)
        verb = _motion_words(rng, thing)
        while noun.endswith(" and") and verb.endswith("ing"):  # "that is red and moving" has no verb left
            verb = _motion_words(rng, thing) if not all(v.endswith("ing") for v in MOTION_WORDS[thing.motion]) else "moves"
        parts.append(f"{article(noun)} {verb}")
    text = _pick(rng, (" and ", " while ", ", ")).join(parts)
    if rng.random() < 0.67:
        place = _place(rng, scene)
        text = f"{place}, {text}" if rng.random() < 0.2 else f"{text} {place}"
    if rng.random() < 0.08:
        text = _pick(rng, ("a video of ", "an animation of ", "a clip: ")) + text
    if rng.random() < 0.15:
        text = text[0].upper() + text[1:] + "."
    return text
