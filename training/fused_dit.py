"""The transformer's blocks with the fused CPU kernels of fused_dit.cpp: the same mathematics as dit.py in bf16, with the backward pass
written out, about four times as fast on one core. Takes a Dit and its parameters as they are."""
import functools

import torch
import torch.nn.functional as F

from attention import lay
from dit import PARTITION_NAMES, layer_norm, rope_table, sinusoid
from fused import call, library

HALF = torch.bfloat16


@functools.lru_cache(maxsize=64)
def _rope(grid, depth):
    """cosine, sine [tokens, depth], doubled over pairs; sines negative at even places."""
    table = rope_table(grid, depth, "cpu")
    cosine, sine = table.real.repeat_interleave(2, 1).contiguous(), table.imag.repeat_interleave(2, 1).contiguous()
    sine[:, ::2] *= -1
    return cosine, sine


@functools.lru_cache(maxsize=64)
def _layout(grid, partition):
    """order [tokens] and block starts [blocks + 1], int32."""
    blocks = lay(grid, partition)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), blocks.lengths.cumsum(0)])
    return blocks.order.int().contiguous(), starts.int().contiguous()


def _sums(x):
    sums = torch.empty(x.shape[1])
    call("column_sums", x, sums, *x.shape)
    return sums


class _Block(torch.autograd.Function):
    """x [B*N, D] f32, m [B, 6, D] f32, context [B*T, D] bf16, and the block's parameters -> x."""

    @staticmethod
    def forward(ctx, x, m, context, plan, qkv_w, qkv_b, nq, nk, o_w, o_b, n3_w, n3_b, q_w, q_b, kv_w, kv_b, cnq, cnk, co_w, co_b, f0_w, f0_b, f2_w, f2_b):
        b, _, d = m.shape
        rows, n, t, heads = x.shape[0], x.shape[0] // b, context.shape[0] // b, plan["heads"]
        depth, (cosine, sine), (order, starts) = d // heads, plan["rope"], plan["layout"]
        half = {name: w.to(HALF) for name, w in (("qkv", qkv_w), ("o", o_w), ("q", q_w), ("kv", kv_w), ("co", co_w), ("f0", f0_w), ("f2", f2_w))}
        linear = lambda y, name, bias: F.linear(y, half[name], bias.to(HALF))
        new = lambda *shape: torch.empty(*shape, dtype=HALF)
        blocks = len(starts) - 1

        def junction(x, branch, gate, scale, shift, stride, one):
            out, total = new(rows, d), torch.empty_like(x) if branch is not None else x
            call("junction_forward", x, branch, gate, scale, shift, total, out, rows, n, d, 6 * d, stride, one)
            return total, out

        _, a = junction(x, None, None, m[0, 1], m[0, 0], 6 * d, 1.0)
        qkv = linear(a, "qkv", qkv_b)
        q, k, v = (new(b, heads, n, depth) for _ in range(3))
        for out, column, weight in ((q, 0, nq), (k, 1, nk), (v, 2, None)):
            rotation = (cosine, sine) if weight is not None else (None, None)
            call("split_forward", qkv[:, column * d:], weight, *rotation, order, out, b, n, heads, depth, 3 * d)
        allowed = torch.empty(b, heads, blocks, n, dtype=torch.uint8) if plan["tau"] is not None and blocks > 1 else None
        if allowed is not None:
            call("select_blocks", q, k, starts, allowed, b * heads, n, depth, blocks, float(plan["tau"]))
        seen, share = new(rows, d), new(b, heads, n, -(-n // 16) * 16)
        call("attend_forward", q, k, v, allowed, starts, order, seen, share, b, heads, n, n, depth, blocks)
        o = linear(seen, "o", o_b)
        x1, c = junction(x, o, m[0, 2], n3_w, n3_b, 0, 0.0)
        cq, ckv = linear(c, "q", q_b), linear(context, "kv", kv_b)
        q2, k2, v2 = new(b, heads, n, depth), new(b, heads, t, depth), new(b, heads, t, depth)
        call("split_forward", cq, cnq, None, None, None, q2, b, n, heads, depth, d)
        call("split_forward", ckv, cnk, None, None, None, k2, b, t, heads, depth, 2 * d)
        call("split_forward", ckv[:, d:], None, None, None, None, v2, b, t, heads, depth, 2 * d)
        seen2, share2 = new(rows, d), new(b, heads, n, -(-t // 16) * 16)
        call("attend_forward", q2, k2, v2, None, None, None, seen2, share2, b, heads, n, t, depth, 0)
        o2 = linear(seen2, "co", co_b)
        x2, f = junction(x1, o2, None, m[0, 4], m[0, 3], 6 * d, 1.0)
        h = linear(f, "f0", f0_b)
        g = torch.empty_like(h)
        call("gelu_forward", h, g, h.numel())
        o3 = linear(g, "f2", f2_b)
        x3 = torch.empty_like(x2)
        call("junction_forward", x2, o3, m[0, 5], None, None, x3, None, rows, n, d, 6 * d, 0, 1.0)
        if plan["density"] is not None:
            lengths = (starts[1:] - starts[:-1]).view(-1, 1)
            plan["density"].add(plan["name"], float((allowed * lengths).sum((-1, -2)).double().mean() / n ** 2) if allowed is not None else 1.0)
        ctx.plan, ctx.half = plan, half
        ctx.save_for_backward(x, m, context, nq, nk, n3_w, cnq, cnk, a, qkv, q, k, v, seen, share, o, x1, c, cq, ckv, q2, k2, v2, seen2, share2, o2, x2, f, h, g, o3)
        return x3

    @staticmethod
    def backward(ctx, d_x):
        x, m, context, nq, nk, n3_w, cnq, cnk, a, qkv, q, k, v, seen, share, o, x1, c, cq, ckv, q2, k2, v2, seen2, share2, o2, x2, f, h, g, o3 = ctx.saved_tensors
        plan, half = ctx.plan, ctx.half
        b, _, d = m.shape
        rows, n, t, heads = x.shape[0], x.shape[0] // b, context.shape[0] // b, plan["heads"]
        depth, (cosine, sine), (order, _) = d // heads, plan["rope"], plan["layout"]
        d_x, d_m = d_x.contiguous().clone(), torch.zeros_like(m)
        new = lambda *shape: torch.empty(*shape, dtype=HALF)

        def through(d_y, y, name):
            """Gradients of a linear layer: input, weight, bias."""
            return d_y @ half[name], d_y.t() @ y, _sums(d_y)

        d_o3 = new(rows, d)
        call("junction_backward", d_x, None, x2, o3, m[0, 5], None, d_o3, d_m[0, 5], None, None, rows, n, d, 6 * d, 0, 1.0)
        d_g, d_f2, d_f2b = through(d_o3, g, "f2")
        d_h = torch.empty_like(h)
        call("gelu_backward", h, d_g, d_h, h.numel())
        d_f, d_f0, d_f0b = through(d_h, f, "f0")
        d_o2 = new(rows, d)
        call("junction_backward", d_x, d_f, x2, o2, None, m[0, 4], d_o2, None, d_m[0, 4], d_m[0, 3], rows, n, d, 6 * d, 6 * d, 1.0)
        d_seen2, d_co, d_cob = through(d_o2, seen2, "co")
        d_q2, d_k2, d_v2 = torch.empty_like(q2), torch.empty_like(k2), torch.empty_like(v2)
        call("attend_backward", d_seen2, q2, k2, v2, share2, None, d_q2, d_k2, d_v2, b, heads, n, t, depth)
        d_cq, d_ckv, d_cnq, d_cnk = torch.empty_like(cq), torch.empty_like(ckv), torch.zeros_like(cnq), torch.zeros_like(cnk)
        call("split_backward", d_q2, cq, cnq, None, None, None, d_cq, d_cnq, b, n, heads, depth, d)
        call("split_backward", d_k2, ckv, cnk, None, None, None, d_ckv, d_cnk, b, t, heads, depth, 2 * d)
        call("split_backward", d_v2, ckv[:, d:], None, None, None, None, d_ckv[:, d:], None, b, t, heads, depth, 2 * d)
        d_c, d_q, d_qb = through(d_cq, c, "q")
        d_context, d_kv, d_kvb = through(d_ckv, context, "kv")
        d_o, d_n3w, d_n3b = new(rows, d), torch.zeros_like(n3_w), torch.zeros_like(n3_w)
        call("junction_backward", d_x, d_c, x1, o, m[0, 2], n3_w, d_o, d_m[0, 2], d_n3w, d_n3b, rows, n, d, 6 * d, 0, 0.0)
        d_seen, d_ow, d_ob = through(d_o, seen, "o")
        d_qs, d_ks, d_vs = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        call("attend_backward", d_seen, q, k, v, share, order, d_qs, d_ks, d_vs, b, heads, n, n, depth)
        d_qkv, d_nq, d_nk = torch.empty_like(qkv), torch.zeros_like(nq), torch.zeros_like(nk)
        for d_out, column, weight, d_weight in ((d_qs, 0, nq, d_nq), (d_ks, 1, nk, d_nk), (d_vs, 2, None, None)):
            rotation = (cosine, sine) if weight is not None else (None, None)
            call("split_backward", d_out, qkv[:, column * d:], weight, *rotation, order, d_qkv[:, column * d:], d_weight, b, n, heads, depth, 3 * d)
        d_a, d_qkvw, d_qkvb = through(d_qkv, a, "qkv")
        call("junction_backward", d_x, d_a, x, None, None, m[0, 1], None, None, d_m[0, 1], d_m[0, 0], rows, n, d, 6 * d, 6 * d, 1.0)
        wide = lambda w: w.float()
        return (d_x, d_m, d_context, None, wide(d_qkvw), d_qkvb, d_nq, d_nk, wide(d_ow), d_ob, d_n3w, d_n3b, wide(d_q), d_qb, wide(d_kv), d_kvb, d_cnq, d_cnk,
                wide(d_co), d_cob, wide(d_f0), d_f0b, wide(d_f2), d_f2b)


def available(dit, device):
    """Whether these kernels fit: an AVX512-BF16 CPU, heads of a multiple of 16."""
    dim = dit.head.head.in_features
    return str(device) == "cpu" and dim // dit.heads % 16 == 0 and library() is not None and (dit.policy is None or dit.policy["scope"] == "head_global")


def forward(dit, latent, timesteps, text, density=None):
    """As Dit.forward, in bf16."""
    grid = tuple(n // p for n, p in zip(latent.shape[2:], dit.patch))
    e = dit.time_embedding(sinusoid(timesteps, dit.freq_dim))
    e6 = dit.time_projection(e).unflatten(1, (6, -1))
    linear = lambda layer, y: F.linear(y, layer.weight.to(HALF), layer.bias.to(HALF))
    first, _, second = dit.text_embedding
    context = linear(second, F.gelu(linear(first, text.to(HALF)), approximate="tanh")).flatten(0, 1)
    x = dit.patchify(latent).float()
    b, n, d = x.shape
    x = x.reshape(b * n, d)
    for i, block in enumerate(dit.blocks):
        name = PARTITION_NAMES[i % 3]
        partition = dit.policy["partitions"][name] if dit.policy else grid[0]
        plan = {"heads": dit.heads, "rope": _rope(grid, d // dit.heads), "layout": _layout(grid, tuple(partition) if isinstance(partition, list) else partition),
                "tau": dit.policy["tau"] if dit.policy else None, "density": density if dit.policy else None, "name": name}
        s, c, ffn = block.self_attn, block.cross_attn, block.ffn
        stacked = lambda layers, part: torch.cat([getattr(layer, part) for layer in layers])
        x = _Block.apply(x, block.modulation + e6, context, plan, stacked((s.q, s.k, s.v), "weight"), stacked((s.q, s.k, s.v), "bias"), s.norm_q.weight, s.norm_k.weight,
                         s.o.weight, s.o.bias, block.norm3.weight, block.norm3.bias, c.q.weight, c.q.bias, stacked((c.k, c.v), "weight"), stacked((c.k, c.v), "bias"),
                         c.norm_q.weight, c.norm_k.weight, c.o.weight, c.o.bias, ffn[0].weight, ffn[0].bias, ffn[2].weight, ffn[2].bias)
    hm = (dit.head.modulation + e[:, None]).unsqueeze(2).unbind(1)
    x = layer_norm(x.view(b, n, d)) * (1 + hm[1]) + hm[0]
    return dit.unpatchify(dit.head.head(x), grid)
