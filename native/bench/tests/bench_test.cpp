// The benchmarks' inputs and competitors, and that attention of captured values is the same on the device as on the CPU.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/cpu/tile.h"
#include "kernels/partition.h"
#include "native/base/error.h"
#include "native/bench/attention.h"
#include "native/bench/attention_check.h"
#include "native/bench/attention_inputs.h"
#include "native/bench/attention_rivals.h"
#include "native/bench/attention_runner.h"
#include "native/bench/model.h"
#include "native/bench/render.h"
#include "native/engine/policy.h"
#include "native/weights/safetensors.h"

namespace vmoba {
namespace {

constexpr PartitionKind kKinds[] = {PartitionKind::Temporal1D, PartitionKind::Spatial2D, PartitionKind::SpaceTime3D};
const std::string kNano = std::string(VMOBA_FIXTURES) + "/../../resources/models/nano";

double ticks() {
  static double now = 0;
  return now += 1;
}
void ignore(const Json&) {}

AttentionInputs captured(const Grid& grid, int64_t layer = 1, const Grid& from = {3, 6, 8}) {
  Json options;
  options.set("model", kNano).set("captureGrid", Json::list(std::vector<int32_t>{from.t, from.h, from.w})).set("captureLayer", layer);
  return capturedInputs(options, grid, 2, 32, DType::F32);
}

SelectionRule headGlobal(float tau) { return {SelectionMode::Threshold, SelectionScope::HeadGlobal, tau, 1, Semantics::Exact}; }

double worstDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return worst;
}

TEST(CapturedInputs, AreTheModelsOwnValuesStretchedOverTheGrid) {
  const AttentionInputs own = captured({3, 6, 8}), stretched = captured({5, 11, 15});
  EXPECT_NE(own.note.find("step 5 of 8, layer 1 on, 3x6x8 resampled"), std::string::npos) << own.note;
  const auto row = [](const AttentionInputs& inputs, int64_t token) {
    const auto* at = reinterpret_cast<const float*>(inputs.rows.data()) + token * 3 * inputs.dim();
    return std::vector<float>(at, at + 3 * inputs.dim());
  };
  EXPECT_EQ(row(own, 0), row(stretched, 0));
  EXPECT_EQ(row(own, own.grid.tokens() - 1), row(stretched, stretched.grid.tokens() - 1));
  EXPECT_NE(row(own, 0), row(own, 1));
  // Every second position lies on a token of the capture.
  EXPECT_LT(worstDifference(row(own, (1 * 6 + 2) * 8 + 3), row(stretched, (2 * 11 + 4) * 15 + 6)), 1e-6);
  EXPECT_NE(captured({3, 6, 8}, 2).rows, own.rows);
}

TEST(PublishedAlgorithm, GivesTheFusedPathsOutputsOverTheSameSelection) {
  const auto runner = runOnCpu(captured({5, 10, 13}), ticks);
  for (const PartitionKind kind : kKinds) {
    const BlockPlan plan = planBlocks(runner->inputs().grid, choosePartition(runner->inputs().grid, kind));
    AttentionProbe probe;
    runner->run({.plan = &plan, .rule = headGlobal(0.4f), .probe = &probe});
    const std::vector<float> expected = runner->output();
    for (const bool library : {false, true}) {
      const RivalTimes times = publishedAlgorithm({&plan, 2, 32, DType::F32, &probe}, 0.4f, library, ticks, expected);
      EXPECT_LT(times.worstDifference, 2e-5);
      EXPECT_LE(times.selectedElsewhere, 4);  // an entry or two beside each head's cut-off
      EXPECT_GT(times.total(), 0);
    }
    // One query that attends to a block less shows.
    const auto entry = std::find_if(probe.selection.begin(), probe.selection.end(), [&](uint8_t& selected) {
      const int64_t at = &selected - probe.selection.data(), s = at % plan.tokens(), c = at / (2 * plan.tokens());
      return selected && (s < plan.start[static_cast<size_t>(c)] || s >= plan.start[static_cast<size_t>(c) + 1]);
    });
    ASSERT_NE(entry, probe.selection.end());
    *entry = 0;
    EXPECT_GT(publishedAlgorithm({&plan, 2, 32, DType::F32, &probe}, 0.4f, false, ticks, expected).worstDifference, 1e-4);
  }
}

TEST(BenchAttention, ReportsEveryPartitionAndDensityOfEachData) {
  Json options;
  options.set("grid", Json::list(std::vector<int32_t>{5, 8, 10})).set("headDim", int64_t{64}).set("model", kNano).set("captureGrid", Json::list(std::vector<int32_t>{3, 6, 8}));
  const Json result = benchAttention(options.set("precision", "f32").set("repeats", int64_t{1}).set("densities", Json::list(std::vector<double>{0.3})), ignore);
  const auto& rows = result.at("rows").asArray("rows");
  std::vector<std::string> seen;
  for (const Json& row : rows) {
    seen.push_back(row.stringOr("data", "") + " " + row.stringOr("partition", ""));
    EXPECT_NEAR(row.at("density").asNumber("density"), 0.3, 0.03) << seen.back();
    EXPECT_NEAR(row.at("efficiency").asNumber("efficiency"), row.at("density").asNumber("density") * row.at("speedup").asNumber("speedup"), 1e-9);
    if (row.stringOr("partition", "") == "cycle") continue;
    EXPECT_LE(row.at("meanBlocks").asNumber("meanBlocks"), row.at("tileUnion").asNumber("tileUnion"));
    EXPECT_GE(row.at("statistics").asNumber("statistics"), 0);
  }
  for (const char* data : {"captured", "smooth", "random"})
    for (const char* partition : {"2d", "3d"}) EXPECT_NE(std::find(seen.begin(), seen.end(), std::string(data) + " " + partition), seen.end()) << data << " " << partition;
  EXPECT_FALSE(result.at("rivals").asArray("rivals").empty());
}

ErrorCode codeOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::Internal;
}

