"""Writes a second set of verification fixtures, in the layout of tests/fixtures but with other sizes, grids and blocks.

    python3 tests/reference/make_fixtures.py OUT_FOLDER [seed]

Everything is computed here in float64 straight from the mathematics (rounded to float32 when stored), so it shares neither
code nor arithmetic with the engine or with the programs that made tests/fixtures. Selections are computed from float32
gates as well and must agree, so that an exact comparison of masks is fair. Needs numpy and PyTorch (convolutions only).
"""
import json
import os
import struct
import sys

import numpy as np
import torch

TYPES = {"float32": "F32", "int64": "I64", "bool": "BOOL", "uint8": "U8"}


def save(path, tensors, metadata):
    header, offset, data = {"__metadata__": {k: str(v) for k, v in metadata.items()}}, 0, []
    for name in sorted(tensors):
        a = np.ascontiguousarray(tensors[name])
        if a.dtype == np.float64:
            a = a.astype(np.float32)
        raw = a.tobytes()
        header[name] = {"dtype": TYPES[str(a.dtype)], "shape": list(a.shape), "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))


def joined(values):
    return ",".join(str(v) for v in values)


class Random:
    def __init__(self, seed):
        self.g = np.random.default_rng(seed)

    def normal(self, *shape, scale=1.0):
        """float32 values held in float64: what a float32 program reads."""
        return (self.g.standard_normal(shape) * scale).astype(np.float32).astype(np.float64)

    def matrix(self, out, inp):
        return self.normal(out, inp, scale=inp**-0.5)


# ---- elementwise -----------------------------------------------------------------------------------------------------
def layer_norm(x, eps):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)


def rms_norm(x, weight, eps=1e-6):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ---- VMoBA -----------------------------------------------------------------------------------------------------------
def lay_blocks(grid, chunk):
    """-> (permutation, lengths of the blocks). chunk: [frames] | [rows, columns] | [frames, rows, columns]."""
    t, h, w = grid
    raster = np.arange(t * h * w)
    if len(chunk) == 1:
        n = int(chunk[0] * h * w)
        return raster, [min(n, len(raster) - at) for at in range(0, len(raster), n)]
    bt, bh, bw = [t, *chunk] if len(chunk) == 2 else chunk
    cube = raster.reshape(t // bt, bt, h // bh, bh, w // bw, bw).transpose(0, 2, 4, 1, 3, 5)
    return cube.reshape(-1), [bt * bh * bw] * (t // bt * (h // bh) * (w // bw))


def gates(q, k, lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)])
    means = np.stack([k[a:b].mean(0) for a, b in zip(starts[:-1], starts[1:])])  # [C, H, D]
    own = np.zeros((len(lengths), len(q)), bool)
    for c, (a, b) in enumerate(zip(starts[:-1], starts[1:])):
        own[c, a:b] = True
    return np.einsum("shd,chd->chs", q, means), own


def select(gate, own, mode, scope, value):
    """-> [C, H, S] bool, own block included."""
    C, H, S = gate.shape
    mine = np.broadcast_to(own[:, None, :], gate.shape)
    groups = {
        "query_head": lambda a: a.transpose(1, 2, 0).reshape(H * S, C),
        "head_global": lambda a: a.transpose(1, 0, 2).reshape(H, C * S),
        "overall": lambda a: a.reshape(1, -1),
        "block": lambda a: a.reshape(C, H * S),
    }[scope]
    back = {
        "query_head": lambda a: a.reshape(H, S, C).transpose(2, 0, 1),
        "head_global": lambda a: a.reshape(H, C, S).transpose(1, 0, 2),
        "overall": lambda a: a.reshape(C, H, S),
        "block": lambda a: a.reshape(C, H, S),
    }[scope]
    entries, owned = groups(gate), groups(mine)
    chosen = np.zeros(entries.shape, bool)
    if mode == "topk":
        count = {"query_head": 1, "head_global": S, "overall": H * S}[scope] * min(value, C)
        ranked = np.argsort(-np.where(owned, np.inf, entries), axis=1, kind="stable")[:, :count]
        np.put_along_axis(chosen, ranked, True, 1)
        return back(chosen) | mine
    for g in range(len(entries)):
        low, high = entries[g].min(), entries[g].max()
        weight = (entries[g] - low) / (high - low if high - low > 1e-6 else 1)
        total = weight.sum() + 1e-6
        need = max(0.0, value - weight[owned[g]].sum() / total)
        candidates = np.where(owned[g], 0, weight)
        order = np.argsort(-candidates, kind="stable")
        if scope == "overall":
            order = order[~owned[g][order]]
        reached = np.nonzero(np.cumsum(candidates[order]) / total >= need)[0]
        if len(reached):
            take = reached[0] + 1
        else:
            take = 2 if scope in ("query_head", "block") else len(order)
        chosen[g, order[:take]] = True
    return back(chosen) | mine


