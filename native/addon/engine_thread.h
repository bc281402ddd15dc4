// The one thread of a process that computes. Work queues behind each other; results come back to JavaScript as promises.
// OpenMP's team belongs to this thread, so every product and kernel runs on the same pool (native/base/parallel.h).
#pragma once
#include <napi.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace vmoba::addon {

class EngineThread {
 public:
  EngineThread();
  ~EngineThread();  ///< finishes the running task, drops the rest
  void post(std::function<void()> task);

 private:
  void loop();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool quit_ = false;
  std::thread thread_;
};

/// What a failed task hands to JavaScript.
struct Failure {
  std::string code, message, field;
  Napi::Error toJs(Napi::Env env) const;
  /// Of the exception being handled.
  static Failure current();
};

/// Runs `work` on the engine thread and settles a promise with `convert(env, result)` on the JavaScript thread.
template <class Result>
Napi::Promise promise(Napi::Env env, EngineThread& thread, std::function<Result()> work, std::function<Napi::Value(Napi::Env, Result&)> convert) {
  // What belongs to JavaScript (the deferred, references held by `convert`) is made and destroyed on its thread only: every
  // copy of the closure shares this holder, and the JavaScript side empties it.
  struct Settling {
    Napi::Promise::Deferred deferred;
    std::function<Napi::Value(Napi::Env, Result&)> convert;
  };
  auto settling = std::make_shared<Settling>(Settling{Napi::Promise::Deferred::New(env), std::move(convert)});
  Napi::Promise result = settling->deferred.Promise();
  auto settle = Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "vmoba", 0, 1);
  thread.post([settling, settle, work = std::move(work)]() mutable {
    std::shared_ptr<Result> value;
    std::shared_ptr<Failure> failure;
    try {
      value = std::make_shared<Result>(work());
    } catch (...) {
      failure = std::make_shared<Failure>(Failure::current());
    }
    const napi_status status = settle.BlockingCall([settling, value, failure](Napi::Env callEnv, Napi::Function) {
      const auto finish = std::move(settling->convert);
      settling->convert = nullptr;
      if (failure) {
        settling->deferred.Reject(failure->toJs(callEnv).Value());
      } else {
        settling->deferred.Resolve(finish(callEnv, *value));
      }
    });
    // The environment is going away: its references must not be dropped from this thread, so they are left to it.
    if (status != napi_ok) new std::shared_ptr<Settling>(settling);
    settle.Release();
  });
  return result;
}

/// A JavaScript callback that any thread may feed with JSON lines; drops lines that come faster than `perSecond` (0 = none).
class LineCallback {
 public:
  LineCallback(Napi::Env env, const Napi::Function& function, double perSecond);
  ~LineCallback();
  LineCallback(const LineCallback&) = delete;
  LineCallback& operator=(const LineCallback&) = delete;
  /// True when a line sent now would not be dropped.
  bool due();
  void send(std::string line);

 private:
  Napi::ThreadSafeFunction function_;
  double interval_;
  std::mutex mutex_;
  double last_ = -1e9;
};

}  // namespace vmoba::addon
