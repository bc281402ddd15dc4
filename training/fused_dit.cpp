// The transformer block's parts between its matrix products, forwards and backwards: residual + norm + modulation, head split with RMS norm
// and rotation, VMoBA selection, attention, GELU. Rows are tokens; bf16 between kernels, f32 inside and on the residual stream.
#include <algorithm>
#include <cmath>
#include <vector>

#include "fused.h"

namespace {

__m512 broadcast(float x) { return _mm512_set1_ps(x); }

// C[R][16 NB] = sum over k < depth of A[r * ar + k * ak] * B[k][16 NB]
template <int R, int NB>
void tile(const float* a, long ar, long ak, const float* b, long ldb, float* c, long ldc, long depth) {
  __m512 acc[R][NB];
  for (auto& row : acc)
    for (auto& x : row) x = _mm512_setzero_ps();
  for (long k = 0; k < depth; ++k) {
    __m512 right[NB];
    for (int n = 0; n < NB; ++n) right[n] = _mm512_loadu_ps(b + k * ldb + 16 * n);
    for (int r = 0; r < R; ++r) {
      const __m512 left = broadcast(a[r * ar + k * ak]);
      for (int n = 0; n < NB; ++n) acc[r][n] = _mm512_fmadd_ps(left, right[n], acc[r][n]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < NB; ++n) _mm512_storeu_ps(c + r * ldc + 16 * n, acc[r][n]);
}

// columns: a multiple of 16
void product(const float* a, long ar, long ak, const float* b, long ldb, float* c, long ldc, long rows, long columns, long depth) {
  for (long n = 0; n < columns; n += 32) {
    const bool wide = n + 16 < columns;
    long r = 0;
    for (; r + 8 <= rows; r += 8)
      (wide ? tile<8, 2> : tile<8, 1>)(a + r * ar, ar, ak, b + n, ldb, c + r * ldc + n, ldc, depth);
    for (; r < rows; ++r) (wide ? tile<1, 2> : tile<1, 1>)(a + r * ar, ar, ak, b + n, ldb, c + r * ldc + n, ldc, depth);
  }
}

void widen(const Half* from, float* to, long count) {
  for (long i = 0; i < count; i += 16) _mm512_storeu_ps(to + i, load(from + i));
}

void transpose(const float* from, float* to, long rows, long columns, long ld) {
  for (long r = 0; r < rows; ++r)
    for (long c = 0; c < columns; ++c) to[c * ld + r] = from[r * columns + c];
}

}  // namespace

extern "C" {

// x + gate * branch -> sum [rows, width]; layer norm of the sum, times (one + scale), plus shift -> out. `branch`, `gate`, `out` may be null.
// gate, scale, shift: one row per `tokens` rows, `stride` apart (0: one row for all).
void junction_forward(const float* x, const Half* branch, const float* gate, const float* scale, const float* shift, float* sum, Half* out, long rows, long tokens,
                      long width, long gate_stride, long stride, float one) {
  for (long r = 0; r < rows; ++r) {
    const long sample = r / tokens;
    float* row = sum + r * width;
    __m512 total = _mm512_setzero_ps();
    for (long c = 0; c < width; c += 16) {
      __m512 v = _mm512_loadu_ps(x + r * width + c);
      if (branch) {
        const __m512 b = load(branch + r * width + c);
        v = gate ? _mm512_fmadd_ps(_mm512_loadu_ps(gate + sample * gate_stride + c), b, v) : _mm512_add_ps(v, b);
      }
      _mm512_storeu_ps(row + c, v);
      total = _mm512_add_ps(total, v);
    }
    if (!out) continue;
    const __m512 mean = broadcast(_mm512_reduce_add_ps(total) / width);
    __m512 squares = _mm512_setzero_ps();
    for (long c = 0; c < width; c += 16) {
      const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(row + c), mean);
      squares = _mm512_fmadd_ps(d, d, squares);
    }
    const __m512 inverse = broadcast(1 / std::sqrt(_mm512_reduce_add_ps(squares) / width + 1e-6f));
    for (long c = 0; c < width; c += 16) {
      const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(row + c), mean), inverse);
      const __m512 factor = _mm512_add_ps(broadcast(one), _mm512_loadu_ps(scale + sample * stride + c));
      store(out + r * width + c, _mm512_fmadd_ps(unit, factor, _mm512_loadu_ps(shift + sample * stride + c)));
    }
  }
}

