// What a stream runs its calls on: the processor, fast or as the oracle, or a device behind a plugin (core/plugin.h).
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "core/memory.h"
#include "core/op.h"

namespace dw {

// The functions of a call are used by one thread, the stream's worker; those that say so, by any.
class Backend {
 public:
  virtual ~Backend() = default;

  // Any thread. "cpu", "reference" or, for example, "cuda:0".
  virtual const std::string& name() const = 0;
  // Any thread. Where the tensors of these calls live.
  virtual const std::shared_ptr<Memory>& memory() const = 0;
  // Any thread. Throws when an operation (its number in DW_OPS, or -1 for none in particular) on tensors of these types
  // (a set of Types) cannot run here: the backend has no such kernel, does not know a type, or its device is lost.
  virtual void require(int op, unsigned types) const = 0;

  // Runs an operation, or begins to: a device works behind its caller, in order. Throws Error.
  virtual void run(int op, const Call& call) = 0;
  // Copies bytes to a tensor, in the order of the calls. `from` may be reused on return.
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  // Waits for the calls before it and copies bytes out. Throws their first fault, which clears it.
  virtual void download(void* to, const void* from, int64_t bytes) = 0;
  // Waits for the calls before it. Throws their first fault, which clears it.
  virtual void synchronize() = 0;
};

// Kernels of the processor in the order of DW_OPS; f64 is for the oracles.
std::unique_ptr<Backend> make_cpu_backend(const char* name, const RunFn* kernels, int threads, bool f64);

}  // namespace dw
