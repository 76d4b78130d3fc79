// Linear layers as products with their epilogues, and the width-3 convolutions as rows for such a product.
#include "cpu/linear.h"

#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "cpu/isa.h"
#include "cpu/products.h"
#include "cpu/simd/elements.h"
#include "cpu/simd/math.h"

namespace dw {
namespace cpu {
namespace DW_ISA {
namespace {

// Calls body with the view's data in its type.
template <class Body>
void typed(const View& v, const Body& body) {
  with_type(v.dtype, [&](auto* t) { body(v.as<std::remove_pointer_t<decltype(t)>>()); });
}

}  // namespace

// y = act(x·Wᵀ + b) + residual                      x [.., K], W [N, K]
static Gemm linear_product(const Linear& q) {
  Gemm g = times_transposed(q.weight, q.x.rows(), block_of(q.x), block_of(q.y), q.compute);
  g.epilogue.bias = q.bias.as<float>();
  g.epilogue.gelu = q.gelu;
  if (q.save_pre) g.epilogue.pre = block_of(q.pre);
  g.epilogue.residual = block_of(q.residual);
  return g;
}

void linear(Context& ctx, const Linear& q) { gemm(ctx, linear_product(q)); }

void linears(Context& ctx, std::initializer_list<const Linear*> layers) {
  std::vector<Gemm> products;
  for (const Linear* layer : layers) products.push_back(linear_product(*layer));
  gemm(ctx, products.data(), int64_t(products.size()));
}

// q[n, k] = round(W[n, k] / s[n]), s[n] = max |W[n, ·]| / 127; a row that is not finite gets a scale that is not.
void quantize(Context& ctx, const Quantize& a) {
  const View &w = a.weight, &q = a.quantized;
  const int64_t k = w.cols();
  typed(w, [&](auto* from) {
    ctx.pool.split(w.rows(), 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const auto* in = from + i * k;
        const float scale = largest_size(in, k) / 127;
        int8_t* row = const_cast<int8_t*>(q8_row(q, i));
        if (scale > 0 && std::isfinite(scale))
          for (int64_t p = 0; p < k; p++) row[p] = int8_t(int32_t(std::nearbyint(get(in, p) / scale)));
        else
          std::memset(row, 0, size_t(k));
        std::memcpy(row + k, &scale, sizeof scale);
      }
    });
  });
}

// dx = (dy·W) ⊙ gelu'(gelu_of) + residual           dy [.., N], W [N, K]
void linear_backward_input(Context& ctx, const LinearBackwardInput& q) {
  Gemm g = times(q.weight, q.dy.rows(), block_of(q.dy), block_of(q.dx), q.compute);
  g.epilogue.gelu_of = block_of(q.gelu_of);
  g.epilogue.residual = block_of(q.residual);
  gemm(ctx, g);
}

// dW += dyᵀ·x, db += Σ_rows dy                       dy [.., N], x [.., K]; with x_gelu gelu(x) stands for x
void linear_backward_weight(Context& ctx, const LinearBackwardWeight& q) {
  const View &dy = q.dy, &x = q.x;
  if (dy.rows() == 0) return;
  bias_gradient(ctx, q.dbias, dy.rows(), block_of(dy));
  if (!q.dweight) return;
  Workspace::Frame frame(ctx.workspace);
  Block from = block_of(x);
  if (q.x_gelu) {
    // In the type of the product: packing would round to it anyway.
    from = scratch(frame, q.compute == DType::bf16 ? DType::bf16 : DType::f32, x.rows(), x.cols());
    typed(x, [&](auto* in) {
      with_type(from.type, [&](auto* type) {
        auto* to = static_cast<decltype(type)>(from.data);
        ctx.pool.split(x.size(), 4096, [&](int64_t b, int64_t e) {
          for (int64_t i = b; i < e; i++) put(to, i, gelu(get(in, i)));
        });
      });
    });
  }
  gemm(ctx, weight_gradient(q.dweight, dy.rows(), block_of(dy), from, q.compute));
}

// y[b, t, 3·c + j] = x[b, stride·t + j − 1, c]      zero outside; or x [b, c, t] when channels come first
void unfold(Context& ctx, const Unfold& q) {
  const View &x = q.x, &y = q.y;
  const int64_t stride = q.stride, rows = y.shape[1], channels = q.channels(), batch = x.shape[0];
  const bool first = q.channels_first;
  const int64_t length = q.length();
  constexpr int64_t kBlock = 16;
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  typed(x, [&](auto* px) {
    typed(y, [&](auto* py) {
      ctx.pool.split(batch * blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
          const int64_t b = i / blocks, t0 = i % blocks * kBlock, t1 = t0 + kBlock < rows ? t0 + kBlock : rows;
          if (first) {
            for (int64_t ch = 0; ch < channels; ch++) {
              const auto* from = px + (b * channels + ch) * length;
              for (int64_t t = t0; t < t1; t++)
                for (int64_t j = 0; j < 3; j++) {
                  const int64_t s = t * stride + j - 1;
                  put(py, ((b * rows + t) * channels + ch) * 3 + j, s < 0 || s >= length ? 0.0f : get(from, s));
                }
            }
            continue;
          }
          for (int64_t t = t0; t < t1; t++) {
            auto* __restrict to = py + (b * rows + t) * channels * 3;
            const int64_t s = t * stride;
            const auto* at = px + (b * length + s) * channels;
            const bool before = s > 0, after = s + 1 < length;
            if (before && after) {
              for (int64_t ch = 0; ch < channels; ch++) {
                put(to, 3 * ch, get(at, ch - channels));
                put(to, 3 * ch + 1, get(at, ch));
                put(to, 3 * ch + 2, get(at, ch + channels));
              }
            } else {
              for (int64_t ch = 0; ch < channels; ch++) {
                put(to, 3 * ch, before ? get(at, ch - channels) : 0.0f);
                put(to, 3 * ch + 1, get(at, ch));
                put(to, 3 * ch + 2, after ? get(at, ch + channels) : 0.0f);
              }
            }
          }
        }
      });
    });
  });
}

// dx[b, s, c] = Σ_j dy[b, (s + 1 − j) / stride, 3·c + j], over the j for which that is a row
void fold(Context& ctx, const Fold& q) {
  const View &dy = q.rows, &dx = q.dx;
  const int64_t stride = q.stride, rows = dy.shape[1], length = dx.shape[1], channels = dx.shape[2];
  float* out = dx.as<float>();
  typed(dy, [&](auto* p) {
    ctx.pool.split(dx.shape[0] * length, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t b = i / length, s = i % length;
        float* __restrict to = out + i * channels;
        for (int64_t ch = 0; ch < channels; ch++) to[ch] = 0.0f;
        for (int64_t j = 0; j < 3; j++) {
          const int64_t t = s + 1 - j;
          if (t < 0 || t % stride != 0 || t / stride >= rows) continue;
          const auto* from = p + (b * rows + t / stride) * channels * 3 + j;
          for (int64_t ch = 0; ch < channels; ch++) to[ch] += get(from, 3 * ch);
        }
      }
    });
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
