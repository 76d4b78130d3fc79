// Locks on open files, as other programs take them.
#pragma once
#include <napi.h>

namespace dw {

Napi::Value lock_file(const Napi::CallbackInfo& info);

}  // namespace dw
