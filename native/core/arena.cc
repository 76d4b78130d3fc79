#include "core/arena.h"

#include "core/mapping.h"
#include "core/tensor.h"

namespace dw {

constexpr int64_t kAlign = 64;

Storage::~Storage() {
  if (owned) owned->deallocate(data);
  if (mapping) mapping->release(static_cast<char*>(data) - mapping->data(), bytes);
}

Arena::~Arena() { release(); }

void Arena::grow(int64_t bytes) {
  const int64_t size = bytes > memory_->chunk() ? bytes : memory_->chunk();
  char* base = static_cast<char*>(memory_->allocate(size));
  chunks_.push_back({base, size});
  free_[base] = size;
  reserved_ += size;
}

void* Arena::take(int64_t bytes) {
  const int64_t size = (bytes + kAlign - 1) / kAlign * kAlign + (bytes == 0 ? kAlign : 0);
  auto best = free_.end();
  for (auto it = free_.begin(); it != free_.end(); ++it)
    if (it->second >= size && (best == free_.end() || it->second < best->second)) best = it;
  if (best == free_.end()) {
    grow(size);
    return take(bytes);
  }
  char* block = best->first;
  const int64_t rest = best->second - size;
  free_.erase(best);
  if (rest) free_[block + size] = rest;
  live_[block] = size;
  used_ += size;
  if (used_ > peak_) peak_ = used_;
  return block;
}

void Arena::give(void* data) {
  auto it = live_.find(static_cast<char*>(data));
  if (it == live_.end()) return;
  char* block = it->first;
  int64_t size = it->second;
  live_.erase(it);
  used_ -= size;
  auto chunk_of = [&](char* p) {
    for (auto& c : chunks_)
      if (p >= c.base && p < c.base + c.bytes) return c.base;
    return static_cast<char*>(nullptr);
  };
  auto next = free_.lower_bound(block);
  if (next != free_.end() && next->first == block + size && chunk_of(next->first) == chunk_of(block)) {
    size += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == block && chunk_of(before->first) == chunk_of(block)) {
      before->second += size;
      return;
    }
  }
  free_[block] = size;
}

void Arena::reset() {
  live_.clear();
  free_.clear();
  for (auto& c : chunks_) free_[c.base] = c.bytes;
  used_ = 0;
}

void Arena::release() {
  for (auto& c : chunks_) memory_->deallocate(c.base);
  chunks_.clear();
  free_.clear();
  live_.clear();
  reserved_ = used_ = 0;
}

}  // namespace dw
