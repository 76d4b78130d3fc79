// Embeddings, sums, casts and cache rows: one pass over memory each; the formulas stand in reference/rows.cc.
#include "ops/rows.h"

#include <type_traits>

#include "cpu/isa.h"
#include "cpu/simd/elements.h"
#include "ops/ids.h"
#include "ops/position.h"

namespace dw {
namespace cpu {
namespace DW_ISA {

namespace {

constexpr int64_t kGrain = 1 << 15;  // elements below which another thread costs more than it brings

template <class T>
const T* at(const View& v) {
  return static_cast<const T*>(v.data);
}

// y = alpha · a + beta · b over n elements.
template <class A, class B, class O>
void combine(const A* a, const B* b, float alpha, float beta, O* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) put(y, i, alpha * get(a, i) + beta * get(b, i));
}

template <class A, class O>
void convert(const A* a, O* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) put(y, i, get(a, i));
}
void convert(const bf16* a, bf16* y, int64_t n) { std::memcpy(y, a, size_t(n) * sizeof(bf16)); }
void convert(const float* a, float* y, int64_t n) { std::memcpy(y, a, size_t(n) * sizeof(float)); }

template <class Body>
void with_types(DType a, DType b, DType o, const Body& body) {
  with_type(a, [&](auto* ta) { with_type(b, [&](auto* tb) { with_type(o, [&](auto* to) { body(ta, tb, to); }); }); });
}

// dst[c] += src[c] for the columns [begin, end).
template <class T>
void accumulate(const T* src, float* dst, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; c++) dst[c] += get(src, c);
}

}  // namespace

void embedding(Context& ctx, const Embedding& q) {
  const View &ids = q.ids, &table = q.table, &positions = q.positions, &y = q.y;
  const int64_t T = ids.shape[1], D = table.shape[1], count = ids.shape[0] * T;
  const int64_t offset = offset_at(q.position, q.offset, "embedding");
  check_ids(ids, table.shape[0], -1, "embedding");
  const int32_t* id = at<int32_t>(ids);
  with_types(table.dtype, positions.dtype, y.dtype, [&](auto* ta, auto* tb, auto* to) {
    using A = std::remove_pointer_t<decltype(ta)>;
    using B = std::remove_pointer_t<decltype(tb)>;
    using O = std::remove_pointer_t<decltype(to)>;
    ctx.pool.split(count, kGrain / (D + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++)
        combine(at<A>(table) + int64_t(id[i]) * D, at<B>(positions) + (offset + i % T) * D, 1.0f, 1.0f,
                y.as<O>() + i * D, D);
    });
  });
}

// A thread owns columns and walks all rows in order: no two threads add to one element, and the order is the rows'.
void embedding_backward(Context& ctx, const EmbeddingBackward& q) {
  const View &dy = q.dy, &ids = q.ids, &dtable = q.dtable, &dpositions = q.dpositions;
  const int64_t T = dy.shape[1], D = dy.shape[2], count = dy.shape[0] * T;
  const int64_t offset = q.offset, padding = q.padding;
  if (dtable) check_ids(ids, dtable.shape[0], padding, "embedding_backward");
  const int32_t* id = at<int32_t>(ids);
  const int64_t grain = count * D < kGrain ? D : 64;
  with_type(dy.dtype, [&](auto* t) {
    using G = std::remove_pointer_t<decltype(t)>;
    ctx.pool.split(D, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < count; i++) {
        if (dtable && id[i] != padding)
          accumulate(at<G>(dy) + i * D, dtable.as<float>() + int64_t(id[i]) * D, begin, end);
        if (dpositions) accumulate(at<G>(dy) + i * D, dpositions.as<float>() + (offset + i % T) * D, begin, end);
      }
    });
  });
}

void add(Context& ctx, const Add& q) {
  const View &a = q.a, &b = q.b, &y = q.y;
  const int64_t n = a.rows() * a.cols(), period = b.rows() * b.cols();
  const float alpha = float(q.alpha), beta = float(q.beta);
  with_types(a.dtype, b.dtype, y.dtype, [&](auto* ta, auto* tb, auto* to) {
    using A = std::remove_pointer_t<decltype(ta)>;
    using B = std::remove_pointer_t<decltype(tb)>;
    using O = std::remove_pointer_t<decltype(to)>;
    ctx.pool.split(n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t j = i % period, length = end - i < period - j ? end - i : period - j;
        combine(at<A>(a) + i, at<B>(b) + j, alpha, beta, y.as<O>() + i, length);
        i += length;
      }
    });
  });
}

void add_backward_rows(Context& ctx, const AddBackwardRows& q) {
  const View &dy = q.dy, &dpositions = q.dpositions;
  const int64_t B = dy.shape[0], n = dy.shape[1] * dy.shape[2];
  with_type(dy.dtype, [&](auto* t) {
    using G = std::remove_pointer_t<decltype(t)>;
    ctx.pool.split(n, kGrain / (B + 1) + 64, [&](int64_t begin, int64_t end) {
      for (int64_t b = 0; b < B; b++) accumulate(at<G>(dy) + b * n, dpositions.as<float>(), begin, end);
    });
  });
}

void cast(Context& ctx, const Cast& q) {
  const View &x = q.x, &y = q.y;
  const int64_t n = x.rows() * x.cols();
  with_types(x.dtype, DType::f32, y.dtype, [&](auto* ta, auto*, auto* to) {
    using A = std::remove_pointer_t<decltype(ta)>;
    using O = std::remove_pointer_t<decltype(to)>;
    ctx.pool.split(n, kGrain,
                   [&](int64_t begin, int64_t end) { convert(at<A>(x) + begin, y.as<O>() + begin, end - begin); });
  });
}

void fill(Context& ctx, const Fill& q) {
  const View& x = q.x;
  const int64_t n = x.rows() * x.cols();
  const double value = q.value;
  ctx.pool.split(n, kGrain, [&](int64_t begin, int64_t end) {
    if (x.dtype == DType::bf16) {
      const bf16 v = to_bf16(float(value));
      for (int64_t i = begin; i < end; i++) x.as<bf16>()[i] = v;
    } else if (x.dtype == DType::i32) {
      for (int64_t i = begin; i < end; i++) x.as<int32_t>()[i] = int32_t(value);
    } else {
      for (int64_t i = begin; i < end; i++) x.as<float>()[i] = float(value);
    }
  });
}

void cache_write(Context& ctx, const CacheWrite& q) {
  const View &x = q.x, &cache = q.cache;
  const int64_t t = x.shape[1], D = x.shape[2], P = cache.shape[1], offset = q.offset, rows = x.shape[0] * t;
  with_types(x.dtype, DType::f32, cache.dtype, [&](auto* ta, auto*, auto* to) {
    using A = std::remove_pointer_t<decltype(ta)>;
    using O = std::remove_pointer_t<decltype(to)>;
    ctx.pool.split(rows, kGrain / (D + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++)
        convert(at<A>(x) + r * D, cache.as<O>() + ((r / t) * P + offset + r % t) * D, D);
    });
  });
}

}  // namespace DW_ISA
}  // namespace cpu
}  // namespace dw
