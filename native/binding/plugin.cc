#include "binding/plugin.h"

#include "binding/registry.h"
#include "core/plugin_backend.h"

namespace dw {

static Napi::Object describe(Napi::Env env, const dw_plugin* plugin, int32_t index) {
  Napi::Object o = Napi::Object::New(env);
  dw_device_info info = {};
  dw_fault fault = {};
  o.Set("index", double(index));
  if (plugin->device_describe(index, &info, &fault)) {
    o.Set("problem", fault.message);
    return o;
  }
  o.Set("name", info.name);
  o.Set("computeCapability", std::to_string(info.major) + "." + std::to_string(info.minor));
  o.Set("processors", double(info.processors));
  o.Set("memoryBytes", double(info.memory_bytes));
  if (!info.usable) o.Set("problem", std::string("this plugin has kernels for ") + plugin->architectures);
  return o;
}

// pluginReport(path) → what the plugin finds on this machine (see PluginReport in lib/native/cuda.ts).
Napi::Value plugin_report(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const dw_plugin* plugin = load_plugin(info[0].As<Napi::String>().Utf8Value());
  dw_report report = {};
  plugin->report(&report);
  Napi::Object o = Napi::Object::New(env);
  o.Set("architectures", plugin->architectures);
  o.Set("driverVersion", double(report.driver_version));
  o.Set("driverMessage", report.driver_message);
  o.Set("runtimeVersion", double(report.runtime_version));
  o.Set("gemmVersion", double(report.gemm_version));
  o.Set("gemmLibrary", report.gemm_library);
  Napi::Array devices = Napi::Array::New(env);
  int32_t count = 0;
  dw_fault fault = {};
  if (plugin->device_count(&count, &fault) == 0)
    for (int32_t i = 0; i < count; i++) devices.Set(uint32_t(i), describe(env, plugin, i));
  o.Set("devices", devices);
  return o;
}

}  // namespace dw