TEST(BenchAttention, RefusesWhatItCannotMeasure) {
  const auto refusal = [](const char* json) { return codeOf([&] { benchAttention(Json::parse(json), ignore); }); };
  EXPECT_EQ(refusal(R"({"backend":"abacus"})"), ErrorCode::Unsupported);
  EXPECT_EQ(refusal(R"({"grid":[3,6,8],"data":["captured"]})"), ErrorCode::BadRequest);
  EXPECT_EQ(refusal(R"({"grid":[3,6,8],"data":["imagined"]})"), ErrorCode::BadRequest);
  EXPECT_EQ(refusal(R"({"grid":[3,6,8],"clock":"sundial"})"), ErrorCode::BadRequest);
  EXPECT_EQ(refusal(R"({"grid":[4096,4096,4096]})"), ErrorCode::BadRequest);
  EXPECT_EQ(refusal(R"({"grid":[3,6,8],"densities":[0.5,2]})"), ErrorCode::BadRequest);
  EXPECT_EQ(refusal(R"({"grid":[3,6,8],"exportDensity":0,"backend":"abacus"})"), ErrorCode::BadRequest);  // before the device is asked
  EXPECT_EQ(refusal(R"({"grid":[3,6,8],"instructionSet":"mmx"})"), ErrorCode::Unsupported);
}

TEST(BenchAttention, MeasuresTheKernelAskedFor) {
  for (const DType dtype : {DType::F32, DType::BF16})
    for (const cpu::TileKernel* kernel : cpu::tileKernels(dtype)) {
      Json options = Json::parse(R"({"grid":[2,4,6],"heads":1,"headDim":32,"data":["smooth"],"densities":[0.5],"repeats":1})");
      options.set("precision", dtype == DType::F32 ? "f32" : "bf16").set("instructionSet", std::string(kernel->name));
      EXPECT_EQ(benchAttention(options, ignore).stringOr("instructionSet", ""), kernel->name);
    }
}

