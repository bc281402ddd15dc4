// One pass instead of a dozen: RMS norm over channels, SiLU, and the stacking of three frames that a causal convolution reads; forwards
// and backwards, bf16 in and out, f32 inside. fused.py compiles and binds it; needs AVX512-BF16 and channels in multiples of 16.
#include "fused.h"

namespace {

float inverse_norm(const Half* x, long channels) {
  __m512 sum = _mm512_setzero_ps();
  for (long c = 0; c < channels; c += 16) {
    const __m512 v = load(x + c);
    sum = _mm512_fmadd_ps(v, v, sum);
  }
  return 1.0f / __builtin_sqrtf(_mm512_reduce_add_ps(sum) + 1e-12f);
}

}  // namespace

// x [frames, positions, channels] time-major over `clips` -> out [frames, positions, 3 * channels]: two frames ago, one ago, now.
extern "C" void stack_forward(const Half* x, const float* gamma, Half* out, long clips, long frames, long positions, long channels) {
  const float root = __builtin_sqrtf(static_cast<float>(channels));
  for (long f = 0; f < frames; ++f)
    for (long p = 0; p < positions; ++p) {
      const Half* in = x + (f * positions + p) * channels;
      Half* slots[3];
      for (long back = 0; back < 3; ++back) {
        const long at = f + back * clips;
        slots[back] = at < frames ? out + ((at * positions + p) * 3 + 2 - back) * channels : nullptr;
        if (f < back * clips) std::memset(out + ((f * positions + p) * 3 + 2 - back) * channels, 0, channels * sizeof(Half));
      }
      const __m512 scale = _mm512_set1_ps(root * inverse_norm(in, channels));
      for (long c = 0; c < channels; c += 16) {
        const __m512 y = _mm512_mul_ps(_mm512_mul_ps(load(in + c), scale), _mm512_loadu_ps(gamma + c));
        const __m512 z = _mm512_mul_ps(y, sigmoid(y));
        for (Half* slot : slots)
          if (slot) store(slot + c, z);
      }
    }
}

// Also adds to d_gamma [channels].
extern "C" void stack_backward(const Half* x, const float* gamma, const Half* d_out, Half* d_x, float* d_gamma, long clips, long frames, long positions, long channels) {
  const float root = __builtin_sqrtf(static_cast<float>(channels));
  const __m512 one = _mm512_set1_ps(1.0f);
  alignas(64) float pushed[1024];
  for (long f = 0; f < frames; ++f)
    for (long p = 0; p < positions; ++p) {
      const Half* in = x + (f * positions + p) * channels;
      const float inverse = inverse_norm(in, channels);
      const __m512 scale = _mm512_set1_ps(root * inverse);
      __m512 dot = _mm512_setzero_ps();
      for (long c = 0; c < channels; c += 16) {
        __m512 g = load(d_out + ((f * positions + p) * 3 + 2) * channels + c);
        for (long back = 1; back < 3; ++back)
          if (f + back * clips < frames) g = _mm512_add_ps(g, load(d_out + (((f + back * clips) * positions + p) * 3 + 2 - back) * channels + c));
        const __m512 v = load(in + c), unit = _mm512_mul_ps(v, scale), factor = _mm512_loadu_ps(gamma + c), y = _mm512_mul_ps(unit, factor), s = sigmoid(y);
        g = _mm512_mul_ps(g, _mm512_mul_ps(s, _mm512_fmadd_ps(y, _mm512_sub_ps(one, s), one)));
        _mm512_storeu_ps(d_gamma + c, _mm512_fmadd_ps(g, unit, _mm512_loadu_ps(d_gamma + c)));
        g = _mm512_mul_ps(g, factor);
        dot = _mm512_fmadd_ps(g, v, dot);
        _mm512_store_ps(pushed + c, g);
      }
      const __m512 along = _mm512_set1_ps(_mm512_reduce_add_ps(dot) * inverse * inverse);
      Half* to = d_x + (f * positions + p) * channels;
      for (long c = 0; c < channels; c += 16)
        store(to + c, _mm512_mul_ps(scale, _mm512_fnmadd_ps(load(in + c), along, _mm512_load_ps(pushed + c))));
    }
}
