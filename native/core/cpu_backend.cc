#include "core/backend.h"
#include "core/ops.h"
#include "core/packed.h"

namespace dw {

namespace {

class CpuBackend : public Backend {
 public:
  CpuBackend(const char* name, const RunFn* kernels, int threads, bool f64)
      : name_(name), kernels_(kernels), f64_(f64), pool_(threads), context_{pool_, workspace_} {}

  const std::string& name() const override { return name_; }
  const std::shared_ptr<Memory>& memory() const override { return host_memory(); }
  void require(int op, unsigned types) const override {
    if (types & kF64 && !f64_)
      throw Error("ERR_DTYPE",
                  (op < 0 ? "" : kOps[op].name + std::string(": ")) + "f64 is for the reference backend only");
  }
  void run(int op, const Call& call) override { kernels_[op](context_, call); }
  void upload(void* to, const void* from, int64_t bytes) override { memory()->write(to, from, bytes); }
  void download(void* to, const void* from, int64_t bytes) override { memory()->write(to, from, bytes); }
  void synchronize() override {}
  Beside beside() const override { return {packed_bytes(), workspace_.bytes()}; }

 private:
  const std::string name_;
  const RunFn* kernels_;
  const bool f64_;
  ThreadPool pool_;
  Workspace workspace_;
  Context context_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const char* name, const RunFn* kernels, int threads, bool f64) {
  return std::make_unique<CpuBackend>(name, kernels, threads, f64);
}

}  // namespace dw
