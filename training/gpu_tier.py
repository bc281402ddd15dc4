"""Trains Nano's larger tier on one GPU, from a model folder's weights, in one command that ends on time:

    python3 training/gpu_tier.py --minutes 8.3 --out OUT             # OUT/nano: the model so far, renewed every minute; log.jsonl, summary.json
    python3 training/gpu_tier.py --minutes 1.5 --out OUT --smoke     # every phase and size with small pools: does it work, how fast is it
    python3 training/gpu_tier.py --minutes 0.5 --out OUT --rehearse  # tiny, on a CPU

Text encoder and transformer are trained; the VAE stays. Processes draw clips, the GPU encodes them between steps (gpu_pools.py). A step,
optimiser and average included, is one CUDA graph per size of clip, with the halves of a block compiled (gpu_dit.py, flat.py); where
either fails the run says why and goes on without. Nothing in the loop waits for the device, but for the step before the last two.
"""
import argparse
import collections
import contextlib
import json
import math
import os
import shutil
import signal
import sys
import time
import traceback

BEGAN = time.time()
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import export  # noqa: E402
import gpu_dit  # noqa: E402
import gpu_pools  # noqa: E402
import restore  # noqa: E402
from attention import Density  # noqa: E402
from flat import Flat  # noqa: E402
from latents import Encoder  # noqa: E402
from train_dit import Nano, attention_to_things, flow_loss, hidden_matrix  # noqa: E402

CHECKS = (96, 32)  # clips of the first pool, of every other pool, that are never trained on


class Log:
    def __init__(self, folder):
        self.file = open(os.path.join(folder, "log.jsonl"), "a", buffering=1)
        self.step = 0

    def __call__(self, **values):
        rounded = {key: round(v, 5) if isinstance(v, float) else v for key, v in values.items()}
        line = json.dumps({"leg": "dit", "step": self.step, "minutes": round((time.time() - BEGAN) / 60, 3), **rounded})
        self.file.write(line + "\n")
        print(line, flush=True)


