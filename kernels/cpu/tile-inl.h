// Body of the tile kernel, written once over an instruction set's vector operations `V` and included inside the namespace
// of every target (no include guard). Register tile: R query rows by N vectors; each loaded vector of keys is used by R rows
// and each broadcast query word by N vectors, so the multipliers, not the loads, set the pace.
//
// Easy to get wrong:
// - the maximum is lazy: weights may grow to 2^kSlack before a row is rescaled, so most panels pay one comparison;
// - when a row must be rescaled in the middle of a chunk, the values of the weights written so far are added first;
// - pad keys are zero rows, which would have logit 0: they are masked to -inf before anything looks at them.

constexpr int32_t kSumBytes = 384 << 10;
constexpr float kSlack = 8;  // 2^8 relative to a denominator of at least 2^-8: far from the limits of f32

/// acc[r][n] += a[r][word i]·b[i][n] over `words` words.
template <class V, int R, int N>
inline __attribute__((always_inline)) void multiplyTile(const typename V::Element* const* a, const typename V::Element* b, int64_t wordStride, int64_t vectorStride,
                                                 int32_t words, typename V::Vector (&acc)[R][N]) {
  for (int32_t i = 0; i < words; ++i) {
    typename V::Words right[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) right[n] = V::loadWords(b + n * vectorStride);
    b += wordStride;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const typename V::Words left = V::broadcastWord(a[r] + int64_t{i} * V::kStep);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) acc[r][n] = V::dot(left, right[n], acc[r][n]);
    }
  }
}

template <class V>
struct Tile {
  using Vector = typename V::Vector;
  using Element = typename V::Element;
  static constexpr int32_t kLanes = V::kLanes;
  static constexpr int N = V::kVectors;

  const TileJob& job;
  const TileVisit& visit;

  Element* weights(int r) const { return static_cast<Element*>(job.scratch) + int64_t{r} * kMostChunkKeys; }
  const Element* query(int row) const { return static_cast<const Element*>(job.queries) + int64_t{row} * job.depth; }
  float* sums(int row) const { return job.state.sums + int64_t{row} * job.valueWidth; }
  float* denominator(int row) const { return job.state.denominator + int64_t{row} * kLanes; }

  /// sums += weights[from, to)·values for R rows; `values` points at key `from`, which begins a group.
  template <int R>
  void addValues(const uint16_t* rows, const Element* values, int32_t from, int32_t to) const {
    const Element* left[R];
    for (int r = 0; r < R; ++r) left[r] = weights(r) + from;
    const int32_t vectors = job.valueWidth / kLanes;
    int32_t at = 0;
    for (; at + N <= vectors; at += N) addChannels<R, N>(rows, left, values, at, (to - from) / V::kStep);
    if constexpr (N > 2)
      if (at + 2 <= vectors) addChannels<R, 2>(rows, left, values, at, (to - from) / V::kStep), at += 2;
    for (; at < vectors; ++at) addChannels<R, 1>(rows, left, values, at, (to - from) / V::kStep);
  }

  template <int R, int M>
  void addChannels(const uint16_t* rows, const Element* const* left, const Element* values, int32_t firstVector, int32_t words) const {
    Vector acc[R][M];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < M; ++n) acc[r][n] = V::load(sums(rows[r]) + (firstVector + n) * kLanes);
    multiplyTile<V, R, M>(left, values + int64_t{firstVector} * kLanes * V::kStep, int64_t{job.valueWidth} * V::kStep, int64_t{kLanes} * V::kStep, words, acc);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < M; ++n) V::store(acc[r][n], sums(rows[r]) + (firstVector + n) * kLanes);
  }

  void rescale(int row, float largest) const {
    const float exponent = largest * job.logitScale;
    const Vector factor = V::exp2(V::set(job.state.exponent[row] - exponent));  // exp2(-inf) at the first visit
    for (int32_t i = 0; i < job.valueWidth; i += kLanes) V::store(V::mul(V::load(sums(row) + i), factor), sums(row) + i);
    V::store(V::mul(V::load(denominator(row)), factor), denominator(row));
    job.state.exponent[row] = exponent;
    job.state.limit[row] = largest + kSlack / job.logitScale;
  }

  /// Logits of R rows against M groups of keys, their weights written at `at` in the chunk. `valid` < M·lanes masks pad keys.
  /// `pending` is the first key of the chunk whose values are not yet added.
  template <int R, int M>
  void scorePanel(const uint16_t* rows, const Element* keys, const Element* chunkValues, int32_t at, int32_t valid, int32_t& pending) const {
    const Element* left[R];
    Vector acc[R][M];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      left[r] = query(rows[r]);
#pragma GCC unroll 8
      for (int n = 0; n < M; ++n) acc[r][n] = V::zero();
    }
    multiplyTile<V, R, M>(left, keys, int64_t{kLanes} * V::kStep, int64_t{job.depth} * kLanes, job.depth / V::kStep, acc);
    if (valid < M * kLanes) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int n = 0; n < M; ++n) acc[r][n] = V::keepFirst(valid - n * kLanes, acc[r][n]);
    }
    const Vector scale = V::set(job.logitScale);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      Vector most = acc[r][0];
