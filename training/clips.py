"""Draws scenes as clips: antialiased shapes on a background, moved by simple physics.

A shape is a signed distance field in pixels; its coverage of a pixel is clip(0.5 - distance, 0, 1), which is the exact area for
straight edges in steps of one pixel. All lengths scale with the shorter side, so one scene can be drawn at any size and length.
"""
import numpy as np

from world import COLOURS, GROUNDS, MOTIONS, SIZES, Scene, Thing, draw_scene

PERIOD = 11.0     # frames of one bounce
TURN = 18.0       # frames of one round of the circle
SPIN = np.deg2rad(13.0)  # per frame


def _ease(u):
    """Starts and stops gently: half smoothstep, half constant speed."""
    return 0.5 * u + 0.5 * u * u * (3 - 2 * u)


def _track(rng, thing: Thing, box, frames: int, floor: float | None, unit: float):
    """Centre, radius and angle over time inside `box` = (left, top, right, bottom) in pixels."""
    left, top, right, bottom = box
    room = min(right - left, bottom - top)
    radius = SIZES[thing.size] * unit * rng.uniform(0.93, 1.07)
    radius = min(radius, 0.36 * room)
    time = np.arange(frames, dtype=np.float32)
    u = _ease(time / max(1, frames - 1))
    r = np.full(frames, radius, np.float32)
    angle = np.zeros(frames, np.float32)
    if thing.motion == "grow":
        r = radius * (0.5 + 0.75 * u)
    elif thing.motion == "shrink":
        r = radius * (1.25 - 0.75 * u)
    margin = 1.08 * r.max() + 1
    l, t, rt, b = left + margin, top + margin, right - margin, bottom - margin
    at = lambda a, c: a + (c - a) * rng.uniform(0.25, 0.75)
    x, y = np.full(frames, at(l, rt), np.float32), np.full(frames, at(t, b), np.float32)
    if floor is not None and thing.motion not in ("up", "down", "diagonal", "circle"):
        y[:] = min(b, floor - 0.9 * r.max() + 0.12 * unit)
    slack = lambda: rng.uniform(0, 0.12)
    across = lambda a, c, sign: (a + (c - a) * slack(), c - (c - a) * slack())[::sign]
    if thing.motion in ("left", "right", "diagonal"):
        start, end = across(l, rt, {"left": -1, "right": 1}.get(thing.motion, thing.heading[0]))
        x = start + (end - start) * u
    if thing.motion in ("up", "down", "diagonal"):
        start, end = across(t, b, {"up": -1, "down": 1}.get(thing.motion, thing.heading[1]))
        y = start + (end - start) * u
    if thing.motion == "bounce":
        lowest = y[0] if floor is not None else b
        height = (lowest - t) * rng.uniform(0.75, 1.0)
        phase = (time / PERIOD + rng.uniform(0, 1)) % 1
        y = lowest - height * 4 * phase * (1 - phase)  # free fall between two contacts
    if thing.motion == "circle":
        orbit = min(rt - l, b - t) / 2 * rng.uniform(0.8, 1)
        theta = rng.uniform(0, 2 * np.pi) + thing.heading[0] * 2 * np.pi * time / TURN
        x, y = (l + rt) / 2 + orbit * np.cos(theta), (t + b) / 2 + orbit * np.sin(theta)
    if thing.motion == "spin":
        angle = rng.uniform(0, 2 * np.pi) + thing.heading[0] * SPIN * time
    f = lambda v: np.asarray(v, np.float32)
    return f(x), f(y), f(r), f(angle)


def _distance(shape: str, dx, dy, r):
    """Signed distance (or a bound with the right slope at the edge) to a shape of radius r; arrays broadcast, y points down."""
    if shape == "circle":
        return np.sqrt(dx * dx + dy * dy) - r
    if shape == "ring":
        return np.abs(np.sqrt(dx * dx + dy * dy) - 0.74 * r) - 0.27 * r
    if shape == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - 0.84 * r
    if shape == "triangle":
        side = 0.8660254 * np.abs(dx) - 0.5 * (dy - 0.2 * r)
        return np.maximum(side, dy - 0.2 * r) - 0.56 * r
    # Star: fold the plane into the tenth between a tip and the next notch, then one straight edge.
    sector = 2 * np.pi / 5
    theta = np.arctan2(dx, -dy)
    theta = np.abs((theta + sector / 2) % sector - sector / 2)
    rho = np.sqrt(dx * dx + dy * dy)
    px, py = rho * np.cos(theta), rho * np.sin(theta)
    tip, notch = 1.14, 0.5
    nx, ny = notch * np.sin(sector / 2), tip - notch * np.cos(sector / 2)
    norm = np.hypot(nx, ny)
    return (px - tip * r) * (nx / norm) + py * (ny / norm)


