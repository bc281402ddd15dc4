// Vector operations of AVX-512 with bf16 dot products, by plain intrinsics: Highway 1.0.3 has none. Included inside the namespace of
// each file compiled for such processors (no include guard).

struct Arithmetic {
  using Vector = __m512;
  using Words = __m512bh;
  using Element = uint16_t;
  static constexpr int32_t kLanes = 16, kStep = 2, kVectors = 4, kRows = 6;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector set(float x) { return _mm512_set1_ps(x); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(Vector x, float* to) { _mm512_storeu_ps(to, x); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector mulAdd(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector mulSub(Vector a, Vector b, Vector c) { return _mm512_fmsub_ps(a, b, c); }
  static bool anyGreater(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
  static float reduceMax(Vector x) { return _mm512_reduce_max_ps(x); }
  static float reduceSum(Vector x) { return _mm512_reduce_add_ps(x); }
  static Vector keepFirst(int32_t count, Vector x) {
    const uint32_t mask = count >= 16 ? 0xffffu : count <= 0 ? 0u : (1u << count) - 1;
    return _mm512_mask_blend_ps(static_cast<__mmask16>(mask), _mm512_set1_ps(-__builtin_inff()), x);
  }
  static Words loadWords(const Element* from) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from)); }
  static Words broadcastWord(const Element* from) {
    int32_t word;
    __builtin_memcpy(&word, from, sizeof word);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(word));
  }
  static Vector dot(Words a, Words b, Vector sum) { return _mm512_dpbf16_ps(sum, a, b); }

  /// 2^x by the fraction above floor(x) and a polynomial of degree 4 (relative error 2.6e-6; the result is rounded to 2^-9).
  static Vector exp2(Vector x) {
    const Vector f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    Vector p = _mm512_set1_ps(0.01353417f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.05201146f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24144275f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69300384f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.00000259f));
    return _mm512_scalef_ps(p, x);
  }
  template <int M>
  static void storeWeights(const Vector (&weight)[M], Element* to) {
    int n = 0;
#pragma GCC unroll 4
    for (; n + 2 <= M; n += 2) _mm512_storeu_si512(to + n * kLanes, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(weight[n + 1], weight[n])));
    if (n < M) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + n * kLanes), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(weight[n])));
  }
};