// d_x: gradient of the sum on entry, of x on return. d_gate, d_scale, d_shift are added to.
void junction_backward(float* d_x, const Half* d_out, const float* sum, const Half* branch, const float* gate, const float* scale, Half* d_branch, float* d_gate,
                       float* d_scale, float* d_shift, long rows, long tokens, long width, long gate_stride, long stride, float one) {
  for (long r = 0; r < rows; ++r) {
    const long sample = r / tokens;
    const float* row = sum + r * width;
    float* d_row = d_x + r * width;
    if (d_out) {
      __m512 total = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
      for (long c = 0; c < width; c += 16) total = _mm512_add_ps(total, _mm512_loadu_ps(row + c));
      const __m512 mean = broadcast(_mm512_reduce_add_ps(total) / width);
      for (long c = 0; c < width; c += 16) {
        const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(row + c), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
      }
      const __m512 inverse = broadcast(1 / std::sqrt(_mm512_reduce_add_ps(squares) / width + 1e-6f));
      __m512 plain = _mm512_setzero_ps(), along = _mm512_setzero_ps();
      const float* scales = scale + sample * stride;
      float *d_scales = d_scale + sample * stride, *d_shifts = d_shift + sample * stride;
      for (long c = 0; c < width; c += 16) {
        const __m512 g = load(d_out + r * width + c), unit = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(row + c), mean), inverse);
        _mm512_storeu_ps(d_scales + c, _mm512_fmadd_ps(g, unit, _mm512_loadu_ps(d_scales + c)));
        _mm512_storeu_ps(d_shifts + c, _mm512_add_ps(g, _mm512_loadu_ps(d_shifts + c)));
        const __m512 u = _mm512_mul_ps(g, _mm512_add_ps(broadcast(one), _mm512_loadu_ps(scales + c)));
        plain = _mm512_add_ps(plain, u);
        along = _mm512_fmadd_ps(u, unit, along);
      }
      const __m512 offset = broadcast(_mm512_reduce_add_ps(plain) / width), slope = broadcast(_mm512_reduce_add_ps(along) / width);
      for (long c = 0; c < width; c += 16) {
        const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(row + c), mean), inverse);
        const __m512 u = _mm512_mul_ps(load(d_out + r * width + c), _mm512_add_ps(broadcast(one), _mm512_loadu_ps(scales + c)));
        const __m512 d = _mm512_mul_ps(inverse, _mm512_sub_ps(_mm512_sub_ps(u, offset), _mm512_mul_ps(unit, slope)));
        _mm512_storeu_ps(d_row + c, _mm512_add_ps(_mm512_loadu_ps(d_row + c), d));
      }
    }
    if (branch)
      for (long c = 0; c < width; c += 16) {
        const __m512 d = _mm512_loadu_ps(d_row + c);
        if (gate) {
          float* d_gates = d_gate + sample * gate_stride + c;
          _mm512_storeu_ps(d_gates, _mm512_fmadd_ps(d, load(branch + r * width + c), _mm512_loadu_ps(d_gates)));
          store(d_branch + r * width + c, _mm512_mul_ps(d, _mm512_loadu_ps(gate + sample * gate_stride + c)));
        } else {
          store(d_branch + r * width + c, d);
        }
      }
  }
}

// Rows [samples * tokens, heads * depth], `ld` apart -> [samples, heads, tokens, depth] in the order given (null: as it is), RMS-normed over the whole
// row (weight not null) and rotated (cosine, sine not null: [tokens, depth] in raster order, sines negative at even places).
void split_forward(const Half* in, const float* weight, const float* cosine, const float* sine, const int* order, Half* out, long samples, long tokens, long heads,
                   long depth, long ld) {
  const long width = heads * depth;
  for (long s = 0; s < samples; ++s)
    for (long i = 0; i < tokens; ++i) {
      const long token = order ? order[i] : i;
      const Half* row = in + (s * tokens + token) * ld;
      __m512 factor = broadcast(1);
      if (weight) {
        __m512 squares = _mm512_setzero_ps();
        for (long c = 0; c < width; c += 16) squares = _mm512_fmadd_ps(load(row + c), load(row + c), squares);
        factor = broadcast(1 / std::sqrt(_mm512_reduce_add_ps(squares) / width + 1e-6f));
      }
      for (long h = 0; h < heads; ++h)
        for (long c = 0; c < depth; c += 16) {
          __m512 v = load(row + h * depth + c);
          if (weight) v = _mm512_mul_ps(_mm512_mul_ps(v, factor), _mm512_loadu_ps(weight + h * depth + c));
          if (cosine)
            v = _mm512_fmadd_ps(_mm512_permute_ps(v, 0xB1), _mm512_loadu_ps(sine + token * depth + c), _mm512_mul_ps(v, _mm512_loadu_ps(cosine + token * depth + c)));
          store(out + ((s * heads + h) * tokens + i) * depth + c, v);
        }
    }
}

