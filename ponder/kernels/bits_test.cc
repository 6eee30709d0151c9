// The bits themselves: hashes of what a few products, rows and draws give. Other tests compare cpu with ref on one
// machine; the constants here, recorded on x86-64, hold ref and cpu to the same floats on every machine and compiler.
// A change of a constant is a change of the numerics (docs/numerics.md): every run's bits change with it.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <numeric>

#include "ponder/base/hash.h"
#include "ponder/base/rng.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/math.h"

namespace ponder::kernels {
namespace {

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

// About 2 / 3 of them below 1 in magnitude, both signs; made of integers alone, so that no C library has a say.
Floats numbers(int64_t n, uint64_t seed) {
  Floats x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) {
    const auto w = philox(seed, 0, i);
    x[i] = static_cast<float>(static_cast<int32_t>(w[0]) >> 8) * (w[1] % 3 ? 0x1p-23f : 0x1p-21f);
  }
  return x;
}
Floats zeros(int64_t n) { return Floats(static_cast<size_t>(n)); }

template <class T>
void add(Hasher& hash, const std::vector<T>& x) {
  hash.add(x.data(), x.size() * sizeof(T));
}

using Run = std::function<void(const Backend&, Hasher&)>;

void expect_bits(const std::string& want, const Run& run) {
  ThreadPool pool(2);
  const auto check = [&](const Backend& b) {
    Hasher hash;
    run(b, hash);
    EXPECT_EQ(hash.hex(), want) << b.name();
  };
  check(*make_ref_backend(pool));
  for (const std::string& isa : cpu_isas()) check(*make_cpu_backend(pool, isa));
}

TEST(BitsTest, ElementaryFunctions) {
  Hasher hash;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 99991) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    for (float y : {exp(x), log(x), sigmoid(x)}) {
      if (std::isnan(y)) y = 0.f;
      hash.add(&y, sizeof y);
    }
  }
  EXPECT_EQ(hash.hex(), "5a099ce0d52ca40edc6343d8a904ce7b");
}

TEST(BitsTest, Products) {
  expect_bits("ea0931e7b4ad48ff1fd58b58487988aa", [](const Backend& b, Hasher& hash) {
    const int64_t m = 13, n = 37, k = 300;
    const Floats a = numbers(m * k, 1), w = numbers(n * k, 2), bias = numbers(n, 3);
    for (Layout layout : {Layout::nt, Layout::nn, Layout::tn})
      for (bool accumulate : {false, true}) {
        Floats c = numbers(m * n, 4);
        b.gemm({.layout = layout,
                .m = m,
                .n = n,
                .k = k,
                .a = a.data(),
                .lda = layout == Layout::tn ? m : k,
                .b = w.data(),
                .ldb = layout == Layout::nt ? k : n,
                .c = c.data(),
                .ldc = n,
                .bias = layout == Layout::nt ? bias.data() : nullptr,
                .accumulate = accumulate});
        add(hash, c);
      }
  });
}

// Products with one stored type, activations rounded each way.
void stored_products(const Backend& b, Hasher& hash, BlockType type) {
  const int64_t m = 5, n = 37, k = 512;
  Quantized w{type, n, k, nullptr, block_row_bytes(type, k)};
  std::vector<std::byte> data(static_cast<size_t>(n * w.row_bytes));
  const Floats plain = numbers(n * k, 5), scales = numbers((n + kScaleBlock - 1) / kScaleBlock * (k / kScaleBlock), 6);
  quantize(type, plain.data(), n * k, data.data());
  w.data = data.data();
  if (type == BlockType::fp8) {
    w.scales = scales.data();
    w.scales_ld = k / kScaleBlock;
  }
  const auto aligned = [](std::vector<std::byte>& memory, size_t bytes) {
    memory.resize(bytes + 64);
    return memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  };
  std::vector<std::byte> packed_memory, scratch_memory;
  std::byte* packed = aligned(packed_memory, b.packed_weight_bytes(type, n, k));
  b.pack_weights(w, nullptr, packed);
  const WeightPart part{type, n, packed};
  const Floats a = numbers(m * k, 7);
  for (Activations activations : {Activations::f32, Activations::bf16, Activations::q8}) {
    Floats c = zeros(m * n);
    WeightGemm g{.m = m, .k = k, .a = a.data(), .lda = k, .parts = {&part, 1}, .c = c.data(), .ldc = n};
    g.activations = activations;
    g.scratch = aligned(scratch_memory, b.weight_gemm_scratch(g));
    b.weight_gemm(g);
    add(hash, c);
  }
}

TEST(BitsTest, StoredNumbers) {
  expect_bits("fabed5b2f3c5e153c7fac218564040b1", [](const Backend& b, Hasher& hash) {
    for (BlockType type : {BlockType::f32, BlockType::f16, BlockType::bf16, BlockType::fp8})
      stored_products(b, hash, type);
  });
}
TEST(BitsTest, StoredBlocks) {
  expect_bits("ae0dfc58b0f137b194f3e0d85833a68e", [](const Backend& b, Hasher& hash) {
    for (BlockType type :
         {BlockType::q4_0, BlockType::q5_1, BlockType::q8_0, BlockType::q4_k, BlockType::q6_k, BlockType::mxfp4})
      stored_products(b, hash, type);
  });
}

