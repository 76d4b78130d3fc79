// The addon's door: the list of operations, the instruction sets of this machine, and the stream class.
#include <napi.h>

#include "binding/lock.h"
#include "binding/mapping.h"
#include "binding/plugin.h"
#include "binding/profile.h"
#include "binding/registry.h"
#include "binding/stream.h"
#include "core/ops.h"
#include "cpu/isa.h"

namespace dw {

Napi::Error make_error(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

void throw_typed(Napi::Env env) {
  try {
    throw;
  } catch (const Napi::Error&) {
    throw;  // JavaScript's own
  } catch (...) {
    const Fault fault = caught("the call was made");
    throw make_error(env, fault.code, fault.message);
  }
}

// Streams must have joined their threads before the environment's memory goes.
static void tear_down(void* data) {
  auto* registry = static_cast<Registry*>(data);
  for (NativeStream* s : registry->streams) s->tear_down();
  registry->streams.clear();
}

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* registry = new Registry();
  env.SetInstanceData(registry);
  napi_add_env_cleanup_hook(env, tear_down, registry);

  Napi::Array ops = Napi::Array::New(env, size_t(kOpCount));
  for (int i = 0; i < kOpCount; i++) ops.Set(uint32_t(i), Napi::String::New(env, kOps[i].name));
  exports.Set("ops", ops);

  Napi::Array isas = Napi::Array::New(env, size_t(cpu::kIsaCount));
  for (int i = 0; i < cpu::kIsaCount; i++) {
    Napi::Object o = Napi::Object::New(env);
    o.Set("name", cpu::name_of(cpu::Isa(i)));
    o.Set("supported", cpu::supported(cpu::Isa(i)));
    isas.Set(uint32_t(i), o);
  }
  exports.Set("isas", isas);
  exports.Set("NativeStream", NativeStream::define(env));
  exports.Set("map", Napi::Function::New(env, typed<map_file>, "map"));
  exports.Set("unmap", Napi::Function::New(env, typed<unmap_file>, "unmap"));
  exports.Set("lock", Napi::Function::New(env, typed<lock_file>, "lock"));
  exports.Set("clock", Napi::Function::New(env, typed<native_clock>, "clock"));
  exports.Set("ceiling", Napi::Function::New(env, typed<ceiling>, "ceiling"));
  exports.Set("pluginReport", Napi::Function::New(env, typed<plugin_report>, "pluginReport"));
  return exports;
}

}  // namespace dw

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return dw::init(env, exports); }
NODE_API_MODULE(distilwhisper, Init)
