// Sessions on the CPU: what must not depend on threads, and what a short clip is told.
#include "native/base/parallel.h"
#include "native/engine/tests/tiny_render.h"

namespace vmoba {
namespace {

class SessionOnCpu : public TinyRender {
 protected:
  std::vector<float> latentAfter(int64_t steps, const Json& json) {
    ModelCache models;
    Session session(models, RenderRequest::parse(json), {});
    for (int64_t i = 0; i < steps; ++i) session.step({});
    return session.latent();
  }
};

TEST_F(SessionOnCpu, GivesTheSameBitsOnOneThreadAndOnTwo) {
  for (const char* precision : {"f32", "auto"}) {
    const auto latent = [&](int64_t threads) { return latentAfter(2, requestJson("cpu").set("precision", precision).set("threads", threads)); };
    const std::vector<float> one = latent(1);
    EXPECT_EQ(one, latent(2)) << precision;
    EXPECT_EQ(one, latent(3)) << precision;
  }
}

TEST_F(SessionOnCpu, PlansMemoryForAsManyThreadsAsItWillUse) {
  const auto memory = [&](int64_t threads) { return planRender(RenderRequest::parse(requestJson("cpu").set("threads", threads))).at("memory").dump(); };
  const int64_t all = makeBackend("cpu", {})->threads();
  EXPECT_EQ(memory(0), memory(all));
  EXPECT_NE(memory(0), memory(all + 1));
}

TEST_F(SessionOnCpu, RunsShortSequencesDenseAndSaysWhy) {
  const Json policy = Json::parse(R"({"version":1,"name":"trained","mode":"threshold","scope":"head_global","tau":0.25,"minimumTokens":4000})");
  ModelCache models;
  Session session(models, RenderRequest::parse(requestJson("cpu").set("policy", policy)), {});
  const Json report = session.step({}).report;
  for (const Json& layer : report.at("layers").asArray("layers")) {
    EXPECT_TRUE(layer.boolOr("dense", false));
    EXPECT_EQ(layer.stringOr("reason", ""), "36 tokens, below the policy's minimum of 4000");
  }
  // And nothing else is computed than what the dense policy computes.
  EXPECT_EQ(session.latent(), latentAfter(1, requestJson("cpu").set("policy", Json::parse(R"({"version":1,"name":"dense","mode":"dense"})"))));
}

}  // namespace
}  // namespace vmoba
