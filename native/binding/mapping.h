// Mapped files, and tensors of what lies in them.
#pragma once
#include <napi.h>

namespace dw {

Napi::Value map_file(const Napi::CallbackInfo& info);
Napi::Value unmap_file(const Napi::CallbackInfo& info);

}  // namespace dw
