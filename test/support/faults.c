// Preloaded into a process it counts the system calls on files below a folder (FAULT_ROOT), writes each into a log (FAULT_LOG),
// and at call FAULT_AT kills the process before it (FAULT_MODE "kill"), behind it or in the middle of what it writes ("killafter"),
// or has it fail with the error that FAULT_MODE names; FAULT_ON: with all that come behind it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PASS, FAIL, KILL_BEHIND };

static const char *root;
static int at = -1, failing = 0, behind = 0, on = 0, error_number = EIO, log_fd = -1;
static volatile int count;

static const struct {
  const char *name;
  int number;
} errors[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EINTR", EINTR}, {"EROFS", EROFS}, {"EDQUOT", EDQUOT}, {"EACCES", EACCES}};

__attribute__((constructor)) static void begin(void) {
  const char *number = getenv("FAULT_AT"), *mode = getenv("FAULT_MODE"), *log = getenv("FAULT_LOG");
  root = getenv("FAULT_ROOT");
  if (number) at = atoi(number);
  on = getenv("FAULT_ON") != NULL;
  behind = mode && !strcmp(mode, "killafter");
  for (size_t i = 0; mode && i < sizeof errors / sizeof *errors; i++)
    if (!strcmp(mode, errors[i].name)) failing = 1, error_number = errors[i].number;
  if (log) log_fd = openat(AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static int below(const char *path) { return root && path && !strncmp(path, root, strlen(root)); }

static int below_fd(int fd) {
  char link[64], path[PATH_MAX];
  if (!root || fd <= 2 || fd == log_fd) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlinkat(AT_FDCWD, link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return below(path);
}

static void end(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static int hit(const char *call, const char *path) {
  int n = __sync_add_and_fetch(&count, 1);
  if (log_fd >= 0) dprintf(log_fd, "%d %s %s\n", n, call, path ? path : "");
  if (at < 0 || (n != at && !(on && n > at))) return PASS;
  if (failing) {
    errno = error_number;
    return FAIL;
  }
  if (behind) return KILL_BEHIND;
  end();
  return PASS;
}

#define CALL(type, name, condition, path, signature, arguments)                     \
  type name signature {                                                             \
    static type(*real) signature;                                                   \
    if (!real) real = (type(*) signature)dlsym(RTLD_NEXT, #name);                   \
    int what = (condition) ? hit(#name, path) : PASS;                               \
    if (what == FAIL) return (type)-1;                                              \
    type result = real arguments;                                                   \
    if (what == KILL_BEHIND) end();                                                 \
    return result;                                                                  \
  }

// Half of it, where the process ends behind it.
#define WRITE(name, signature, arguments, half)                                     \
  ssize_t name signature {                                                          \
    static ssize_t(*real) signature;                                                \
    if (!real) real = (ssize_t(*) signature)dlsym(RTLD_NEXT, #name);                \
    int what = below_fd(fd) ? hit(#name, "") : PASS;                                \
    if (what == FAIL) return -1;                                                    \
    if (what == PASS) return real arguments;                                        \
    (void)!real half;                                                               \
    end();                                                                          \
    return -1;                                                                      \
  }

#define OPEN(name)                                                                  \
  int name(const char *path, int flags, ...) {                                      \
    static int (*real)(const char *, int, ...);                                     \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);     \
    mode_t mode = 0;                                                                \
    if (flags & O_CREAT) {                                                          \
      va_list rest;                                                                 \
      va_start(rest, flags);                                                        \
      mode = va_arg(rest, int);                                                     \
      va_end(rest);                                                                 \
    }                                                                               \
    int what = below(path) ? hit(#name, path) : PASS;                               \
    if (what == FAIL) return -1;                                                    \
    int result = real(path, flags, mode);                                           \
    if (what == KILL_BEHIND) end();                                                 \
    return result;                                                                  \
  }

OPEN(open)
OPEN(open64)
CALL(int, rename, below(from) || below(to), to, (const char *from, const char *to), (from, to))
CALL(int, link, below(from) || below(to), to, (const char *from, const char *to), (from, to))
CALL(int, mkdir, below(path), path, (const char *path, mode_t mode), (path, mode))
CALL(int, unlink, below(path), path, (const char *path), (path))
CALL(int, rmdir, below(path), path, (const char *path), (path))
CALL(int, access, below(path), path, (const char *path, int mode), (path, mode))
CALL(int, scandir, below(path), path,
     (const char *path, struct dirent ***list, int (*keep)(const struct dirent *),
      int (*compare)(const struct dirent **, const struct dirent **)),
     (path, list, keep, compare))
CALL(int, scandir64, below(path), path,
     (const char *path, struct dirent64 ***list, int (*keep)(const struct dirent64 *),
      int (*compare)(const struct dirent64 **, const struct dirent64 **)),
     (path, list, keep, compare))
CALL(int, fsync, below_fd(fd), "", (int fd), (fd))
CALL(int, fdatasync, below_fd(fd), "", (int fd), (fd))
CALL(int, ftruncate, below_fd(fd), "", (int fd, off_t length), (fd, length))
CALL(int, ftruncate64, below_fd(fd), "", (int fd, off64_t length), (fd, length))
CALL(int, fchmod, below_fd(fd), "", (int fd, mode_t mode), (fd, mode))
CALL(int, fchown, below_fd(fd), "", (int fd, uid_t user, gid_t group), (fd, user, group))
CALL(ssize_t, read, below_fd(fd), "", (int fd, void *data, size_t size), (fd, data, size))
CALL(ssize_t, pread, below_fd(fd), "", (int fd, void *data, size_t size, off_t from), (fd, data, size, from))
CALL(ssize_t, pread64, below_fd(fd), "", (int fd, void *data, size_t size, off64_t from), (fd, data, size, from))
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t to), (fd, data, size, to), (fd, data, size / 2, to))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t to), (fd, data, size, to), (fd, data, size / 2, to))
WRITE(writev, (int fd, const struct iovec *parts, int n), (fd, parts, n), (fd, parts, n / 2))
