#include "core/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/memory.h"

namespace dw {

namespace {

// In pieces: a call of the system reads less than 2^31 bytes.
void read_all(int file, char* to, int64_t begin, int64_t bytes, const std::string& name) {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n = pread(file, to + done, size_t(std::min<int64_t>(bytes - done, 1 << 30)), off_t(begin + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw Error("ERR_FILE_READ", "cannot read " + name + ": " +
                                       (n < 0 ? std::strerror(errno)
                                              : "it ends after " + std::to_string(begin + done) + " of " +
                                                    std::to_string(begin + bytes) + " bytes"));
    done += n;
  }
}

}  // namespace

Mapping::Mapping(int file, int64_t bytes, const std::string& name, bool copied) : bytes_(bytes), name_(name) {
  if (copied) {
    file_ = fcntl(file, F_DUPFD_CLOEXEC, 0);
    if (file_ < 0) throw Error("ERR_FILE_READ", "cannot read " + name + ": " + std::strerror(errno));
    return;
  }
  void* pages = mmap(nullptr, size_t(bytes), PROT_READ, MAP_PRIVATE, file, 0);
  if (pages != MAP_FAILED) {
    data_ = static_cast<char*>(pages);
    mapped_ = true;
    // Wishes: large pages, as `allocate` has them, and the file on its way before it is touched.
#if defined(MADV_HUGEPAGE)
    madvise(pages, size_t(bytes), MADV_HUGEPAGE);
#endif
    madvise(pages, size_t(bytes), MADV_WILLNEED);
    return;
  }
  data_ = static_cast<char*>(allocate(bytes));
  try {
    read_all(file, data_, 0, bytes, name);
  } catch (...) {
    deallocate(data_);
    throw;
  }
}

Mapping::~Mapping() {
  if (file_ >= 0)
    close(file_);
  else if (mapped_)
    munmap(data_, size_t(bytes_));
  else
    deallocate(data_);
}

const char* Mapping::at(int64_t offset, int64_t bytes, char* room) const {
  if (data_) return data_ + offset;
  read_all(file_, room, offset, bytes, name_);
  return room;
}

void Mapping::release(int64_t begin, int64_t bytes) const {
  if (!mapped_) return;
  // To whole pages, outwards: what a small part brought along, a large page of its neighbours, goes with it.
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t first = begin / page * page;
  if (bytes > 0) madvise(data_ + first, size_t(begin + bytes - first), MADV_DONTNEED);
}

}  // namespace dw
