"""What PyTorch makes of the very operands and selections of `vmoba-native bench attention --export <folder>`.

    python3 torch_rival.py <folder or files> [--repeats 20] [--rows 64]

Per file, one JSON line per result and a table at the end:
  dense      scaled_dot_product_attention by flash and by cuDNN; our time from the file beside the fastest.
  published  VMoBA as its authors compute it (arXiv 2506.23858): own blocks by varlen flash, copies of the queries that selected a block by a
             second call with one sequence per (head, block), both merged by log-sum-exp in f32. Timed apart: permute (q, k, v into the
             partition's order and the result back), routing (block means, gate, sort, cumulative sum, threshold), gather (indices and copies),
             attention, merge. Attention follows the file's selection, so its result must be ours.
  accuracy   rows against float64, ours beside PyTorch's in bf16.
Ends with 1 where the published algorithm's result is not ours (1 %), or ours errs more than twice as much as PyTorch's. Without CUDA the
same code runs on the CPU, a plain loop standing in for flash attention: its times say nothing.
"""

import argparse
import contextlib
import json
import math
import pathlib
import statistics
import sys
import time
import warnings

import numpy
import torch
import torch.nn.functional as functional

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
warnings.filterwarnings("ignore", message="index_reduce")
TYPES = {"BF16": numpy.int16, "I32": numpy.int32, "U8": numpy.uint8}


