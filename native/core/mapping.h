// A file's values: in memory, as the system's own pages of it, which are read when they are touched and shared with
// every process that reads the file; or read from the file when they are asked for. Never written.
#pragma once
#include <cstdint>
#include <string>

namespace dw {

// A file that is deleted or replaced meanwhile stays, to its mapping, what it was. One that is cut short ends the
// process with SIGBUS where a page that is gone is touched, as it does with whatever maps files.
class Mapping {
 public:
  // The first `bytes` bytes of an open file, which may be closed afterwards; `name` is the file in an error. What
  // cannot be mapped (some file systems) is read. `copied`: nothing is mapped. Throws Error(ERR_FILE_READ) or
  // Error(ERR_OUT_OF_MEMORY).
  Mapping(int file, int64_t bytes, const std::string& name, bool copied);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  // Null where it is copied.
  const char* data() const { return data_; }
  // Some bytes of it, which lie in the mapping, or in `room`, where there is none. Throws Error(ERR_FILE_READ), also
  // where the file is shorter by now.
  const char* at(int64_t offset, int64_t bytes, char* room) const;
  int64_t bytes() const { return bytes_; }
  // Takes the pages of a part out of the process's resident memory, until they are touched again.
  void release(int64_t offset, int64_t bytes) const;

 private:
  char* data_ = nullptr;
  const int64_t bytes_;
  bool mapped_ = false;
  int file_ = -1;  // of a copied one
  const std::string name_;
};

}  // namespace dw