TEST(BitsTest, Rows) {
  expect_bits("e3676f7b291bb0e449463f8aa3e5fcd5", [](const Backend& b, Hasher& hash) {
    const int64_t rows = 9, d = 75;
    const Floats x = numbers(rows * d, 1), w = numbers(d, 2), gate_up = numbers(rows * 2 * d, 3);
    Floats y = zeros(rows * d), h = zeros(rows * d), inv = zeros(rows), p = x, m = zeros(rows * d), v = m;
    b.rms_norm({rows, d, x.data(), d, w.data(), 1e-6f, y.data(), d, inv.data()});
    b.swiglu({rows, d, gate_up.data(), 2 * d, h.data(), d});
    b.adamw({rows * d, p.data(), m.data(), v.data(), h.data(), 0.7f, 3e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.271, 0.143});
    for (const Floats& f : {y, h, inv, p, m, v}) add(hash, f);
    double sum = 0, scratch = 0;
    b.sum_squares({rows * d, y.data(), &sum, &scratch});
    hash.add(&sum, sizeof sum);
  });
}

TEST(BitsTest, Attention) {
  expect_bits("d52a77a1b000067a01066e18cbd57614", [](const Backend& b, Hasher& hash) {
    const PageLayout layout{.kv_heads = 2, .dk = 40, .dv = 24};
    const int heads = 6;
    const int32_t length = 150;
    const Floats q = numbers(length * heads * layout.dk, 1), k = numbers(length * layout.kv_heads * layout.dk, 2),
                 v = numbers(length * layout.kv_heads * layout.dv, 3), dout = numbers(length * heads * layout.dv, 4);
    const int32_t page_ids[] = {2, 0, 1};
    const Span span{0, length, 0, page_ids};
    Floats pages = zeros(3 * layout.page_floats()), out = zeros(length * heads * layout.dv),
           lse = zeros(length * heads);
    const int64_t ldq = heads * layout.dk, ldk = layout.kv_heads * layout.dk, ldv = layout.kv_heads * layout.dv,
                  ldo = heads * layout.dv;
    b.store_kv({layout, {&span, 1}, k.data(), ldk, v.data(), ldv, pages.data()});
    b.attention({layout, heads, 0.3f, {&span, 1}, q.data(), ldq, pages.data(), out.data(), ldo, lse.data()});
    Floats dq = zeros(length * ldq), dk = zeros(length * ldk), dv = zeros(length * ldv);
    b.attention_grad({.layout = layout,
                      .heads = heads,
                      .scale = 0.3f,
                      .spans = {&span, 1},
                      .q = q.data(),
                      .k = k.data(),
                      .v = v.data(),
                      .out = out.data(),
                      .dout = dout.data(),
                      .lse = lse.data(),
                      .ldq = ldq,
                      .ldk = ldk,
                      .ldv = ldv,
                      .ldo = ldo,
                      .lddo = ldo,
                      .dq = dq.data(),
                      .dk = dk.data(),
                      .dv = dv.data(),
                      .lddq = ldq,
                      .lddk = ldk,
                      .lddv = ldv});
    for (const Floats& f : {out, lse, dq, dk, dv}) add(hash, f);
  });
}

TEST(BitsTest, RoutingAndSampling) {
  expect_bits("fd854f776965fa3365fa124ff564f08f", [](const Backend& b, Hasher& hash) {
    const int64_t rows = 11, vocab = 153;
    const int experts = 16, top_k = 3;
    const Floats logits = numbers(rows * vocab, 1), bias = numbers(experts, 2);
    for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax}) {
      Floats scores = zeros(rows * experts), gates = zeros(rows * top_k);
      Ints index(static_cast<size_t>(rows * top_k));
      b.route({rows, experts, top_k, 4, 2, scoring, GroupScore::top2_sum, true, 2.5f, logits.data(), bias.data(),
               scores.data(), index.data(), gates.data()});
      add(hash, scores);
      add(hash, gates);
      add(hash, index);
    }
    Ints targets(static_cast<size_t>(rows)), tokens(targets.size());
    std::iota(targets.begin(), targets.end(), 7);
    Floats logp = zeros(rows), max = logp, log_sum = logp, entropy = logp, dlogits = zeros(rows * vocab);
    b.log_prob({rows, vocab, logits.data(), vocab, 1 / 0.7f, targets.data(), logp.data(), max.data(), log_sum.data(),
                entropy.data()});
    b.log_prob_grad({rows, vocab, logits.data(), vocab, 1 / 0.7f, targets.data(), max.data(), log_sum.data(),
                     entropy.data(), logp.data(), logp.data(), dlogits.data(), vocab});
    for (const Floats& f : {logp, max, log_sum, entropy, dlogits}) add(hash, f);
    std::vector<SampleRow> params(targets.size());
    for (size_t r = 0; r < params.size(); ++r)
      params[r] = {.temperature = static_cast<float>(r % 3) * 0.75f,
                   .top_p = r % 4 == 1 ? 0.9f : 1.f,
                   .top_k = r % 4 == 2 ? 5 : 0,
                   .seed = 0x123456789abcdef * (r + 1),
                   .position = static_cast<int64_t>(r) << 30};
    Floats scratch = zeros(b.pool().size() * 2 * vocab);
    b.sample(
        {rows, vocab, logits.data(), vocab, params.data(), tokens.data(), logp.data(), entropy.data(), scratch.data()});
    add(hash, logp);
    add(hash, tokens);
  });
}

}  // namespace
}  // namespace ponder::kernels