def read(path):
    """Metadata and tensors of a safetensors file."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        kind = TYPES[entry["dtype"]]
        values = numpy.fromfile(path, kind, (end - begin) // numpy.dtype(kind).itemsize, offset=8 + size + begin)
        tensor = torch.from_numpy(values.reshape(entry["shape"])).to(DEVICE)
        tensors[name] = tensor.view(torch.bfloat16) if entry["dtype"] == "BF16" else tensor
    return json.loads(header["__metadata__"]["attention"]), tensors


def mark():
    if not CUDA:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first, second):
    return first.elapsed_time(second) * 1e-3 if CUDA else second - first


def median_seconds(run, repeats):
    """`run(step)` calls `step(name)` at the end of each of its parts; medians by name, and of the whole under "total"."""
    times = {}
    for repeat in range(-min(3, repeats), repeats):
        marks = [("", mark())]
        run(lambda name: marks.append((name, mark())))
        marks.append(("total", mark()))
        if CUDA:
            torch.cuda.synchronize()
        if repeat < 0:
            continue
        spent = {"total": seconds_between(marks[0][1], marks[-1][1])}
        for (_, first), (name, second) in zip(marks, marks[1:-1]):
            spent[name] = spent.get(name, 0) + seconds_between(first, second)
        for name, value in spent.items():
            times.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in times.items()}


def relative(value, reference):
    value, reference = value.double(), reference.double()
    return ((value - reference).norm() / reference.norm()).item()


# Attention calls. Variable lengths: q [Tq, H, D], k and v [Tk, H, D], cumulative lengths int32; returns out and natural log-sum-exp [Tq, H].


def loop_varlen(q, k, v, cu_q, cu_k, max_q, max_k):
    out = torch.zeros_like(q)
    lse = torch.zeros(q.shape[:2], dtype=torch.float32, device=q.device)
    ends_q, ends_k = cu_q.tolist(), cu_k.tolist()
    for i in range(len(ends_q) - 1):
        rows, keys = slice(ends_q[i], ends_q[i + 1]), slice(ends_k[i], ends_k[i + 1])
        scores = torch.einsum("qhd,khd->qhk", q[rows].float(), k[keys].float()) / math.sqrt(q.shape[-1])
        lse[rows] = torch.logsumexp(scores, -1)
        out[rows] = torch.einsum("qhk,khd->qhd", torch.softmax(scores, -1), v[keys].float()).to(q.dtype)
    return out, lse


def rows_first(lse, tokens, heads):
    if tuple(lse.shape) == (heads, tokens):
        return lse.t().contiguous()
    if tuple(lse.shape) == (tokens, heads):
        return lse
    raise RuntimeError(f"log-sum-exp of shape {tuple(lse.shape)} for {tokens} tokens and {heads} heads")


def public_varlen():
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    def call(q, k, v, cu_q, cu_k, max_q, max_k):
        out, lse = varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, return_aux=AuxRequest(lse=True))[:2]
        return out, rows_first(lse, q.shape[0], q.shape[1])

    return call


def aten_varlen():
    forward = torch.ops.aten._flash_attention_forward

    def call(q, k, v, cu_q, cu_k, max_q, max_k):
        out, lse = forward(q, k, v, cu_q, cu_k, max_q, max_k, 0.0, False, False)[:2]
        return out, rows_first(lse, q.shape[0], q.shape[1])

    return call


def choose_varlen():
    """The first call that gives what the loop gives, on ragged sequences one of which has no queries."""
    if not CUDA:
        return "loop", loop_varlen
    generator = torch.Generator().manual_seed(1)
    cu_q, cu_k = ([0, 70, 70, 201], [0, 33, 160, 290])
    q, k, v = (torch.randn(n, 2, 128, generator=generator).to(DEVICE, torch.bfloat16) for n in (201, 290, 290))
    ends = [torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in (cu_q, cu_k)]
    expected, expected_lse = loop_varlen(q, k, v, *ends, 131, 130)
    for name, make in (("torch.nn.attention.varlen", public_varlen), ("aten._flash_attention_forward", aten_varlen)):
        try:
            call = make()
            out, lse = call(q, k, v, *ends, 131, 130)
            error = max(relative(out, expected), relative(lse, expected_lse))
            if error < 0.01:
                return name, call
            problem = f"differs from a plain loop by {error:.3g}"
        except Exception as failure:  # whatever it is, the next one may work
            problem = str(failure).splitlines()[0] if str(failure) else repr(failure)
        print(json.dumps({"varlen": name, "problem": problem}), flush=True)
    print(json.dumps({"varlen": "loop", "problem": "no varlen flash attention works: times of the published algorithm say nothing"}), flush=True)
    return "loop", loop_varlen


@contextlib.contextmanager
def backend_only(name):
    if not CUDA:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, name)):
        yield


def sdpa(q, k, v, mask=None):
    """[H, Q, D] over [H, S, D]."""
    if hasattr(functional, "scaled_dot_product_attention"):
        return functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=None if mask is None else mask[None])[0]
    scores = q.float() @ k.float().transpose(1, 2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    top = scores.amax(-1, keepdim=True)
    weights = (scores - top).exp()
    return ((weights.to(q.dtype).float() @ v.float()) / weights.sum(-1, keepdim=True)).to(q.dtype)


class Published:
    """q, k, v [S, H, D] in raster order; blocks are [start[c], start[c+1]) of the permuted order."""

    def __init__(self, q, k, v, permutation, start, tau, varlen):
        self.inputs, self.tau, self.varlen = (q, k, v), tau, varlen
        self.tokens, self.heads, self.dim = q.shape
        self.start, self.blocks = start, start.numel() - 1
        lengths = (start[1:] - start[:-1]).long()
        self.longest = int(lengths.max())
        position = torch.arange(self.tokens, device=q.device)
        self.identity = bool((permutation == position).all())
        self.permutation = permutation.long()
        self.inverse = torch.empty_like(self.permutation)
        self.inverse[self.permutation] = position
        block = torch.repeat_interleave(torch.arange(self.blocks, device=q.device), lengths)
        self.block_of = block
        self.own = (block[None, :] == torch.arange(self.blocks, device=q.device)[:, None])[:, None, :]  # [C, 1, S]
        within = torch.arange(self.longest, device=q.device)[None, :]
        self.member = within < lengths[:, None]
        self.member_index = (start[:-1, None].long() + within).clamp(max=self.tokens - 1)
        self.lengths = lengths
        # Keys of head h, block c: rows h·S + start[c] on of the head-major copy.
        offsets = torch.arange(self.heads, device=q.device)[:, None] * self.tokens + start[None, :-1]
        self.cu_keys = torch.cat([offsets.flatten(), torch.tensor([self.heads * self.tokens], device=q.device)]).int()

    def permute(self):
        return self.inputs if self.identity else tuple(x.index_select(0, self.permutation) for x in self.inputs)

    def route(self, q, k):
        """Selection [C, H, S] by the share of the summed gates of each head, own blocks included."""
        padded = k.index_select(0, self.member_index.flatten()).view(self.blocks, self.longest, self.heads, self.dim).float()
        means = (padded * self.member[:, :, None, None]).sum(1) / self.lengths[:, None, None]
        gate = torch.bmm(means.transpose(0, 1), q.float().permute(1, 2, 0)).transpose(0, 1)  # [C, H, S]
        low, high = gate.amin((0, 2), keepdim=True), gate.amax((0, 2), keepdim=True)
        span = high - low
        weight = (gate - low) / torch.where(span <= 1e-6, torch.ones_like(span), span)
        total = weight.sum((0, 2)) + 1e-6
        need = (self.tau - (weight * self.own).sum((0, 2)) / total).clamp(min=0)
        others = weight.masked_fill(self.own, 0.0).transpose(0, 1).reshape(self.heads, -1)
        values, order = torch.sort(others, dim=1, descending=True)
        enough = values.cumsum(1) / total[:, None] >= need[:, None]
        last = torch.where(enough.any(1), enough.float().argmax(1), torch.full_like(order[:, 0], order.shape[1] - 1))
        taken = torch.arange(order.shape[1], device=order.device)[None, :] <= last[:, None]
        chosen = torch.zeros_like(taken).scatter_(1, order, taken)
        return chosen.view(self.heads, self.blocks, self.tokens).transpose(0, 1) | self.own

    def gather(self, q, k, v, selection):
        """The queries that selected a block other than their own, sequence by sequence of (head, block); keys and values by head."""
        others = (selection & ~self.own).transpose(0, 1).reshape(self.heads * self.blocks, self.tokens)
        counts = others.sum(1)
        sequence, token = others.nonzero(as_tuple=True)
        head = sequence // self.blocks
        cu_queries = functional.pad(counts.cumsum(0), (1, 0)).int()
        most = int(counts.max())
        by_head = [x.transpose(0, 1).reshape(-1, 1, self.dim) for x in (q, k, v)]
        return by_head[0].index_select(0, head * self.tokens + token), by_head[1], by_head[2], cu_queries, most, token * self.heads + head

    def attend(self, q, k, v, gathered):
        queries, keys, values, cu_queries, most, _ = gathered
        own = self.varlen(q, k, v, self.start, self.start, self.longest, self.longest)
        if most == 0:
            return own, None
        return own, self.varlen(queries, keys, values, cu_queries, self.cu_keys, most, self.longest)

    def merge(self, own, other, target):
        out, lse = own[0].reshape(-1, self.dim), own[1].reshape(-1)  # rows s·H + h
        if other is None:
            return out.view(self.tokens, -1)
        other_out, other_lse = other[0].reshape(-1, self.dim), other[1].reshape(-1)
        top = lse.index_reduce(0, target, other_lse, "amax")
        share, other_share = (lse - top).exp(), (other_lse - top.index_select(0, target)).exp()
        total = share.index_add(0, target, other_share)
        merged = out * (share / total)[:, None]
        merged.index_add_(0, target, other_out * (other_share / total.index_select(0, target))[:, None])
        return merged.to(out.dtype).view(self.tokens, -1)

    def run(self, selection, step):
        q, k, v = self.permute()
        step("permute")
        routed = self.route(q, k)
        step("routing")
        gathered = self.gather(q, k, v, selection)
        step("gather")
        own, other = self.attend(q, k, v, gathered)
        step("attention")
        out = self.merge(own, other, gathered[-1])
        step("merge")
        if not self.identity:
            out = out.index_select(0, self.inverse)
        step("permute")
        return out, routed


def accuracy(facts, tensors, rows, mask_of):
    """Rows spread over the tokens of every head: relative errors of ours and of PyTorch against float64."""
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    heads, tokens, dim = q.shape
    chosen = torch.linspace(0, tokens - 1, min(rows, tokens), device=DEVICE, dtype=torch.float64).round().long()
    queries = q.index_select(1, chosen).contiguous()
    ours = tensors["out"].view(tokens, heads, dim).index_select(0, chosen).transpose(0, 1)
    mask = mask_of(chosen)
    reference = torch.empty(queries.shape, dtype=torch.float64, device=DEVICE)
    for h in range(heads):
        scores = queries[h].double() @ k[h].double().t() / math.sqrt(dim)
        if mask is not None:
            scores = scores.masked_fill(~mask[h], -math.inf)
        reference[h] = torch.softmax(scores, -1) @ v[h].double()
    theirs, used = None, None
    for backend in ["FLASH_ATTENTION"] if mask is None else ["EFFICIENT_ATTENTION", "MATH"]:
        try:
            with backend_only(backend):
                # All of dense, as it is timed: few queries take another path through the kernel.
                theirs = sdpa(q, k, v).index_select(1, chosen) if mask is None else sdpa(queries, k, v, mask)
                used = backend if CUDA else "plain"
            break
        except RuntimeError:
            continue
    row = {"result": "accuracy", "rows": int(chosen.numel() * heads), "ours": relative(ours, reference)}
    row["worstHead"] = max(relative(ours[h], reference[h]) for h in range(heads))
    if theirs is not None:
        row.update(torch=relative(theirs, reference), backend=used)
        row["ratio"] = row["ours"] / max(row["torch"], 1e-30)
        row["holds"] = row["ours"] <= 2 * row["torch"]
    return row


def dense(facts, tensors, repeats):
    """Rows of each kernel, and the fastest's seconds."""
    q, k, v = tensors["q"], tensors["k"], tensors["v"]
    heads, tokens, dim = q.shape
    rows = []
    for backend in ["FLASH_ATTENTION", "CUDNN_ATTENTION"] if CUDA else ["plain"]:
        row = {"result": "dense", "backend": backend}
        try:
            with backend_only(backend):
                row["seconds"] = median_seconds(lambda step: sdpa(q, k, v), repeats)["total"]
            row["tflops"] = 4 * tokens**2 * heads * dim / row["seconds"] * 1e-12
        except RuntimeError as error:
            row["problem"] = str(error).splitlines()[0]
        rows.append(row)
    timed = [row for row in rows if "seconds" in row]
    if not timed:
        return rows, None
    best = min(timed, key=lambda row: row["seconds"])
    rows.append({"result": "dense-best", "backend": best["backend"], "seconds": best["seconds"], "ourSeconds": facts["seconds"], "ourDenseSeconds": facts["denseSeconds"],
                 "density": facts["density"], "oursIsFaster": best["seconds"] / facts["seconds"], "ofIdeal": best["seconds"] * facts["density"] / facts["seconds"],
                 "ourDenseIsFaster": best["seconds"] / facts["denseSeconds"]})
    return rows, best["seconds"]


