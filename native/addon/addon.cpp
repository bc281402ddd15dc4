// The Node-API binding: copies values out of JavaScript, starts work on the engine thread, hands results back. The whole
// surface is described by main/engine/binding.ts; nothing is decided here.
#include <napi.h>

#include "native/addon/engine_thread.h"
#include "native/base/error.h"
#include "native/bench/attention.h"
#include "native/bench/model.h"
#include "native/engine/inspect.h"
#include "native/engine/session.h"
#include "native/engine/verify/verify.h"

namespace vmoba::addon {
namespace {

/// Everything one environment owns; gone when the environment is.
struct Instance {
  ModelCache models;
  EngineThread thread;  // declared last: joined before the models go
  Napi::FunctionReference sessionConstructor;
};

Instance& instance(Napi::Env env) { return *env.GetInstanceData<Instance>(); }

std::string text(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (index >= info.Length() || !info[index].IsString()) throw Napi::TypeError::New(info.Env(), std::string(name) + " must be a string");
  return info[index].As<Napi::String>().Utf8Value();
}

Napi::Function function(const Napi::CallbackInfo& info, size_t index) {
  if (index >= info.Length() || !info[index].IsFunction()) throw Napi::TypeError::New(info.Env(), "a callback is missing");
  return info[index].As<Napi::Function>();
}

Napi::Value jsonText(Napi::Env env, Json& json) { return Napi::String::New(env, json.dump()); }

Napi::Promise jsonPromise(Napi::Env env, std::function<Json()> work) { return promise<Json>(env, instance(env).thread, std::move(work), jsonText); }

Napi::Uint8Array bytes(Napi::Env env, const void* data, size_t count) {
  Napi::Uint8Array array = Napi::Uint8Array::New(env, count);
  std::memcpy(array.Data(), data, count);
  return array;
}

Napi::Value frames(Napi::Env env, const RgbFrames& value) {
  if (value.count == 0) return env.Null();
  Napi::Object object = Napi::Object::New(env);
  object.Set("width", static_cast<double>(value.width));
  object.Set("height", static_cast<double>(value.height));
  object.Set("count", static_cast<double>(value.count));
  object.Set("rgb", bytes(env, value.rgb.data(), value.rgb.size()));
  return object;
}

class SessionObject final : public Napi::ObjectWrap<SessionObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeSession",
                       {InstanceMethod("encodeText", &SessionObject::encodeText), InstanceMethod("step", &SessionObject::step),
                        InstanceMethod("saveCheckpoint", &SessionObject::saveCheckpoint), InstanceMethod("restoreCheckpoint", &SessionObject::restoreCheckpoint),
                        InstanceMethod("latentHash", &SessionObject::latentHash), InstanceMethod("decodeFrames", &SessionObject::decodeFrames),
                        InstanceMethod("cancel", &SessionObject::cancel), InstanceMethod("close", &SessionObject::close)});
  }

  explicit SessionObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SessionObject>(info) {}

  void adopt(Napi::Env env, std::shared_ptr<Session> session) {
    session_ = std::move(session);
    account(env);
  }

 private:
  const std::shared_ptr<Session>& open(const Napi::CallbackInfo& info) const {
    if (!session_) throw Napi::Error::New(info.Env(), "the session is closed");
    return session_;
  }

  /// Tells the garbage collector how much native memory hangs on this object.
  void account(Napi::Env env) {
    const auto now = session_ ? static_cast<int64_t>(session_->externalBytes()) : 0;
    Napi::MemoryManagement::AdjustExternalMemory(env, now - accounted_);
    accounted_ = now;
  }

  /// A promise that keeps this object alive and re-counts its memory when it settles.
  template <class Result>
  Napi::Value run(const Napi::CallbackInfo& info, std::function<Result(Session&)> work, std::function<Napi::Value(Napi::Env, Result&)> convert) {
    const std::shared_ptr<Session> session = open(info);
    auto self = std::make_shared<Napi::ObjectReference>(Napi::Persistent(Value()));
    return promise<Result>(
        info.Env(), instance(info.Env()).thread, [session, work = std::move(work)] { return work(*session); },
        [this, self, convert = std::move(convert)](Napi::Env env, Result& result) {
          account(env);
          return convert(env, result);
        });
  }

  Napi::Value encodeText(const Napi::CallbackInfo& info) {
    return run<Json>(info, [](Session& session) { return session.encodeText(); }, jsonText);
  }

  Napi::Value step(const Napi::CallbackInfo& info) {
    const std::string options = info.Length() > 0 && info[0].IsString() ? text(info, 0, "options") : "{}";
    return run<Session::StepResult>(
        info, [options](Session& session) { return session.step(Json::parse(options)); },
        [](Napi::Env env, Session::StepResult& result) -> Napi::Value {
          Napi::Object object = Napi::Object::New(env);
          object.Set("report", Napi::String::New(env, result.report.dump()));
          object.Set("preview", result.preview ? frames(env, *result.preview) : env.Null());
          if (result.mapHeader.isNull()) {
            object.Set("maps", env.Null());
          } else {
            Napi::Object maps = Napi::Object::New(env);
            maps.Set("header", Napi::String::New(env, result.mapHeader.dump()));
            maps.Set("data", bytes(env, result.maps.data(), result.maps.size() * sizeof(float)));
            object.Set("maps", maps);
          }
          return object;
        });
  }

  Napi::Value saveCheckpoint(const Napi::CallbackInfo& info) {
    return run<Json>(info, [path = text(info, 0, "path")](Session& session) { return session.saveCheckpoint(path); }, jsonText);
  }

  Napi::Value restoreCheckpoint(const Napi::CallbackInfo& info) {
    return run<Json>(info, [path = text(info, 0, "path")](Session& session) { return session.restoreCheckpoint(path); }, jsonText);
  }

  Napi::Value latentHash(const Napi::CallbackInfo& info) {
    return run<std::string>(info, [](Session& session) { return session.latentHash(); }, [](Napi::Env env, std::string& hash) -> Napi::Value { return Napi::String::New(env, hash); });
  }

  Napi::Value decodeFrames(const Napi::CallbackInfo& info) {
    return run<RgbFrames>(info, [](Session& session) { return session.decodeFrames(); },
                          [](Napi::Env env, RgbFrames& result) -> Napi::Value { return frames(env, result); });
  }

  Napi::Value cancel(const Napi::CallbackInfo& info) {
    if (session_) session_->cancel();
    return info.Env().Undefined();
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    std::shared_ptr<Session> last = std::move(session_);
    account(info.Env());
    return promise<bool>(
        info.Env(), instance(info.Env()).thread, [last = std::move(last)]() mutable { return last.reset(), true; },
        [](Napi::Env env, bool&) -> Napi::Value { return env.Undefined(); });
  }

  std::shared_ptr<Session> session_;
  int64_t accounted_ = 0;
};