/// Exports one density from `backend` and attends to what the files say.
void attendToExports(const std::string& backend, const char* precision, const std::vector<std::string>& data) {
  const auto folder = std::filesystem::temp_directory_path() / ("vmoba-export-" + backend + "-" + std::to_string(::getpid()));
  Json options = Json::parse(R"({"grid":[3,6,8],"heads":2,"headDim":16,"densities":[0.5],"repeats":1,"rivals":false})");
  benchAttention(options.set("backend", backend).set("precision", precision).set("data", Json::list(data)).set("export", folder.string()), ignore);
  EXPECT_TRUE(std::filesystem::remove(folder / (data.front() + "-dense.safetensors")));
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    ++files;
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    const SafetensorsHeader header = parseSafetensors(std::as_bytes(std::span(text)), entry.path().filename().string());
    const Json facts = Json::parse(header.metadata.at("attention"));
    EXPECT_EQ(entry.path().filename().string(), data.front() + "-" + facts.stringOr("partition", "") + "-0.5.safetensors");
    EXPECT_GT(facts.numberOr("seconds", 0), 0);
    EXPECT_GT(facts.numberOr("tau", 0), 0);
    const auto find = [&](const std::string& name) { return *std::find_if(header.tensors.begin(), header.tensors.end(), [&](const auto& tensor) { return tensor.name == name; }); };
    const auto element = [&](const SafetensorsEntry& tensor, size_t i, auto value) {
      std::memcpy(&value, text.data() + tensor.begin + i * sizeof value, sizeof value);
      return value;
    };
    const auto number = [&](const SafetensorsEntry& tensor, size_t i) { return static_cast<double>(toFloat(element(tensor, i, Bf16{}))); };
    const auto q = find("q"), k = find("k"), v = find("v"), out = find("out"), selection = find("selection"), permutation = find("permutation"), start = find("start");
    ASSERT_EQ(q.shape, (std::vector<int64_t>{2, 144, 16}));
    ASSERT_EQ(out.shape, (std::vector<int64_t>{144, 32}));
    ASSERT_EQ(selection.shape, (std::vector<int64_t>{start.shape[0] - 1, 2, 144}));
    double wrong = 0, whole = 0, pairs = 0;
    for (size_t h = 0; h < 2; ++h)
      for (size_t s = 0; s < 144; ++s) {
        const auto row = [&](size_t position) { return (h * 144 + static_cast<size_t>(element(permutation, position, int32_t{}))) * 16; };
        double total = 0;
        std::vector<double> sums(16);
        for (size_t c = 0; c + 1 < static_cast<size_t>(start.shape[0]); ++c) {
          if (!element(selection, (c * 2 + h) * 144 + s, uint8_t{})) continue;
          for (auto key = static_cast<size_t>(element(start, c, int32_t{})); key < static_cast<size_t>(element(start, c + 1, int32_t{})); ++key) {
            double dot = 0;
            for (size_t i = 0; i < 16; ++i) dot += number(q, row(s) + i) * number(k, row(key) + i);
            const double weight = std::exp(dot / std::sqrt(16.0));
            total += weight;
            ++pairs;
            for (size_t i = 0; i < 16; ++i) sums[i] += weight * number(v, row(key) + i);
          }
        }
        for (size_t i = 0; i < 16; ++i) {
          const double given = number(out, static_cast<size_t>(element(permutation, s, int32_t{})) * 32 + h * 16 + i);
          wrong += (given - sums[i] / total) * (given - sums[i] / total);
          whole += given * given;
        }
      }
    EXPECT_LT(std::sqrt(wrong / whole), 0.01) << entry.path();  // operands and results are rounded to bf16 for the file
    EXPECT_NEAR(pairs / (2 * 144 * 144), facts.numberOr("density", 0), 1e-6);
  }
  EXPECT_GE(files, 2);  // of the first data only
  std::filesystem::remove_all(folder);
}

TEST(BenchAttention, ExportsWhatARivalNeeds) { attendToExports("cpu", "f32", {"smooth", "random"}); }

#ifdef VMOBA_EMULATED
TEST(BenchOnADevice, ExportsWhatARivalNeeds) { attendToExports("emulated", "bf16", {"random"}); }
#endif

double number(const Json& json, const char* outer, const char* inner) { return json.at(outer).at(inner).asNumber(inner); }

