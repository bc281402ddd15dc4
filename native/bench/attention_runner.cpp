#include "native/bench/attention_runner.h"

#include <algorithm>
#include <span>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/rows/rows.h"
#include "native/base/large_memory.h"
#include "native/base/parallel.h"

namespace vmoba {
namespace {

constexpr StatisticsRequest kMaps{true, -1};

std::vector<float> asFloats(std::span<const std::byte> bytes, DType dtype) {
  std::vector<float> values(bytes.size() / elementBytes(dtype));
  cpu::convert(bytes.data(), dtype, values.data(), DType::F32, static_cast<int64_t>(values.size()));
  return values;
}

class CpuRunner final : public AttentionRunner {
 public:
  CpuRunner(AttentionInputs inputs, std::function<double()> clock, const char* instructionSet)
      : AttentionRunner(std::move(inputs)), clock_(std::move(clock)), instructionSet_(instructionSet) {
    const size_t slice = inputs_.rows.size() / 3;
    rows_ = LargeBuffer(3 * slice);
    out_ = LargeBuffer(slice);
    std::copy(inputs_.rows.begin(), inputs_.rows.end(), rows_.bytes().begin());
  }

  Result run(const Call& call) override {
    const size_t slice = static_cast<size_t>(inputs_.dim()) * elementBytes(inputs_.dtype);
    cpu::SelfAttention job;
    job.tokens = static_cast<int32_t>(inputs_.grid.tokens());
    job.heads = inputs_.heads;
    job.headDim = inputs_.headDim;
    job.dtype = inputs_.dtype;
    job.q = rows_.bytes().data();
    job.k = rows_.bytes().data() + slice;
    job.v = rows_.bytes().data() + 2 * slice;
    job.rowStride = 3 * inputs_.dim();
    job.ropeCos = inputs_.ropeCos.data();
    job.ropeSin = inputs_.ropeSin.data();
    job.blocks = call.plan;
    job.rule = call.rule;
    job.out = out_.bytes().data();
    job.outStride = inputs_.dim();
    job.routingOnly = call.routingOnly;
    job.probe = call.probe;
    job.instructionSet = instructionSet_;
    const size_t bytes = cpu::selfAttentionScratchBytes(job, threadCount());
    if (scratch_.bytes().size() < bytes) scratch_ = LargeBuffer(bytes);
    Result result;
    const double started = clock_();
    cpu::selfAttention(job, scratch_.bytes(), &kMaps, call.described ? &result.statistics : nullptr);
    result.seconds = clock_() - started;
    return result;
  }
  std::vector<float> output() override { return asFloats(out_.bytes(), inputs_.dtype); }
  size_t scratchBytes() const override { return scratch_.bytes().size(); }

 private:
  std::function<double()> clock_;
  const char* instructionSet_;
  LargeBuffer rows_, out_, scratch_;
};

class DeviceRunner final : public AttentionRunner {
 public:
  DeviceRunner(AttentionInputs inputs, Backend& backend) : AttentionRunner(std::move(inputs)), backend_(backend) {
    const int64_t tokens = inputs_.grid.tokens();
    op_.qkv = backend.allocate(inputs_.dtype, {tokens, 3 * inputs_.dim()});
    op_.ropeCos = backend.allocate(DType::F32, {tokens, inputs_.headDim / 2});
    op_.ropeSin = backend.allocate(DType::F32, {tokens, inputs_.headDim / 2});
    op_.out = backend.allocate(inputs_.dtype, {tokens, inputs_.dim()});
    op_.heads = inputs_.heads;
    backend.upload(op_.qkv, inputs_.rows.data());
    backend.upload(op_.ropeCos, inputs_.ropeCos.data());
    backend.upload(op_.ropeSin, inputs_.ropeSin.data());
    held_ = backend.bytesInUse();
    backend.restartPeaks();
  }

  Result run(const Call& call) override {
    Result result;
    SelfAttentionOp op = op_;
    op.blocks = call.plan;
    op.rule = call.rule;
    op.probe = call.probe;
    op.request.maps = call.described;
    op.statistics = &result.statistics;  // which also hold the device's own times
    backend_.selfAttention(op);
    backend_.synchronize();
    result.seconds = result.statistics.routingSeconds + result.statistics.attentionSeconds;
    return result;
  }
  std::vector<float> output() override {
    std::vector<std::byte> bytes(op_.out.bytes());
    backend_.download(op_.out, bytes.data());
    return asFloats(bytes, inputs_.dtype);
  }
  size_t scratchBytes() const override { return backend_.peakBytes() - held_; }

 private:
  Backend& backend_;
  SelfAttentionOp op_;
  size_t held_ = 0;
};

}  // namespace

std::unique_ptr<AttentionRunner> runOnCpu(AttentionInputs inputs, std::function<double()> clock, const char* instructionSet) {
  return std::make_unique<CpuRunner>(std::move(inputs), std::move(clock), instructionSet);
}
std::unique_ptr<AttentionRunner> runOnDevice(AttentionInputs inputs, Backend& backend) { return std::make_unique<DeviceRunner>(std::move(inputs), backend); }

}  // namespace vmoba
