#include "plan/plan_backend.h"

#include <algorithm>
#include <atomic>

#include "core/ops.h"
#include "core/packed.h"
#include "ops/all.h"

namespace dw {

namespace {

// Addresses with nothing behind them.
class Nowhere : public Memory {
 public:
  void* allocate(int64_t bytes) override {
    const int64_t size = (bytes + 127) / 64 * 64;
    return reinterpret_cast<void*>(next_.fetch_add(size));
  }
  void deallocate(void*) override {}
  void write(void*, const void*, int64_t) override {}
  int64_t chunk() const override { return host_memory()->chunk(); }
  bool holds() const override { return false; }

 private:
  std::atomic<int64_t> next_{64};
};

// What the kernels of native/cpu keep beside a call's tensors: packed forms of frozen weights, for good, and scratch
// memory, whose largest counts. Sums of a few rows are left out.
class Plan : public Backend {
 public:
  Plan(int threads, bool pairs) : threads_(threads), pairs_(pairs), memory_(std::make_shared<Nowhere>()) {}

  const std::string& name() const override {
    static const std::string name = "plan";
    return name;
  }
  const std::shared_ptr<Memory>& memory() const override { return memory_; }
  void require(int, unsigned) const override {}
  void run(int op, const Call& call) override;
  void upload(void*, const void*, int64_t) override {}
  void download(void*, const void*, int64_t) override {}
  void synchronize() override {}
  Beside beside() const override { return {packed_, scratch_}; }

  // Anything else needs nothing.
  template <class Op>
  void beside(const Op&) {}

  void beside(const Linear& q) {
    pack(q.weight, q.x.rows(), q.compute, true);
    most(rows(q.x.rows(), q.x.cols(), q.x.dtype, q.compute));
  }
  void beside(const LinearBackwardInput& q) {
    pack(q.weight, q.dy.rows(), q.compute, false);
    most(rows(q.dy.rows(), q.dy.cols(), q.dy.dtype, q.compute));
  }
  void beside(const LinearBackwardWeight& q) {
    if (!q.dweight) return;
    const int64_t act = q.x_gelu ? q.x.size() * size_of(q.compute) : 0;
    most(act + turned(q.dy.cols(), q.dy.rows(), q.compute));
  }
  void beside(const GatedFfn& f) {
    const int64_t e = size_of(f.compute), x = rows(f.rows, f.width, f.x.dtype, f.compute);
    pack(f.shared, f.rows, f.compute, true);
    most(f.rows * f.inner * e + x);
    for (const Expert& expert : f.experts) {
      const int64_t m = expert.rows();
      most(m * f.width * 4 * (f.draws.skip ? 1 : 2));
      if (!f.draws.skip) most(m * (f.width * 4 + f.inner * e) + rows(m, f.width, f.x.dtype, f.compute));
    }
  }
  void beside(const GatedFfnBackward& f) {
    const int64_t e = size_of(f.compute), gathered = f.covered > 0 ? f.rows * f.width * 4 : 0;
    pack(f.shared, f.rows, f.compute, false);
    for (const Expert& expert : f.experts) {
      const int64_t m = expert.rows(), u = f.draws.skip ? 0 : m * f.width * e;
      most(gathered + u + m * (f.width + f.gate) * 4 + turned(f.gate, m, DType::f32));
      if (!f.draws.skip) most(gathered + u + m * f.inner * e + turned(f.inner, m, f.compute));
    }
    most(gathered + f.rows * (4 + f.inner * e) + rows(f.rows, f.width, f.dy.dtype, f.compute));
  }
  void beside(const GatedFfnHard& f) {
    pack(f.shared, f.rows, f.compute, true);
    for (const Expert& expert : f.experts) pack(expert.ffn, expert.rows(), f.compute, true);
    most(f.rows * (f.inner * size_of(f.compute) + f.width * 8));
  }
  void beside(const DistillLoss& q) {
    const int64_t e = size_of(q.compute), models = q.kind == Distill::none ? 1 : 2;
    const int64_t widths = q.hidden.cols() + (q.teacher_hidden ? q.teacher_hidden.cols() : 0);
    const int64_t row = models * q.weight.shape[0] * e + (2 * widths + q.hidden.cols()) * 4;
    most(std::min(q.workspace, q.hidden.rows() * row + threads_ * 64 * 4 * (1024 + 192)));
  }
  void beside(const Attention& q) {
    const int64_t pairs = q.q.shape[0] * q.heads, words = 2 * q.k.shape[1] * q.k.cols() / q.heads;
    most(4 * std::min(pairs * words / per(q.q.dtype), std::max(kAttentionWords, threads_ * words)));
  }
  void beside(const AttentionBackward& q) {
    const int64_t pairs = q.q.shape[0] * q.heads, width = q.q.cols() / q.heads, block = 64;
    const int64_t queries = (q.q.shape[1] + block - 1) / block * block;
    const int64_t ranges = std::min((4 * threads_ + pairs - 1) / pairs, (q.k.shape[1] + block - 1) / block);
    const int64_t n = (3 * q.k.shape[1] + (per(q.q.dtype) == 2 ? 4 : 2) * queries) * width / per(q.q.dtype);
    const int64_t words = n + 2 * queries + ranges * queries * width;
    most(4 * words * std::min(pairs, std::max(kAttentionWords / words, threads_)));
  }

 private:
  static constexpr int64_t kGroup = 64, kFewRows = 8, kAttentionWords = int64_t(16) << 20;

  int64_t per(DType type) const { return pairs_ && type == DType::bf16 ? 2 : 1; }
  int64_t words(int64_t k, DType compute) const { return (k + per(compute) - 1) / per(compute); }
  // A left operand that is not read as it is.
  int64_t rows(int64_t m, int64_t k, DType type, DType compute) const {
    if (type == compute && (type == DType::f32 || per(compute) == 2)) return 0;
    return turned(m, k, compute);
  }
  int64_t turned(int64_t m, int64_t k, DType compute) const { return m * ((words(k, compute) + 15) / 16 * 16) * 4; }

  void pack(const Weight& w, int64_t rows, DType compute, bool forward) {
    if (!w.storage || !w.storage->frozen || w.dtype == DType::q8 || rows <= kFewRows) return;
    auto& form = w.storage->packed[packed_slot(forward, compute)];
    if (form) return;
    form = std::make_shared<char>();
    const int64_t n = w.shape[forward ? 0 : 1], k = w.shape[forward ? 1 : 0];
    packed_ += (n + kGroup - 1) / kGroup * kGroup * words(k, compute) * 4;
  }
  void pack(const Ffn& f, int64_t rows, DType compute, bool forward) {
    pack(f.fc1, rows, compute, forward);
    pack(f.fc2, rows, compute, forward);
  }
  void most(int64_t bytes) { scratch_ = std::max(scratch_.load(), bytes); }

  const int64_t threads_;
  const bool pairs_;
  const std::shared_ptr<Memory> memory_;
  std::atomic<int64_t> packed_{0}, scratch_{0};
};

#define DW_PLAN(name, Op) [](Plan& plan, const Call& call) { plan.beside(read<Op>(#name, call)); },
void (*const kPlans[])(Plan&, const Call&) = {DW_OPS(DW_PLAN)};
#undef DW_PLAN

void Plan::run(int op, const Call& call) { kPlans[op](*this, call); }

}  // namespace

std::unique_ptr<Backend> make_plan_backend(int threads, bool pairs) { return std::make_unique<Plan>(threads, pairs); }

}  // namespace dw
