// Errors that become typed JavaScript errors. The code is one of lib/errors' ErrorCode.
#pragma once
#include <stdexcept>
#include <string>

namespace dw {

struct Error : std::runtime_error {
  Error(const char* error_code, const std::string& message) : std::runtime_error(message), code(error_code) {}
  const char* code;
};

// An error that waits to be told.
struct Fault {
  std::string code;
  std::string message;
  bool any() const { return !code.empty(); }
};

// In a catch (...): what was thrown. `doing` is what memory was full while, where that is it.
Fault caught(const std::string& doing);

}  // namespace dw
