// Arguments as JavaScript gave them: nothing about them is taken for granted. Each throws Error(ERR_ARGUMENT), or
// another code where one is given, that names what it reads.
#pragma once
#include <napi.h>

#include <cstdint>

namespace dw {

double number_of(const Napi::Value& value, const char* name);
// A whole number from `low` to `high`.
int64_t whole_of(const Napi::Value& value, const char* name, int64_t low, int64_t high,
                 const char* code = "ERR_ARGUMENT");
// The number of a tensor, a mapping or a recording; 0 is none of them.
uint64_t id_of(const Napi::Value& value, const char* name);
Napi::Array array_of(const Napi::Value& value, const char* name);
Napi::Uint8Array bytes_of(const Napi::Value& value, const char* name);

}  // namespace dw