Json progressJson(const Progress& progress) {
  Json json;
  json.set("phase", progress.phase).set("fraction", progress.fraction);
  if (progress.step >= 0) json.set("step", progress.step).set("layer", progress.layer);
  return json;
}

Napi::Value describe(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), describeEngine().dump()); }

Napi::Value inspect(const Napi::CallbackInfo& info) {
  return jsonPromise(info.Env(), [path = text(info, 0, "path")] { return inspectModel(path); });
}

Napi::Value plan(const Napi::CallbackInfo& info) {
  return jsonPromise(info.Env(), [request = text(info, 0, "request")] { return planRender(RenderRequest::parse(Json::parse(request))); });
}

Napi::Value verify(const Napi::CallbackInfo& info) {
  auto lines = std::make_shared<LineCallback>(info.Env(), function(info, 1), 0);
  return jsonPromise(info.Env(), [options = text(info, 0, "options"), lines] {
    const Json json = Json::parse(options);
    const VerifySummary summary =
        verifyDirectory(json.at("directory").asString("directory"), json.stringOr("device", "cpu"), static_cast<int>(json.integerOr("threads", 0)), [&](const VerifyRow& row) {
          Json line;
          line.set("file", row.file).set("tensor", row.tensor).set("error", row.error).set("tolerance", row.tolerance).set("pass", row.pass).set("note", row.note);
          lines->send(line.dump());
        });
    Json result;
    return result.set("compared", summary.rows).set("files", summary.files).set("failed", summary.failed).set("seconds", summary.seconds);
  });
}

Napi::Value bench(const Napi::CallbackInfo& info) {
  auto lines = std::make_shared<LineCallback>(info.Env(), function(info, 1), 0);
  return jsonPromise(info.Env(), [options = text(info, 0, "options"), lines] {
    const Json json = Json::parse(options);
    const auto progress = [&](const Json& line) { lines->send(line.dump()); };
    const std::string kind = json.stringOr("kind", "model");
    if (kind == "attention") return benchAttention(json, progress);
    if (kind == "model") return benchModel(json, progress);
    throw Error(ErrorCode::BadRequest, "bench knows attention and model, not '" + kind + "'", "kind");
  });
}

Napi::Value openSession(const Napi::CallbackInfo& info) {
  auto lines = std::make_shared<LineCallback>(info.Env(), function(info, 1), 20);
  Instance* owner = &instance(info.Env());
  return promise<std::shared_ptr<Session>>(
      info.Env(), owner->thread,
      [request = text(info, 0, "request"), lines, owner] {
        return std::make_shared<Session>(owner->models, RenderRequest::parse(Json::parse(request)), [lines](const Progress& progress) {
          if (lines->due()) lines->send(progressJson(progress).dump());
        });
      },
      [](Napi::Env env, std::shared_ptr<Session>& session) -> Napi::Value {
        const Napi::Object object = instance(env).sessionConstructor.New({});
        SessionObject::Unwrap(object)->adopt(env, session);
        return object;
      });
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  auto* data = new Instance();
  data->sessionConstructor = Napi::Persistent(SessionObject::define(env));
  env.SetInstanceData(data);
  exports.Set("describe", Napi::Function::New(env, describe));
  exports.Set("inspect", Napi::Function::New(env, inspect));
  exports.Set("verify", Napi::Function::New(env, verify));
  exports.Set("bench", Napi::Function::New(env, bench));
  exports.Set("plan", Napi::Function::New(env, plan));
  exports.Set("openSession", Napi::Function::New(env, openSession));
  return exports;
}

}  // namespace
}  // namespace vmoba::addon

static Napi::Object InitialiseVmoba(Napi::Env env, Napi::Object exports) { return vmoba::addon::initialise(env, exports); }
NODE_API_MODULE(vmoba, InitialiseVmoba)
