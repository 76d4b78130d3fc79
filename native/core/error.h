// Errors that become typed JavaScript errors. The code is one of lib/errors' ErrorCode.
#pragma once
#include <stdexcept>
#include <string>

namespace dw {

struct Error : std::runtime_error {
  Error(const char* error_code, const std::string& message) : std::runtime_error(message), code(error_code) {}
  const char* code;
};

}  // namespace dw
