#include <algorithm>
#include <cmath>

#include "ponder/kernels/math.h"
#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/kernels/ref/sums.h"

namespace ponder::kernels {
namespace {

// One query and head against its pages; `o` is where the output goes and serves as the running sum.
struct Query {
  const float* q;
  int64_t position;
  const int32_t* pages;
  float* o;
};

// Returns the log-sum-exp.
float attend(const Attention& a, int64_t kv_head, const Query& x) {
  const int dk = a.layout.dk, dv = a.layout.dv;
  float m = -constants::kInf, l = 0.f;
  std::fill_n(x.o, dv, 0.f);
  for (int64_t first = 0; first <= x.position; first += kPageSize) {
    const int64_t visible = std::min<int64_t>(kPageSize, x.position + 1 - first);
    const float* keys =
        a.pages + x.pages[first / kPageSize] * a.layout.page_floats() + kv_head * a.layout.head_floats();
    const float* values = keys + int64_t{dk} * kPageSize;
    float s[kPageSize];
    float m_new = m;
    for (int64_t j = 0; j < visible; ++j) {
      s[j] = dot(
                 dk, 0.f, [&](int64_t i) { return x.q[i]; }, [&](int64_t i) { return keys[i * kPageSize + j]; }) *
             a.scale;
      m_new = s[j] > m_new ? s[j] : m_new;
    }
    LaneSums<float> sum;
    for (int64_t j = 0; j < visible; ++j) {
      s[j] = exp(s[j] - m_new);
      sum.add(j, s[j]);
    }
    const float decay = first == 0 ? 0.f : exp(m - m_new);
    l = std::fma(l, decay, sum.fold());
    for (int d = 0; d < dv; ++d) {
      float c = 0.f;
      for (int64_t j = 0; j < visible; ++j) c = std::fma(s[j], values[j * dv + d], c);
      x.o[d] = std::fma(x.o[d], decay, c);
    }
    m = m_new;
  }
  const float inv = 1.f / l;
  for (int d = 0; d < dv; ++d) x.o[d] *= inv;
  return m + log(l);
}

// The probabilities and score gradients of one head between a page of queries and a page of keys.
struct Tile {
  int64_t query_begin, query_end, key_begin, key_end;  // rows of the span
  float p[kPageSize][kPageSize], ds[kPageSize][kPageSize];

  // The first query of the tile that sees the key, the end of the keys that a query sees.
  int64_t first_query(int64_t key) const { return std::max(query_begin, key); }
  int64_t visible_end(int64_t query) const { return std::min(key_end, query + 1); }
};

struct GradHead {
  const AttentionGrad& a;
  int64_t row;  // of the span
  int64_t head, kv_head;

