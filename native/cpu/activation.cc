#include "ops/activation.h"

#include "cpu/dropout.h"
#include "cpu/isa.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

// y = gelu(x), f32 or bf16 to either
void gelu(Context& ctx, const Gelu& q) {
  with_type(q.x.dtype, [&](auto* a) {
    with_type(q.y.dtype, [&](auto* o) {
      auto* __restrict from = q.x.as<std::remove_pointer_t<decltype(a)>>();
      auto* __restrict to = q.y.as<std::remove_pointer_t<decltype(o)>>();
      ctx.pool.split(q.x.size(), 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) put(to, i, gelu(get(from, i)));
      });
    });
  });
}

// dpre = dy ⊙ gelu'(pre), any mix of f32 and bf16
void gelu_backward(Context& ctx, const GeluBackward& q) {
  const View &dy = q.dy, &pre = q.pre, &out = q.dpre;
  with_type(dy.dtype, [&](auto* a) {
    with_type(pre.dtype, [&](auto* b) {
      with_type(out.dtype, [&](auto* o) {
        auto* __restrict pa = dy.as<std::remove_pointer_t<decltype(a)>>();
        auto* __restrict pb = pre.as<std::remove_pointer_t<decltype(b)>>();
        auto* __restrict po = out.as<std::remove_pointer_t<decltype(o)>>();
        ctx.pool.split(pre.size(), 4096, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) put(po, i, get(pa, i) * gelu_grad(get(pb, i)));
        });
      });
    });
  });
}

// y = scale·keep ⊙ x. What is dropped is 0, whatever it was.
void drop(Context& ctx, const Drop& q) {
  const Dropout factors(q.draw());
  const float scale = float(q.scale);
  with_type(q.x.dtype, [&](auto* a) {
    with_type(q.y.dtype, [&](auto* o) {
      auto* __restrict from = q.x.as<std::remove_pointer_t<decltype(a)>>();
      auto* __restrict to = q.y.as<std::remove_pointer_t<decltype(o)>>();
      ctx.pool.split(q.x.size(), 4096, [&](int64_t begin, int64_t end) {
        constexpr int64_t kPiece = 1024;
        if (!factors.any()) {
          for (int64_t i = begin; i < end; i++) put(to, i, scale * get(from, i));
          return;
        }
        alignas(64) float keep[kPiece];
        for (int64_t first = begin; first < end; first += kPiece) {
          const int64_t n = end - first < kPiece ? end - first : kPiece;
          factors.fill(keep, first, n);
          for (int64_t i = 0; i < n; i++) {
            const float k = keep[i];
            put(to, first + i, k == 0 ? 0 : scale * k * get(from, first + i));
          }
        }
      });
    });
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