// Writes d_in (rows `ld` apart) and adds to d_weight.
void split_backward(const Half* d_out, const Half* in, const float* weight, const float* cosine, const float* sine, const int* order, Half* d_in, float* d_weight,
                    long samples, long tokens, long heads, long depth, long ld) {
  const long width = heads * depth;
  std::vector<float> pushed(width);
  for (long s = 0; s < samples; ++s)
    for (long i = 0; i < tokens; ++i) {
      const long token = order ? order[i] : i;
      const Half* row = in + (s * tokens + token) * ld;
      Half* d_row = d_in + (s * tokens + token) * ld;
      __m512 squares = _mm512_setzero_ps(), along = _mm512_setzero_ps();
      if (weight)
        for (long c = 0; c < width; c += 16) squares = _mm512_fmadd_ps(load(row + c), load(row + c), squares);
      const float inverse = 1 / std::sqrt(_mm512_reduce_add_ps(squares) / width + 1e-6f);
      for (long h = 0; h < heads; ++h)
        for (long c = 0; c < depth; c += 16) {
          __m512 g = load(d_out + ((s * heads + h) * tokens + i) * depth + c);
          if (cosine)
            g = _mm512_fnmadd_ps(_mm512_permute_ps(g, 0xB1), _mm512_loadu_ps(sine + token * depth + c), _mm512_mul_ps(g, _mm512_loadu_ps(cosine + token * depth + c)));
          if (!weight) {
            store(d_row + h * depth + c, g);
            continue;
          }
          const __m512 unit = _mm512_mul_ps(load(row + h * depth + c), broadcast(inverse));
          float* d_w = d_weight + h * depth + c;
          _mm512_storeu_ps(d_w, _mm512_fmadd_ps(g, unit, _mm512_loadu_ps(d_w)));
          g = _mm512_mul_ps(g, _mm512_loadu_ps(weight + h * depth + c));
          along = _mm512_fmadd_ps(g, unit, along);
          _mm512_storeu_ps(pushed.data() + h * depth + c, g);
        }
      if (!weight) continue;
      const __m512 slope = broadcast(_mm512_reduce_add_ps(along) / width);
      for (long c = 0; c < width; c += 16) {
        const __m512 unit = _mm512_mul_ps(load(row + c), broadcast(inverse));
        store(d_row + c, _mm512_mul_ps(broadcast(inverse), _mm512_fnmadd_ps(unit, slope, _mm512_loadu_ps(pushed.data() + c))));
      }
    }
}

// VMoBA's threshold selection with one budget per head (attention.py: threshold_selection). q, k [pairs, tokens, depth] in block order; starts [blocks + 1].
// allowed [pairs, blocks, tokens]: 1 where the query may see the block.
void select_blocks(const Half* q, const Half* k, const int* starts, unsigned char* allowed, long pairs, long tokens, long depth, long blocks, float tau) {
  const long padded = (tokens + 15) / 16 * 16;
  std::vector<float> query(tokens * depth), turned(depth * padded, 0.0f), mean(blocks * depth), gate(blocks * padded), rest;
  for (long p = 0; p < pairs; ++p) {
    widen(q + p * tokens * depth, query.data(), tokens * depth);
    transpose(query.data(), turned.data(), tokens, depth, padded);
    for (long b = 0; b < blocks; ++b)
      for (long c = 0; c < depth; c += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (long i = starts[b]; i < starts[b + 1]; ++i) sum = _mm512_add_ps(sum, load(k + (p * tokens + i) * depth + c));
        _mm512_storeu_ps(mean.data() + b * depth + c, _mm512_mul_ps(sum, broadcast(1.0f / (starts[b + 1] - starts[b]))));
      }
    product(mean.data(), depth, 1, turned.data(), padded, gate.data(), padded, blocks, padded, depth);
    float low = gate[0], high = gate[0];
    for (long b = 0; b < blocks; ++b)
      for (long i = 0; i < tokens; ++i) low = std::min(low, gate[b * padded + i]), high = std::max(high, gate[b * padded + i]);
    const float spread = high - low <= 1e-6f ? 1.0f : high - low;
    double total = 1e-6, own = 0;
    rest.clear();
    for (long b = 0; b < blocks; ++b)
      for (long i = 0; i < tokens; ++i) {
        const float w = (gate[b * padded + i] - low) / spread;
        total += w;
        if (i >= starts[b] && i < starts[b + 1]) own += w;
        else rest.push_back(w);
      }
    // The smallest set of the largest weights that reaches what is needed: quickselect on sums.
    double need = std::max(0.0, tau - own / total) * total;
    auto from = rest.begin(), to = rest.end();
    while (to - from > 1) {
      const float pivot = std::max(std::min(from[0], to[-1]), std::min(std::max(from[0], to[-1]), from[(to - from) / 2]));
      auto above = std::partition(from, to, [&](float w) { return w > pivot; });
      double sum = 0;
      for (auto w = from; w != above; ++w) sum += *w;
      if (sum >= need && above != from) {
        to = above;
        continue;
      }
      auto equal = std::partition(above, to, [&](float w) { return w == pivot; });
      if (sum + pivot * double(equal - above) >= need || equal == to) {
        from = above;
        break;
      }
      need -= sum + pivot * double(equal - above);
      from = equal;
    }
    const float cut = rest.empty() ? 2.0f : *from;
    for (long b = 0; b < blocks; ++b)
      for (long i = 0; i < tokens; ++i) allowed[(p * blocks + b) * tokens + i] = (i >= starts[b] && i < starts[b + 1]) || (gate[b * padded + i] - low) / spread >= cut;
  }
}

