// The wgmma kernel in emulation: the cases of the mma.sync kernel, and faults that must show.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "kernels/cuda/tests/attention_support.h"

namespace vmoba {
namespace {

using namespace cudatest;
using emulation::PlantedFault;

const SelectionRule kTrained{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0.25f, 1, Semantics::Exact};
const SelectionRule kTopFour{SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 4, Semantics::Exact};
const SelectionRule kTopOne{SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 1, Semantics::Exact};
const Partition kCubes{PartitionKind::SpaceTime3D, 1, 2, 3, 4};

SelfAttentionCase hopperCase(Grid grid, Partition partition, int heads, int headDim, SelectionRule rule) {
  SelfAttentionCase c{grid, partition, heads, headDim, DType::BF16, rule};
  c.hopper = true;
  return c;
}

TEST(Hopper, SparseErrsAtMostTwiceAsMuchAsPlainBf16) {
  for (const SelfAttentionCase& c : {
           hopperCase({3, 5, 11}, kCubes, 2, 40, kTrained),                                          // short blocks, two runs in most tiles
           hopperCase({4, 5, 9}, {PartitionKind::Spatial2D, 1, 1, 2, 4}, 1, 128, kTopFour),
           hopperCase({5, 4, 8}, {PartitionKind::Temporal1D, 1.4, 1, 1, 1}, 1, 128, kTopFour),
           hopperCase({7, 9, 11}, {PartitionKind::SpaceTime3D, 1, 4, 5, 6}, 1, 64, kTopFour),        // 693 tokens: the ring goes round
           hopperCase({7, 9, 11}, {PartitionKind::Temporal1D, 3, 1, 1, 1}, 1, 72, kTopOne),          // warpgroups idle in whole tiles
       }) {
    const SelfAttentionResult r = run(c);
    const Errors errors = errorsOf(c, r);
    EXPECT_LE(errors.kernel, errors.allowed) << c.grid.tokens() << " tokens, width " << c.headDim;
  }
}

TEST(Hopper, LogitsOfAnySizeAreWeighedRight) {
  // Norms of 8 and of 16 times: logits within ±64 powers of two, where no maxima are sought, and far beyond.
  for (const float scale : {0.3f, 1.4f, 2.5f, 6.0f})
    for (const bool sparse : {false, true}) {
      SelfAttentionCase c = hopperCase({5, 4, 8}, {PartitionKind::Temporal1D, 1.4, 1, 1, 1}, 2, 128, kTopFour);
      c.sparse = sparse;
      c.normScale = scale;
      const SelfAttentionResult r = run(c);
      const Errors errors = errorsOf(c, r);
      EXPECT_LE(errors.kernel, errors.allowed) << scale << (sparse ? ", sparse" : ", dense");
    }
}

TEST(Hopper, DenseAttendsToEverything) {
  for (const auto& [grid, headDim] : {std::pair{Grid{3, 5, 11}, 72}, std::pair{Grid{1, 1, 3}, 64}, std::pair{Grid{4, 8, 16}, 128}}) {
    SelfAttentionCase c = hopperCase(grid, {}, 1, headDim, {});
    c.sparse = false;
    const Errors errors = errorsOf(c, run(c));
    EXPECT_LE(errors.kernel, errors.allowed) << grid.tokens() << " tokens, width " << headDim;
  }
}

TEST(Hopper, GivesTheSameBitsInAnyOrderOfWarps) {
  SelfAttentionCase c = hopperCase({3, 5, 11}, kCubes, 2, 40, kTrained);
  const std::vector<float> first = run(c).out;
  for (const uint32_t seed : {7u, 99u, 1234u}) {
    c.options.scheduleSeed = seed;
    EXPECT_EQ(run(c).out, first) << seed;
  }
}

TEST(Hopper, NarrowHeadsStayOnTheOtherKernel) {
  SelfAttentionCase c = hopperCase({3, 5, 11}, kCubes, 2, 20, kTrained);
  const std::vector<float> asked = run(c).out;
  c.hopper = false;
  EXPECT_EQ(run(c).out, asked);
}

/// One head straight through the kernel: 200 queries over 300 keys, rows written elsewhere and added to what is there.
struct Direct {
  static constexpr int queries = 200, keys = 300, dim = 128;
  Stored q{randomFloats(queries * dim, 1), DType::BF16}, k{randomFloats(keys * dim, 2), DType::BF16}, v{randomFloats(keys * dim, 3), DType::BF16};
  Stored before{randomFloats(queries * dim, 4), DType::BF16};
  std::vector<int32_t> scatter = std::vector<int32_t>(queries);
  DeviceBytes out{queries * dim * 2}, logSumExp{queries * 4};

