// The JavaScript face of a Stream: allocate, upload, call a kernel, read.
#pragma once
#include <napi.h>

#include <memory>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>

#include "binding/registry.h"
#include "core/timeline.h"

namespace dw {

class NativeStream : public Napi::ObjectWrap<NativeStream> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit NativeStream(const Napi::CallbackInfo& info);
  ~NativeStream() override;
  // The environment goes: ends the threads and lets go of everything in it.
  void tear_down();

 private:
  // A method that JavaScript calls: what it throws in C++ becomes a JavaScript error with its code.
  template <auto body>
  Napi::Value typed(const Napi::CallbackInfo& info) {
    try {
      if constexpr (std::is_void_v<decltype((this->*body)(info))>) {
        (this->*body)(info);
        return info.Env().Undefined();
      } else {
        return (this->*body)(info);
      }
    } catch (...) {
      throw_typed(info.Env());
    }
  }
  template <auto body>
  static PropertyDescriptor method(const char* name) {
    return InstanceMethod<&NativeStream::typed<body>>(name);
  }

  struct Reply;     // what the worker sends back
  struct Waiting {  // the promise that waits for it, and the stream object, which must live until then
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference keep;
  };

  struct Recorded {
    std::shared_ptr<Recording> recording;
    std::vector<uint64_t> tensors;  // made while it was recorded
    int64_t bytes = 0;
  };

  Napi::Value call(const Napi::CallbackInfo& info);
  Napi::Value create(const Napi::CallbackInfo& info);
  Napi::Value view(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value sync(const Napi::CallbackInfo& info);
  void write(const Napi::CallbackInfo& info);
  Napi::Value stored(const Napi::CallbackInfo& info);
  void record(const Napi::CallbackInfo& info);
  Napi::Value recorded(const Napi::CallbackInfo& info);
  void replay(const Napi::CallbackInfo& info);
  void forget(const Napi::CallbackInfo& info);
  void freeze(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  void end_step(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);
  void profile(const Napi::CallbackInfo& info);
  void part(const Napi::CallbackInfo& info);
  Napi::Value trace(const Napi::CallbackInfo& info);
  Napi::Value counted(const Napi::CallbackInfo& info);
  Napi::Value graph_span(const Napi::CallbackInfo& info);
  Napi::Value level(const Napi::CallbackInfo& info);
  Napi::Value lost(const Napi::CallbackInfo& info);

  uint64_t add_step_tensor(const View& v);
  std::shared_ptr<Storage> allocate_persistent(View& v);
  uint64_t add_persistent_tensor(const View& v, std::shared_ptr<Storage> storage);
  void* allocate_recorded(int64_t bytes);
  uint64_t add_recorded_tensor(const View& v);
  void drop(const Recorded& recorded);
  void account(int64_t bytes);
  Napi::Value wait(Napi::Env env, const TensorEntry* entry, bool behind = false);
  static DType dtype_of(const Napi::Value& number);
  static View shape_of(DType dtype, const Napi::Value& dims);
  static void settle(napi_env env, napi_value, void* context, void* data);
  void settle(Napi::Env env, const Reply& reply);
  void require_open() const;
  // And a device that is lost refuses new work. Reads do not ask: they bring the fault that is still to be told.
  void require_usable() const;
  void stop();

  Registry* registry_;
  Napi::Env env_;
  std::unique_ptr<Stream> stream_;
  std::unordered_set<uint64_t> step_tensors_;
  std::unordered_map<uint64_t, Recorded> recordings_;
  std::unique_ptr<Recorded> open_;  // the one that calls are added to, if any
  uint64_t next_recording_ = 1;
  int64_t persistent_bytes_ = 0;
  // Made by the first profile and kept, so that calls on their way may still write there; `timing_` has it, or null.
  std::unique_ptr<Timeline> timeline_;
  Timing timing_;
  napi_threadsafe_function replies_ = nullptr;
  std::unordered_map<uint64_t, Waiting> waiting_;
  uint64_t next_reply_ = 1;
};

}  // namespace dw
