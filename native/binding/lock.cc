#include "binding/lock.h"

#include <sys/file.h>

#include <cerrno>
#include <climits>
#include <system_error>

#include "binding/arguments.h"
#include "binding/registry.h"
#include "core/error.h"

namespace dw {

// lock(file) → whether the open file is locked now: flock(2), exclusive, without waiting; closing the file unlocks it. Null
// where its file system has no such locks. Node has no call of its own for it.
Napi::Value lock_file(const Napi::CallbackInfo& info) {
  const int file = int(whole_of(info[0], "file", 0, INT_MAX));
  int result;
  do {
    result = flock(file, LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return Napi::Boolean::New(info.Env(), true);
  if (errno == EWOULDBLOCK || errno == EACCES) return Napi::Boolean::New(info.Env(), false);
  if (errno == ENOSYS || errno == ENOTSUP || errno == EOPNOTSUPP || errno == ENOLCK) return info.Env().Null();
  throw Error("ERR_FILE_WRITE", "file: it cannot be locked: " + std::generic_category().message(errno));
}

}  // namespace dw