  Direct() {
    for (int i = 0; i < queries; ++i) scatter[size_t(i)] = (i * 77 + 5) % queries;
  }
  void run(const emulation::Options& options = {}) {
    std::memcpy(out.data(), before.data(), queries * dim * 2);
    cuda::AttendJob<Bf16> job;
    job.heads = 1;
    job.queries = queries;
    job.keys = keys;
    job.headDim = job.paddedDim = dim;
    job.q = q.bf16.data();
    job.k = k.bf16.data();
    job.v = v.bf16.data();
    job.scatter = scatter.data();
    job.accumulate = true;
    job.out = reinterpret_cast<Bf16*>(out.data());
    job.outStride = dim;
    job.logSumExp = reinterpret_cast<float*>(logSumExp.data());
    cuda::attendHopper({const_cast<emulation::Options*>(&options)}, job);
  }
  /// Of the outputs, and of the logarithms of the denominators.
  std::pair<double, double> errors() {
    std::vector<double> expected(queries * dim), logs;
    for (int s = 0; s < queries; ++s) {
      std::vector<double> weight(keys);
      double total = 0;
      for (int key = 0; key < keys; ++key) {
        double dot = 0;
        for (int i = 0; i < dim; ++i) dot += static_cast<double>(q.f32[size_t(s * dim + i)]) * k.f32[size_t(key * dim + i)];
        total += weight[size_t(key)] = std::exp(dot / std::sqrt(static_cast<double>(dim)));
      }
      logs.push_back(std::log2(total));
      const auto raster = static_cast<size_t>(scatter[size_t(s)] * dim);
      for (size_t i = 0; i < dim; ++i) {
        expected[raster + i] = before.f32[raster + i];
        for (size_t key = 0; key < keys; ++key) expected[raster + i] += weight[key] / total * v.f32[key * dim + i];
      }
    }
    return {worst(loadOutput(out, queries * dim, DType::BF16), expected), worst(logSumExp.copy<float>(0, queries), logs)};
  }
};

TEST(Hopper, ScattersAddsAndGivesTheDenominator) {
  Direct direct;
  direct.run();
  const auto [output, logarithm] = direct.errors();
  EXPECT_LT(output, 1.7e-2);  // half a unit in the last place of a bf16 near 4
  EXPECT_LT(logarithm, 1e-4);
}

/// One tile of 128 rows over blocks of the given lengths, of which each group of 16 rows selects its own.
/// `bounded`: with the norms of queries and keys. `tileKeys`: as in AttendJob.
double errorOfSelection(const std::vector<int>& lengths, const std::function<bool(int group, int block)>& selects, int dim = 64, bool bounded = false, int tileKeys = cuda::kHopperKeys) {
  constexpr int queries = 128;
  std::vector<int32_t> start{0}, order(queries);
  for (const int length : lengths) start.push_back(start.back() + length);
  for (int row = 0; row < queries; ++row) order[size_t(row)] = queries - 1 - row;  // positions backwards
  const int keys = start.back();
  // The cell of each chunk, as packing would lay them out.
  const int blocks = int(lengths.size()), chunks = cuda::chunksOf(blocks);
  std::vector<cuda::Cell> cells;
  std::vector<int32_t> cellFirst{0}, places(size_t(chunks * queries)), orders;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    cuda::Cell cell{chunk * queries, 0, 0, {}};
    uint32_t selecting[4] = {};
    for (int block = cuda::firstBlockOf(chunk, chunks, blocks); block < cuda::firstBlockOf(chunk + 1, chunks, blocks); ++block) {
      cuda::Visit visit{start[size_t(block)], lengths[size_t(block)], {}};
      for (int row = 0; row < queries; ++row)
        if (selects(row / 16, block)) visit.rows[row / 32] |= 1u << row % 32;
      for (int word = 0; word < 4; ++word) selecting[word] |= visit.rows[word];
      if (visit.rows[0] | visit.rows[1] | visit.rows[2] | visit.rows[3]) cell.visits[cell.visitCount++] = visit;
    }
    // Rows that select nothing here are missing, and missing rows attend where any of their warp do.
    for (int row = 0; row < queries; ++row) {
      const bool listed = selecting[row / 32] >> row % 32 & 1u;
      orders.push_back(listed ? order[size_t(row)] | (chunks > 1 ? cuda::kSharedRow : 0) : -1);
      places[size_t(chunk * queries + order[size_t(row)])] = listed ? row : -1;
    }
    for (int i = 0; i < cell.visitCount; ++i)
      for (int word = 0; word < 4; ++word)
        if (cell.visits[i].rows[word]) cell.visits[i].rows[word] |= ~selecting[word];
    if (cell.visitCount > 0) cells.push_back(cell);
    cellFirst.push_back(int32_t(cells.size()));
  }
  DeviceBytes partials(size_t(chunks * queries * dim * 2)), logs(size_t(chunks * queries * 4));
  cuda::HopperTurns turns{77, {}};
  const Stored q(randomFloats(queries * dim, 1), DType::BF16), k(randomFloats(size_t(keys * dim), 2), DType::BF16), v(randomFloats(size_t(keys * dim), 3), DType::BF16);
  DeviceBytes out(queries * dim * 2);
  cuda::AttendJob<Bf16> job;
  job.heads = 1;
  job.queries = queries;
  job.headDim = job.paddedDim = dim;
  job.q = q.bf16.data();
  job.k = k.bf16.data();
  job.v = v.bf16.data();
  job.keys = keys;
  job.cells = cells.data();
  job.cellFirst = cellFirst.data();
  job.order = orders.data();
  job.ends = orders.data();  // positions are raster rows
  job.places = places.data();
  job.chunks = chunks;
  job.partials = {1, reinterpret_cast<Bf16*>(partials.data()), reinterpret_cast<float*>(logs.data())};
  job.turns = &turns;
  job.tileKeys = tileKeys;
  for (const int length : lengths) job.lastKeys = std::max(job.lastKeys, (length - 1) % cuda::kHopperKeys + 1);
  const float norms[2] = {30.0f * static_cast<float>(dim) / 16, 30.0f * static_cast<float>(dim) / 16};  // more than any of these rows has
  if (bounded) job.norms = reinterpret_cast<const uint32_t*>(norms);
  job.out = reinterpret_cast<Bf16*>(out.data());
  job.outStride = dim;
  cuda::attendHopper({}, job);
  std::vector<double> expected;
  for (int position = 0; position < queries; ++position) {
    std::vector<double> sum(static_cast<size_t>(dim));
    double total = 0;
    for (size_t block = 0; block < lengths.size(); ++block) {
      if (!selects((queries - 1 - position) / 16, int(block))) continue;
      for (int key = start[block]; key < start[block + 1]; ++key) {
        double dot = 0;
        for (int i = 0; i < dim; ++i) dot += static_cast<double>(q.f32[size_t(position * dim + i)]) * k.f32[size_t(key * dim + i)];
        const double weight = std::exp(dot / std::sqrt(static_cast<double>(dim)));
        total += weight;
        for (int i = 0; i < dim; ++i) sum[size_t(i)] += weight * v.f32[size_t(key * dim + i)];
      }
    }
    for (const double value : sum) expected.push_back(value / total);
  }
  return worst(loadOutput(out, queries * dim, DType::BF16), expected);
}

TEST(Hopper, IdleTilesPassWithoutHoldingUpTheRing) {
  const std::vector<int> whole(12, 128);
  // One warpgroup rests for many tiles of the other, at the beginning, in between, at the end, and in turns.
  EXPECT_LT(errorOfSelection(whole, [](int group, int block) { return group < 4 || block == 0 || block == 11; }), 1.5e-2);
  EXPECT_LT(errorOfSelection(whole, [](int group, int block) { return group >= 4 || block == 5; }), 1.5e-2);
  EXPECT_LT(errorOfSelection(whole, [](int group, int block) { return (group < 4) == (block < 6); }), 1.5e-2);
  EXPECT_LT(errorOfSelection(whole, [](int group, int block) { return (group < 4) == (block % 2 == 0); }), 1.5e-2);
}

TEST(Hopper, AnyRowsMaySelectAnyRaggedBlocks) {
  std::mt19937 random(5);
  for (int round = 0; round < 6; ++round) {
    std::vector<int> lengths;
    for (int block = 0; block < 9; ++block) lengths.push_back(1 + static_cast<int>(random() % (round % 2 ? 60 : 300)));
    const auto mask = static_cast<uint32_t>(random());
    EXPECT_LT(errorOfSelection(lengths, [mask](int group, int block) { return group == block || (mask * (2 * static_cast<uint32_t>(group * 9 + block) + 1)) >> 30 == 0; }), 3e-2) << round;
  }
}

TEST(Hopper, LastTilesOfAnyWidthCountTheirKeysAlone) {
  // Each width of a block's last tile, just full and with a few keys, behind full tiles and alone.
  std::mt19937 random(7);
  for (const int last : {1, 31, 32, 33, 64, 65, 80, 81, 96, 97, 128})
    for (const bool bounded : {false, true}) {
      const std::vector<int> lengths{256 + last, last, 128 + std::max(1, last / 2), last};
      const auto mask = static_cast<uint32_t>(random());
      const auto selects = [mask](int group, int block) { return group % 4 == block || (mask * (2 * static_cast<uint32_t>(group * 4 + block) + 1)) >> 31 == 0; };
      EXPECT_LT(errorOfSelection(lengths, selects, 128, bounded), 3e-2) << last << (bounded ? ", bounded" : "");
    }
}

TEST(Hopper, WideTilesCountTheirKeysAlone) {
  std::mt19937 random(11);
  for (const int last : {1, 8, 9, 15, 16, 17, 144, 145, 151, 152})
    for (const bool bounded : {false, true}) {
      const std::vector<int> lengths{304 + last, last, 152 + std::max(1, last / 2), last, 455};
      const auto mask = static_cast<uint32_t>(random());
      const auto selects = [mask](int group, int block) { return group % 5 == block || (mask * (2 * static_cast<uint32_t>(group * 5 + block) + 1)) >> 31 == 0; };
      EXPECT_LT(errorOfSelection(lengths, selects, 128, bounded, cuda::kWideHopperKeys), 3e-2) << last << (bounded ? ", bounded" : "");
    }
  const std::vector<int> whole(9, 304);  // one warpgroup rests for many tiles of the other
  EXPECT_LT(errorOfSelection(whole, [](int group, int block) { return group < 4 || block == 0 || block == 8; }, 128, false, cuda::kWideHopperKeys), 1.5e-2);
  EXPECT_LT(errorOfSelection(whole, [](int group, int block) { return (group < 4) == (block % 2 == 0); }, 128, true, cuda::kWideHopperKeys), 1.5e-2);
}

TEST(Hopper, WideTilesErrAtMostTwiceAsMuchAsPlainBf16) {
  for (const bool sparse : {false, true})
    for (const float scale : {0.3f, 6.0f}) {
      SelfAttentionCase c = hopperCase({6, 8, 19}, {PartitionKind::Temporal1D, 2, 1, 1, 1}, 2, 128, kTopOne);  // blocks of 304
      c.sparse = sparse;
      c.normScale = scale;
      c.wideTiles = true;
      const SelfAttentionResult r = run(c);
      const Errors errors = errorsOf(c, r);
      EXPECT_LE(errors.kernel, errors.allowed) << scale << (sparse ? ", sparse" : ", dense");
      EXPECT_EQ(cuda::layOut(r.plan).offsets.tileKeys, cuda::kWideHopperKeys);
      c.options.scheduleSeed = 99;
      EXPECT_EQ(run(c).out, r.out);
    }
}

TEST(Hopper, TilesAreAsWideAsBlocksCost) {
  const Grid video{21, 30, 52};  // blocks of 455, 1365 and 4680 positions
  for (const PartitionKind kind : {PartitionKind::SpaceTime3D, PartitionKind::Spatial2D, PartitionKind::Temporal1D})
    EXPECT_EQ(cuda::layOut(planBlocks(video, choosePartition(video, kind))).offsets.tileKeys, cuda::kWideHopperKeys);
  EXPECT_EQ(cuda::layOutDense(32760).offsets.tileKeys, cuda::kWideHopperKeys);
  EXPECT_EQ(cuda::layOutDense(512).offsets.tileKeys, cuda::kHopperKeys);
  EXPECT_EQ(cuda::layOutDense(128).offsets.tileKeys, cuda::kHopperKeys);
}

/// What the emulation says of a planted fault; where it notices nothing, whether the output is wrong.
std::string symptom(PlantedFault::Kind kind, int nth = 0) {
  Direct direct;
  emulation::Options options;
  options.fault = {kind, nth};
  try {
    direct.run(options);
  } catch (const emulation::Violation& violation) {
    return violation.what();
  }
  const auto [output, logarithm] = direct.errors();
  return output > 0.1 || logarithm > 0.1 ? "wrong output" : "none";
}

TEST(PlantedFault, ShowsInAttentionOnHopper) {
  const auto shows = [](const std::string& what, const char* where) { EXPECT_NE(what.find(where), std::string::npos) << what; };
  EXPECT_EQ(symptom(PlantedFault::None), "none");
  shows(symptom(PlantedFault::DropBarrier, 0), "initialised");
  shows(symptom(PlantedFault::SkipCopyWait), "never waited for");
  shows(symptom(PlantedFault::SkipProductWait), "in flight");
  shows(symptom(PlantedFault::SkipPhaseWait), "shared byte");
  shows(symptom(PlantedFault::SkipProxyFence), "no fence of the asynchronous proxy");
  EXPECT_EQ(symptom(PlantedFault::PlainLayout), "wrong output");
  EXPECT_EQ(symptom(PlantedFault::SwapFragment), "wrong output");
  EXPECT_EQ(symptom(PlantedFault::RaggedTail), "wrong output");
}

}  // namespace
}  // namespace vmoba
