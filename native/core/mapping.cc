#include "core/mapping.h"

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
void read_all(int file, char* to, int64_t bytes, const std::string& name) {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t n = pread(file, to + done, size_t(std::min<int64_t>(bytes - done, 1 << 30)), off_t(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      throw Error("ERR_FILE_READ",
                  "cannot read " + name + ": " +
                      (n < 0 ? std::strerror(errno)
                             : "it ends after " + std::to_string(done) + " of " + std::to_string(bytes) + " bytes"));
    done += n;
  }
}

}  // namespace

Mapping::Mapping(int file, int64_t bytes, const std::string& name) : bytes_(bytes) {
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
    read_all(file, data_, bytes, name);
  } catch (...) {
    deallocate(data_);
    throw;
  }
}

Mapping::~Mapping() {
  if (mapped_)
    munmap(data_, size_t(bytes_));
  else
    deallocate(data_);
}

void Mapping::release(const void* part, int64_t bytes) const {
  if (!mapped_) return;
  // To whole pages, outwards: what a small part brought along, a large page of its neighbours, goes with it.
  const int64_t page = sysconf(_SC_PAGESIZE), begin = static_cast<const char*>(part) - data_;
  const int64_t first = begin / page * page;
  if (bytes > 0) madvise(data_ + first, size_t(begin + bytes - first), MADV_DONTNEED);
}

}  // namespace dw
