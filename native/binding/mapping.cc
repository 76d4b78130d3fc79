#include "binding/mapping.h"

#include <algorithm>
#include <new>
#include <vector>

#include "binding/stream.h"
#include "core/convert.h"
#include "core/mapping.h"

namespace dw {

namespace {

class MapWorker : public Napi::AsyncWorker {
 public:
  MapWorker(Napi::Env env, int file, int64_t bytes, std::string name)
      : AsyncWorker(env, "distilwhisper mapping"),
        deferred_(Napi::Promise::Deferred::New(env)),
        file_(file),
        bytes_(bytes),
        name_(std::move(name)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      mapping_ = std::make_shared<Mapping>(file_, bytes_, name_);
    } catch (const Error& e) {
      fault_ = {e.code, e.what()};
    } catch (const std::bad_alloc&) {
      fault_ = {"ERR_OUT_OF_MEMORY", "memory is full while " + name_ + " was mapped"};
    }
  }
  void OnOK() override {
    if (fault_.any())
      deferred_.Reject(make_error(Env(), fault_.code, fault_.message).Value());
    else
      deferred_.Resolve(Napi::Number::New(Env(), double(Registry::of(Env()).add(std::move(mapping_)))));
  }

 private:
  Napi::Promise::Deferred deferred_;
  const int file_;
  const int64_t bytes_;
  const std::string name_;
  std::shared_ptr<const Mapping> mapping_;
  Fault fault_;
};

constexpr int64_t kPiece = 1 << 18;  // of a tensor, in bytes: what is converted is still in a cache when it is copied

// Puts values of a file, of its type, into a tensor.
void fill(Backend& backend, const View& to, const char* from, FileType type) {
  if (same(type, to.dtype)) return backend.upload(to.data, from, to.bytes());
  const int64_t piece = kPiece / size_of(to.dtype);
  std::vector<char> converted(size_t(std::min(to.bytes(), kPiece)));
  for (int64_t i = 0; i < to.size(); i += piece) {
    const int64_t count = std::min(piece, to.size() - i);
    convert(from + i * size_of(type), type, converted.data(), to.dtype, count);
    backend.upload(to.as<char>() + i * size_of(to.dtype), converted.data(), count * size_of(to.dtype));
  }
}

// Elements that lie across two cache lines cost a tenth of a product whose weights stay in a cache, and nothing where
// they come from memory: a small file is mapped where its tensors are aligned to lines, a large one to elements.
constexpr int64_t kLine = 64, kLargeFile = 64 << 20;

bool can_lie_at(const char* address, DType dtype, const Mapping& mapping) {
  const int64_t alignment = mapping.bytes() < kLargeFile ? kLine : size_of(dtype);
  return reinterpret_cast<uintptr_t>(address) % uintptr_t(alignment) == 0;
}

}  // namespace

// map(file, bytes, name) → Promise of the number of a mapping of an open file.
Napi::Value map_file(const Napi::CallbackInfo& info) {
  auto* worker = new MapWorker(info.Env(), info[0].As<Napi::Number>().Int32Value(),
                               info[1].As<Napi::Number>().Int64Value(), info[2].As<Napi::String>().Utf8Value());
  worker->Queue();
  return worker->promise();
}

// unmap(number): the file stays mapped until the tensors in it are gone.
Napi::Value unmap_file(const Napi::CallbackInfo& info) {
  Registry::of(info.Env()).unmap(uint64_t(info[0].As<Napi::Number>().Int64Value()));
  return info.Env().Undefined();
}

// stored(mapping, byte, type there, dtype, shape, frozen) → id of a persistent tensor of the values there. One that is
// frozen is the mapping's own memory where it can be, else the stream's worker copies and converts.
Napi::Value NativeStream::stored(const Napi::CallbackInfo& info) {
  try {
    require_usable();
    if (open_) throw Error("ERR_ARGUMENT", "stored: expected calls only while a recording is made");
    const auto number = [&](size_t i) { return info[i].As<Napi::Number>().Int64Value(); };
    const std::shared_ptr<const Mapping> mapping = registry_->mapping(uint64_t(number(0)));
    const FileType type = FileType(number(2));
    View v = shape_of(info[3], info[4]);
    const int64_t offset = number(1), bytes = v.size() * size_of(type);
    if (offset < 0 || offset > mapping->bytes() || bytes > mapping->bytes() - offset)
      throw Error("ERR_SHAPE", "stored: " + std::to_string(bytes) + " bytes at " + std::to_string(offset) +
                                   " reach outside of a file of " + std::to_string(mapping->bytes()));
    const char* from = mapping->data() + offset;
    const bool frozen = info[5].As<Napi::Boolean>().Value(), here = stream_->memory() == host_memory();
    if (frozen && here && same(type, v.dtype) && can_lie_at(from, v.dtype, *mapping)) {
      auto storage = std::make_shared<Storage>();
      storage->data = v.data = const_cast<char*>(from);
      storage->bytes = bytes;
      storage->memory = stream_->memory().get();
      storage->mapping = mapping;
      storage->frozen = true;  // its pages are read-only
      return Napi::Number::New(env_, double(add_persistent_tensor(v, std::move(storage))));
    }
    auto storage = allocate_persistent(v);
    storage->frozen = frozen;
    stream_->enqueue([storage, mapping, v, from, type, bytes, timeline = timing_](Backend& backend) {
      timed(
          timeline, backend, kWrite, [&] { fill(backend, v, from, type); }, [&] { return moved(v); });
      mapping->release(from, bytes);
    });
    return Napi::Number::New(env_, double(add_persistent_tensor(v, std::move(storage))));
  } catch (const Error& e) {
    throw_typed(env_, e);
  }
}

}  // namespace dw
