"""Measures whether Nano does what its prompts say, through the native engine.

    python3 training/adherence.py prompts                 # writes adherence_prompts.jsonl: fixed before the final training
    python3 training/adherence.py measure [--model M] [--policy P] [--count N] [--side 64] [--frames 17] [--name NAME] [options of vmoba-studio render]
    python3 training/adherence.py truth                   # the analyser's own accuracy, on drawn clips of the same scenes

Every caption's colour-shape-motion triple was held out of training. `--shuffle` compares each clip with another caption's scene.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import analyse  # noqa: E402
import clips  # noqa: E402
import world  # noqa: E402

PROMPTS = os.path.join(HERE, "adherence_prompts.jsonl")
WHAT = ("colour", "motion", "shape")


def write_prompts(count=220, seed=2026):
    """Motions, colours and shapes in turn as far as the held-out triples allow, so that rare ones are measured too."""
    triples = [(c, s, m) for c in world.COLOURS for s in world.SHAPES for m in world.MOTIONS if world.held_out(c, s, m) and not (m == "spin" and s in world.TURNLESS)]
    rng = np.random.default_rng(seed)
    with open(PROMPTS, "w") as file:
        for i in range(count):
            motion = world.MOTIONS[i % len(world.MOTIONS)]
            choices = [t for t in triples if t[2] == motion] or triples
            colour, shape, motion = choices[int(rng.integers(len(choices)))]
            drawn = world.draw_scene(rng, held=None)
            thing = world.Thing(colour, shape, drawn.things[0].size, motion, (int(rng.integers(2)) * 2 - 1, int(rng.integers(2)) * 2 - 1 if motion == "diagonal" else 0))
            ground = next(g for g in [drawn.ground, *world.GROUNDS] if g != colour)
            scene = world.Scene((thing,), drawn.background, ground)
            line = {"id": f"a{i:03}", "prompt": world.caption(rng, scene), "seed": 7000 + i, "colour": colour, "motion": motion, "shape": shape,
                    "size": thing.size, "heading": thing.heading, "background": scene.background, "ground": scene.ground}
            file.write(json.dumps(line) + "\n")


def prompts(count=None):
    with open(PROMPTS) as file:
        return [json.loads(line) for line in file][:count]


def raw(folder, entry, side, frames):
    return np.fromfile(os.path.join(folder, entry["id"] + ".rgb"), np.uint8).reshape(frames, side, side, 3)


def render(entries, model, policy, side, frames, extra, folder):
    """Renders through the studio's command line: raw clips in the folder."""
    batch = os.path.join(folder, "batch.jsonl")
    with open(batch, "w") as file:
        file.writelines(json.dumps({"id": e["id"], "prompt": e["prompt"], "seed": e["seed"]}) + "\n" for e in entries)
    command = ["node", os.path.join(ROOT, "scripts", "vmoba-studio.mjs"), "render", "--batch", batch, "--out-dir", folder, "--raw", "--model", model,
               "--size", f"{side}x{side}", "--frames", str(frames), *(["--policy", policy] if policy else []), *extra]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def drawn(entries, side, frames):
    for e in entries:
        thing = world.Thing(e["colour"], e["shape"], e["size"], e["motion"], tuple(e["heading"]))
        yield clips.draw(np.random.default_rng((909, e["seed"])), world.Scene((thing,), e["background"], e["ground"]), side, side, frames)


def interval(hits, count):
    """95 % Wilson interval."""
    if count == 0:
        return [0.0, 1.0]
    z, p = 1.96, hits / count
    middle, half = (p + z * z / (2 * count)) / (1 + z * z / count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return [round(middle - half, 4), round(middle + half, 4)]


def score(entries, results):
    report = {"count": len(entries)}
    for what in WHAT:
        hits = [r[what] == e[what] for e, r in zip(entries, results)]
        classes = {}
        for e, r, hit in zip(entries, results, hits):
            entry = classes.setdefault(e[what], {"count": 0, "hits": 0, "seen_as": {}})
            entry["count"] += 1
            entry["hits"] += hit
            if not hit:
                entry["seen_as"][r[what]] = entry["seen_as"].get(r[what], 0) + 1
        for entry in classes.values():
            entry["interval"] = interval(entry["hits"], entry["count"])
        report[what] = {"share": round(sum(hits) / len(hits), 4), "interval": interval(sum(hits), len(hits)), "classes": classes}
    report["all_three"] = round(sum(all(r[w] == e[w] for w in WHAT) for e, r in zip(entries, results)) / len(entries), 4)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("prompts", "measure", "truth"))
    parser.add_argument("--model", default=os.path.join(ROOT, "resources", "models", "nano"))
    parser.add_argument("--policy", help="dense, JSON, ...; the model's own if not given")
    parser.add_argument("--count", type=int)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--shuffle", action="store_true")
    parser.add_argument("--name", default="trained")
    parser.add_argument("--keep", help="a folder for the raw clips; clips already there are measured, not rendered again")
    parser.add_argument("--report", default=os.path.join(ROOT, "docs", "nano", "adherence.json"))
    options, rest = parser.parse_known_args()  # what is not known here goes to vmoba-studio render
    if options.command == "prompts":
        return write_prompts()
    entries = prompts(options.count)
    classifier = analyse.load_classifier()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or temporary
        os.makedirs(folder, exist_ok=True)
        have = all(os.path.exists(os.path.join(folder, e["id"] + ".rgb")) for e in entries)
        if options.command == "truth":
            made = drawn(entries, options.side, options.frames)
        else:
            if not have:
                render(entries, options.model, options.policy, options.side, options.frames, rest, folder)
            made = (raw(folder, e, options.side, options.frames) for e in entries)
        results = [analyse.analyse(clip, classifier) for clip in made]
    expected = entries[37:] + entries[:37] if options.shuffle else entries
    report = score(expected, results)
    print(json.dumps({w: [report[w]["share"], report[w]["interval"], {k: f"{v['hits']}/{v['count']} {v['seen_as']}" for k, v in report[w]["classes"].items()}] for w in WHAT}, indent=1))
    os.makedirs(os.path.dirname(options.report), exist_ok=True)
    known = {}
    if os.path.exists(options.report):
        with open(options.report) as file:
            known = json.load(file)
    known[options.name] = report
    with open(options.report, "w") as file:
        json.dump(known, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