Json renderTiny(const char* backend, const char* more) {
  Json options = Json::parse(R"({"preset":"tiny","width":64,"height":48,"frames":9,"steps":4,"precision":"f32","threads":2})");
  const Json extra = Json::parse(more);
  for (const auto& [name, value] : extra.asObject("more")) options.set(name, value);
  return benchRender(options.set("tokenizer", std::string(VMOBA_FIXTURES) + "/tokenizer/spiece.model").set("backend", backend), ignore);
}

TEST(BenchRender, RunsTextStepsAndDecodeAndSplitsTheirTime) {
  const Json result = renderTiny("cpu", "{}");
  EXPECT_EQ(result.integerOr("frames", 0), 9);
  EXPECT_EQ(result.integerOr("width", 0), 64);
  EXPECT_EQ(result.integerOr("denseSteps", 0), 1);  // a quarter of four, as the app's preset says
  EXPECT_EQ(result.integerOr("sparseSteps", 0), 3);
  EXPECT_LT(result.numberOr("density", 1), result.numberOr("meanDensity", 0));
  EXPECT_GT(result.numberOr("mixedSpeedup", 0), 0);
  double sum = 0;
  for (const char* phase : {"load", "text", "denoise", "decode"}) sum += number(result, "seconds", phase);
  EXPECT_NEAR(sum, number(result, "seconds", "total"), 1e-6);
  double kinds = 0;
  for (const char* kind : {"linears", "attention", "routing", "other"}) kinds += number(result, "denoiseByKind", kind);
  EXPECT_LE(kinds, number(result, "seconds", "denoise"));
  EXPECT_GE(result.integerOr("poolHeldPeakBytes", 0), result.integerOr("poolPeakBytes", 1));
}

/// Codes of what a benchmark refuses, and that it had written nothing by then.
std::vector<ErrorCode> refusals(Json (*bench)(const Json&, const std::function<void(const Json&)>&), const char* common, const std::vector<const char*>& requests) {
  const auto scratch = std::filesystem::temp_directory_path() / ("vmoba-refused-" + std::to_string(::getpid()));
  std::vector<ErrorCode> codes;
  for (const char* request : requests) {
    Json options = Json::parse(common);
    const Json more = Json::parse(request);
    for (const auto& [name, value] : more.asObject("more")) options.set(name, value);
    options.set("scratch", scratch.string());
    codes.push_back(codeOf([&] { bench(options, [&](const Json& line) { ADD_FAILURE() << request << " got as far as " << line.dump(); }); }));
    EXPECT_FALSE(std::filesystem::remove(scratch)) << request;
  }
  return codes;
}

TEST(BenchRender, RefusesBadRequestsBeforeItMakesAModel) {
  const std::string common = R"({"preset":"tiny","width":64,"height":48,"frames":9,"steps":1,"tokenizer":")" + std::string(VMOBA_FIXTURES) + R"(/tokenizer/spiece.model"})";
  EXPECT_EQ(refusals(benchRender, common.c_str(), {R"({"policy":"imagined"})", R"({"policy":{"mode":"sometimes"}})", R"({"steps":0})", R"({"width":72})", R"({"frames":8})", R"({"precision":"f8"})"}),
            std::vector(6, ErrorCode::BadRequest));
  EXPECT_EQ(refusals(benchRender, common.c_str(), {R"({"backend":"abacus"})"}), std::vector{ErrorCode::Unsupported});
}

TEST(BenchModel, RefusesBadOptionsBeforeItMakesWeights) {
  const char* common = R"({"preset":"tiny","grid":[3,4,4],"repeats":1})";
  EXPECT_EQ(refusals(benchModel, common, {R"({"policies":["imagined"]})", R"({"policies":[{"mode":"sometimes"}]})", R"({"stream":"sometimes"})", R"({"precision":"f8"})", R"({"denseShare":2})"}),
            std::vector(5, ErrorCode::BadRequest));
  EXPECT_EQ(refusals(benchModel, common, {R"({"backend":"abacus"})"}), std::vector{ErrorCode::Unsupported});
}