def stable_selection(q, k, lengths, mode, scope, value):
    exact = select(*gates(q, k, lengths), mode, scope, value)
    gate, own = gates(q.astype(np.float32), k.astype(np.float32), lengths)
    if (exact != select(gate, own, mode, scope, value)).any():
        raise SystemExit(f"selection {mode} {scope} {value} depends on rounding: choose another seed")
    return exact


def attend(q, k, v, mask=None, lengths=None):
    """[S, H, D]; mask [C, H, S] over blocks of the given lengths."""
    logits = np.einsum("shd,thd->hst", q, k) / np.sqrt(q.shape[-1])
    if mask is not None:
        logits = np.where(np.repeat(mask, lengths, axis=0).transpose(1, 2, 0), logits, -np.inf)
    return np.einsum("hst,thd->shd", softmax(logits), v)


def fell_back(mask, own):
    return not (mask & ~own[:, None, :]).any()


def vmoba(q, k, v, grid, chunk, mode, scope, value):
    """Raster in, raster out, the published code's fall-back to dense included. -> (out, mask)"""
    perm, lengths = lay_blocks(grid, chunk)
    qp, kp, vp = q[perm], k[perm], v[perm]
    mask = stable_selection(qp, kp, lengths, mode, scope, value)
    dense = fell_back(mask, gates(qp, kp, lengths)[1])
    out = np.empty_like(q)
    out[perm] = attend(qp, kp, vp) if dense else attend(qp, kp, vp, mask, lengths)
    return out, mask


def density(mask, lengths):
    return float((mask.sum((1, 2)) * np.array(lengths)).sum() / (mask.shape[1] * mask.shape[2] ** 2))


