#include "binding/profile.h"

#include <cstring>
#include <string>

#include "binding/arguments.h"
#include "binding/ceiling.h"
#include "binding/stream.h"
#include "core/shape.h"

namespace dw {

// profile(on, on its device too): from here on what is queued is timed, or no longer.
void NativeStream::profile(const Napi::CallbackInfo& info) {
  if (!info[0].ToBoolean().Value()) {
    timing_.timeline = nullptr;
    if (timeline_ && timeline_->device_times.exchange(false))
      stream_->enqueue([](Backend& backend) { backend.end_times(); });
    return;
  }
  if (!timeline_) timeline_ = std::make_unique<Timeline>();
  timeline_->clear();
  timeline_->device_times = info[1].ToBoolean().Value();
  timing_.timeline = timeline_.get();
}

// part(number): what is queued from here on belongs to that part of a step.
void NativeStream::part(const Napi::CallbackInfo& info) {
  timing_.part = Part(whole_of(info[0], "part", 0, kParts - 1));
}

// trace(into: Uint8Array, lane, lane of launches, clock at the trace's begin) → bytes: the calls that have run since
// the last time, oldest first and as many as fit, as trace events with ",\n" before each. 0: there are none.
Napi::Value NativeStream::trace(const Napi::CallbackInfo& info) {
  Napi::Uint8Array into = bytes_of(info[0], "trace: into");
  const auto number = [&](size_t i) { return whole_of(info[i], "trace", -kMostBytes, kMostBytes); };
  const Lane lane = {number(1), number(2), number(3)};
  size_t used = 0;
  Record record;
  std::string event;
  while (timeline_ && into.ByteLength() - used >= kEventBytes && timeline_->take(record)) {
    if (record.begin < lane.origin) continue;  // queued under an earlier profile
    event = ",\n";
    put_event(event, record, lane);
    std::memcpy(into.Data() + used, event.data(), event.size());
    used += event.size();
  }
  return Napi::Number::New(env_, double(used));
}

// counted() → {flop, bytes, kernels} of the calls that have run since the last time.
Napi::Value NativeStream::counted(const Napi::CallbackInfo&) {
  double flop = 0, bytes = 0, kernels = 0;
  Record record;
  while (timeline_ && timeline_->take(record)) {
    flop += record.work.flop;
    bytes += record.work.bytes;
    kernels += record.op >= 0 || record.op == kReplay;
  }
  Napi::Object o = Napi::Object::New(env_);
  o.Set("flop", flop);
  o.Set("bytes", bytes);
  o.Set("kernels", kernels);
  return o;
}

// level() → how full the timeline is, from 0 to 1.
Napi::Value NativeStream::level(const Napi::CallbackInfo&) {
  return Napi::Number::New(env_, timeline_ ? timeline_->level() : 0.0);
}

// lost() → records that found the timeline full.
Napi::Value NativeStream::lost(const Napi::CallbackInfo&) {
  return Napi::Number::New(env_, timeline_ ? double(timeline_->lost()) : 0.0);
}

// clock() → nanoseconds of the clock that records are stamped with.
Napi::Value native_clock(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), double(clock_ns())); }

namespace {

class CeilingWorker : public Napi::AsyncWorker {
 public:
  CeilingWorker(Napi::Env env, cpu::Isa isa, Ceiling what, int threads, int64_t bytes)
      : AsyncWorker(env, "distilwhisper ceiling"),
        deferred_(Napi::Promise::Deferred::New(env)),
        isa_(isa),
        what_(what),
        threads_(threads),
        bytes_(bytes) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      value_ = measure_ceiling(isa_, what_, threads_, bytes_);
    } catch (...) {
      fault_ = caught("a ceiling was measured");
    }
  }
  void OnOK() override {
    if (fault_.any())
      deferred_.Reject(make_error(Env(), fault_.code, fault_.message).Value());
    else
      deferred_.Resolve(Napi::Number::New(Env(), value_));
  }

 private:
  Napi::Promise::Deferred deferred_;
  const cpu::Isa isa_;
  const Ceiling what_;
  const int threads_;
  const int64_t bytes_;
  double value_ = 0;
  Fault fault_;
};

}  // namespace

// ceiling(isa, which, threads, bytes) → Promise of GFLOP/s or GB/s, measured off the JavaScript thread.
Napi::Value ceiling(const Napi::CallbackInfo& info) {
  const auto isa = cpu::Isa(whole_of(info[0], "ceiling: instruction set", 0, cpu::kIsaCount - 1));
  if (!cpu::supported(isa))
    throw Error("ERR_ARGUMENT", std::string("ceiling: this machine has no ") + cpu::name_of(isa));
  const auto which = Ceiling(whole_of(info[1], "ceiling: which", 0, int64_t(Ceiling::read)));
  const int threads = int(whole_of(info[2], "ceiling: threads", 1, 1024));
  const int64_t bytes = whole_of(info[3], "ceiling: bytes", 0, kMostBytes);
  auto* worker = new CeilingWorker(info.Env(), isa, which, threads, bytes);
  worker->Queue();
  return worker->promise();
}

}  // namespace dw