TEST(BenchRender, OfDensePolicyHasNoSparseSteps) {
  const Json result = renderTiny("cpu", R"({"policy":"dense","steps":2})");
  EXPECT_EQ(result.integerOr("denseSteps", 0), 2);
  EXPECT_TRUE(result.at("mixedSpeedup").isNull());
  EXPECT_EQ(result.numberOr("meanDensity", 0), 1);
}

TEST(BenchModel, ComparesStreamedWithResidentWeightsAndMixesDenseSteps) {
  const Json result = benchModel(Json::parse(R"({"preset":"tiny","grid":[3,4,4],"precision":"f32","repeats":1,"branches":2,"stream":"both","denseShare":0.5,"policies":["dense","vmoba-training-free"]})"), ignore);
  const auto& rows = result.at("rows").asArray("rows");
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0].find("streamSlowdown"), nullptr);
  EXPECT_NEAR(rows[3].numberOr("streamSlowdown", 9), rows[3].numberOr("seconds", 0) / rows[1].numberOr("seconds", 1) - 1, 1e-9);
  EXPECT_NEAR(rows[1].numberOr("mixedSpeedup", 0), 2 / (1 + 1 / rows[1].numberOr("speedup", 1)), 1e-9);
  EXPECT_LT(rows[3].numberOr("density", 1), 1);
}

TEST(BenchModel, TellsThePeakOfEachRow) {
  const Json result = benchModel(Json::parse(R"({"preset":"tiny","grid":[3,8,8],"precision":"f32","repeats":1,"policies":["vmoba-trained","dense"]})"), ignore);
  const auto& rows = result.at("rows").asArray("rows");
  EXPECT_LT(rows[1].integerOr("poolPeakBytes", 0), rows[0].integerOr("poolPeakBytes", 0));  // dense attention needs no selection
  EXPECT_GT(rows[1].integerOr("poolPeakBytes", 0), result.integerOr("weightBytes", 0));
}

#ifdef VMOBA_EMULATED
TEST(BenchOnADevice, RendersLikeTheCpu) {
  const Json device = renderTiny("emulated", R"({"steps":2,"width":32,"height":32,"frames":5})"), cpu = renderTiny("cpu", R"({"steps":2,"width":32,"height":32,"frames":5})");
  EXPECT_EQ(device.stringOr("device", ""), "emulated");
  EXPECT_EQ(device.integerOr("frames", 0), 5);
  EXPECT_NEAR(device.numberOr("density", 0), cpu.numberOr("density", 1), 1e-6);
  EXPECT_GT(number(device, "decodeByKind", "convolutions"), 0);
}

TEST(BenchOnADevice, MeasuresAttentionByTheSameCommand) {
  const Json result = benchAttention(Json::parse(R"({"backend":"emulated","grid":[3,6,8],"heads":1,"headDim":16,"precision":"bf16","repeats":1,"densities":[0.5],"data":["random"]})"), ignore);
  EXPECT_EQ(result.stringOr("clock", ""), "device");
  EXPECT_FALSE(result.at("rows").asArray("rows").empty());
  for (const Json& row : result.at("rows").asArray("rows")) EXPECT_GT(row.at("seconds").asNumber("seconds"), 0);
  EXPECT_EQ(codeOf([] { benchAttention(Json::parse(R"({"backend":"emulated","grid":[3,6,8],"clock":"cpu"})"), ignore); }), ErrorCode::BadRequest);
}

