#include "core/error.h"

#include <exception>
#include <new>

namespace dw {

Fault caught(const std::string& doing) {
  try {
    throw;
  } catch (const Error& e) {
    return {e.code, e.what()};
  } catch (const std::bad_alloc&) {
    return {"ERR_OUT_OF_MEMORY", "memory is full while " + doing};
  } catch (const std::length_error&) {  // a container that could never be that long
    return {"ERR_OUT_OF_MEMORY", "memory is full while " + doing};
  } catch (const std::exception& e) {
    return {"ERR_KERNEL", e.what()};
  }
}

}  // namespace dw