  const float* q(int64_t i) const { return a.q + (row + i) * a.ldq + head * a.layout.dk; }
  const float* k(int64_t j) const { return a.k + (row + j) * a.ldk + kv_head * a.layout.dk; }
  const float* v(int64_t j) const { return a.v + (row + j) * a.ldv + kv_head * a.layout.dv; }
  const float* out(int64_t i) const { return a.out + (row + i) * a.ldo + head * a.layout.dv; }
  const float* dout(int64_t i) const { return a.dout + (row + i) * a.lddo + head * a.layout.dv; }
  float lse(int64_t i) const { return a.lse[(row + i) * a.heads + head]; }
  float* dq(int64_t i) const { return a.dq + (row + i) * a.lddq + head * a.layout.dk; }
  float* dk(int64_t j) const { return a.dk + (row + j) * a.lddk + kv_head * a.layout.dk; }
  float* dv(int64_t j) const { return a.dv + (row + j) * a.lddv + kv_head * a.layout.dv; }
};

float dot_rows(int64_t n, const float* x, const float* y) {
  return dot(
      n, 0.f, [&](int64_t i) { return x[i]; }, [&](int64_t i) { return y[i]; });
}

void fill_tile(const GradHead& h, const float* delta, Tile& t) {
  for (int64_t i = t.query_begin; i < t.query_end; ++i) {
    for (int64_t j = t.key_begin; j < t.visible_end(i); ++j) {
      const float s = dot_rows(h.a.layout.dk, h.q(i), h.k(j)) * h.a.scale;
      const float p = exp(s - h.lse(i));
      const float dp = dot_rows(h.a.layout.dv, h.dout(i), h.v(j));
      t.p[i - t.query_begin][j - t.key_begin] = p;
      t.ds[i - t.query_begin][j - t.key_begin] = p * (dp - delta[i - t.query_begin]) * h.a.scale;
    }
  }
}

void add_tile(const GradHead& h, const Tile& t) {
  const int dk = h.a.layout.dk, dv = h.a.layout.dv;
  for (int64_t i = t.query_begin; i < t.query_end; ++i) {
    const float* ds = t.ds[i - t.query_begin];
    for (int d = 0; d < dk; ++d) {
      float c = 0.f;
      for (int64_t j = t.key_begin; j < t.visible_end(i); ++j) c = std::fma(ds[j - t.key_begin], h.k(j)[d], c);
      h.dq(i)[d] += c;
    }
  }
  for (int64_t j = t.key_begin; j < t.key_end; ++j) {
    for (int d = 0; d < dk; ++d) {
      float c = 0.f;
      for (int64_t i = t.first_query(j); i < t.query_end; ++i)
        c = std::fma(t.ds[i - t.query_begin][j - t.key_begin], h.q(i)[d], c);
      h.dk(j)[d] += c;
    }
    for (int d = 0; d < dv; ++d) {
      float c = 0.f;
      for (int64_t i = t.first_query(j); i < t.query_end; ++i)
        c = std::fma(t.p[i - t.query_begin][j - t.key_begin], h.dout(i)[d], c);
      h.dv(j)[d] += c;
    }
  }
}

}  // namespace

void RefBackend::store_kv(const StoreKv& a) const noexcept {
  const int dk = a.layout.dk, dv = a.layout.dv;
  for (const Span& span : a.spans) {
    for (int64_t i = 0; i < span.count; ++i) {
      const int64_t position = span.position + i, row = span.row + i, slot = position % kPageSize;
      float* page = a.pages + span.pages[position / kPageSize] * a.layout.page_floats();
      for (int h = 0; h < a.layout.kv_heads; ++h) {
        float* keys = page + h * a.layout.head_floats();
        for (int d = 0; d < dk; ++d) keys[d * kPageSize + slot] = a.k[row * a.ldk + h * dk + d];
        std::copy_n(a.v + row * a.ldv + h * dv, dv, keys + int64_t{dk} * kPageSize + slot * dv);
      }
    }
  }
}

void RefBackend::attention(const Attention& a) const noexcept {
  const int64_t group = a.heads / a.layout.kv_heads;
  for (const Span& span : a.spans) {
    for (int64_t row = span.row; row < span.row + span.count; ++row) {
      for (int64_t h = 0; h < a.heads; ++h) {
        const float lse = attend(a, h / group,
                                 {.q = a.q + row * a.ldq + h * a.layout.dk,
                                  .position = span.position + row - span.row,
                                  .pages = span.pages,
                                  .o = a.out + row * a.ldo + h * a.layout.dv});
        if (a.lse) a.lse[row * a.heads + h] = lse;
      }
    }
  }
}

void RefBackend::attention_grad(const AttentionGrad& a) const noexcept {
  const int64_t group = a.heads / a.layout.kv_heads;
  Tile t;
  for (const Span& span : a.spans) {
    for (int64_t kv_head = 0; kv_head < a.layout.kv_heads; ++kv_head) {
      for (t.query_begin = 0; t.query_begin < span.count; t.query_begin += kPageSize) {
        t.query_end = std::min<int64_t>(t.query_begin + kPageSize, span.count);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          const GradHead h{a, span.row, head, kv_head};
          float delta[kPageSize];
          for (int64_t i = t.query_begin; i < t.query_end; ++i) {
            LaneSums<float> sum;
            for (int d = 0; d < a.layout.dv; ++d) sum.add_product(d, h.dout(i)[d], h.out(i)[d]);
            delta[i - t.query_begin] = sum.fold();
            std::fill_n(h.dq(i), a.layout.dk, 0.f);
          }
          for (t.key_begin = 0; t.key_begin <= t.query_begin; t.key_begin += kPageSize) {
            t.key_end = std::min<int64_t>(t.key_begin + kPageSize, span.count);
            fill_tile(h, delta, t);
            add_tile(h, t);
          }
        }
      }
    }
  }
}

}  // namespace ponder::kernels