#pragma GCC unroll 8
      for (int n = 1; n < M; ++n) most = V::max(most, acc[r][n]);
      if (__builtin_expect(V::anyGreater(most, V::set(job.state.limit[rows[r]])), 0)) {
        // Rows written in this panel before this one have weights at `at`; those keys stay pending.
        if (at > pending) {
          addValues<R>(rows, chunkValues + int64_t{pending} * job.valueWidth, pending, at);
          pending = at;
        }
        rescale(rows[r], V::reduceMax(most));
      }
      const Vector exponent = V::set(job.state.exponent[rows[r]]);
      Vector weight[M];
#pragma GCC unroll 8
      for (int n = 0; n < M; ++n) weight[n] = V::exp2(V::mulSub(acc[r][n], scale, exponent));
      Vector total = weight[0];
#pragma GCC unroll 8
      for (int n = 1; n < M; ++n) total = V::add(total, weight[n]);
      V::store(V::add(V::load(denominator(rows[r])), total), denominator(rows[r]));
      V::template storeWeights<M>(weight, weights(r) + at);
    }
  }

  template <int R, int M>
  void scoreAtMost(const uint16_t* rows, const Element* keys, const Element* chunkValues, int32_t groups, int32_t at, int32_t valid, int32_t& pending) const {
    if constexpr (M > 1) {
      if (groups < M) return scoreAtMost<R, M - 1>(rows, keys, chunkValues, groups, at, valid, pending);
    }
    scorePanel<R, M>(rows, keys, chunkValues, at, valid, pending);
  }

  /// R rows against `groups` groups of keys from group `first` of the visit.
  template <int R>
  void rowGroup(const uint16_t* rows, int32_t first, int32_t groups) const {
    const int64_t keyStride = int64_t{job.depth} * kLanes;
    const Element* keys = static_cast<const Element*>(visit.keyGroups) + first * keyStride;
    const Element* values = static_cast<const Element*>(visit.valueGroups) + int64_t{first} * kLanes * job.valueWidth;
    int32_t pending = 0;
    // Panels as even as possible: 13 groups are 4+3+3+3, never 4+4+4+1, whose last would starve the multipliers.
    const int32_t panels = (groups + N - 1) / N;
    for (int32_t p = 0; p < panels; ++p) {
      const int32_t begin = groups * p / panels, end = groups * (p + 1) / panels;
      scoreAtMost<R, N>(rows, keys + begin * keyStride, values, end - begin, begin * kLanes, visit.keys - (first + begin) * kLanes, pending);
    }
    addValues<R>(rows, values + int64_t{pending} * job.valueWidth, pending, groups * kLanes);
  }

  template <int R>
  void lastRows(const uint16_t* rows, int32_t count, int32_t first, int32_t groups) const {
    if constexpr (R > 0) {
      if (count < R) return lastRows<R - 1>(rows, count, first, groups);
      rowGroup<R>(rows, first, groups);
    }
  }

  static int64_t scratchBytes(int32_t, int32_t) { return int64_t{V::kRows} * kMostChunkKeys * int64_t{sizeof(Element)}; }

  static void run(const TileJob& job, std::span<const TileVisit> visits) {
    for (const TileVisit& visit : visits) Tile{job, visit}.run();
  }
  void run() const {
    const int32_t groups = (visit.keys + kLanes - 1) / kLanes;
    // Long chunks: the sums of a row group are loaded and stored once per chunk.
    const int64_t groupBytes = int64_t{job.depth} * kLanes * int64_t{sizeof(Element)};
    const int32_t most = static_cast<int32_t>(kMostChunkKeys / kLanes), fitting = static_cast<int32_t>(kChunkBytes / groupBytes);
    const int32_t chunk = fitting < N ? N : fitting > most ? most : fitting;
    const int32_t chunks = (groups + chunk - 1) / chunk;
    for (int32_t c = 0; c < chunks; ++c) {
      const int32_t begin = static_cast<int32_t>(int64_t{groups} * c / chunks), end = static_cast<int32_t>(int64_t{groups} * (c + 1) / chunks);
      int32_t row = 0;
      for (; row + V::kRows <= visit.rowCount; row += V::kRows) rowGroup<V::kRows>(visit.rows + row, begin, end - begin);
      lastRows<V::kRows - 1>(visit.rows + row, visit.rowCount - row, begin, end - begin);
    }
  }

  static bool finish(const TileState& state, int32_t rowCount, int32_t valueWidth) {
    bool sound = true;
    for (int32_t r = 0; r < rowCount; ++r) {
      const float total = V::reduceSum(V::load(state.denominator + int64_t{r} * kLanes));
      sound = sound && total > 0 && total < 3e38f && state.exponent[r] - state.exponent[r] == 0;  // an overflown logit leaves an infinite exponent
      const Vector factor = V::set(1 / total);
      float* sums = state.sums + int64_t{r} * valueWidth;
      for (int32_t i = 0; i < valueWidth; i += kLanes) V::store(V::mul(V::load(sums + i), factor), sums + i);
    }
    return sound;
  }

  template <int B, int G>
  static void gateBlocks(const float* queries, const float* means, int32_t depth, float* gate, int64_t stride) {
    Vector acc[B][G];
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) acc[b][g] = V::zero();
    for (int64_t i = 0; i < depth; ++i) {
      Vector q[G];
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) q[g] = V::load(queries + (g * depth + i) * kLanes);
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) {
        const Vector mean = V::set(means[int64_t{b} * depth + i]);
#pragma GCC unroll 2
        for (int g = 0; g < G; ++g) acc[b][g] = V::mulAdd(q[g], mean, acc[b][g]);
      }
    }
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) V::store(acc[b][g], gate + b * stride + g * kLanes);
  }

  template <int G>
  static void gateGroups(const float* queries, const float* means, int32_t blocks, int32_t depth, float* out, int64_t stride) {
    constexpr int B = 2 * N;
    int32_t c = 0;
    for (; c + B <= blocks; c += B) gateBlocks<B, G>(queries, means + int64_t{c} * depth, depth, out + c * stride, stride);
    for (; c < blocks; ++c) gateBlocks<1, G>(queries, means + int64_t{c} * depth, depth, out + c * stride, stride);
  }
  static int64_t gateScratchBytes(int32_t depth, int32_t) { return int64_t{2} * depth * kLanes * int64_t{sizeof(float)}; }

  /// Two groups of queries at a time, transposed.
  static void gate(const GateJob& job) {
    constexpr DType element = V::kStep == 2 ? DType::BF16 : DType::F32;
    auto* transposed = static_cast<float*>(job.scratch);
    for (int32_t at = 0; at < job.rows; at += 2 * kLanes) {
      const int32_t groups = job.rows - at > kLanes ? 2 : 1;
      for (int32_t g = 0; g < groups; ++g) {
        const int32_t first = at + g * kLanes, left = job.rows - first;
        transposeQueries(element, static_cast<const Element*>(job.queries) + int64_t{first} * job.depth, left < kLanes ? left : kLanes, kLanes, job.depth,
                         transposed + int64_t{g} * job.depth * kLanes);
      }
      (groups == 2 ? gateGroups<2> : gateGroups<1>)(transposed, job.means, job.blocks, job.depth, job.gate + at, job.stride);
    }
  }
};