@contextlib.contextmanager
def at_most(seconds, what):
    """Breaks off with TimeoutError, so that a compilation that hangs does not cost the run."""
    def stop(*_):
        raise TimeoutError(f"{what} took more than {seconds} s")
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Size:
    """One entry of `sizes`: its pool, what a step reads (tensors that stay where they are), and how it runs."""

    def __init__(self, run, number, entry):
        self.run, self.entry, self.batch = run, entry, entry["batch"]
        self.name = "x".join(map(str, entry["size"])) + ("_two" if entry.get("things", 1) > 1 else "")
        self.pool = gpu_pools.Pool(entry, run.config["vae"]["latent"], run.device)
        self.checks = min(CHECKS[number > 0], entry["clips"] // 4)
        grid = tuple(n // p for n, p in zip(self.pool.shape[1:], run.nano.dit.patch))
        self.plan = gpu_dit.Plan(run.nano.dit, grid, gpu_pools.WORDS, run.device)
        new = lambda *shape, **options: torch.zeros(self.batch, *shape, device=run.device, **options)
        self.latents, self.noise = torch.randn(self.batch, *self.pool.shape, device=run.device).half(), new(*self.pool.shape)
        self.places, self.ids = new(1, *self.pool.shape[1:], dtype=torch.bool), new(gpu_pools.WORDS, dtype=torch.int64)
        self.sigmas, self.times = new() + 0.5, new(run.nano.dit.freq_dim)
        self.ids[:, 0] = 1
        self.loss = torch.zeros((), device=run.device)
        self.pieces, self.graph, self.ready, self.steps, self.summed, self.milliseconds = None, None, False, 0, 0, collections.deque(maxlen=400)

    @property
    def at_hand(self):
        """Whether there are enough clips to train on."""
        return self.pool.count >= min(self.entry["clips"], self.checks + 256)

    def fill(self):
        """A fresh batch. Everything random happens here, on the device and outside the graph."""
        run, pool, n = self.run, self.pool, self.batch
        index = torch.randint(self.checks, pool.count, (n,), device=run.device)
        torch.index_select(pool.latents, 0, index, out=self.latents)
        torch.index_select(pool.places, 0, index, out=self.places)
        captions = index * gpu_pools.CAPTIONS + torch.randint(gpu_pools.CAPTIONS, (n,), device=run.device)
        silent = torch.rand(n, 1, device=run.device) < run.config["dit"]["empty"]
        self.ids.copy_(torch.where(silent, run.nothing, pool.ids.index_select(0, captions).long()))
        plain = torch.where(torch.rand(n, device=run.device) < 0.2, torch.rand(n, device=run.device), torch.randn(n, device=run.device).sigmoid())
        shift = run.config["dit"]["shift"]
        self.sigmas.copy_((shift * plain / (1 + (shift - 1) * plain)).clamp(1e-3, 0.9995))
        torch.index_select(run.times, 0, (1000 * self.sigmas).floor().long(), out=self.times)
        self.noise.normal_()

    def compute(self):
        """One step on the batch in place."""
        run, latents, s = self.run, self.latents.float(), self.sigmas.view(-1, 1, 1, 1, 1)
        velocity = gpu_dit.forward(run.nano, self.plan, self.pieces, (1 - s) * latents + s * self.noise, self.times, self.ids, run.half)
        weight = attention_to_things(self.places.float(), self.sigmas, run.config["dit"]["things_weight"])
        loss = ((velocity - (self.noise - latents)).square() * weight).mean()
        run.flat.step(torch.autograd.grad(loss, run.flat.parameters))
        self.loss.add_(loss.detach())

    def prepare(self):
        """Compiles, then captures; rates are 0 meanwhile. Gives up one thing at a time."""
        run, started = self.run, time.time()
        run.set_rates(0.0, 0.0)
        while True:
            self.pieces = run.pieces
            compiled = run.pieces is not run.plain
            try:
                with at_most(run.patience if compiled else 120, f"the first steps at {self.name}"):
                    self.warm()
                break
            except Exception as error:
                traceback.print_exc(limit=-4)
                self.graph = None
                if run.cuda:
                    torch.cuda.synchronize()
                if compiled:
                    run.log(gave_up="compilation", size=self.name, why=f"{type(error).__name__}: {str(error)[:300]}")
                    run.pieces = run.plain
                elif run.graphs:
                    run.log(gave_up="CUDA graphs", size=self.name, why=f"{type(error).__name__}: {str(error)[:300]}")
                    run.graphs = False
                else:
                    raise
        self.loss.zero_()
        self.ready = True
        took = time.time() - started
        run.log(prepared=self.name, seconds=took, compiled=compiled, graph=self.graph is not None, gib=run.memory())
        if run.pieces is not run.plain:
            if self is not run.sizes[0]:
                run.compiling += took
            if run.compiling > 60:  # it compiles again for each size
                run.log(gave_up="compilation of further sizes", why=f"{run.compiling:.0f} s went into it")
                run.pieces = run.plain
            run.patience = 40

    def warm(self):
        if not self.run.cuda:
            return self.compute()
        side = self.run.side
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.compute()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        if self.run.graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.run.graph_memory):
                self.compute()
            self.graph = graph

    def step(self):
        self.graph.replay() if self.graph is not None else self.compute()
        self.steps += 1
        self.summed += 1


class Run:
    def __init__(self, options, config):
        self.options, self.config, self.log = options, config, Log(options.out)
        self.cuda = options.device.startswith("cuda")
        self.device, self.phases = options.device, {}
        self.end = BEGAN + 60 * options.minutes
        self.last = self.end - min(15, 6 * options.minutes)  # when training stops; then check, export
        self.sizes, self.in_flight, self.encoded, self.chunk_seconds = [], collections.deque(), 0, []
        self.patience, self.compiling, self.failures = 110, 0.0, 0
        self.trained_from, self.start, self.drawing = None, None, None

    @contextlib.contextmanager
    def phase(self, name):
        started = time.time()
        yield
        self.phases[name] = round(time.time() - started, 2)
        self.log(phase=name, seconds=self.phases[name])

    def memory(self):
        return round(torch.cuda.max_memory_allocated() / 2 ** 30, 2) if self.cuda else 0.0

    # ---- phases --------------------------------------------------------------------------------------------------------------

    def begin(self):
        """All that must happen before CUDA starts: processes are forked, weights read."""
        dit, slots, megabytes = self.config["dit"], self.options.slots, self.options.slot_megabytes
        self.drawing = gpu_pools.Drawing(dit["sizes"], dit["favours"], os.path.join(self.options.model, "spiece.model"), self.options.processes, slots, megabytes << 20)
        self.vae_state, self.start, self.before = restore.read(self.options.model)

    def move(self):
        dit = self.config["dit"]
        if self.cuda:
            torch.cuda.init()
            torch.set_float32_matmul_precision("high")
            self.log(gpu=torch.cuda.get_device_name(), torch=torch.__version__)
            self.graph_memory, self.side = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        torch.manual_seed(int(self.options.seed))
        self.encoder = Encoder(self.vae_state, self.config["vae"], self.device)
        vocabulary = self.start["text.token_embedding.weight"].shape[0]
        self.make = lambda: Nano(dit, vocabulary, self.config["vae"]["latent"]).to(self.device)
        self.nano = self.make()
        self.nano.load_state_dict(self.start)
        self.flat = Flat(self.nano, hidden_matrix)
        self.half = torch.bfloat16
        self.times = gpu_dit.times(dit["model"]["freq_dim"], self.device)
        self.nothing = torch.tensor([1] + [0] * (gpu_pools.WORDS - 1), device=self.device)  # the end and nothing before it
        self.plain = gpu_dit.Pieces()
        self.graphs = self.cuda and not self.options.no_graphs
        self.pieces = self.plain
        self.sizes = [Size(self, number, entry) for number, entry in enumerate(dit["sizes"])]

    def compare(self):
        """The arrangement for the GPU against the plain model, on the same noise: says at once if one of them is wrong here."""
        size = self.sizes[0]
        n = min(8, size.batch)
        latents, sigmas = size.latents[:n].float(), torch.linspace(0.1, 0.9, n, device=self.device)
        ids = torch.tensor([[5 + (3 * i + j) % 400 for j in range(9)] + [1] + [0] * (gpu_pools.WORDS - 10) for i in range(n)], device=self.device)
        with torch.no_grad():
            steps = (1000 * sigmas).floor()
            wanted = self.nano(latents, steps, ids, (ids > 0).long())
            got = gpu_dit.forward(self.nano, size.plan, self.plain, latents, self.times[steps.long()], ids, self.half)
        self.log(difference_from_plain_model=float((got - wanted).norm() / wanted.norm()))

    def encode(self, timeout=None):
        """One drawn chunk, if one is ready: into its pool. True if there was one."""
        try:
            found = self.drawing.take(timeout)
        except RuntimeError as error:  # what the other processes draw will do
            self.log(drawing=str(error)[-600:])
            return False
        if found is None:
            return False
        started = time.time()
        pool, count, slot, ids, colours = found
        try:
            self.sizes[pool].pool.add(self.encoder, torch.from_numpy(self.drawing.slot(slot, pool, count)), ids, colours)
        except Exception as error:
            self.failures += 1
            self.log(failed="encoding " + self.sizes[pool].name, why=f"{type(error).__name__}: {str(error)[:300]}")
            if self.failures > 4:
                raise
        self.drawing.free.put(slot)  # the copy to the device has waited for itself
        self.encoded += 1
        if self.trained_from is None:
            self.settle()
            self.chunk_seconds.append(time.time() - started)
        return True

    def first_clips(self):
        """Enough of the first pool to begin with; measures what a chunk costs."""
        wanted, until = min(self.sizes[0].entry["clips"], self.options.first_clips), min(time.time() + 60, self.last)
        while self.sizes[0].pool.count < wanted and time.time() < until:
            self.encode(timeout=1)
        self.chunk_seconds = float(np.median(self.chunk_seconds or [0.02]))
        self.log(chunk_seconds=self.chunk_seconds, clips=self.sizes[0].pool.count)

    def settle(self):
        if self.cuda:
            torch.cuda.synchronize()

    def check(self):
        """Flow loss of the averaged weights on clips never trained on, in f32 by the plain model: the first pool's as train_dit.py
        reports it, and every size's."""
        shadow = self.make()
        shadow.load_state_dict(self.flat.averages())
        result = {}
        with torch.no_grad():
            for size in self.sizes:
                n = size.checks
                if n == 0 or size.pool.count < n:
                    continue
                latents, ids = size.pool.latents[:n].float(), size.pool.ids[:n * gpu_pools.CAPTIONS:gpu_pools.CAPTIONS].long()
                generator = torch.Generator().manual_seed(3)
                order, noise = torch.randperm(n, generator=generator).to(self.device), torch.randn(latents.shape, generator=generator).to(self.device)
                sigmas = torch.linspace(0.05, 0.98, n, device=self.device)[order]
                loss = lambda words, density=None: float(flow_loss(shadow, latents, sigmas, noise, words, (words > 0).long(), density=density).mean())
                if size is self.sizes[0]:
                    density = Density()
                    result["check"], result["without_text"] = loss(ids, density), loss(self.nothing.expand(n, -1))
                    policy, shadow.dit.policy = shadow.dit.policy, None
                    result["dense"] = loss(ids)
                    shadow.dit.policy = policy
                    result.update({"density_" + name: value for name, value in density.means().items()})
                else:
                    result["check_" + size.name] = loss(ids)
        self.log(**result)
        return result

    # ---- training ------------------------------------------------------------------------------------------------------------

    def set_rates(self, rate, forget):
        self.flat.rate.fill_(rate)
        self.flat.hidden_rate.fill_(rate * self.config["dit"]["hidden_rate"])
        self.flat.forget.fill_(forget)

    def rate(self):
        c = self.config["dit"]
        progress = min(1.0, (time.time() - self.trained_from) / max(1e-9, self.last - self.trained_from))
        tail = max(0.0, (progress - c["flat"]) / (1 - c["flat"]))
        return c["rate"] * min(1.0, (self.log.step + 1) / c["warm"]) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * tail)))

    def pace(self, size, depth=3):
        """Waits for the step `depth` steps ago, so that the clock that steers the rate is the device's."""
        if not self.cuda:
            return
        self.in_flight.append((size, self.started, torch.cuda.Event(enable_timing=True)))
        self.in_flight[-1][2].record()
        if len(self.in_flight) > depth:
            done, start, end = self.in_flight.popleft()
            end.synchronize()
            done.milliseconds.append(start.elapsed_time(end))

    def one(self, size, rate):
        if not size.ready:
            size.fill()
            size.prepare()
        self.set_rates(rate, 1 - min(self.config["dit"]["average"], (1 + self.log.step) / (10 + self.log.step)))
        clock = time.time()
        if self.cuda:
            self.started = torch.cuda.Event(enable_timing=True)
            self.started.record()
        size.fill()
        size.step()
        self.pace(size)
        if not self.cuda:
            size.milliseconds.append(1000 * (time.time() - clock))
        self.log.step += 1

    def train(self):
        c, rng = self.config["dit"], np.random.default_rng(17)
        shares = np.array([entry["share"] for entry in c["sizes"]], float)
        if self.options.smoke:
            shares[:] = 1
        self.trained_from = reported = saved = time.time()
        encoded_before, stepped = self.encoded, 0
        while time.time() < self.last:
            now = time.time()
            if not shares.any():
                raise RuntimeError("no size is left to train on")
            if (self.encoded - encoded_before) * self.chunk_seconds < c["encode_share"] * (now - self.trained_from) + 1.0:
                self.encode()
            open_shares = shares * [size.at_hand for size in self.sizes]
            if not open_shares.any():
                self.encode(timeout=1)
                continue
            which = int(rng.choice(len(self.sizes), p=open_shares / open_shares.sum()))
            rate = self.rate()
            try:
                self.one(self.sizes[which], rate)
            except Exception as error:
                self.failures += 1
                self.log(failed=self.sizes[which].name, why=f"{type(error).__name__}: {str(error)[:300]}")
                self.in_flight.clear()
                shares[which] = 0  # the others may still do
                if self.failures > 4:
                    raise
                continue
            if now - reported > self.options.report_seconds:
                losses = {s.name: round(float(s.loss) / s.summed, 4) for s in self.sizes if s.summed}
                self.log(losses=losses, norm=float(self.flat.norm), rate=rate, skipped=int(self.flat.skipped), clips=sum(s.pool.count for s in self.sizes),
                         ms=1000 * (now - reported) / max(1, self.log.step - stepped))
                for s in self.sizes:
                    s.loss.zero_()
                    s.summed = 0
                reported, stepped = now, self.log.step
            if now - saved > c["save_seconds"]:
                self.save()
                saved = now
        self.settle()

    # ---- results -------------------------------------------------------------------------------------------------------------

    def save(self):
        """OUT/nano as export.py writes it, from the averaged weights; the VAE, tokenizer and preview factors are the model's own."""
        average = self.flat.averages()
        if not all(bool(torch.isfinite(t).all()) for t in average.values()):
            return self.log(not_saved="the averaged weights are not finite")
        folder = os.path.join(self.options.out, "nano")
        os.makedirs(folder, exist_ok=True)
        for name in ("vae.safetensors", "spiece.model"):
            if not os.path.exists(os.path.join(folder, name)):
                shutil.copyfile(os.path.join(self.options.model, name), os.path.join(folder, name))
        export.write_transformer(folder, average, self.config["dit"])
        with open(os.path.join(self.options.model, "model.json")) as file:
            preview = json.load(file)["preview"]
        before = {key: self.before[key] for key in ("tier", "steps", "minutes")}
        seconds = time.time() - (self.trained_from or time.time())
        export.describe(folder, (preview["factors"], preview["bias"]), {"step": self.log.step, "spent": seconds, "training": {
            "samples": sum(s.steps * s.batch for s in self.sizes), "device": torch.cuda.get_device_name() if self.cuda else "CPU", "before": before}}, self.config)
        self.log(saved=folder)

    def summary(self, outcome, checks):
        result = {
            "outcome": outcome, "steps": self.log.step, "samples": sum(s.steps * s.batch for s in self.sizes), "seconds": round(time.time() - BEGAN, 1),
            "trained_seconds": round(time.time() - self.trained_from, 1) if self.trained_from else 0, "compiled": any(s.pieces not in (None, self.plain) for s in self.sizes),
            "graphs": any(s.graph is not None for s in self.sizes), "gib": self.memory(), "phases": self.phases, "checks": checks,
            "sizes": {s.name: {"steps": s.steps, "batch": s.batch, "ms": round(float(np.median(s.milliseconds)), 2) if s.milliseconds else None, "clips": s.pool.count,
                               "graph": s.graph is not None, "compiled": s.pieces not in (None, self.plain)} for s in self.sizes},
        }
        with open(os.path.join(self.options.out, "summary.json"), "w") as file:
            json.dump(result, file, indent=1)
        print(json.dumps(result), flush=True)
        self.log.file.close()

    def all(self):
        """Returns whether all went well. Whatever happens, what was learnt is written."""
        outcome, checks = "done", {}
        try:
            with self.phase("begin"):
                self.begin()
            with self.phase("move"):
                self.move()
            with self.phase("compare"):
                self.compare()
            with self.phase("prepare"):
                if not self.options.no_compile:
                    try:
                        self.pieces = gpu_dit.Pieces(True, self.options.backend)
                    except Exception as error:
                        self.log(gave_up="compilation", why=f"{type(error).__name__}: {error}")
                self.sizes[0].prepare()
                self.flat.reset()
            with self.phase("first clips"):
                self.first_clips()
            with self.phase("first check"):
                checks["before"] = self.check()
            with self.phase("train"):
                self.train()
        except BaseException as error:  # a signal too
            traceback.print_exc()
            outcome = f"{type(error).__name__}: {str(error)[:300]}"
        if self.drawing:
            self.drawing.close()
        for what in (lambda: self.save(), lambda: checks.update(after=self.check())):
            try:
                if self.log.step:
                    what()
            except Exception as error:
                traceback.print_exc()
                outcome = f"{outcome}; {type(error).__name__}: {str(error)[:300]}"
        if outcome == "done" and not self.log.step:
            outcome = "no step was taken: no clips came"
        self.summary(outcome, checks)
        return outcome == "done"