// q [samples, heads, tokens, depth], k, v [samples, heads, keys, depth], allowed as above or null -> out [samples * tokens, heads * depth] in raster order,
// share [samples, heads, tokens, keys rounded up to 16].
void attend_forward(const Half* q, const Half* k, const Half* v, const unsigned char* allowed, const int* starts, const int* order, Half* out, Half* share, long samples,
                    long heads, long tokens, long keys, long depth, long blocks) {
  const long padded = (keys + 15) / 16 * 16;
  std::vector<float> query(tokens * depth), key(keys * depth), turned(depth * padded, 0.0f), value(keys * depth), score(tokens * padded), result(tokens * depth);
  const __m512 scale = broadcast(1 / std::sqrt(static_cast<float>(depth)));
  for (long p = 0; p < samples * heads; ++p) {
    widen(q + p * tokens * depth, query.data(), tokens * depth);
    widen(k + p * keys * depth, key.data(), keys * depth);
    widen(v + p * keys * depth, value.data(), keys * depth);
    transpose(key.data(), turned.data(), keys, depth, padded);
    product(query.data(), depth, 1, turned.data(), padded, score.data(), padded, tokens, padded, depth);
    for (long i = 0; i < tokens; ++i) {
      float* row = score.data() + i * padded;
      for (long j = keys; j < padded; ++j) row[j] = -1e30f;
      if (allowed)
        for (long b = 0; b < blocks; ++b)
          if (!allowed[(p * blocks + b) * tokens + i]) std::fill(row + starts[b], row + starts[b + 1], -1e30f);
      __m512 most = broadcast(-1e30f), sum = _mm512_setzero_ps();
      for (long j = 0; j < padded; j += 16) most = _mm512_max_ps(most, _mm512_loadu_ps(row + j));
      const __m512 top = broadcast(_mm512_reduce_max_ps(most));
      for (long j = 0; j < padded; j += 16) {
        const __m512 e = exponential(_mm512_max_ps(_mm512_mul_ps(scale, _mm512_sub_ps(_mm512_loadu_ps(row + j), top)), broadcast(-80)));
        const __m512 kept = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_loadu_ps(row + j), broadcast(-1e29f), _CMP_GT_OQ), e);
        _mm512_storeu_ps(row + j, kept);
        sum = _mm512_add_ps(sum, kept);
      }
      const __m512 inverse = broadcast(1 / _mm512_reduce_add_ps(sum));
      for (long j = 0; j < padded; j += 16) {
        const __m512 w = _mm512_mul_ps(_mm512_loadu_ps(row + j), inverse);
        _mm512_storeu_ps(row + j, w);
        store(share + (p * tokens + i) * padded + j, w);
      }
    }
    product(score.data(), padded, 1, value.data(), depth, result.data(), depth, tokens, depth, keys);
    for (long i = 0; i < tokens; ++i)
      for (long c = 0; c < depth; c += 16)
        store(out + ((p / heads * tokens + (order ? order[i] : i)) * heads + p % heads) * depth + c, _mm512_loadu_ps(result.data() + i * depth + c));
  }
}

