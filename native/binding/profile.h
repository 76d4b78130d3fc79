// The clock and the ceilings that a profile of streams needs besides their timelines.
#pragma once
#include <napi.h>

namespace dw {

Napi::Value native_clock(const Napi::CallbackInfo& info);
Napi::Value ceiling(const Napi::CallbackInfo& info);

}  // namespace dw