def shrink(config, options):
    """Small pools for --smoke; small pools, batches and sizes for --rehearse."""
    sizes = config["dit"]["sizes"]
    if options.smoke:
        for entry in sizes:
            entry["clips"] = max(400, entry["clips"] // 40)
        config["dit"]["save_seconds"] = 20
    if options.rehearse:
        sizes[:] = [{**entry, "size": size, "clips": 24, "batch": batch} for entry, size, batch in zip(sizes, ([48, 48, 9], [48, 48, 9], [64, 48, 5]), (5, 3, 4))]
        config["dit"]["save_seconds"] = 5
        options.device, options.processes, options.slots, options.slot_megabytes, options.report_seconds, options.first_clips = "cpu", 1, 3, 1, 1, 16


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="all in all, from the start of the process")
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", default=os.path.join(HERE, "..", "resources", "models", "nano"), help="where the weights begin, and the VAE is from")
    parser.add_argument("--tier", default="gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="that draw clips")
    parser.add_argument("--slots", type=int, default=640, help="chunks of drawn clips that may wait")
    parser.add_argument("--slot-megabytes", type=int, default=16)
    parser.add_argument("--first-clips", type=int, default=4096)
    parser.add_argument("--report-seconds", type=float, default=10)
    parser.add_argument("--seed", default=1000)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args(arguments)
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(HERE, "config.json")) as file:
        config = {**json.load(file)[options.tier], "tier": options.tier}
    shrink(config, options)

    def stop(number, _):
        raise KeyboardInterrupt(f"signal {number}")
    signal.signal(signal.SIGTERM, stop)
    return 0 if Run(options, config).all() else 1


if __name__ == "__main__":
    sys.exit(main())
