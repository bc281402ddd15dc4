// The engine over the CUDA backend without a GPU: the same backend code and the same kernel sources, run by the emulation.
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/attention/self_attention.h"
#include "kernels/partition.h"
#include "native/base/error.h"
#include "native/engine/noise.h"
#include "native/engine/tests/tiny_render.h"
#include "native/engine/verify/verify.h"

namespace vmoba {
namespace {

namespace fs = std::filesystem;

class Device : public TinyRender {
 protected:
  void TearDown() override {
    for (const char* fault : {"VMOBA_EMULATED_REFUSE_AT", "VMOBA_EMULATED_MEMORY", "VMOBA_EMULATED_LOSE_AT"}) unsetenv(fault);
    TinyRender::TearDown();
  }

  /// Every comparison of the fixtures whose names start with one of `names`.
  void expectFixturesPass(std::initializer_list<const char*> names) {
    for (const auto& entry : fs::directory_iterator(VMOBA_FIXTURES))
      for (const std::string name : names)
        if (entry.path().filename().string().starts_with(name)) fs::copy(entry.path(), folder_ / entry.path().filename());
    const VerifySummary summary = verifyDirectory(folder_.string(), "emulated", 0, [](const VerifyRow& row) {
      EXPECT_TRUE(row.pass) << row.file << " " << row.tensor << ": " << row.error << " " << row.note;
    });
    EXPECT_GT(summary.rows, 0);
  }
};

TEST_F(Device, TransformerFixturesPassWhollyThroughEmulatedKernels) { expectFixturesPass({"wan_dit_t2v_tiny", "wan_dit_i2v_tiny"}); }
TEST_F(Device, TextEncoderFixturesPassWhollyThroughEmulatedKernels) { expectFixturesPass({"umt5_tiny"}); }
TEST_F(Device, VaeFixturesPassWhollyThroughEmulatedKernels) { expectFixturesPass({"wan_vae_tiny"}); }
TEST_F(Device, AttentionFixturesPassWhollyThroughEmulatedKernels) { expectFixturesPass({"vmoba_b_qkv", "vmoba_b_3d135", "vmoba_edge"}); }

TEST_F(Device, SchedulerFixturesPassThroughEmulatedKernels) { expectFixturesPass({"sched_"}); }

TEST_F(Device, NanoAgreesWithTheCpuFromTheFirstStepToTheLast) {
  ModelCache onCpu, onDevice;
  const auto nano = [&](const char* device) { return RenderRequest::parse(requestJson(device).set("model", std::string(VMOBA_FIXTURES) + "/../../resources/models/nano")); };
  Session expected(onCpu, nano("cpu"), {}), actual(onDevice, nano("emulated"), {});
  const Json withPreview = Json::parse(R"({"preview":true})");
  const Session::StepResult first = actual.step(withPreview), firstOnCpu = expected.step(withPreview);
  const Json &report = first.report, &reference = firstOnCpu.report;
  EXPECT_LT(relativeDifference(actual.latent(), expected.latent()), 1e-5);
  // The same blocks were selected: in f32 the routing agrees exactly.
  const auto& layers = report.at("layers").asArray("layers");
  const auto& referenceLayers = reference.at("layers").asArray("layers");
  for (size_t i = 0; i < layers.size(); ++i) {
    EXPECT_FALSE(layers[i].boolOr("dense", true));
    EXPECT_DOUBLE_EQ(layers[i].at("density").asNumber("density"), referenceLayers[i].at("density").asNumber("density"));
  }
  ASSERT_TRUE(first.preview && firstOnCpu.preview);
  EXPECT_EQ(first.preview->rgb.size(), static_cast<size_t>(3 * 3 * 6 * 8));
  for (size_t i = 0; i < first.preview->rgb.size(); ++i) EXPECT_NEAR(first.preview->rgb[i], firstOnCpu.preview->rgb[i], 1);
  while (!actual.finished()) {
    actual.step({});
    expected.step({});
  }
  EXPECT_LT(relativeDifference(actual.latent(), expected.latent()), 1e-5);
}

/// The same velocities on both devices: then every bit of the sampler's state is the same.
TEST_F(Device, SamplersGiveTheSameBitsAsOnTheCpu) {
  const auto cpu = makeBackend("cpu", {}), device = makeBackend("emulated", {});
  const Shape shape{3, 5, 7, 9};
  for (const SchedulerKind kind : {SchedulerKind::UniPC, SchedulerKind::DpmSolverPP, SchedulerKind::Euler}) {
    const Scheduler scheduler(kind, makeSigmas(5, 3, highestSigma(kind)));
    const auto run = [&](Backend& backend) {
      SchedulerState state = upload(backend, {0, 0, gaussianNoise(1, 0, shape.elements())}, shape);
      for (uint64_t i = 0; i < 4; ++i) {
        const auto random = [&](uint64_t seed) { return backend.makeVector(gaussianNoise(seed, i, shape.elements())).reshaped(shape); };
        state = scheduler.advance(backend, state, guide(backend, random(2), random(3), 4.5f));
      }
      return download(backend, state);
    };
    const StoredState expected = run(*cpu), actual = run(*device);
    for (const auto member : {&StoredState::x, &StoredState::estimate1, &StoredState::estimate2, &StoredState::predictedFrom}) EXPECT_EQ(actual.*member, expected.*member) << schedulerName(kind);
    EXPECT_FALSE(expected.x.empty());
  }
}

TEST_F(Device, ALatentWithNanIsATypedErrorThatLeavesTheStateAsItWas) {
  for (const char* device : {"cpu", "emulated"}) {
    ModelCache models;
    Session session(models, request(device), {});
    std::vector<float> noise(session.latent());
    noise[17] = std::numeric_limits<float>::quiet_NaN();
    session.setNoise(noise);
    try {
      session.step({});
      FAIL() << "a step from NaN on " << device;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::NumericalFault) << error.what();
    }
    EXPECT_EQ(0, std::memcmp(session.latent().data(), noise.data(), noise.size() * sizeof(float)));
  }
}

TEST_F(Device, ThePlanCountsWhatRoutingTakesOnAGpu) {
  Json json = requestJson("emulated").set("width", int64_t{832}).set("height", int64_t{480}).set("frames", int64_t{81}).set("memoryLimitBytes", int64_t{1} << 40);
  const Json memory = planRender(RenderRequest::parse(json)).at("memory");
  const Grid grid{21, 30, 52};
  for (const PartitionKind kind : {PartitionKind::Temporal1D, PartitionKind::Spatial2D, PartitionKind::SpaceTime3D}) {
    const cuda::PlanUpload upload = cuda::layOut(planBlocks(grid, choosePartition(grid, kind)));
    cuda::SelfAttentionJob job;
    job.plan = upload.view(upload.data.data());
    job.sparse = job.maps = true;
    job.heads = 6;
    job.headDim = 32;
    job.partialBytes = partialResultBytes(size_t{1} << 40);
    EXPECT_GT(memory.at("sampling").asNumber("sampling"), memory.at("weights").asNumber("weights") + static_cast<double>(cuda::layOutScratch(job).total));
  }
}

TEST_F(Device, StreamsTheWeightsWithANoticeAndTheSameLatentWhenMemoryRunsOut) {
  ModelCache plentiful, scarce;
  Session expected(plentiful, request("emulated", 1), {});
  expected.step({});
  setenv("VMOBA_EMULATED_REFUSE_AT", "60", 1);  // some way into loading the weights
  Session actual(scarce, request("emulated", 1), {});
  const Json report = actual.step({}).report;
  const auto& notices = report.at("notices").asArray("notices");
  ASSERT_FALSE(notices.empty());
  EXPECT_NE(notices[0].asString("notice").find("memory ran out"), std::string::npos);
  EXPECT_NE(notices[0].asString("notice").find("streamed"), std::string::npos);
  EXPECT_EQ(actual.latent(), expected.latent());
}

TEST_F(Device, TheLatentSurvivesMemoryThatRunsOutBetweenTwoSteps) {
  const Json maps = Json::parse(R"({"maps":{"layer":0,"words":true}})");  // what the second step needs anew
  ModelCache plentiful, scarce;
  Session expected(plentiful, request("emulated", 1), {});
  setenv("VMOBA_EMULATED_REFUSE_AT", "147", 1);
  Session actual(scarce, request("emulated", 1), {});
  ASSERT_EQ(actual.step({}).report.find("notices"), nullptr) << "memory was to run out in the second step";
  ASSERT_NE(actual.step(maps).report.find("notices"), nullptr) << "memory was to run out in the second step";
  expected.step({});
  expected.step(maps);
  EXPECT_EQ(actual.latent(), expected.latent());
}

TEST_F(Device, TooLittleMemoryForAnyPlanIsATypedError) {
  setenv("VMOBA_EMULATED_MEMORY", "4000000", 1);
  ModelCache models;
  RenderRequest wanted = request("emulated");
  wanted.runAnyway = true;
  try {
    Session session(models, wanted, {});
    session.step({});
    FAIL() << "a render in 4 MB";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::OutOfMemory) << error.what();
  }
}

TEST_F(Device, ALostDeviceIsATypedErrorAndTheRenderResumesOnTheCpu) {
  ModelCache models, cpu;
  const std::string checkpoint = (folder_ / "checkpoint.safetensors").string();
  setenv("VMOBA_EMULATED_LOSE_AT", "400", 1);  // between the first step and the last
  Session session(models, request("emulated"), {});
  int64_t done = 0;
  try {
    for (; done < 3; ++done) {
      session.step({});
      session.saveCheckpoint(checkpoint);
    }
    FAIL() << "the device was not lost";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::DeviceLost) << error.what();
    EXPECT_NE(std::string(error.what()).find("resumed on the CPU"), std::string::npos);
  }
  ASSERT_GT(done, 0);
  Session resumed(cpu, request("cpu"), {});
  const Json state = resumed.restoreCheckpoint(checkpoint);
  EXPECT_EQ(state.at("step").asInteger("step"), done);
  EXPECT_FALSE(state.boolOr("bitIdentical", true));
  while (!resumed.finished()) resumed.step({});
  EXPECT_GT(resumed.decodeFrames().count, 0);
}

}  // namespace
}  // namespace vmoba
