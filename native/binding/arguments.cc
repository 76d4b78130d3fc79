#include "binding/arguments.h"

#include <cmath>
#include <string>

#include "core/error.h"

namespace dw {

namespace {

[[noreturn]] void refuse(const char* name, const std::string& expected, const char* code = "ERR_ARGUMENT") {
  throw Error(code, std::string(name) + ": expected " + expected);
}

}  // namespace

double number_of(const Napi::Value& value, const char* name) {
  double number = 0;
  if (value.IsEmpty() || napi_get_value_double(value.Env(), value, &number) != napi_ok) refuse(name, "a number");
  return number;
}

int64_t whole_of(const Napi::Value& value, const char* name, int64_t low, int64_t high, const char* code) {
  const double number = number_of(value, name);
  if (!(number >= double(low) && number <= double(high)) || std::floor(number) != number)
    refuse(name,
           "a whole number from " + std::to_string(low) + " to " + std::to_string(high) + ", got " +
               std::to_string(number),
           code);
  return int64_t(number);
}

uint64_t id_of(const Napi::Value& value, const char* name) {
  return uint64_t(whole_of(value, name, 0, (int64_t(1) << 53) - 1));
}

Napi::Array array_of(const Napi::Value& value, const char* name) {
  if (!value.IsArray()) refuse(name, "an array");
  return value.As<Napi::Array>();
}

Napi::Uint8Array bytes_of(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    refuse(name, "a Uint8Array");
  return value.As<Napi::Uint8Array>();
}

}  // namespace dw
