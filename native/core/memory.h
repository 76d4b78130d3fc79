// Where tensors live: the memory of the process, or that of a device.
#pragma once
#include <cstdint>
#include <memory>

namespace dw {

// Memory of the process, aligned to a cache line; throws Error(ERR_OUT_OF_MEMORY).
void* allocate(int64_t bytes);
void deallocate(void* data);

// All functions may be called from any thread.
class Memory {
 public:
  virtual ~Memory() = default;
  // Uninitialised, aligned to 64 bytes at least. Throws Error(ERR_OUT_OF_MEMORY).
  virtual void* allocate(int64_t bytes) = 0;
  // Never throws. Work that a backend has already begun may still use the block: a device waits for it.
  virtual void deallocate(void* block) = 0;
  // Fills memory that no call knows yet, and returns when it is done.
  virtual void write(void* to, const void* from, int64_t bytes) = 0;
  // What an arena takes at a time, at least.
  virtual int64_t chunk() const = 0;
  // Whether there is anything behind its addresses: values, which can be written and read.
  virtual bool holds() const { return true; }
};

const std::shared_ptr<Memory>& host_memory();

}  // namespace dw
