"""What every training leg needs: a folder that survives, resumable checkpoints, a clock that drives the learning rate, a log."""
import json
import math
import os
import time

import torch


class Leg:
    """One leg of training under `folder/name`. The learning rate follows the share of `minutes` spent, over all resumptions, so that a
    leg ends on time on a busy machine; the log (one JSON line per report) and the checkpoint are all that it leaves.

    With a `deadline` (seconds since the epoch) it ends then instead: what is spent and what is left make up the whole."""

    deadline = None

    def __init__(self, folder, name, minutes):
        self.folder, self.name, self.seconds = os.path.join(folder, name), name, 60 * minutes
        os.makedirs(self.folder, exist_ok=True)
        self.spent, self.step, self._last = 0.0, 0, time.time()
        self.log_file = open(os.path.join(self.folder, "log.jsonl"), "a", buffering=1)

    @property
    def checkpoint(self):
        return os.path.join(self.folder, "checkpoint.pt")

    def resume(self, device="cpu"):
        """The state saved last, or None."""
        if not os.path.exists(self.checkpoint):
            return None
        state = torch.load(self.checkpoint, map_location=device)
        self.spent, self.step = state["spent"], state["step"]
        self._last = time.time()
        return state

    def save(self, state):
        torch.save({**state, "spent": self.spent, "step": self.step}, self.checkpoint + ".part")
        os.replace(self.checkpoint + ".part", self.checkpoint)

    def tick(self):
        """Counts a step. A gap of over 20 s (paused process, slept machine) counts as 20 s."""
        now = time.time()
        self.spent += min(20.0, now - self._last)
        self._last = now
        self.step += 1

    @property
    def progress(self):
        whole = self.seconds if Leg.deadline is None else self.spent + max(0.0, Leg.deadline - time.time())
        return min(1.0, self.spent / max(whole, 1e-9))

    def rate(self, peak, warm=100, floor=0.02, flat=0.0):
        """Linear warm-up, `flat` share at the peak, then a cosine down to floor * peak."""
        tail = max(0.0, (self.progress - flat) / (1 - flat))
        return peak * min(1.0, (self.step + 1) / warm) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * tail)))

    def log(self, **values):
        line = {"leg": self.name, "step": self.step, "minutes": round(self.spent / 60, 2), **{k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}}
        self.log_file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


class Average:
    """Exponential moving average of a module's parameters, with a warm start."""

    def __init__(self, module, decay):
        self.decay, self.count = decay, 0
        self.values = {name: p.detach().clone() for name, p in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module):
        self.count += 1
        keep = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, p in module.state_dict().items():
            self.values[name].lerp_(p.detach().to(self.values[name].dtype), 1 - keep)