void attend_backward(const Half* d_out, const Half* q, const Half* k, const Half* v, const Half* share, const int* order, Half* d_q, Half* d_k, Half* d_v, long samples,
                     long heads, long tokens, long keys, long depth) {
  const long padded = (keys + 15) / 16 * 16;
  std::vector<float> query(tokens * depth), key(keys * depth), value(keys * depth), turned(depth * padded, 0.0f), weight(tokens * padded), d_weight(tokens * padded),
      gradient(tokens * depth), result(std::max(tokens, keys) * depth);
  const __m512 scale = broadcast(1 / std::sqrt(static_cast<float>(depth)));
  const auto narrow = [&](Half* to, long count) {
    for (long i = 0; i < count; i += 16) store(to + i, _mm512_loadu_ps(result.data() + i));
  };
  for (long p = 0; p < samples * heads; ++p) {
    widen(q + p * tokens * depth, query.data(), tokens * depth);
    widen(k + p * keys * depth, key.data(), keys * depth);
    widen(v + p * keys * depth, value.data(), keys * depth);
    widen(share + p * tokens * padded, weight.data(), tokens * padded);
    for (long i = 0; i < tokens; ++i) widen(d_out + ((p / heads * tokens + (order ? order[i] : i)) * heads + p % heads) * depth, gradient.data() + i * depth, depth);
    transpose(value.data(), turned.data(), keys, depth, padded);
    product(gradient.data(), depth, 1, turned.data(), padded, d_weight.data(), padded, tokens, padded, depth);
    product(weight.data(), 1, padded, gradient.data(), depth, result.data(), depth, keys, depth, tokens);
    narrow(d_v + p * keys * depth, keys * depth);
    for (long i = 0; i < tokens; ++i) {
      float *row = weight.data() + i * padded, *d_row = d_weight.data() + i * padded;
      __m512 dot = _mm512_setzero_ps();
      for (long j = 0; j < padded; j += 16) dot = _mm512_fmadd_ps(_mm512_loadu_ps(row + j), _mm512_loadu_ps(d_row + j), dot);
      const __m512 all = broadcast(_mm512_reduce_add_ps(dot));
      for (long j = 0; j < padded; j += 16)
        _mm512_storeu_ps(d_row + j, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(row + j), scale), _mm512_sub_ps(_mm512_loadu_ps(d_row + j), all)));
    }
    product(d_weight.data(), padded, 1, key.data(), depth, result.data(), depth, tokens, depth, keys);
    narrow(d_q + p * tokens * depth, tokens * depth);
    product(d_weight.data(), 1, padded, query.data(), depth, result.data(), depth, keys, depth, tokens);
    narrow(d_k + p * keys * depth, keys * depth);
  }
}

// GELU in its tanh form, x * sigmoid(1.5957691 (x + 0.044715 x^3)).
void gelu_forward(const Half* x, Half* y, long count) {
  for (long i = 0; i < count; i += 16) {
    const __m512 v = load(x + i), u = _mm512_mul_ps(broadcast(1.59576912f), _mm512_mul_ps(v, _mm512_fmadd_ps(broadcast(0.044715f), _mm512_mul_ps(v, v), broadcast(1))));
    store(y + i, _mm512_mul_ps(v, sigmoid(u)));
  }
}

void gelu_backward(const Half* x, const Half* d_y, Half* d_x, long count) {
  for (long i = 0; i < count; i += 16) {
    const __m512 v = load(x + i), square = _mm512_mul_ps(v, v), one = broadcast(1);
    const __m512 s = sigmoid(_mm512_mul_ps(broadcast(1.59576912f), _mm512_mul_ps(v, _mm512_fmadd_ps(broadcast(0.044715f), square, one))));
    const __m512 slope = _mm512_mul_ps(broadcast(1.59576912f), _mm512_fmadd_ps(broadcast(3 * 0.044715f), square, one));
    const __m512 d = _mm512_mul_ps(s, _mm512_fmadd_ps(_mm512_mul_ps(v, slope), _mm512_sub_ps(one, s), one));
    store(d_x + i, _mm512_mul_ps(d, load(d_y + i)));
  }
}

// Sums over rows, [rows, width] -> [width]: the gradient of a bias.
void column_sums(const Half* x, float* sums, long rows, long width) {
  std::fill(sums, sums + width, 0.0f);
  for (long r = 0; r < rows; ++r)
    for (long c = 0; c < width; c += 16) _mm512_storeu_ps(sums + c, _mm512_add_ps(_mm512_loadu_ps(sums + c), load(x + r * width + c)));
}

}  // extern "C"
