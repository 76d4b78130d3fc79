#include "runtime/spans.h"

#include <algorithm>
#include <cstring>
#include <exception>

#include "core/clock.h"

namespace dw {
namespace cuda {

// Spans that the device has not been asked about. A host that is so far ahead waits for half of them, and the device
// works on the other half meanwhile.
constexpr size_t kMost = 1024;
// Nanoseconds after which the clocks are compared again: they drift by some microseconds until then.
constexpr int64_t kAnchorEvery = 250'000'000;
constexpr const char* kTiming = "timing a call";

void Spans::next(dw_ran ran, void* to, const void* note) {
  state_ = State::asked;
  next_.ran = ran;
  next_.to = to;
  std::memcpy(next_.note, note, sizeof next_.note);
}

Spans::Event Spans::create() {
  cudaEvent_t event = nullptr;
  device_.check(cudaEventCreateWithFlags(&event, cudaEventDefault), kTiming);
  return Event(event);
}

// An event happens between two readings of the host's clock; of three the one counts whose readings are the closest.
std::shared_ptr<const Spans::Anchor> Spans::make_anchor(cudaStream_t stream) {
  std::shared_ptr<Anchor> best;
  int64_t closest = 0;
  for (int i = 0; i < 3; i++) {
    auto anchor = std::make_shared<Anchor>(Anchor{create(), 0});
    const int64_t before = clock_ns();
    device_.check(cudaEventRecord(anchor->event.get(), stream), kTiming);
    device_.check(cudaEventSynchronize(anchor->event.get()), kTiming);
    const int64_t apart = clock_ns() - before;
    if (best && apart >= closest) continue;
    closest = apart;
    anchor->host = before + apart / 2;
    best = std::move(anchor);
  }
  return best;
}

void Spans::begin(cudaStream_t stream, cudaStream_t other) {
  const bool asked = state_ == State::asked;
  state_ = State::idle;
  if (!asked) return;
  device_.use();
  if (flying_.size() >= kMost) {
    device_.check(cudaEventSynchronize(flying_[kMost / 2 - 1].ended.get()), kTiming);
    tell(kMost / 2);
  }
  if (!next_.begun && !pool_.empty()) {
    next_.begun = std::move(pool_.back().begun);
    next_.ended = std::move(pool_.back().ended);
    pool_.pop_back();
  }
  if (!next_.begun) next_.begun = create();
  if (!next_.ended) next_.ended = create();
  if (!anchor_ || clock_ns() - anchor_->host > kAnchorEvery) anchor_ = make_anchor(other);
  next_.anchor = anchor_;
  next_.queued = clock_ns();
  device_.check(cudaEventRecord(next_.begun.get(), stream), kTiming);
  state_ = State::begun;
}

void Spans::end(cudaStream_t stream) {
  if (state_ != State::begun) return;
  state_ = State::idle;
  device_.check(cudaEventRecord(next_.ended.get(), stream), kTiming);
  flying_.push_back(std::move(next_));
  next_ = {};
}

int64_t Spans::host_time(const Span& span, const Event& event) {
  float ms = 0;
  device_.check(cudaEventElapsedTime(&ms, span.anchor->event.get(), event.get()), kTiming);
  return span.anchor->host + int64_t(double(ms) * 1e6);
}

// What the anchors err by is taken off where it shows: a call begins after it was queued and after the one before it
// ended, and all that is told here is over.
void Spans::tell(size_t count) {
  const int64_t now = clock_ns();
  for (; count > 0; count--) {
    Span span = std::move(flying_.front());
    flying_.pop_front();
    const int64_t begin = std::clamp(host_time(span, span.begun), std::max(span.queued, told_), now);
    told_ = std::clamp(host_time(span, span.ended), begin, now);
    span.ran(span.to, span.note, begin, told_);
    span.anchor.reset();
    pool_.push_back(std::move(span));
  }
}

void Spans::clear() {
  state_ = State::idle;
  next_ = {};
  flying_.clear();
  pool_.clear();
  anchor_.reset();
}

void Spans::close() {
  try {
    collect();
  } catch (const std::exception&) {
    // The device is lost: there are no times any more.
  }
  clear();
}

}  // namespace cuda
}  // namespace dw