TEST(BenchOnADevice, ChecksAttentionByEitherKernelAgainstDouble) {
  const std::string options = R"({"backend":"emulated","grid":[3,5,7],"heads":1,"headDim":64,"precision":"bf16","repeats":1,"densities":[0.5],"data":["random"]})";
  for (const auto& [hopper, says] : {std::pair{"0", ""}, std::pair{"1", "attention by wgmma"}, std::pair{"wide", "attention by wgmma in wide tiles"}}) {
    setenv("VMOBA_HOPPER", hopper, 1);
    const Json result = benchAttention(Json::parse(options), ignore);
    const std::string set = result.stringOr("instructionSet", "");
    EXPECT_EQ(set.substr(std::min(set.find("attention by"), set.size())), says);
    EXPECT_TRUE(result.boolOr("accurate", false));
    EXPECT_GE(result.at("checks").asArray("checks").size(), 2u);
  }
  unsetenv("VMOBA_HOPPER");

  const auto backend = makeBackend("emulated", {Precision::BF16, 0, 0});
  const auto runner = runOnDevice(randomInputs({3, 7, 9}, 1, 32, DType::BF16), *backend);
  const Accuracy right = checkAttention(*runner, {});
  EXPECT_TRUE(right.holds());
  EXPECT_GT(right.error, 0);
  const BlockPlan plan = planBlocks({3, 7, 9}, choosePartition({3, 7, 9}, PartitionKind::Spatial2D));
  struct Mistaken final : AttentionRunner {  // attends to everything where the call asked for a selection
    AttentionRunner& inner;
    explicit Mistaken(AttentionRunner& runner) : AttentionRunner(runner.inputs()), inner(runner) {}
    Result run(const Call& call) override {
      inner.run(call);
      return inner.run({});
    }
    std::vector<float> output() override { return inner.output(); }
    size_t scratchBytes() const override { return 0; }
  } mistaken(*runner);
  EXPECT_TRUE(checkAttention(*runner, {.plan = &plan, .rule = headGlobal(0.4f)}).holds());
  EXPECT_FALSE(checkAttention(mistaken, {.plan = &plan, .rule = headGlobal(0.4f)}).holds());
}

TEST(BenchOnADevice, CountsOnlyWhatAttentionNeedsAsItsScratch) {
  const auto backend = makeBackend("emulated", {Precision::BF16, 0, 0});
  constexpr int64_t kBytes = 32 << 20;
  backend->allocate(DType::U8, {kBytes});  // as a measurement before this one
  const auto runner = runOnDevice(randomInputs({3, 6, 8}, 1, 16, DType::BF16), *backend);
  runner->run({});
  EXPECT_GT(runner->scratchBytes(), 0u);
  EXPECT_LT(runner->scratchBytes(), static_cast<size_t>(kBytes) / 2);
}

TEST(BenchOnADevice, MeasuresAModelByTheSameCommand) {
  const Json result = benchModel(Json::parse(R"({"backend":"emulated","preset":"tiny","layers":1,"grid":[3,4,4],"precision":"bf16","repeats":1,"policies":["dense","vmoba-trained"]})"), ignore);
  EXPECT_EQ(result.stringOr("device", ""), "emulated");
  ASSERT_EQ(result.at("rows").asArray("rows").size(), 2u);
  EXPECT_LT(result.at("rows").asArray("rows")[1].at("density").asNumber("density"), 1);
}

/// Attention of values captured from Nano, by the CPU and by emulated kernels: in f32 the selections are the same, bit for bit.
TEST(CapturedInputs, AreRoutedAlikeOnTheCpuAndOnTheDevice) {
  const auto backend = makeBackend("emulated", {Precision::F32, 0, 0});
  for (const int64_t layer : {0, 2}) {
    const AttentionInputs inputs = captured({3, 6, 8}, layer);
    const auto onCpu = runOnCpu(inputs, ticks), onDevice = runOnDevice(inputs, *backend);
    for (const PartitionKind kind : kKinds) {
      const BlockPlan plan = planBlocks(inputs.grid, choosePartition(inputs.grid, kind));
      for (const SelectionRule& rule : {headGlobal(0.25f), SelectionRule{SelectionMode::TopK, SelectionScope::QueryHead, 0, 2, Semantics::Exact}}) {
        AttentionProbe cpu, device;
        onCpu->run({.plan = &plan, .rule = rule, .probe = &cpu});
        const auto result = onDevice->run({.plan = &plan, .rule = rule, .probe = &device});
        EXPECT_EQ(cpu.gate, device.gate);
        EXPECT_EQ(cpu.selection, device.selection) << partitionName(kind) << ", layer " << layer;
        EXPECT_LT(result.statistics.density, 1);
        EXPECT_LT(worstDifference(onCpu->output(), onDevice->output()), 2e-5);
      }
    }
  }
}
#endif

}  // namespace
}  // namespace vmoba