def published(facts, tensors, repeats, varlen_name, varlen):
    q, k, v = (tensors[name].transpose(0, 1).contiguous() for name in "qkv")
    selection = tensors["selection"].bool()
    rival = Published(q, k, v, tensors["permutation"], tensors["start"], facts["tau"], varlen)
    if not bool((selection | ~rival.own).all()):
        raise RuntimeError("a query did not select its own block")
    out, routed = rival.run(selection, lambda name: None)
    row = {"result": "published", "varlen": varlen_name, "density": facts["density"], "difference": relative(out, tensors["out"])}
    row["selectedElsewhere"] = int((routed != selection).sum())
    row["holds"] = row["difference"] <= 0.01
    del out, routed
    times = median_seconds(lambda step: rival.run(selection, step), 1 if varlen is loop_varlen else repeats)
    row["seconds"] = times.pop("total")
    row.update(times)
    row.update(ourSeconds=facts["seconds"], ourRouting=facts["routing"], ourAttention=facts["attention"], oursIsFaster=row["seconds"] / facts["seconds"])
    row["ourAttentionIsFaster"] = (row["gather"] + row["attention"] + row["merge"]) / facts["attention"]
    if CUDA:
        row["peakBytes"] = torch.cuda.max_memory_allocated()
    return row


def selected_keys(tensors):
    """For raster rows of queries: which raster keys they attend to, [H, rows, S]."""
    permutation = tensors["permutation"].long()
    position = torch.empty_like(permutation)
    position[permutation] = torch.arange(permutation.numel(), device=DEVICE)
    start = tensors["start"].long()
    block = torch.repeat_interleave(torch.arange(start.numel() - 1, device=DEVICE), start[1:] - start[:-1])[position]
    return lambda rows: tensors["selection"].index_select(2, position[rows]).bool().index_select(0, block).permute(1, 2, 0).contiguous()


