// What JavaScript can ask of a device's plugin without opening a device.
#pragma once
#include <napi.h>

namespace dw {

Napi::Value plugin_report(const Napi::CallbackInfo& info);

}  // namespace dw
