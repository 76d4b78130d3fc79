// When calls ran on the device, for a profile: two events around each, read when they are known to have happened.
#pragma once
#include <cuda_runtime_api.h>

#include <deque>
#include <memory>
#include <type_traits>
#include <vector>

#include "core/plugin.h"
#include "runtime/device.h"

namespace dw {
namespace cuda {

// Of one queue, whose thread alone calls it. Without a profile it has no events.
class Spans {
 public:
  explicit Spans(Device& device) : device_(device) {}
  Spans(const Spans&) = delete;

  // The next span is told to `ran` (core/plugin.h). One that was begun and not ended is forgotten.
  void next(dw_ran ran, void* to, const void* note);
  // Around what a call puts on the stream; nothing, unless next() was called for it. Throws Error. `other` is a stream
  // on which an event does not wait for the kernels.
  void begin(cudaStream_t stream, cudaStream_t other);
  void end(cudaStream_t stream);
  // Tells the spans that have ended; the stream was waited for.
  void collect() { tell(flying_.size()); }
  // Forgets those that were not told, and destroys all events.
  void clear();
  // Tells what can be told of a stream that is being closed, then the same. Never throws.
  void close();

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, Destroy>;
  // A moment that both clocks know. Spans keep theirs: the next ones have another.
  struct Anchor {
    Event event;
    int64_t host;  // the host's clock, in nanoseconds
  };
  struct Span {
    Event begun, ended;
    std::shared_ptr<const Anchor> anchor;
    int64_t queued;  // the host's clock before
    dw_ran ran;
    void* to;
    unsigned char note[DW_NOTE_BYTES];
  };
  enum class State { idle, asked, begun };

  Event create();
  std::shared_ptr<const Anchor> make_anchor(cudaStream_t stream);
  int64_t host_time(const Span& span, const Event& event);
  void tell(size_t count);

  Device& device_;
  State state_ = State::idle;
  Span next_ = {};
  std::deque<Span> flying_;  // ended by the host, in order
  std::vector<Span> pool_;
  std::shared_ptr<const Anchor> anchor_;
  int64_t told_ = 0;  // the end of the last span
};

}  // namespace cuda
}  // namespace dw
