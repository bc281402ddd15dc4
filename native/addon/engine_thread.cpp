#include "native/addon/engine_thread.h"

#include <chrono>

#include "native/base/error.h"

namespace vmoba::addon {

EngineThread::EngineThread() : thread_([this] { loop(); }) {}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    quit_ = true;
    tasks_.clear();
  }
  wake_.notify_all();
  thread_.join();
}

void EngineThread::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void EngineThread::loop() {
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return quit_ || !tasks_.empty(); });
      if (quit_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

Napi::Error Failure::toJs(Napi::Env env) const {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  if (!field.empty()) error.Set("field", Napi::String::New(env, field));
  return error;
}

Failure Failure::current() {
  try {
    throw;
  } catch (const Error& error) {
    return {errorCodeName(error.code()), error.what(), error.field()};
  } catch (const std::bad_alloc&) {
    return {errorCodeName(ErrorCode::OutOfMemory), "the system refused memory; choose a smaller size or length", ""};
  } catch (const std::exception& error) {
    return {errorCodeName(ErrorCode::Internal), error.what(), ""};
  }
}

LineCallback::LineCallback(Napi::Env env, const Napi::Function& function, double perSecond)
    : function_(Napi::ThreadSafeFunction::New(env, function, "vmoba-lines", 0, 1)), interval_(perSecond > 0 ? 1 / perSecond : 0) {
  function_.Unref(env);  // a listener alone must not keep the process alive
}

LineCallback::~LineCallback() { function_.Release(); }

bool LineCallback::due() {
  const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  const std::lock_guard lock(mutex_);
  if (now - last_ < interval_) return false;
  last_ = now;
  return true;
}

void LineCallback::send(std::string line) {
  function_.NonBlockingCall([line = std::move(line)](Napi::Env env, Napi::Function callback) { callback.Call({Napi::String::New(env, line)}); });
}

}  // namespace vmoba::addon