def _background(rng, scene: Scene, height: int, width: int):
    """[H, W, 3] in 0..255 and the row where a floor begins to carry things, or None."""
    ground = np.array(GROUNDS[scene.ground], np.float32) + rng.uniform(-6, 6, 3).astype(np.float32)
    picture = np.broadcast_to(ground, (height, width, 3)).copy()
    unit = min(height, width)
    rows, columns = np.arange(height, dtype=np.float32)[:, None, None], np.arange(width, dtype=np.float32)[None, :, None]
    floor = None
    if scene.background == "gradient":
        slope = rng.choice((-1, 1)) * rng.uniform(22, 34)
        picture += slope * (rows / height - 0.5) * 2
    elif scene.background == "stripes":
        period = unit / rng.uniform(3.0, 4.5)
        along = rows if rng.random() < 0.5 else columns
        wave = ((along + 0.5) / period + rng.random()) % 1
        edge = np.clip((0.25 - np.abs(wave - 0.5)) * period + 0.5, 0, 1)  # antialiased
        picture += (edge - 0.5) * rng.uniform(26, 36)
    elif scene.background == "floor":
        floor = height * rng.uniform(0.68, 0.74)
        wall = np.array((200, 205, 210), np.float32) if scene.ground in ("black", "blue", "green", "brown") else np.array((62, 64, 74), np.float32)
        above = np.clip(floor - rows, 0, 1)
        picture = picture * (1 - above) + wall * above
    return np.clip(picture, 0, 255).astype(np.float32), floor


def _boxes(rng, count: int, height: int, width: int):
    if count == 1:
        return [(0, 0, width, height)]
    if width > height or (width == height and rng.random() < 0.5):
        return [(0, 0, width / 2, height), (width / 2, 0, width, height)]
    return [(0, 0, width, height / 2), (0, height / 2, width, height)]


def draw(rng, scene: Scene, width: int, height: int, frames: int):
    """The clip as uint8 [frames, height, width, 3]."""
    picture, floor = _background(rng, scene, height, width)
    clip = np.repeat(picture[None], frames, 0)
    unit = float(min(height, width))
    yy = np.arange(height, dtype=np.float32)[None, :, None] + 0.5
    xx = np.arange(width, dtype=np.float32)[None, None, :] + 0.5
    for thing, box in zip(scene.things, _boxes(rng, len(scene.things), height, width)):
        x, y, r, angle = _track(rng, thing, box, frames, floor if len(scene.things) == 1 else None, unit)
        colour = np.array(COLOURS[thing.colour], np.float32) + rng.uniform(-7, 7, 3).astype(np.float32)
        if floor is not None and len(scene.things) == 1:
            # A soft shadow on the floor below, fainter the higher the thing is.
            contact = max(floor + 0.1 * unit, float((y + 0.86 * r).max()))
            high = np.clip((contact - (y + 0.86 * r)) / unit, 0, 1)
            sx, sy = r * (0.9 + high), 0.3 * r * (0.9 + high)
            d = np.sqrt(((xx - x[:, None, None]) / sx[:, None, None]) ** 2 + ((yy - contact) / sy[:, None, None]) ** 2)
            dark = np.clip(1.4 - d, 0, 1) * (0.38 * (1 - high))[:, None, None] * (yy > floor)
            clip *= 1 - dark[..., None]
        dx, dy = xx - x[:, None, None], yy - y[:, None, None]
        if thing.motion == "spin":
            c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
            dx, dy = c * dx + s * dy, c * dy - s * dx
        cover = np.clip(0.5 - _distance(thing.shape, dx, dy, r[:, None, None]), 0, 1)[..., None]
        clip += (np.clip(colour, 0, 255) - clip) * cover
    return np.clip(clip + 0.5, 0, 255).astype(np.uint8)


def scene(seed: int, index: int, things: int = 1, held: bool | None = False, motions=MOTIONS) -> Scene:
    """What clip `index` of stream `seed` shows, without drawing it."""
    return draw_scene(np.random.default_rng((seed, index)), things, held, motions)


def make(seed: int, index: int, width: int = 64, height: int = 64, frames: int = 17, things: int = 1, held: bool | None = False, motions=MOTIONS):
    """Clip `index` of stream `seed`: (scene, uint8 [frames, height, width, 3])."""
    rng = np.random.default_rng((seed, index))
    shown = draw_scene(rng, things, held, motions)
    return shown, draw(rng, shown, width, height, frames)
