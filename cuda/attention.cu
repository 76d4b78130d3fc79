// attention and attention_backward: which kernels take a call. Formulas stand in native/reference/attention.cc.
#include <algorithm>
#include <cmath>

#include "attention.h"
#include "cast.h"
#include "kernels.h"
#include "math.cuh"
#include "ops/attention.h"
#include "runtime/launch.cuh"

namespace dw {
namespace cuda {

namespace {

constexpr int kFewQueries = 8;

// Of a call of either direction.
template <class Op>
AttentionShape shape_of(const Op& a) {
  const View &q = a.q, &k = a.k;
  AttentionShape z;
  z.batch = int(q.shape[0]);
  z.queries = int(q.shape[1]);
  z.keys = int(k.shape[1]);
  z.heads = int(a.heads);
  z.width = int(q.shape[2] / z.heads);
  z.causal = a.causal;
  z.key_count = z.keys;
  z.offset = 0;
  z.row = q.shape[2];
  z.scale = float(1 / std::sqrt(double(z.width)));
  return z;
}

// delta[b, h, i] = Σ do·o over the head; a warp for each.
template <class G, class O>
__global__ void delta_kernel(AttentionShape z, const G* __restrict__ dout, const O* __restrict__ o,
                             float* __restrict__ delta, int64_t units) {
  const int lane = int(threadIdx.x) % 32;
  const int64_t unit = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;  // (item, query, head)
  if (unit >= units) return;
  const int64_t head = unit % z.heads, row = unit / z.heads, at = unit * z.width;
  float sum = 0;
  for (int c = lane; c < z.width; c += 32) sum = fmaf(get(dout, at + c), get(o, at + c), sum);
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (lane == 0) delta[(row / z.queries * z.heads + head) * z.queries + row % z.queries] = sum;
}

}  // namespace

void attention(Context& c, const Attention& a) {
  const View &q = a.q, &k = a.k, &v = a.v, &o = a.o;
  float* lse = a.lse.as<float>();
  if (q.size() == 0) return;
  AttentionShape z = shape_of(a);
  z.key_count = int(a.kv_len);
  z.offset = int(std::min<int64_t>(a.q_offset, z.key_count));  // further on, every key is seen anyway
  z.position = a.position.as<const int32_t>();
  // The tensor cores' form has a block for each item and head, too few for the device where one utterance is decoded;
  // the other splits the keys too, but reads them, from the L2 cache, once for each query.
  const bool flash = flash_fits(z, q, k, v);
  if (z.queries <= (flash && z.pairs() >= c.processors ? kFewQueries / 2 : kFewQueries))
    few_queries(c, z, q, k, v, o, lse);
  else if (flash)
    flash_forward(c, z, q, k, v, o, lse);
  else
    plain_forward(c, z, q, k, v, o, lse);
}

void attention_backward(Context& c, const AttentionBackward& a) {
  const View &q = a.q, &k = a.k, &v = a.v, &o = a.o, &lse = a.lse;
  if (k.size() == 0) return;
  const AttentionShape z = shape_of(a);
  Workspace::Frame frame(c.workspace);
  View dout = a.dout;
  if (dout.dtype != q.dtype) {
    dout.data = frame.take<char>(q.bytes());
    dout.dtype = q.dtype;
    convert(c, a.dout.data, a.dout.dtype, dout.data, dout.dtype, q.size());
  }
  const int64_t units = z.pairs() * z.queries;
  float* delta = frame.take<float>(units);
  if (units > 0)
    with_type(dout.dtype, [&](auto* t) {
      with_type(o.dtype, [&](auto* u) {
        using G = std::remove_pointer_t<decltype(t)>;
        using O = std::remove_pointer_t<decltype(u)>;
        launch(c, delta_kernel<G, O>, (units + kThreads / 32 - 1) / (kThreads / 32), kThreads, z, dout.as<G>(),
               o.as<O>(), delta, units);
      });
    });
  if (flash_fits(z, q, k, v) && flash_fits(z, dout, k, v))
    flash_backward(c, z, q, k, v, dout, lse.as<float>(), delta, a.dq, a.dk, a.dv);
  else
    plain_backward(c, z, q, k, v, dout, lse.as<float>(), delta, a.dq, a.dk, a.dv);
}

}  // namespace cuda
}  // namespace dw
