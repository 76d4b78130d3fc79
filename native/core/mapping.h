// A file in memory, as the system's own pages of it: they are read when they are touched, and shared with every process
// that reads the file. Never written.
#pragma once
#include <cstdint>
#include <string>

namespace dw {

// A file that is deleted or replaced meanwhile stays, to its mapping, what it was. One that is cut short ends the
// process with SIGBUS where a page that is gone is touched, as it does with whatever maps files.
class Mapping {
 public:
  // The first `bytes` bytes of an open file, which may be closed afterwards; `name` is the file in an error. What
  // cannot be mapped (some file systems) is read. Throws Error(ERR_FILE_READ) or Error(ERR_OUT_OF_MEMORY).
  Mapping(int file, int64_t bytes, const std::string& name);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  const char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Takes the pages of a part out of the process's resident memory, until they are touched again.
  void release(const void* part, int64_t bytes) const;

 private:
  char* data_ = nullptr;
  const int64_t bytes_;
  bool mapped_ = false;
};

}  // namespace dw
