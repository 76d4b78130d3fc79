// What a stream runs its calls on: the processor, fast or as the oracle, or a device behind a plugin (core/plugin.h).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/error.h"
#include "core/memory.h"

namespace dw {

class Timeline;
struct Record;

// Calls on tensors that stay, to be run again and again, in order. Only its stream's worker runs it.
struct Recording {
  struct Step {
    int op;
    std::shared_ptr<const Call> call;  // keeps its inputs alive
  };
  std::vector<Step> steps;
  std::vector<std::shared_ptr<Storage>> made;  // keeps the outputs alive
  std::shared_ptr<void> graph;                 // what a backend made of it at its first run; goes before the tensors
};

// The functions of a call are used by one thread, the stream's worker; those that say so, by any.
class Backend {
 public:
  virtual ~Backend() = default;

  // Any thread. "cpu", "reference" or, for example, "cuda:0".
  virtual const std::string& name() const = 0;
  // Any thread. Where the tensors of these calls live.
  virtual const std::shared_ptr<Memory>& memory() const = 0;
  // Any thread. Throws when an operation (its number in DW_OPS, or -1 for none in particular) in these types (a set of
  // Types) cannot run here: the backend has no such kernel, does not know a type, or its device is lost.
  virtual void require(int op, unsigned types) const = 0;

  // Runs an operation, or begins to: a device works behind its caller, in order. Throws Error.
  virtual void run(int op, const Call& call) = 0;
  // Runs the calls of a recording, as if by `run`.
  virtual void replay(Recording& recording) {
    for (const Recording::Step& step : recording.steps) run(step.op, *step.call);
  }
  // Positions, from one multiple of this to the next, at which a recording gives the bits of calls; 0: no graphs.
  virtual int graph_span() const { return 0; }
  // Copies bytes to a tensor, in the order of the calls. `from` may be reused on return.
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  // Waits for the calls before it and copies bytes out. Throws their first fault, which clears it.
  virtual void download(void* to, const void* from, int64_t bytes) = 0;
  // The same of a few bytes. Where a device can it returns at once, and `done` is told, by any thread, when they are
  // there, or the fault; where it throws nobody is told.
  virtual void read(void* to, const void* from, int64_t bytes, std::function<void(Fault)> done) {
    download(to, from, bytes);
    done(Fault());
  }
  // Waits for the calls before it. Throws their first fault, which clears it.
  virtual void synchronize() = 0;

  // Any thread. Bytes of the process that calls take beside their tensors: packed forms of frozen weights, of all
  // streams, and the scratch memory of kernels. A device tells of its own as a part of its memory.
  struct Beside {
    int64_t packed = 0, scratch = 0;
  };
  virtual Beside beside() const { return {}; }

  // For a device, which works behind its caller: the next call's record goes to the timeline, with the times of the
  // device, when they are known. That is at a later call, at the latest at one that waits.
  virtual void time_next(Timeline&, const Record&) {}
  // No call is timed for now. What is not known yet is forgotten.
  virtual void end_times() {}
};

// Kernels of the processor in the order of DW_OPS; f64 is for the oracles.
std::unique_ptr<Backend> make_cpu_backend(const char* name, const RunFn* kernels, int threads, bool f64);

}  // namespace dw
