"""Says by image analysis what a clip shows: the colour of its thing, how it moves, which shape it has. Knows nothing of the prompt.

The background is read off the frame's border (per row or per column, whichever explains the border better); what differs from it and
is no shadow is the thing. Motion follows rules on its track; shape is a linear classifier on its moments, fitted to drawn clips.
"""
import json
import os

import numpy as np

from world import COLOURS, SHAPES

NAMES, PALETTE = list(COLOURS), np.array(list(COLOURS.values()), np.float32)
CLASSIFIER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shape_classifier.json")


def background(clip):
    """[H, W, 3]: constant along rows or along columns, from the border over all frames."""
    t, h, w, _ = clip.shape
    edge = max(2, min(h, w) // 16)
    sides = np.concatenate([clip[:, :, :edge], clip[:, :, -edge:]], 2)
    ends = np.concatenate([clip[:, :edge], clip[:, -edge:]], 1)
    rows, columns = np.median(sides, (0, 2)), np.median(ends, (0, 1))
    error = lambda model, part: np.abs(part - model).mean()
    by_rows = error(rows[None, :, None], sides) + error(np.concatenate([rows[:edge], rows[-edge:]])[None, :, None], ends)
    by_columns = error(columns[None, None], ends) + error(np.concatenate([columns[:edge], columns[-edge:]])[None, None], sides)
    return np.broadcast_to(rows[:, None] if by_rows <= by_columns else columns[None], (h, w, 3))


def segment(clip):
    """(coverage [T, H, W] in 0..1, index of the colour or None). Coverage is 0 everywhere when nothing stands out."""
    clip = clip.astype(np.float32)
    ground = background(clip)
    difference = clip - ground
    distance = np.sqrt((difference ** 2).sum(-1))
    # A shadow is the background times less than one.
    share = (clip * ground).sum(-1) / np.maximum(1, (ground ** 2).sum(-1))
    shadow = (share < 1) & (share > 0.35) & (np.sqrt(((clip - share[..., None] * ground) ** 2).sum(-1)) < 22)
    found = (distance > 48) & ~shadow
    if found.sum() < 20 * len(clip) * clip.shape[1] * clip.shape[2] / 4096 / 2:
        return np.zeros(clip.shape[:3], np.float32), None
    # Clear pixels only: those at least 60 % as far from the background as the farthest ones.
    clear = found & (distance > 0.6 * np.percentile(distance[found], 90))
    pixels = clip[clear]
    votes = np.bincount(((pixels[:, None] - PALETTE) ** 2).sum(-1).argmin(1), minlength=len(NAMES))
    colour = int(votes.argmax())
    mine = pixels[((pixels[:, None] - PALETTE) ** 2).sum(-1).argmin(1) == colour]
    towards = np.median(mine, 0) - ground
    coverage = (difference * towards).sum(-1) / np.maximum(400, (towards ** 2).sum(-1))
    return np.clip(coverage, 0, 1) * ~shadow * (distance > 24), colour


def track(coverage):
    """Per frame: area in pixels, centroid x and y; and the angular moments of order 3, 4, 5 as complex numbers [T, 3]."""
    t, h, w = coverage.shape
    yy, xx = np.mgrid[:h, :w].astype(np.float32) + 0.5
    solid = np.where(coverage > 0.3, coverage, 0)
    area = solid.sum((1, 2)) + 1e-6
    x, y = (solid * xx).sum((1, 2)) / area, (solid * yy).sum((1, 2)) / area
    dx, dy = xx - x[:, None, None], yy - y[:, None, None]
    rho, theta = np.sqrt(dx * dx + dy * dy), np.arctan2(dy, dx)
    scale = np.sqrt(area / np.pi)
    far = solid * np.clip(rho / scale[:, None, None], 0, 2) ** 3
    moments = np.stack([(far * np.exp(1j * n * theta)).sum((1, 2)) / area for n in (3, 4, 5)], 1)
    return area, x, y, moments, (solid, rho, scale)


def motion(coverage):
    t, h, w = coverage.shape
    unit = min(h, w)
    area, x, y, moments, _ = track(coverage)
    seen = area > 12 * (unit / 64) ** 2
    if seen.sum() < 0.6 * t:
        return "none"
    area, x, y, moments = area[seen], x[seen] / unit, y[seen] / unit, moments[seen]
    ratio = np.sqrt(area[-2:].mean() / area[:2].mean())
    if ratio > 1.4:
        return "grow"
    if ratio < 1 / 1.4:
        return "shrink"
    wide, tall = np.ptp(x), np.ptp(y)
    if max(wide, tall) > 0.1:
        angle = np.unwrap(np.arctan2(y - (y.max() + y.min()) / 2, x - (x.max() + x.min()) / 2))
        if min(wide, tall) > 0.1 and abs(angle[-1] - angle[0]) > np.deg2rad(200):
            return "circle"
        if tall > 0.1 and wide < 0.6 * tall and np.abs(np.diff(y)).sum() > 1.7 * abs(y[-1] - y[0]):
            return "bounce"
        dx, dy = x[-2:].mean() - x[:2].mean(), y[-2:].mean() - y[:2].mean()
        if max(abs(dx), abs(dy)) > 0.1:
            if min(abs(dx), abs(dy)) > 0.45 * max(abs(dx), abs(dy)):
                return "diagonal"
            if abs(dx) > abs(dy):
                return "right" if dx > 0 else "left"
            return "down" if dy > 0 else "up"
        return "other"
    strongest = int(np.abs(moments).mean(0).argmax())
    turned = np.unwrap(np.angle(moments[:, strongest]))
    if np.abs(moments[:, strongest]).mean() > 0.06 and abs(turned[-1] - turned[0]) / (strongest + 3) > np.deg2rad(60):
        return "spin"
    return "still"


def shape_features(coverage):
    """Scale-free: moments of order 3, 4, 5 and their squares, the hole at the middle, spread, radial profile; medians over time."""
    area, _, _, moments, (solid, rho, scale) = track(coverage)
    unit = min(coverage.shape[1:])
    use = area > 40 * (unit / 64) ** 2
    if use.sum() < 3:
        return None
    relative = rho[use] / scale[use][:, None, None]
    solid = solid[use]
    rings = [(solid * (relative >= a) * (relative < b)).sum((1, 2)) / area[use] for a, b in ((0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.1), (1.1, 1.3), (1.3, 1.6), (1.6, 2.2))]
    spread = (solid * relative ** 2).sum((1, 2)) / area[use]
    m = np.abs(moments[use])
    features = np.stack([*m.T, *(m.T ** 2), spread, spread ** 2, *rings], 1)
    return np.concatenate([np.median(features, 0), [1.0]])


def shape(coverage, classifier):
    features = shape_features(coverage)
    return "none" if features is None else SHAPES[int((classifier @ features).argmax())]


def load_classifier():
    with open(CLASSIFIER) as file:
        return np.array(json.load(file)["weights"])


def analyse(clip, classifier):
    """uint8 [T, H, W, 3] -> {"colour", "motion", "shape"}; "none" where nothing is seen."""
    coverage, colour = segment(clip)
    if colour is None:
        return {"colour": "none", "motion": "none", "shape": "none"}
    return {"colour": NAMES[colour], "motion": motion(coverage), "shape": shape(coverage, classifier)}