def attention_fixtures(folder, r):
    grid, heads, dim = (4, 6, 9), 2, 24
    S = int(np.prod(grid))
    # Neighbouring tokens resemble each other, as in a real clip.
    t, y, x = np.meshgrid(*[np.arange(n) for n in grid], indexing="ij")
    basis = np.stack([np.cos(a * t + b * y + c * x + d) for a, b, c, d in r.g.uniform(-1, 1, (12, 4))], -1).reshape(S, 12)
    field = lambda: np.float64(np.float32(np.einsum("sb,bhd->shd", basis, r.normal(12, heads, dim)) * 0.5 + r.normal(S, heads, dim)))
    q, k, v = field(), field(), field()
    rows = np.sort(r.g.choice(S, 9, replace=False)).astype(np.int64)
    common = {"source": "tests/reference/make_fixtures.py", "grid": joined(grid), "heads": heads, "head_dim": dim, "seqlen": S}
    dense = attend(q, k, v)
    save(f"{folder}/vmoba_c_qkv.safetensors", {"q": q, "k": k, "v": v, "rows": rows, "dense_rows": dense[rows], "dense": dense}, common)
    for label, chunk in {"1d1": [1], "1df1.25": [1.25], "2d33": [3, 3], "3d223": [2, 2, 3]}.items():
        perm, lengths = lay_blocks(grid, chunk)
        gate, own = gates(q[perm], k[perm], lengths)
        tensors, names = {"perm": perm.astype(np.int64), "rows": rows, "gate": gate}, []
        meta = dict(common, chunk_size=joined(chunk), chunk_tokens=lengths[0], num_chunks=len(lengths), chunk_lens=joined(lengths))
        cases = [("topk", scope, k_) for k_ in (1, 2, 4) for scope in ("query_head", "head_global", "overall")]
        cases += [("threshold", scope, tau) for tau in (0.1, 0.3, 0.6) for scope in ("query_head", "block", "head_global", "overall")]
        for mode, scope, value in cases:
            name = f"{'topk' if mode == 'topk' else 'thr'}{value}.{scope}"
            out, mask = vmoba(q, k, v, grid, chunk, mode, scope, value)
            bits = np.zeros((-(-len(lengths) // 8), heads, S), np.uint8)
            for c in range(len(lengths)):
                bits[c // 8] |= (mask[c] << (c % 8)).astype(np.uint8)
            tensors[f"{name}.mask_packed"] = bits
            dense_call = fell_back(mask, own)
            if not dense_call:
                tensors[f"{name}.out_rows"] = out[rows]
            names.append(name)
            meta.update({f"{name}.density": repr(density(mask, lengths)), f"{name}.dense_fallback": int(dense_call), f"{name}.mask_bits_set": int(mask.sum()), f"{name}.mask_flips_f64": 0})
        save(f"{folder}/vmoba_c_{label}.safetensors", tensors, dict(meta, selections=";".join(names)))


# ---- transformer -----------------------------------------------------------------------------------------------------
def dit_fixtures(folder, r):
    dim, heads, ffn, freq, text_dim, text_len, layers, channels, patch = 80, 2, 144, 48, 24, 20, 4, 8, (1, 2, 2)
    head_dim, volume, eps = dim // heads, int(np.prod(patch)), 1e-6
    w = {}

    def linear(name, out, inp, bias=True):
        w[name + ".weight"] = r.matrix(out, inp)
        if bias:
            w[name + ".bias"] = r.normal(out, scale=0.1)

    linear("patch_embedding", dim, channels * volume)
    for name, inp in (("text_embedding.0", text_dim), ("text_embedding.2", dim), ("time_embedding.0", freq), ("time_embedding.2", dim)):
        linear(name, dim, inp)
    linear("time_projection.1", 6 * dim, dim)
    linear("head.head", volume * channels, dim)
    w["head.modulation"] = r.normal(1, 2, dim, scale=0.2)
    for i in range(layers):
        b = f"blocks.{i}."
        for kind in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"{b}{kind}.{part}", dim, dim)
            for part in ("norm_q", "norm_k"):
                w[f"{b}{kind}.{part}.weight"] = np.float64(np.float32(1 + r.normal(dim, scale=0.2)))
        linear(b + "ffn.0", ffn, dim)
        linear(b + "ffn.2", dim, ffn)
        w[b + "norm3.weight"] = np.float64(np.float32(1 + r.normal(dim, scale=0.2)))
        w[b + "norm3.bias"] = r.normal(dim, scale=0.1)
        w[b + "modulation"] = r.normal(1, 6, dim, scale=0.3)

    def lin(name, x):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def rope_table(grid):
        pairs = head_dim // 2
        spatial = pairs // 3
        counts = (pairs - 2 * spatial, spatial, spatial)
        axes = np.meshgrid(*[np.arange(n) for n in grid], indexing="ij")
        angle = np.concatenate([p.reshape(-1, 1) * 10000.0 ** (-np.arange(n) / n) for p, n in zip(axes, counts)], 1)
        return np.float64(np.float32(np.cos(angle))), np.float64(np.float32(np.sin(angle)))

    def rotate(x, cos, sin):
        a, b, c, s = x[..., 0::2], x[..., 1::2], cos[:, None], sin[:, None]
        return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)

    def forward(latent, timestep, context, chunks=None, rule=None):
        out, grid = {}, tuple(n // p for n, p in zip(latent.shape[1:], patch))
        S, split = int(np.prod(grid)), lambda x: x.reshape(len(x), heads, head_dim)
        cos, sin = rope_table(grid)
        out["rope.cos"], out["rope.sin"] = cos, sin
        tiles = latent.reshape(channels, grid[0], patch[0], grid[1], patch[1], grid[2], patch[2]).transpose(1, 3, 5, 0, 2, 4, 6)
        x = out["patch_embedding"] = tiles.reshape(S, -1) @ w["patch_embedding.weight"].reshape(dim, -1).T + w["patch_embedding.bias"]
        angle = timestep * 10000.0 ** (-np.arange(freq // 2) / (freq // 2))
        out["time_sinusoid"] = np.float64(np.float32(np.concatenate([np.cos(angle), np.sin(angle)])))
        e = out["time_embedding"] = lin("time_embedding.2", silu(lin("time_embedding.0", out["time_sinusoid"])))
        e6 = out["time_projection"] = lin("time_projection.1", silu(e)).reshape(6, dim)
        padded = np.zeros((text_len, text_dim))
        padded[: len(context)] = context
        text = out["text_embedding"] = lin("text_embedding.2", gelu_tanh(lin("text_embedding.0", padded)))
        masks = []
        for i in range(layers):
            b, m = f"blocks.{i}.", w[f"blocks.{i}.modulation"][0] + e6
            a = layer_norm(x, eps) * (1 + m[1]) + m[0]
            q = split(rms_norm(lin(b + "self_attn.q", a), w[b + "self_attn.norm_q.weight"]))
            k = split(rms_norm(lin(b + "self_attn.k", a), w[b + "self_attn.norm_k.weight"]))
            v = split(lin(b + "self_attn.v", a))
            qr, kr = rotate(q, cos, sin), rotate(k, cos, sin)
            if i == 0:
                out.update({"block0.q_prerope": q, "block0.k_prerope": k, "block0.q_rope": qr, "block0.k_rope": kr, "block0.v": v})
            if chunks:
                y, mask = vmoba(qr, kr, v, grid, chunks[i], *rule)
                masks.append(mask)
            else:
                y = attend(qr, kr, v)
            y = out[f"block{i}.self_attn"] = lin(b + "self_attn.o", y.reshape(S, dim))
            x = x + m[2] * y
            c = layer_norm(x, 1e-6) * w[b + "norm3.weight"] + w[b + "norm3.bias"]
            cq = split(rms_norm(lin(b + "cross_attn.q", c), w[b + "cross_attn.norm_q.weight"]))
            ck = split(rms_norm(lin(b + "cross_attn.k", text), w[b + "cross_attn.norm_k.weight"]))
            y = out[f"block{i}.cross_attn"] = lin(b + "cross_attn.o", attend(cq, ck, split(lin(b + "cross_attn.v", text))).reshape(S, dim))
            x = x + y
            f = layer_norm(x, eps) * (1 + m[4]) + m[3]
            y = out[f"block{i}.ffn"] = lin(b + "ffn.2", gelu_tanh(lin(b + "ffn.0", f)))
            x = out[f"block{i}"] = x + m[5] * y
        hm = w["head.modulation"][0] + e
        rows = out["head"] = lin("head.head", layer_norm(x, eps) * (1 + hm[1]) + hm[0])
        out["out"] = rows.reshape(*grid, *patch, channels).transpose(6, 0, 3, 1, 4, 2, 5).reshape(latent.shape)
        return out, masks, grid

    shape = {"patch_embedding.weight": (dim, channels, *patch)}
    weights = {name: value.reshape(shape.get(name, value.shape)) for name, value in w.items()}
    meta = dict(source="tests/reference/make_fixtures.py", model_type="t2v", text_len=text_len, in_dim=channels, dim=dim, ffn_dim=ffn, freq_dim=freq, text_dim=text_dim,
                out_dim=channels, num_heads=heads, num_layers=layers, patch_size=joined(patch), head_dim=head_dim, eps=eps)
    save(f"{folder}/wan_dit_t2v_other.safetensors", weights, meta)
    io, latent, context = {}, r.normal(channels, 4, 6, 12), r.normal(5, text_dim)
    chunks, rule = [[1.5], [3, 2], [2, 3, 3], [1]], ("threshold", "head_global", 0.3)
    plain, _, grid = forward(latent, 421.5, context)
    sparse, masks, _ = forward(latent, 421.5, context, chunks, rule)
    io.update({"v1.in.latent": latent, "v1.in.context": context, "v1.in.timestep": np.array([421.5])})
    io.update({"v1." + name: value for name, value in plain.items()})
    io.update({"v1.vmoba." + name: sparse[name] for name in ("block0", "block1", "block2", "block3", "block0.self_attn", "out")})
    meta.update({"v1.latent_shape": joined(latent.shape), "v1.grid": joined(grid), "v1.timesteps": 421.5, "v1.context_tokens": 5,
                 "v1.vmoba.select_mode": rule[0], "v1.vmoba.threshold_type": rule[1], "v1.vmoba.simsum_threshold": rule[2]})
    for i, mask in enumerate(masks):
        io[f"v1.vmoba.mask{i}"] = mask
        meta.update({f"v1.vmoba.chunk_size{i}": joined(chunks[i]), f"v1.vmoba.density{i}": repr(density(mask, lay_blocks(grid, chunks[i])[1]))})
    latent, context = r.normal(channels, 1, 10, 6), r.normal(text_len, text_dim)
    for t, timestep in enumerate((0.0, 1000.0)):
        out, _, grid = forward(latent, timestep, context)
        io.update({f"v2.t{t}.{name}": value for name, value in out.items() if not name.startswith("rope")})
        io[f"v2.t{t}.in.timestep"] = np.array([timestep])
    io.update({"v2.in.latent": latent, "v2.in.context": context, "v2.rope.cos": out["rope.cos"], "v2.rope.sin": out["rope.sin"]})
    meta.update({"v2.latent_shape": joined(latent.shape), "v2.grid": joined(grid), "v2.timesteps": "0.0,1000.0", "v2.context_tokens": text_len})
    save(f"{folder}/wan_dit_t2v_other.io.safetensors", io, meta)


# ---- text encoder ----------------------------------------------------------------------------------------------------
def text_fixtures(folder, r):
    vocab, dim, inner, ffn, heads, layers, buckets = 97, 40, 48, 72, 3, 2, 32
    w = {"token_embedding.weight": r.normal(vocab, dim), "norm.weight": np.float64(np.float32(1 + r.normal(dim, scale=0.2)))}
    for i in range(layers):
        b = f"blocks.{i}."
        for part in "qkv":
            w[f"{b}attn.{part}.weight"] = r.normal(inner, dim, scale=(0.3 if part != "v" else 1) * dim**-0.5)
        w[b + "attn.o.weight"] = r.matrix(dim, inner)
        w[b + "ffn.gate.0.weight"], w[b + "ffn.fc1.weight"], w[b + "ffn.fc2.weight"] = r.matrix(ffn, dim), r.matrix(ffn, dim), r.matrix(dim, ffn)
        for norm in ("norm1", "norm2"):
            w[f"{b}{norm}.weight"] = np.float64(np.float32(1 + r.normal(dim, scale=0.2)))
        w[b + "pos_embedding.embedding.weight"] = r.normal(buckets, heads)

    def bucket(distance):
        half, near = buckets // 2, buckets // 4
        a = np.abs(distance)
        far = near + np.trunc(np.log(np.maximum(a, 1).astype(np.float32) / np.float32(near)) / np.float32(np.log(128 / near)) * (half - near)).astype(np.int64)
        return np.where(distance > 0, half, 0) + np.where(a < near, a, np.minimum(far, half - 1))

    def bias(layer, length):
        d = np.arange(length)[None, :] - np.arange(length)[:, None]
        return w[f"blocks.{layer}.pos_embedding.embedding.weight"][bucket(d)].transpose(2, 0, 1)

    def encode(ids, mask):
        out, length = {}, len(ids)
        x = out["embed"] = w["token_embedding.weight"][ids]
        for i in range(layers):
            b = f"blocks.{i}."
            a = rms_norm(x, w[b + "norm1.weight"])
            q, k, v = (np.reshape(a @ w[f"{b}attn.{part}.weight"].T, (length, heads, -1)) for part in "qkv")
            logits = np.where(mask[None, None, :] != 0, np.einsum("shd,thd->hst", q, k) + bias(i, length), -np.inf)
            y = out[f"block{i}.attn"] = np.einsum("hst,thd->shd", softmax(logits), v).reshape(length, inner) @ w[b + "attn.o.weight"].T
            x = x + y
            a = rms_norm(x, w[b + "norm2.weight"])
            y = out[f"block{i}.ffn"] = ((a @ w[b + "ffn.fc1.weight"].T) * gelu_tanh(a @ w[b + "ffn.gate.0.weight"].T)) @ w[b + "ffn.fc2.weight"].T
            x = out[f"block{i}"] = x + y
        out["out"] = rms_norm(x, w["norm.weight"])
        return out

    meta = dict(source="tests/reference/make_fixtures.py", vocab=vocab, dim=dim, dim_attn=inner, dim_ffn=ffn, num_heads=heads, num_layers=layers, num_buckets=buckets, norm_eps=1e-6, max_dist=128)
    save(f"{folder}/umt5_other.safetensors", w, meta)
    padded, lens = 21, (4, 21)
    ids = r.g.integers(0, vocab, (2, padded))
    mask = np.array([[int(at < n) for at in range(padded)] for n in lens])
    both = [encode(ids[i], mask[i]) for i in range(2)]
    io = {name: np.stack([one[name] for one in both]) for name in ("embed", "block0", "block1", "block0.attn", "block0.ffn", "out")}
    distances, long_ids = np.arange(-300, 301), r.g.integers(0, vocab, 170)
    io.update({"block0.pos_bias": bias(0, padded), "bucket.rel_pos": distances, "bucket.index": bucket(distances).astype(np.int64), "in.ids": ids, "in.mask": mask,
               "in.lens": np.array(lens), "long.in.ids": long_ids, "long.out": encode(long_ids, np.ones(170))["out"]})
    save(f"{folder}/umt5_other.io.safetensors", io, dict(meta, padded_len=padded, lens=joined(lens), long_len=170))


# ---- VAE, as whole-clip convolutions in float64 ------------------------------------------------------------------------
MEAN = "-0.7571 -0.7089 -0.9113 0.1075 -0.1745 0.9653 -0.1517 1.5508 0.4134 -0.0715 0.5517 -0.3632 -0.1922 -0.9497 0.2503 -0.2921"
STD = "2.8184 1.4541 2.3275 2.6558 1.2196 1.7708 2.6052 2.0743 3.2687 2.1526 2.8652 1.5579 1.6382 1.1253 2.8251 1.9160"


def vae_fixtures(folder, r):
    dim, z, blocks, mult = 5, 16, 1, (1, 2, 4, 4)
    w = {}

    def conv_weight(name, out, inp, *kernel):
        w[name + ".weight"] = r.normal(out, inp, *kernel, scale=(inp * np.prod(kernel)) ** -0.5)
        w[name + ".bias"] = r.normal(out, scale=0.1)

    def gamma(name, channels, *ones):
        w[name + ".gamma"] = np.float64(np.float32(1 + r.normal(channels, *ones, scale=0.2)))

    def residual_weights(name, inp, out):
        gamma(name + ".residual.0", inp, 1, 1, 1)
        conv_weight(name + ".residual.2", out, inp, 3, 3, 3)
        gamma(name + ".residual.3", out, 1, 1, 1)
        conv_weight(name + ".residual.6", out, out, 3, 3, 3)
        if inp != out:
            conv_weight(name + ".shortcut", out, inp, 1, 1, 1)

    def middle_weights(name, c):
        residual_weights(name + ".0", c, c)
        gamma(name + ".1.norm", c, 1, 1)
        conv_weight(name + ".1.to_qkv", 3 * c, c, 1, 1)
        conv_weight(name + ".1.proj", c, c, 1, 1)
        residual_weights(name + ".2", c, c)

    def plane(x):
        return torch.from_numpy(x)

    def causal(name, x):
        kernel = w[name + ".weight"]
        kt, kh = kernel.shape[2], kernel.shape[3]
        x = np.pad(x, ((0, 0), (kt - 1, 0), (kh // 2,) * 2, (kh // 2,) * 2))
        return torch.nn.functional.conv3d(plane(x)[None], plane(kernel), plane(w[name + ".bias"]))[0].numpy()

    def frames2d(name, x, stride=1, pad=((1, 1), (1, 1))):
        x = np.pad(x, ((0, 0), (0, 0), *pad)).transpose(1, 0, 2, 3)
        y = torch.nn.functional.conv2d(plane(np.ascontiguousarray(x)), plane(w[name + ".weight"]), plane(w[name + ".bias"]), stride=stride)
        return y.numpy().transpose(1, 0, 2, 3)

    def norm(name, x):
        g = w[name + ".gamma"].reshape(-1, 1, 1, 1)
        return x / np.maximum(np.sqrt((x * x).sum(0, keepdims=True)), 1e-12) * np.sqrt(len(x)) * g

    def residual(name, x):
        y = causal(name + ".residual.2", silu(norm(name + ".residual.0", x)))
        y = causal(name + ".residual.6", silu(norm(name + ".residual.3", y)))
        return y + (causal(name + ".shortcut", x) if name + ".shortcut.weight" in w else x)

    def middle(name, x):
        x = residual(name + ".0", x)
        c, t, h, v = x.shape
        qkv = frames2d(name + ".1.to_qkv", norm(name + ".1.norm", x), pad=((0, 0), (0, 0))).reshape(3, c, t, h * v)
        weights = softmax(np.einsum("ctp,ctq->tpq", qkv[0], qkv[1]) / np.sqrt(c))
        y = np.einsum("tpq,ctq->ctp", weights, qkv[2]).reshape(x.shape)
        return residual(name + ".2", x + frames2d(name + ".1.proj", y, pad=((0, 0), (0, 0))))

    def time_down(name, x):
        kernel, bias = w[name + ".time_conv.weight"][..., 0, 0], w[name + ".time_conv.bias"].reshape(-1, 1, 1)
        frames = [x[:, 0]]
        for j in range(1, (x.shape[1] - 1) // 2 + 1):
            frames.append(sum(np.einsum("oi,ihw->ohw", kernel[..., d], x[:, 2 * j - 2 + d]) for d in range(3)) + bias)
        return np.stack(frames, 1)

    def time_up(name, x):
        if x.shape[1] == 1:
            return x
        y = causal(name + ".time_conv", x[:, 1:])
        c = len(x)
        pairs = np.stack([y[:c], y[c:]], 2).reshape(c, -1, *x.shape[2:])
        return np.concatenate([x[:, :1], pairs], 1)

    # Weights in running order, remembering what each index is.
    down, up, widths = [], [], [dim * m for m in mult]
    conv_weight("encoder.conv1", dim, 3, 3, 3, 3)
    c = dim
    for stage, width in enumerate(widths):
        for _ in range(blocks):
            residual_weights(f"encoder.downsamples.{len(down)}", c, width)
            down.append("residual")
            c = width
        if stage < 3:
            name = f"encoder.downsamples.{len(down)}"
            conv_weight(name + ".resample.1", c, c, 3, 3)
            if stage > 0:
                conv_weight(name + ".time_conv", c, c, 3, 1, 1)
            down.append("time" if stage > 0 else "space")
    middle_weights("encoder.middle", c)
    gamma("encoder.head.0", c, 1, 1, 1)
    conv_weight("encoder.head.2", 2 * z, c, 3, 3, 3)
    conv_weight("conv1", 2 * z, 2 * z, 1, 1, 1)
    conv_weight("conv2", z, z, 1, 1, 1)
    conv_weight("decoder.conv1", c, z, 3, 3, 3)
    middle_weights("decoder.middle", c)
    for stage, width in enumerate(reversed(widths)):
        for _ in range(blocks + 1):
            residual_weights(f"decoder.upsamples.{len(up)}", c, width)
            up.append("residual")
            c = width
        if stage < 3:
            name = f"decoder.upsamples.{len(up)}"
            if stage < 2:
                conv_weight(name + ".time_conv", 2 * c, c, 3, 1, 1)
            conv_weight(name + ".resample.1", c // 2, c, 3, 3)
            up.append("time" if stage < 2 else "space")
            c //= 2
    gamma("decoder.head.0", c, 1, 1, 1)
    conv_weight("decoder.head.2", 3, c, 3, 3, 3)

    mean = np.float64(np.array(MEAN.split(), np.float32)).reshape(-1, 1, 1, 1)
    std = np.float64(np.array(STD.split(), np.float32)).reshape(-1, 1, 1, 1)

    def encode(video, out):
        x, resamplers = causal("encoder.conv1", video), 0
        for i, kind in enumerate(down):
            name = f"encoder.downsamples.{i}"
            if kind == "residual":
                x = residual(name, x)
                continue
            x = frames2d(name + ".resample.1", x, 2, ((0, 1), (0, 1)))
            x = out[f"enc.down{resamplers}"] = time_down(name, x) if kind == "time" else x
            resamplers += 1
        x = out["enc.middle"] = middle("encoder.middle", x)
        x = out["enc.head"] = causal("encoder.head.2", silu(norm("encoder.head.0", x)))
        out["enc.mu_raw"] = causal("conv1", x)[:z]
        out["enc.mu"] = (out["enc.mu_raw"] - mean) / std

    def decode(latent, out):
        x = out["dec.conv2"] = causal("conv2", latent * std + mean)
        x = out["dec.conv1"] = causal("decoder.conv1", x)
        x, resamplers = middle("decoder.middle", x), 0
        out["dec.middle"] = x
        for i, kind in enumerate(up):
            name = f"decoder.upsamples.{i}"
            if kind == "residual":
                x = residual(name, x)
                continue
            x = time_up(name, x) if kind == "time" else x
            x = out[f"dec.up{resamplers}"] = frames2d(name + ".resample.1", x.repeat(2, 2).repeat(2, 3))
            resamplers += 1
        return causal("decoder.head.2", silu(norm("decoder.head.0", x)))

    video, latent = np.clip(r.normal(3, 13, 24, 40, scale=0.5), -1, 1), r.normal(z, 4, 3, 5)
    io = {"in.video": video, "in.z": latent, "const.mean": mean.reshape(-1), "const.std": std.reshape(-1)}
    encode(video, io)
    io["dec.out"] = decode(latent, io)
    io["dec.roundtrip"] = decode(io["enc.mu"], {})[:, ::4]
    picks = np.array([0, 3, 9])
    io["dec.up2"], io["dec.up2_frames"] = io["dec.up2"][:, picks], picks
    meta = dict(source="tests/reference/make_fixtures.py", dim=dim, z_dim=z, dim_mult=joined(mult), num_res_blocks=blocks, attn_scales="", temperal_downsample="False,True,True")
    save(f"{folder}/wan_vae_other.safetensors", w, meta)
    save(f"{folder}/wan_vae_other.io.safetensors", io, meta)


# ---- schedulers --------------------------------------------------------------------------------------------------------
def scheduler_fixtures(folder, r):
    A, B, W, C = 0.2, -0.15, 2.0, 0.1
    # The toy model runs in float32 in every implementation, so its constants are float32 values.
    a, b, f, c = (float(np.float32(value)) for value in (A, B, W, C))
    x0 = r.normal(4, 1, 5, 3)
    for kind in ("unipc", "dpmpp"):
        tensors = {"in.x": x0}
        for shift in (1.0, 6.5):
            for n in (2, 7, 31):
                for alt in (False, True) if kind == "dpmpp" else (False,):
                    high = float(np.float32(0.999)) if kind == "unipc" or alt else 1.0
                    raw = np.arange(n) * (-high / n) + high
                    raw = shift * raw / (1 + (shift - 1) * raw)
                    sigmas = np.float32(np.concatenate([raw, [0]]))
                    times = np.trunc(1000 * raw).astype(np.int64)
                    s = np.float64(sigmas)
                    with np.errstate(divide="ignore"):
                        lam = np.log(1 - s) - np.log(s)
                    xs, x, ms, previous = [x0], x0, [], None
                    for i in range(n):
                        m = x - s[i] * (a * x + b * np.sin(f * x) + c * times[i] / 1000)
                        alpha, h = 1 - s[i + 1], lam[i + 1] - lam[i]
                        phi = np.expm1(-h)
                        if kind == "unipc":
                            if i > 0:
                                hp = lam[i] - lam[i - 1]
                                pp, last, order, start = np.expm1(-hp), ms[-1], previous[0], previous[1]
                                base = s[i] / s[i - 1] * start - (1 - s[i]) * pp * last
                                if order == 1:
                                    x = base - (1 - s[i]) * pp * 0.5 * (m - last)
                                else:
                                    ratio, kappa = (lam[i - 2] - lam[i - 1]) / hp, pp / -hp - 1
                                    b1, b2 = kappa / pp, 2 * (kappa / -hp - 0.5) / pp
                                    rho0 = (b1 - b2) / (1 - ratio)
                                    x = base - (1 - s[i]) * pp * (rho0 * (ms[-2] - last) / ratio + (b1 - rho0) * (m - last))
                            order = min(2, n - i, i + 1)
                            previous = (order, x)
                            y = s[i + 1] / s[i] * x - alpha * phi * m
                            if order == 2:
                                y = y - alpha * phi * 0.5 * (ms[-1] - m) / ((lam[i - 1] - lam[i]) / h if np.isfinite(h) else -0.0)
                            x = y
                        else:
                            y = s[i + 1] / s[i] * x - alpha * phi * m
                            if 0 < i < n - 1:
                                ratio = (lam[i] - lam[i - 1]) / h
                                y = y - 0.5 * alpha * phi * (m - ms[-1]) / ratio
                            x = y
                        ms.append(m)
                        xs.append(x)
                    prefix = f"s{shift}.n{n}." + ("alt." if alt else "")
                    tensors.update({prefix + "sigmas": sigmas, prefix + "timesteps": times})
                    tensors[prefix + ("x_final" if alt else "x")] = x if alt else np.stack(xs)
        save(f"{folder}/sched_{kind}.safetensors", tensors, dict(source="tests/reference/make_fixtures.py", num_train_timesteps=1000, shifts="1.0,6.5", steps="2,7,31",
             latent_shape=joined(x0.shape), model_A=A, model_B=B, model_W=W, model_C=C))


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    folder, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 20
    os.makedirs(folder, exist_ok=True)
    for index, make in enumerate((attention_fixtures, dit_fixtures, text_fixtures, vae_fixtures, scheduler_fixtures)):
        make(folder, Random(seed * 100 + index))


main()
