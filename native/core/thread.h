#pragma once
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "core/error.h"

namespace dw {

// A thread that runs `body`; Error(ERR_OUT_OF_MEMORY) where the system has none left.
template <class Body>
std::thread start_thread(Body&& body) {
  try {
    return std::thread(std::forward<Body>(body));
  } catch (const std::system_error& e) {
    throw Error("ERR_OUT_OF_MEMORY", std::string("threads: the system refused to start another: ") + e.what());
  }
}

}  // namespace dw
