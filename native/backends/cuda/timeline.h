// What the compute stream spent its time on, and how far the host runs ahead of it.
// Timing: an event wherever the kind of work changes; the time between two neighbours belongs to the first one's kind.
// Pacing: enqueued work is bounded by its estimated duration, so that a cancelled render stops within a fraction of a second and the
// heartbeat tells slow from hung; waiting polls instead of blocking.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "native/backends/cuda/device_runtime.h"

namespace vmoba::cuda {

enum class Kind : uint8_t { Linears, Attention, Routing, Other };

/// Events, reused: creating one is a driver call.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  explicit EventPool(DeviceRuntime& runtime) : runtime_(runtime) {}
  /// Recorded on the compute stream now.
  std::shared_ptr<DeviceEvent> recorded();

 private:
  DeviceRuntime& runtime_;
  std::vector<std::unique_ptr<DeviceEvent>> free_;
};

class Timeline {
 public:
  /// `poll`: called while waiting, about every millisecond; throws to stop waiting (cancel).
  Timeline(DeviceRuntime& runtime, std::function<void()> poll) : runtime_(runtime), poll_(std::move(poll)), events_(std::make_shared<EventPool>(runtime)) {}

  /// Work enqueued from here on is of this kind.
  void begin(Kind kind);
  /// The event at which the current kind began.
  std::shared_ptr<DeviceEvent> mark();
  /// An operation of about this many floating-point operations and bytes moved was enqueued; waits when too much is in flight.
  void enqueued(double flops, double bytes);
  /// Waits until the compute stream has done everything, polling.
  void drain();
  KindSeconds take();

 private:
  struct Mark {
    std::shared_ptr<DeviceEvent> event;
    Kind kind;
  };
  struct Pace {
    std::shared_ptr<DeviceEvent> event;
    double seconds;
  };
  void waitFor(const DeviceEvent& event);
  void settle(size_t keep);

  DeviceRuntime& runtime_;
  std::function<void()> poll_;
  std::shared_ptr<EventPool> events_;
  std::vector<Mark> marks_;
  std::deque<Pace> inFlight_;
  double since_ = 0, ahead_ = 0;  ///< estimated seconds since the last pacing event, and in flight
  int operations_ = 0;
  KindSeconds settled_;
};

}  // namespace vmoba::cuda
