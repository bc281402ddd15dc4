"""Renders the gallery's prompts through the studio: clips and posters in resources/gallery, one contact sheet in docs/pictures/nano.png."""
import json
import os
import subprocess
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "resources", "gallery")
STUDIO = ["node", os.path.join(ROOT, "scripts", "vmoba-studio.mjs"), "render"]
SIDE, FRAMES, SHOWN = 64, 17, 6


def picture(pixels, path, scale):
    with tempfile.NamedTemporaryFile(suffix=".ppm") as file:
        file.write(b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + np.ascontiguousarray(pixels).tobytes())
        file.flush()
        subprocess.run(["convert", file.name, "-filter", "point", "-resize", f"{scale}%", path], check=True)


def main():
    with open(os.path.join(FOLDER, "prompts.jsonl")) as file:
        prompts = [json.loads(line) for line in file]
    rows, gallery = [], []
    with tempfile.TemporaryDirectory() as temporary:
        batch = os.path.join(FOLDER, "prompts.jsonl")
        for out, extra in ((temporary, ["--raw"]), (FOLDER, ["--format", "mp4"])):
            subprocess.run([*STUDIO, "--batch", batch, "--out-dir", out, "--size", f"{SIDE}x{SIDE}", "--frames", str(FRAMES), *extra], check=True, cwd=ROOT)
        for entry in prompts:
            clip = np.fromfile(os.path.join(temporary, entry["id"] + ".rgb"), np.uint8).reshape(FRAMES, SIDE, SIDE, 3)
            picture(clip[FRAMES // 2], os.path.join(FOLDER, entry["id"] + ".png"), 300)
            rows.append(np.concatenate([clip[i] for i in np.linspace(0, FRAMES - 1, SHOWN).astype(int)], 1))
            gallery.append({"prompt": entry["prompt"], "settings": {"seed": str(entry["seed"])}, "clip": entry["id"] + ".mp4", "poster": entry["id"] + ".png"})
    sheet = np.concatenate([np.concatenate(rows[:4], 0), np.full((4 * SIDE, 8, 3), 255, np.uint8), np.concatenate(rows[4:], 0)], 1)
    picture(sheet, os.path.join(ROOT, "docs", "pictures", "nano.png"), 150)
    with open(os.path.join(FOLDER, "gallery.json"), "w") as file:
        json.dump(gallery, file, indent=2)
        file.write("\n")


main()
