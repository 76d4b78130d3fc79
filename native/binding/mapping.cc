#include "binding/mapping.h"

#include <algorithm>
#include <vector>

#include "binding/arguments.h"
#include "binding/stream.h"
#include "core/convert.h"
#include "core/mapping.h"
#include "core/shape.h"

namespace dw {

namespace {

class MapWorker : public Napi::AsyncWorker {
 public:
  MapWorker(Napi::Env env, int file, int64_t bytes, std::string name, bool copied)
      : AsyncWorker(env, "distilwhisper mapping"),
        deferred_(Napi::Promise::Deferred::New(env)),
        file_(file),
        bytes_(bytes),
        name_(std::move(name)),
        copied_(copied) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      mapping_ = std::make_shared<Mapping>(file_, bytes_, name_, copied_);
    } catch (...) {
      fault_ = caught(name_ + " was mapped");
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
  const bool copied_;
  std::shared_ptr<const Mapping> mapping_;
  Fault fault_;
};

constexpr int64_t kPiece = 1 << 18;  // of a tensor, in bytes: what is converted is still in a cache when it is copied

// Puts values of a file, of its type, into a tensor.
void fill(Backend& backend, const View& to, const Mapping& mapping, int64_t offset, FileType type) {
  const bool as_is = same(type, to.dtype);
  if (as_is && mapping.data()) return backend.upload(to.data, mapping.data() + offset, to.bytes());
  const int64_t piece = kPiece / size_of(to.dtype), most = std::min(piece, to.size());
  std::vector<char> converted(as_is ? 0 : size_t(most * size_of(to.dtype)));
  std::vector<char> room(mapping.data() ? 0 : size_t(most * size_of(type)));
  for (int64_t i = 0; i < to.size(); i += piece) {
    const int64_t count = std::min(piece, to.size() - i);
    const char* from = mapping.at(offset + i * size_of(type), count * size_of(type), room.data());
    if (!as_is) convert(from, type, converted.data(), to.dtype, count);
    backend.upload(to.as<char>() + i * size_of(to.dtype), as_is ? from : converted.data(), count * size_of(to.dtype));
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

// map(file, bytes, name, copied) → Promise of the number of a mapping of an open file.
Napi::Value map_file(const Napi::CallbackInfo& info) {
  const int file = int(whole_of(info[0], "map: file", 0, INT32_MAX));
  const int64_t bytes = whole_of(info[1], "map: bytes", 1, kMostBytes);
  auto* worker = new MapWorker(info.Env(), file, bytes, info[2].ToString().Utf8Value(), info[3].ToBoolean().Value());
  worker->Queue();
  return worker->promise();
}

// unmap(number): the file stays mapped until the tensors in it are gone.
Napi::Value unmap_file(const Napi::CallbackInfo& info) {
  Registry::of(info.Env()).unmap(id_of(info[0], "unmap: mapping"));
  return info.Env().Undefined();
}

// stored(mapping, byte, type there, dtype, shape, frozen) → id of a persistent tensor of the values there. One that is
// frozen is the mapping's own memory where it can be, else the stream's worker copies and converts.
Napi::Value NativeStream::stored(const Napi::CallbackInfo& info) {
  require_usable();
  if (open_) throw Error("ERR_ARGUMENT", "stored: expected calls only while a recording is made");
  const std::shared_ptr<const Mapping> mapping = registry_->mapping(id_of(info[0], "stored: mapping"));
  const int64_t offset = whole_of(info[1], "stored: byte", 0, kMostBytes, "ERR_SHAPE");
  const FileType type = FileType(whole_of(info[2], "stored: type in the file", 0, int64_t(FileType::bf16)));
  const DType dtype = DType(whole_of(info[3], "stored: dtype", 0, int64_t(DType::bf16)));
  View v = shape_of(dtype, info[4]);
  const int64_t bytes = v.size() * size_of(type);
  if (offset > mapping->bytes() || bytes > mapping->bytes() - offset)
    throw Error("ERR_SHAPE", "stored: " + std::to_string(bytes) + " bytes at " + std::to_string(offset) +
                                 " reach outside of a file of " + std::to_string(mapping->bytes()));
  const bool frozen = info[5].ToBoolean().Value(),
             here = stream_->memory() == host_memory() || !stream_->memory()->holds();
  const char* from = mapping->data() ? mapping->data() + offset : nullptr;
  if (frozen && here && from && same(type, v.dtype) && can_lie_at(from, v.dtype, *mapping)) {
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
  if (!stream_->memory()->holds()) return Napi::Number::New(env_, double(add_persistent_tensor(v, std::move(storage))));
  stream_->enqueue([storage, mapping, v, offset, type, bytes, timing = timing_](Backend& backend) {
    timed(
        timing, backend, kWrite, [&] { fill(backend, v, *mapping, offset, type); }, [&] { return moved(v); });
    mapping->release(offset, bytes);
  });
  return Napi::Number::New(env_, double(add_persistent_tensor(v, std::move(storage))));
}

}  // namespace dw
