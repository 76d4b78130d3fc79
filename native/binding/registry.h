// The tensors and mapped files that JavaScript holds, by number. One registry an environment (main thread or worker
// thread); it is touched by that environment's JavaScript thread alone.
#pragma once
#include <napi.h>

#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "core/stream.h"

namespace dw {

class NativeStream;

Napi::Error make_error(Napi::Env env, const std::string& code, const std::string& message);
// In a catch (...): rethrows what was thrown as a JavaScript error with its code.
[[noreturn]] void throw_typed(Napi::Env env);

struct TensorEntry {
  View view;
  std::shared_ptr<Storage> storage;
  NativeStream* stream = nullptr;
  bool persistent = false;
  // Bytes that are counted as the stream's until the last entry on them goes; none where they are a recording's or a
  // mapped file's.
  std::shared_ptr<const int64_t> counted;
};

class Registry {
 public:
  static Registry& of(Napi::Env env) { return *env.GetInstanceData<Registry>(); }

  uint64_t add(TensorEntry entry) {
    const uint64_t id = next_++;
    entries_.emplace(id, std::move(entry));
    return id;
  }
  // Throws Error(ERR_DISPOSED).
  TensorEntry& get(uint64_t id) {
    auto it = entries_.find(id);
    if (it == entries_.end())
      throw Error("ERR_DISPOSED", "this tensor was disposed, or its step has ended: its memory may hold another one");
    return it->second;
  }
  bool has(uint64_t id) const { return entries_.count(id) != 0; }
  void remove(uint64_t id) { entries_.erase(id); }
  uint64_t add(std::shared_ptr<const Mapping> mapping) {
    const uint64_t id = next_++;
    mappings_.emplace(id, std::move(mapping));
    return id;
  }
  // Throws Error(ERR_DISPOSED).
  const std::shared_ptr<const Mapping>& mapping(uint64_t id) const {
    const auto it = mappings_.find(id);
    if (it == mappings_.end()) throw Error("ERR_DISPOSED", "the file that this tensor lies in was closed");
    return it->second;
  }
  // Of the tensors of a stream that are parts of mapped files.
  int64_t mapped_bytes(const NativeStream* stream) const {
    std::unordered_set<const Storage*> parts;
    int64_t bytes = 0;
    for (const auto& [id, entry] : entries_)
      if (entry.stream == stream && entry.storage->mapping && parts.insert(entry.storage.get()).second)
        bytes += entry.storage->bytes;
    return bytes;
  }
  void unmap(uint64_t id) { mappings_.erase(id); }
  void remove_all_of(const NativeStream* stream) {
    for (auto it = entries_.begin(); it != entries_.end();)
      it = it->second.stream == stream ? entries_.erase(it) : std::next(it);
  }

  std::unordered_set<NativeStream*> streams;

 private:
  std::unordered_map<uint64_t, TensorEntry> entries_;
  std::unordered_map<uint64_t, std::shared_ptr<const Mapping>> mappings_;
  uint64_t next_ = 1;
};

// A function that JavaScript calls: what it throws in C++ becomes a JavaScript error with its code.
template <Napi::Value (*function)(const Napi::CallbackInfo&)>
Napi::Value typed(const Napi::CallbackInfo& info) {
  try {
    return function(info);
  } catch (...) {
    throw_typed(info.Env());
  }
}

}  // namespace dw