COLUMNS = "density ours dense gain ofIdeal | published gain routing gather attend merge permute | error torch".split()


def line(name, density, ours, best, other, error):
    def number(value, form="{:.2f}"):
        return "-" if value is None else form.format(value)

    def milliseconds(value):
        return number(None if value is None else value * 1e3)

    cells = [number(density, "{:.3f}"), milliseconds(ours), milliseconds(best), number(best and best / ours), number(best and best * density / ours), "|"]
    cells += [milliseconds(other.get("seconds")), number(other["seconds"] / ours if "seconds" in other else None)]
    cells += [milliseconds(other.get(part)) for part in PARTS] + ["|", number(error.get("ours"), "{:.5f}"), number(error.get("torch"), "{:.5f}")]
    return f"{name:22}" + "".join(f"{cell:>10}" if cell != "|" else " |" for cell in cells)


PARTS = ("routing", "gather", "attention", "merge", "permute")


def print_table(table):
    """Every file, then the mean of the three partitions where a density has all."""
    print("\nmilliseconds, medians; gain = that over ours; dense = the fastest of PyTorch's; ofIdeal = gain * density")
    print(f"{'':22}" + "".join(f"{name:>10}" if name != "|" else " |" for name in COLUMNS))
    cycles = {}
    for name, facts, best, rows in table:
        other = rows.get("published", {})
        print(line(name, facts["density"], facts["seconds"], best, other, rows["accuracy"]))
        if "seconds" in other and best:
            cycles.setdefault(f"{facts['data']}-cycle-{facts['target']}", []).append((facts, best, other))
    for name, members in cycles.items():
        if len(members) == 3:
            mean = lambda values: sum(values) / 3
            other = {part: mean([other[part] for _, _, other in members]) for part in ("seconds", *PARTS)}
            print(line(name, mean([facts["density"] for facts, _, _ in members]), mean([facts["seconds"] for facts, _, _ in members]), mean([best for _, best, _ in members]), other, {}))


