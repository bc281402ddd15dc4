#include "native/backends/cuda/timeline.h"

#include <chrono>
#include <utility>
#include <thread>

namespace vmoba::cuda {
namespace {
// Estimates are deliberately low: running short of work costs speed, running a little further ahead costs milliseconds of cancel.
constexpr double kShareOfPeak = 0.3, kBytesPerSecond = 3e11;
constexpr double kPaceSeconds = 0.02, kMostSecondsAhead = 0.25;
constexpr int kPaceOperations = 64;
constexpr size_t kMostMarks = 4096;
}  // namespace

std::shared_ptr<DeviceEvent> EventPool::recorded() {
  std::unique_ptr<DeviceEvent> event;
  if (free_.empty()) {
    event = runtime_.makeEvent();
  } else {
    event = std::move(free_.back());
    free_.pop_back();
  }
  runtime_.record(*event, StreamId::Compute);
  return {event.release(), [pool = weak_from_this()](DeviceEvent* raw) {
            std::unique_ptr<DeviceEvent> back(raw);
            if (const auto alive = pool.lock()) alive->free_.push_back(std::move(back));
          }};
}

void Timeline::begin(Kind kind) {
  if (!marks_.empty() && marks_.back().kind == kind) return;
  if (marks_.size() >= kMostMarks) settle(kMostMarks / 2);
  marks_.push_back({events_->recorded(), kind});
}

std::shared_ptr<DeviceEvent> Timeline::mark() { return events_->recorded(); }

void Timeline::enqueued(double flops, double bytes) {
  since_ += flops / (kShareOfPeak * runtime_.facts().peakFlops) + bytes / kBytesPerSecond;
  if (since_ < kPaceSeconds && ++operations_ < kPaceOperations) return;
  inFlight_.push_back({events_->recorded(), since_});
  ahead_ += since_;
  since_ = 0;
  operations_ = 0;
  while (!inFlight_.empty() && (ahead_ > kMostSecondsAhead || inFlight_.size() > 16)) {
    waitFor(*inFlight_.front().event);
    ahead_ -= inFlight_.front().seconds;
    inFlight_.pop_front();
  }
}

void Timeline::waitFor(const DeviceEvent& event) {
  using namespace std::chrono_literals;
  for (auto pause = 20us; !runtime_.reached(event); pause = std::min<std::chrono::microseconds>(pause * 2, 1000us)) {
    poll_();
    std::this_thread::sleep_for(pause);
  }
  poll_();
}

void Timeline::drain() {
  waitFor(*events_->recorded());
  inFlight_.clear();
  ahead_ = since_ = 0;
  operations_ = 0;
}

/// Adds up all marks but the last `keep`; their events must be reached or are waited for.
void Timeline::settle(size_t keep) {
  const size_t count = marks_.size() - keep;
  waitFor(*marks_[count].event);
  for (size_t i = 0; i < count; ++i) {
    const double part = runtime_.secondsBetween(*marks_[i].event, *marks_[i + 1].event);
    switch (marks_[i].kind) {
      case Kind::Linears: settled_.linears += part; break;
      case Kind::Attention: settled_.attention += part; break;
      case Kind::Routing: settled_.routing += part; break;
      case Kind::Other: settled_.other += part; break;
    }
  }
  marks_.erase(marks_.begin(), marks_.begin() + static_cast<std::ptrdiff_t>(count));
}

KindSeconds Timeline::take() {
  if (!marks_.empty()) {
    marks_.push_back({events_->recorded(), marks_.back().kind});
    settle(1);
    marks_.clear();
  }
  drain();
  return std::exchange(settled_, {});
}

}  // namespace vmoba::cuda
