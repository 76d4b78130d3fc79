// The clock of profiles: that of the host, and what a device's is put on.
#pragma once
#include <chrono>
#include <cstdint>

namespace dw {

// Nanoseconds of the steady clock.
inline int64_t clock_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace dw
