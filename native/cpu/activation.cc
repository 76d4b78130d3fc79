#include "ops/activation.h"

#include "cpu/isa.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

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

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