@torch.no_grad()
def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("paths", nargs="+")
    arguments.add_argument("--repeats", type=int, default=20)
    arguments.add_argument("--rows", type=int, default=64)
    options = arguments.parse_args()
    files = [file for path in map(pathlib.Path, options.paths) for file in (sorted(path.glob("*.safetensors")) if path.is_dir() else [path])]
    if not files:
        sys.exit("no *.safetensors there; make them by `vmoba-native bench attention --export <folder>`")
    varlen_name, varlen = choose_varlen()
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name() if CUDA else "cpu", "varlen": varlen_name}), flush=True)
    table, right = [], True
    for path in files:
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        facts, tensors = read(path)
        sparse = "selection" in tensors
        rows, best = dense(facts, tensors, options.repeats)
        if sparse:
            try:
                rows.append(published(facts, tensors, options.repeats, varlen_name, varlen))
            except RuntimeError as error:  # say so, and go on with the next file
                rows.append({"result": "published", "holds": False, "problem": str(error).splitlines()[0]})
        rows.append(accuracy(facts, tensors, options.rows, selected_keys(tensors) if sparse else lambda chosen: None))
        for row in rows:
            right = right and row.get("holds", True)
            print(json.dumps({"file": path.stem, **row}), flush=True)
        table.append((path.stem, facts, best, {row["result"]: row for row in rows}))
        del tensors
    print_table(table)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
