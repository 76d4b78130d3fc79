#include "binding/stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "binding/arguments.h"
#include "binding/profile.h"
#include "core/ops.h"
#include "core/plugin_backend.h"
#include "core/shape.h"
#include "cpu/isa.h"
#include "plan/plan_backend.h"
#include "reference/kernels.h"

namespace dw {

// A block of the arena comes back when the last tensor on it goes. Held by registry entries only: JavaScript thread.
struct StepStorage : Storage {
  explicit StepStorage(Arena& a) : arena(a) {}
  ~StepStorage() {
    if (current) arena.give(data);
  }
  Arena& arena;
  bool current = true;
};

struct NativeStream::Reply {
  ~Reply() { deallocate(data); }
  // On its way to the JavaScript thread it keeps itself: nothing is allocated where a failure could not be told.
  std::shared_ptr<Reply> self;
  NativeStream* stream = nullptr;
  uint64_t id = 0;
  void* data = nullptr;
  int64_t bytes = 0;
  bool has_data = false;
  Fault fault;
};

Napi::Function NativeStream::define(Napi::Env env) {
  return DefineClass(env, "NativeStream",
                     {
                         method<&NativeStream::call>("call"),        method<&NativeStream::create>("create"),
                         method<&NativeStream::view>("view"),        method<&NativeStream::write>("write"),
                         method<&NativeStream::read>("read"),        method<&NativeStream::sync>("sync"),
                         method<&NativeStream::record>("record"),    method<&NativeStream::recorded>("recorded"),
                         method<&NativeStream::replay>("replay"),    method<&NativeStream::forget>("forget"),
                         method<&NativeStream::freeze>("freeze"),    method<&NativeStream::dispose>("dispose"),
                         method<&NativeStream::end_step>("endStep"), method<&NativeStream::memory>("memory"),
                         method<&NativeStream::close>("close"),      method<&NativeStream::profile>("profile"),
                         method<&NativeStream::trace>("trace"),      method<&NativeStream::counted>("counted"),
                         method<&NativeStream::level>("level"),      method<&NativeStream::lost>("lost"),
                         method<&NativeStream::stored>("stored"),    method<&NativeStream::graph_span>("graphSpan"),
                         method<&NativeStream::part>("part"),
                     });
}

// (isa: -1 = oracle, threads, whether it only plans), or (path of a plugin, device)
static std::unique_ptr<Backend> make_backend(const Napi::CallbackInfo& info) {
  if (info[0].IsString())
    return make_plugin_backend(load_plugin(info[0].As<Napi::String>().Utf8Value()),
                               int(whole_of(info[1], "device", 0, 1 << 16)));
  const int64_t isa = whole_of(info[0], "instruction set", -1, cpu::kIsaCount - 1);
  const int threads = int(whole_of(info[1], "threads", 1, 1024));
  if (isa < 0) return make_cpu_backend("reference", reference::kKernels, threads, true);
  if (!cpu::supported(cpu::Isa(isa)))
    throw Error("ERR_ARGUMENT", std::string("instruction set: this machine has no ") + cpu::name_of(cpu::Isa(isa)));
  if (info[2].ToBoolean().Value()) return make_plan_backend(threads, isa >= int(cpu::Isa::avx512bf16));
  return make_cpu_backend("cpu", cpu::kernels(cpu::Isa(isa)), threads, false);
}

NativeStream::NativeStream(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<NativeStream>(info), registry_(&Registry::of(info.Env())), env_(info.Env()) {
  try {
    stream_ = std::make_unique<Stream>(make_backend(info));
  } catch (...) {
    throw_typed(env_);
  }
  napi_value name = Napi::String::New(env_, "distilwhisper stream");
  if (napi_create_threadsafe_function(env_, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, settle,
                                      &replies_) != napi_ok)
    throw Napi::Error::New(env_, "cannot create a thread-safe function");
  napi_unref_threadsafe_function(env_, replies_);
  registry_->streams.insert(this);
}

NativeStream::~NativeStream() {
  stop();
  if (!registry_) return;
  registry_->remove_all_of(this);
  registry_->streams.erase(this);
}

void NativeStream::stop() {
  stream_->stop();
  recordings_.clear();
  open_.reset();
  if (replies_) napi_release_threadsafe_function(replies_, napi_tsfn_abort);
  replies_ = nullptr;
}

void NativeStream::tear_down() {
  stop();
  registry_->remove_all_of(this);
  registry_ = nullptr;
}

void NativeStream::require_open() const {
  if (!replies_) throw Error("ERR_STREAM", "this stream was closed");
}

void NativeStream::require_usable() const {
  require_open();
  stream_->backend().require(-1, 0);
}

void NativeStream::account(int64_t bytes) {
  persistent_bytes_ += bytes;
  if (stream_->memory() == host_memory()) Napi::MemoryManagement::AdjustExternalMemory(env_, bytes);
}

uint64_t NativeStream::add_step_tensor(const View& v) {
  auto storage = std::make_shared<StepStorage>(stream_->arena());
  storage->data = v.data;
  storage->bytes = v.bytes();
  storage->memory = stream_->memory().get();
  TensorEntry entry;
  entry.view = v;
  entry.storage = std::move(storage);
  entry.stream = this;
  const uint64_t id = registry_->add(std::move(entry));
  step_tensors_.insert(id);
  return id;
}

void* NativeStream::allocate_recorded(int64_t bytes) {
  auto storage = std::make_shared<Storage>();
  storage->data = stream_->memory()->allocate(bytes);
  storage->bytes = bytes;
  storage->owned = stream_->memory();
  storage->memory = storage->owned.get();
  open_->bytes += bytes;
  account(bytes);
  open_->recording->made.push_back(storage);
  return storage->data;
}

// Its storage is the recording's: the addresses that recorded calls know stay as long as it.
uint64_t NativeStream::add_recorded_tensor(const View& v) {
  TensorEntry entry;
  entry.view = v;
  entry.storage = open_->recording->made.back();
  entry.stream = this;
  entry.persistent = true;
  open_->tensors.push_back(registry_->add(std::move(entry)));
  return open_->tensors.back();
}

std::shared_ptr<Storage> NativeStream::allocate_persistent(View& v) {
  auto storage = std::make_shared<Storage>();
  storage->data = v.data = stream_->memory()->allocate(v.bytes());
  storage->bytes = v.bytes();
  storage->owned = stream_->memory();
  storage->memory = storage->owned.get();
  account(v.bytes());
  return storage;
}

uint64_t NativeStream::add_persistent_tensor(const View& v, std::shared_ptr<Storage> storage) {
  TensorEntry entry;
  entry.view = v;
  entry.storage = std::move(storage);
  entry.stream = this;
  entry.persistent = true;
  if (entry.storage->owned) entry.counted = std::make_shared<const int64_t>(entry.storage->bytes);
  return registry_->add(std::move(entry));
}

DType NativeStream::dtype_of(const Napi::Value& number) {
  return DType(whole_of(number, "dtype", 0, int64_t(DType::q8)));
}

View NativeStream::shape_of(DType dtype, const Napi::Value& dims) {
  const Napi::Array shape = array_of(dims, "shape");
  if (shape.Length() > uint32_t(kMaxRank))
    throw Error("ERR_SHAPE", "shape: expected at most " + std::to_string(kMaxRank) + " dimensions, got " +
                                 std::to_string(shape.Length()));
  View v;
  v.present = true;
  v.dtype = dtype;
  for (uint32_t i = 0; i < shape.Length(); i++) {
    const double n = number_of(shape.Get(i), "shape");
    // What is no int64 is not converted to one.
    if (!(n >= 0 && n <= double(kMostBytes)) || std::floor(n) != n)
      throw Error("ERR_SHAPE", "shape: expected whole dimensions from 0 to 2^53 - 1, got " + std::to_string(n));
    v.shape[v.rank++] = int64_t(n);
  }
  check_shape("shape", v);
  return v;
}

// create(dtype, shape, persistent) → id. Uninitialised.
Napi::Value NativeStream::create(const Napi::CallbackInfo& info) {
  require_usable();
  View v = shape_of(dtype_of(info[0]), info[1]);
  const bool persistent = info[2].ToBoolean().Value();
  if (!persistent) {
    v.data = stream_->arena().take(v.bytes());
    return Napi::Number::New(env_, double(add_step_tensor(v)));
  }
  auto storage = allocate_persistent(v);
  return Napi::Number::New(env_, double(add_persistent_tensor(v, std::move(storage))));
}

// view(id, element offset, shape) → id: the same memory, another shape.
Napi::Value NativeStream::view(const Napi::CallbackInfo& info) {
  require_usable();
  const TensorEntry base = registry_->get(id_of(info[0], "view: tensor"));
  TensorEntry entry = base;
  const int64_t offset = whole_of(info[1], "view: offset", 0, kMostBytes, "ERR_SHAPE");
  if (base.view.dtype == DType::q8) throw Error("ERR_DTYPE", "view: expected f32, bf16 or i32, got q8");
  View v = shape_of(base.view.dtype, info[2]);
  if (offset > base.view.size() || v.size() > base.view.size() - offset)
    throw Error("ERR_SHAPE", "view: " + v.describe() + " at element " + std::to_string(offset) +
                                 " reaches outside of " + base.view.describe());
  v.data = static_cast<char*>(base.view.data) + offset * size_of(v.dtype);
  entry.view = v;
  const uint64_t id = registry_->add(std::move(entry));
  if (!base.persistent) base.stream->step_tensors_.insert(id);
  if (open_) open_->tensors.push_back(id);
  return Napi::Number::New(env_, double(id));
}

// write(id, bytes, fresh): a fresh persistent tensor is filled at once (nothing else knows it yet), others in stream
// order.
void NativeStream::write(const Napi::CallbackInfo& info) {
  require_usable();
  TensorEntry& entry = registry_->get(id_of(info[0], "write: tensor"));
  const bool fresh = info[2].ToBoolean().Value();
  if (entry.storage->frozen) throw Error("ERR_ARGUMENT", "write: this tensor is frozen");
  const Napi::Uint8Array bytes = bytes_of(info[1], "write: bytes");
  if (int64_t(bytes.ByteLength()) != entry.view.bytes())
    throw Error("ERR_SHAPE", "write: " + entry.view.describe() + " takes " + std::to_string(entry.view.bytes()) +
                                 " bytes, got " + std::to_string(bytes.ByteLength()));
  if (fresh) {
    stream_->memory()->write(entry.view.data, bytes.Data(), entry.view.bytes());
    return;
  }
  if (open_) throw Error("ERR_ARGUMENT", "write: expected calls only while a recording is made");
  auto copy = std::make_shared<std::vector<uint8_t>>(bytes.Data(), bytes.Data() + bytes.ByteLength());
  auto keep = entry.persistent ? entry.storage : nullptr;
  stream_->enqueue([copy, keep, view = entry.view, timing = timing_](Backend& backend) {
    timed(
        timing, backend, kWrite, [&] { backend.upload(view.data, copy->data(), int64_t(copy->size())); },
        [&] { return moved(view); });
  });
}

// call(op, ids, numbers) → [id, dtype, ...shape][]
Napi::Value NativeStream::call(const Napi::CallbackInfo& info) {
  require_usable();
  const int op = int(whole_of(info[0], "call: operation", 0, kOpCount - 1));
  const Napi::Array ids = array_of(info[1], "call: tensors"), numbers = array_of(info[2], "call: numbers");
  auto call = std::make_shared<Call>();
  std::vector<uint8_t> writable;
  for (uint32_t i = 0, n = ids.Length(); i < n; i++) {
    const uint64_t id = id_of(ids.Get(i), "call: tensors");
    if (id == 0) {
      call->in.emplace_back();
      call->storage.emplace_back();
      writable.push_back(0);
      continue;
    }
    TensorEntry& entry = registry_->get(id);
    if (entry.stream != this && !entry.storage->frozen)
      throw Error("ERR_STREAM", std::string(kOps[op].name) + ": tensor " + std::to_string(i) +
                                    " belongs to another stream; only frozen tensors are shared");
    if (entry.storage->memory != stream_->memory().get())
      throw Error("ERR_STREAM", std::string(kOps[op].name) + ": tensor " + std::to_string(i) +
                                    " lies on another device than " + stream_->backend().name());
    if (open_ && !entry.persistent)
      throw Error("ERR_ARGUMENT", std::string(kOps[op].name) + ": tensor " + std::to_string(i) +
                                      " goes with its step; a recorded call takes persistent tensors and outputs of "
                                      "its own recording");
    call->in.push_back(entry.view);
    call->storage.push_back(entry.persistent ? entry.storage : nullptr);
    writable.push_back(!entry.storage->frozen);
  }
  for (uint32_t i = 0, n = numbers.Length(); i < n; i++)
    call->num.push_back(number_of(numbers.Get(i), "call: numbers"));

  Prepare prepare(kOps[op].name, *call, std::move(writable));
  kOps[op].prepare(prepare);
  unsigned types = prepare.named_types();
  for (const View& v : call->in)
    if (v) types |= 1u << unsigned(v.dtype);
  for (const View& v : call->out) types |= 1u << unsigned(v.dtype);
  stream_->backend().require(op, types);
  Napi::Array result = Napi::Array::New(env_, call->out.size());
  for (size_t i = 0; i < call->out.size(); i++) {
    View& v = call->out[i];
    v.present = true;
    v.data = open_ ? allocate_recorded(v.bytes()) : stream_->arena().take(v.bytes());
    Napi::Array described = Napi::Array::New(env_, size_t(2 + v.rank));
    described.Set(0u, Napi::Number::New(env_, double(open_ ? add_recorded_tensor(v) : add_step_tensor(v))));
    described.Set(1u, Napi::Number::New(env_, double(int(v.dtype))));
    for (int d = 0; d < v.rank; d++) described.Set(uint32_t(2 + d), Napi::Number::New(env_, double(v.shape[d])));
    result.Set(uint32_t(i), described);
  }
  if (!prepare.writes()) return result;
  if (open_) {
    open_->recording->steps.push_back({op, std::move(call)});
    return result;
  }
  const bool readable = stream_->memory() == host_memory();
  stream_->enqueue([op, call, readable, timing = timing_](Backend& backend) {
    timed(
        timing, backend, op, [&] { backend.run(op, *call); }, [&] { return kOps[op].work(*call, readable); });
  });
  return result;
}

// record(): from here to recorded() calls do not run: they are added to a recording.
void NativeStream::record(const Napi::CallbackInfo&) {
  require_usable();
  if (open_) throw Error("ERR_ARGUMENT", "record: a recording is being made already");
  open_ = std::make_unique<Recorded>();
  open_->recording = std::make_shared<Recording>();
}

// recorded(keep) → id; without `keep` the recording is dropped.
Napi::Value NativeStream::recorded(const Napi::CallbackInfo& info) {
  if (!open_) return Napi::Number::New(env_, 0);
  const Recorded done = std::move(*open_);
  open_.reset();
  if (!info[0].ToBoolean().Value()) {
    drop(done);
    return Napi::Number::New(env_, 0);
  }
  recordings_.emplace(next_recording_, done);
  return Napi::Number::New(env_, double(next_recording_++));
}

void NativeStream::drop(const Recorded& recorded) {
  for (uint64_t id : recorded.tensors)
    if (registry_->has(id)) registry_->remove(id);
  account(-recorded.bytes);
}

// graphSpan() → positions for which one recording holds.
Napi::Value NativeStream::graph_span(const Napi::CallbackInfo&) {
  return Napi::Number::New(env_, stream_->backend().graph_span());
}

// replay(id): queues the calls of a recording.
void NativeStream::replay(const Napi::CallbackInfo& info) {
  require_usable();
  const auto it = recordings_.find(id_of(info[0], "recording"));
  if (it == recordings_.end()) throw Error("ERR_DISPOSED", "this recording was disposed");
  if (open_) throw Error("ERR_ARGUMENT", "replay: expected calls only while a recording is made");
  const bool readable = stream_->memory() == host_memory();
  stream_->enqueue([recording = it->second.recording, readable, timing = timing_](Backend& backend) {
    timed(
        timing, backend, kReplay, [&] { backend.replay(*recording); },
        [&] {
          Work all;
          double most = -1;  // the type of all is that of the most operations
          for (const Recording::Step& step : recording->steps) {
            const Work work = kOps[step.op].work(*step.call, readable);
            all.flop += work.flop;
            all.bytes += work.bytes;
            if (work.flop > most) all.type = work.type;
            most = std::max(most, work.flop);
          }
          return all;
        });
  });
}

// forget(id): the recording and the tensors that it made go, once what is queued has run.
void NativeStream::forget(const Napi::CallbackInfo& info) {
  const auto it = recordings_.find(id_of(info[0], "recording"));
  if (it == recordings_.end()) return;
  drop(it->second);
  recordings_.erase(it);
}

Napi::Value NativeStream::wait(Napi::Env env, const TensorEntry* entry, bool behind) {
  auto reply = std::make_shared<Reply>();
  reply->stream = this;
  reply->id = next_reply_++;
  reply->has_data = entry != nullptr;
  const View view = entry ? entry->view : View();
  auto keep = entry && entry->persistent ? entry->storage : nullptr;
  if (waiting_.empty()) napi_ref_threadsafe_function(env, replies_);
  auto deferred = Napi::Promise::Deferred::New(env);
  waiting_.emplace(reply->id, Waiting{deferred, Napi::Persistent(Value())});
  Stream* stream = stream_.get();
  napi_threadsafe_function replies = replies_;
  const auto send = [reply, replies] {
    reply->self = reply;
    if (napi_call_threadsafe_function(replies, reply.get(), napi_tsfn_blocking) != napi_ok) reply->self.reset();
  };
  stream_->enqueue([reply, view, keep, stream, send, behind, timing = timing_](Backend& backend) {
    reply->fault = stream->take_fault();
    try {
      if (reply->has_data && !reply->fault.any()) {
        reply->bytes = view.bytes();
        if (!stream->memory()->holds()) return send();  // zeros, of which none is written
        reply->data = allocate(reply->bytes);
        timed(
            timing, backend, kRead,
            [&] {
              if (!behind) return backend.download(reply->data, view.data, reply->bytes);
              backend.read(reply->data, view.data, reply->bytes, [reply, send](Fault fault) {
                reply->fault = std::move(fault);
                send();
              });
            },
            [&] { return moved(view); });
        if (behind) return;
      } else {
        backend.synchronize();
      }
    } catch (...) {
      if (!reply->fault.any()) reply->fault = caught("a tensor was read");
    }
    send();
  });
  return deferred.Promise();
}

void NativeStream::settle(napi_env raw, napi_value, void*, void* data) {
  const std::shared_ptr<Reply> sent = std::move(static_cast<Reply*>(data)->self);
  if (!raw) return;  // the stream was closed or the environment is going: nobody waits any more
  try {
    sent->stream->settle(Napi::Env(raw), *sent);
  } catch (...) {
    // The thread is being terminated: JavaScript can no longer run, and the promise goes with it.
  }
}

void NativeStream::settle(Napi::Env env, const Reply& reply) {
  Napi::HandleScope scope(env);
  auto it = waiting_.find(reply.id);
  const Waiting waiting = std::move(it->second);
  waiting_.erase(it);
  if (waiting_.empty() && replies_) napi_unref_threadsafe_function(env, replies_);
  if (reply.fault.any()) {
    waiting.deferred.Reject(make_error(env, reply.fault.code, reply.fault.message).Value());
  } else if (reply.has_data) {
    Napi::ArrayBuffer buffer;
    try {
      // By JavaScript's constructor: where there is no memory it throws, while Node-API's function ends the process.
      const auto made =
          env.Global().Get("ArrayBuffer").As<Napi::Function>().New({Napi::Number::New(env, double(reply.bytes))});
      buffer = made.As<Napi::ArrayBuffer>();
    } catch (const Napi::Error&) {
      const std::string bytes = std::to_string(reply.bytes);
      waiting.deferred.Reject(
          make_error(env, "ERR_OUT_OF_MEMORY", "cannot allocate " + bytes + " bytes to read a tensor into").Value());
      return;
    }
    if (reply.bytes > 0 && reply.data) std::memcpy(buffer.Data(), reply.data, size_t(reply.bytes));
    waiting.deferred.Resolve(buffer);
  } else {
    waiting.deferred.Resolve(env.Undefined());
  }
}

// read(id, behind) → Promise<ArrayBuffer>; behind: calls queued later need not wait for it.
Napi::Value NativeStream::read(const Napi::CallbackInfo& info) {
  require_open();
  const TensorEntry& entry = registry_->get(id_of(info[0], "read: tensor"));
  return wait(env_, &entry, info[1].ToBoolean().Value());
}

Napi::Value NativeStream::sync(const Napi::CallbackInfo&) {
  require_open();
  return wait(env_, nullptr);
}

// freeze(id): the tensor is never written again.
void NativeStream::freeze(const Napi::CallbackInfo& info) {
  TensorEntry& entry = registry_->get(id_of(info[0], "freeze: tensor"));
  if (!entry.persistent) throw Error("ERR_ARGUMENT", "freeze: only a persistent tensor can be frozen");
  entry.storage->frozen = true;
}

void NativeStream::dispose(const Napi::CallbackInfo& info) {
  const uint64_t id = id_of(info[0], "dispose: tensor");
  if (!registry_->has(id)) return;
  TensorEntry& entry = registry_->get(id);
  if (entry.counted && entry.counted.use_count() == 1) entry.stream->account(-*entry.counted);
  if (!entry.persistent) entry.stream->step_tensors_.erase(id);
  registry_->remove(id);
}

// endStep(): every tensor of the step goes at once.
void NativeStream::end_step(const Napi::CallbackInfo&) {
  for (uint64_t id : step_tensors_) {
    static_cast<StepStorage*>(registry_->get(id).storage.get())->current = false;
    registry_->remove(id);
  }
  step_tensors_.clear();
  stream_->arena().reset();
}

Napi::Value NativeStream::memory(const Napi::CallbackInfo&) {
  Napi::Object o = Napi::Object::New(env_);
  o.Set("stepReserved", double(stream_->arena().reserved()));
  o.Set("stepUsed", double(stream_->arena().used()));
  o.Set("stepPeak", double(stream_->arena().peak()));
  o.Set("persistent", double(persistent_bytes_));
  o.Set("mapped", double(registry_->mapped_bytes(this)));
  const Backend::Beside beside = replies_ ? stream_->backend().beside() : Backend::Beside();
  o.Set("packed", double(beside.packed));
  o.Set("scratch", double(beside.scratch));
  dw_memory_info device = {};
  if (!device_memory(*stream_->memory(), &device)) return o;
  o.Set("deviceTotal", double(device.total));
  o.Set("deviceAvailable", double(device.available));
  o.Set("deviceHeld", double(device.held));
  o.Set("devicePeak", double(device.held_peak));
  return o;
}

// close(): drops queued work, ends the threads. Tensors of this stream can no longer be used.
void NativeStream::close(const Napi::CallbackInfo&) {
  for (const auto& r : recordings_) drop(r.second);
  stop();
  auto waiting = std::move(waiting_);
  waiting_.clear();
  for (auto& w : waiting)
    w.second.deferred.Reject(make_error(env_, "ERR_STREAM", "this stream was closed before the call finished").Value());
}

}  // namespace dw
