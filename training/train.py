"""Trains Nano, leg by leg: `train.py vae`, `train.py latents`, `train.py dit`; each resumes where it stopped.

    nice python3 training/train.py --leg vae --minutes 35
"""
import argparse
import datetime
import importlib
import json
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import latents  # noqa: E402
import leg  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leg", required=True, choices=("vae", "clips", "latents", "dit", "decoder"))
    parser.add_argument("--tier", default="cpu", help="a section of config.json")
    parser.add_argument("--minutes", type=float, help="how long the leg lasts in all, resumptions included; the tier's own if not given")
    parser.add_argument("--until", help="the time of day (HH:MM) at which the leg ends, however often it is paused; instead of --minutes")
    parser.add_argument("--folder", default=os.path.join(HERE, "..", "build", "nano-training"), help="checkpoints, logs, caches")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    with open(os.path.join(HERE, "config.json")) as file:
        config = json.load(file)[options.tier]
    os.makedirs(options.folder, exist_ok=True)
    if options.until:
        end = datetime.datetime.combine(datetime.date.today(), datetime.time.fromisoformat(options.until))
        leg.Leg.deadline = (end if end > datetime.datetime.now() else end + datetime.timedelta(days=1)).timestamp()
    if options.leg == "clips":
        return latents.draw_all({"all": config}, options.folder)
    if options.leg == "latents":
        return latents.encode_all({"all": config}, options.folder, options.device)
    section = config[options.leg]
    importlib.import_module(f"train_{options.leg}").main({**section, "all": config}, options.folder, options.minutes or section["minutes"], options.device)


main()
