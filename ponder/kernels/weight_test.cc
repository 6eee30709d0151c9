// Products with stored weights: ref against the words of backend.h, then every instruction set against ref, bit for bit,
// for all types, ways to round activations, numbers of rows, columns beyond panels, batches, groups and threads.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/weight_pack.h"
#include "ponder/kernels/ref/blocks.h"

namespace ponder::kernels {
namespace {

constexpr Activations kActivations[] = {Activations::f32, Activations::bf16, Activations::q8};

class Random {
 public:
  explicit Random(uint32_t seed) : x_(seed * 2654435761u + 12345u) {}
  uint32_t bits() {
    x_ ^= x_ << 13;
    x_ ^= x_ >> 17;
    return x_ ^= x_ << 5;
  }
  // Many exponents, so that every other order of a sum gives other bits; zeros of both signs.
  float number() {
    const uint32_t x = bits();
    if (x % 61 == 0) return x & 64 ? 0.f : -0.f;
    return std::ldexp(static_cast<float>(static_cast<int32_t>(x) >> 8), static_cast<int>(bits() % 12) - 30);
  }

 private:
  uint32_t x_;
};

std::vector<float> numbers(int64_t n, uint32_t seed) {
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = random.number();
  return v;
}

// Where a block has numbers of 16 bits, which random bytes would make infinite now and then.
std::vector<int> halves(BlockType type) {
  switch (type) {
    case BlockType::q4_1:
    case BlockType::q5_1:
    case BlockType::q4_k:
    case BlockType::q5_k: return {0, 2};
    case BlockType::q6_k: return {208};
    case BlockType::mxfp4: return {};
    default: return {0};
  }
}

// A matrix of any bytes that are numbers.
struct Matrix {
  std::vector<std::byte> data;
  std::vector<float> scales;
  Quantized view;

  Matrix(BlockType type, int64_t rows, int64_t cols, uint32_t seed) {
    Random random(seed);
    view = {type, rows, cols, nullptr, block_row_bytes(type, cols)};
    data.resize(static_cast<size_t>(rows * view.row_bytes));
    if (is_plain(type) && type != BlockType::fp8) {
      const std::vector<float> x = numbers(rows * cols, seed);
      quantize(type, x.data(), rows * cols, data.data());
    } else {
      for (std::byte& b : data) b = static_cast<std::byte>(random.bits() >> 11);
    }
    if (type == BlockType::fp8) {
      for (std::byte& b : data)
        if ((b & std::byte{0x7F}) == std::byte{0x7F}) b = std::byte{0x80};
      view.scales_ld = (cols + kScaleBlock - 1) / kScaleBlock;
      scales.resize(static_cast<size_t>((rows + kScaleBlock - 1) / kScaleBlock * view.scales_ld));
      for (float& s : scales) s = random.number();
      view.scales = scales.data();
    } else if (!is_plain(type)) {
      const size_t bytes = static_cast<size_t>(block_spec(type).bytes);
      for (size_t b = 0; b < data.size(); b += bytes) {
        for (const int at : halves(type)) {
          const uint16_t half = f32_to_f16(random.number());
          std::memcpy(&data[b + static_cast<size_t>(at)], &half, 2);
        }
        // E8M0: the tiniest scales too, and none so large that sums of products overflow.
        if (type == BlockType::mxfp4)
          data[b] = static_cast<std::byte>(random.bits() % 8 ? 110 + random.bits() % 30 : random.bits() % 4);
      }
    }
    view.data = data.data();
  }
};

struct AlignedBytes {
  explicit AlignedBytes(size_t n) : memory(n + 64, std::byte{0xA5}) {}
  std::byte* data() {
    const auto at = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (64 - at % 64) % 64;
  }
  std::vector<std::byte> memory;
};

std::vector<BlockType> types() {
  ThreadPool pool(1);
  const auto ref = make_ref_backend(pool);
  std::vector<BlockType> list;
  for (int t = 0; t < kBlockTypes; ++t)
    if (ref->multiplies(static_cast<BlockType>(t))) list.push_back(static_cast<BlockType>(t));
  return list;
}

// Depths that end in the middle of everything that the type allows.
std::vector<int64_t> depths(BlockType type) {
  if (is_plain(type)) return {1, 37, 128, 200, 513, 1100};
  if (block_spec(type).elements == 32) return {32, 96, 160, 1120};
  return {256, 768, 1280};
}

// One product: packs, gives scratch, runs. `g.parts` is replaced.
struct Part {
  std::vector<const Quantized*> matrices;  // of the batch
  const int32_t* order = nullptr;
};
void run(const Backend& backend, WeightGemm g, const std::vector<Part>& parts) {
  std::vector<AlignedBytes> packed;
  std::vector<WeightPart> list;
  packed.reserve(parts.size());
  for (const Part& p : parts) {
    const Quantized& w = *p.matrices[0];
    const size_t stride = backend.packed_weight_bytes(w.type, w.rows, w.cols);
    EXPECT_EQ(stride % 64, 0u);
    packed.emplace_back(stride * p.matrices.size() + 64);
    for (size_t i = 0; i < p.matrices.size(); ++i)
      backend.pack_weights(*p.matrices[i], p.order, packed.back().data() + i * stride);
    list.push_back({w.type, w.rows, packed.back().data(), static_cast<int64_t>(stride)});
  }
  g.parts = list;
  AlignedBytes scratch(backend.weight_gemm_scratch(g));
  g.scratch = scratch.data();
  backend.weight_gemm(g);
}

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}
std::string difference(const std::vector<float>& got, const std::vector<float>& want, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (!same(got[i], want[i])) return fmt::format("element {}: {} instead of {}", i, got[i], want[i]);
  return "";
}

// f(backend, name) for every instruction set and number of threads.
template <class F>
void each_backend(F&& f) {
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    for (const std::string& isa : cpu_isas())
      f(*make_cpu_backend(pool, isa), fmt::format("{} {} threads", isa, threads));
  }
}

// ---- ref -------------------------------------------------------------------------------------------------------------
TEST(WeightTest, PartsOfBlocksAreWhatBlocksMean) {
  for (const BlockType type : types()) {
    if (is_plain(type)) continue;
    const SubBlocks sub = sub_blocks(type);
    ASSERT_EQ(sub.elements, block_spec(type).elements);
    const Matrix m(type, 50, sub.elements, 3);
    std::vector<float> want(static_cast<size_t>(sub.elements));
    for (int64_t r = 0; r < m.view.rows; ++r) {
      dequantize_row(m.view, r, want.data());
      BlockParts p;
      split_block(type, m.view.row(r), p);
      for (int i = 0; i < sub.elements; ++i) {
        const float s = p.scale * static_cast<float>(p.sub_scale[i / sub.width]);
        const float z = sub.minimum ? p.minimum * static_cast<float>(p.sub_minimum[i / sub.width]) : 0.f;
        const float w =
            sub.minimum ? std::fma(s, static_cast<float>(p.code[i]), -z) : s * static_cast<float>(p.code[i]);
        ASSERT_TRUE(same(w, want[static_cast<size_t>(i)])) << block_spec(type).name << ' ' << r << ' ' << i;
      }
    }
  }
}

TEST(WeightTest, RefIsADotOfExpandedWeights) {
  ThreadPool pool(1);
  const auto ref = make_ref_backend(pool);
  for (const BlockType type : types()) {
    const int64_t k = is_plain(type) ? 700 : 512, n = 5, m = 3;
    const Matrix w(type, n, k, 11);
    const std::vector<float> a = numbers(m * k, 5), bias = numbers(n, 6);
    std::vector<float> rounded = a, expanded(static_cast<size_t>(n * k));
    for (float& x : rounded) x = bf16_to_f32(f32_to_bf16(x));
    for (int64_t j = 0; j < n; ++j) dequantize_row(w.view, j, &expanded[static_cast<size_t>(j * k)]);
    for (const Activations activations : kActivations) {
      std::vector<float> c(static_cast<size_t>(m * n)), want(c.size());
      WeightGemm g{.m = m, .k = k, .a = a.data(), .lda = k, .c = c.data(), .ldc = n, .bias = bias.data()};
      g.activations = activations;
      run(*ref, g, {{{&w.view}}});
      const bool bf16 = activations == Activations::bf16;
      const std::vector<float>& x = bf16 ? rounded : a;
      ref->gemm({Layout::nt, m, n, k, x.data(), k, expanded.data(), k, want.data(), n, nullptr, bias.data()});
      if (is_pair_product(type, activations)) {
        for (int64_t i = 0; i < m * n; ++i) {
          const float *left = &x[static_cast<size_t>(i / n * k)], *right = &expanded[static_cast<size_t>(i % n * k)];
          float block[2] = {};
          for (int64_t j = 0; j < k; j += 2) {
            float& sum = block[j / 512];
            sum = std::fma(left[j], right[j], std::fma(left[j + 1], right[j + 1], sum));
          }
          want[static_cast<size_t>(i)] = block[0] + block[1] + bias[static_cast<size_t>(i % n)];
        }
      }
      if (activations != Activations::q8 || is_plain(type)) {
        EXPECT_EQ(difference(c, want, c.size()), "") << block_spec(type).name << ' ' << activations_name(activations);
        continue;
      }
      for (size_t i = 0; i < c.size(); ++i) {  // near, since activations have 8 bits
        double size = 0;
        for (size_t x = 0; x < static_cast<size_t>(k); ++x)
          size += std::fabs(double{a[i / n * k + x]} * expanded[i % n * k + x]);
        EXPECT_NEAR(c[i], want[i], 0.03 * size) << block_spec(type).name;
      }
    }
  }
}

TEST(WeightTest, WholeNumbersByHand) {
  // Two blocks of Q8_0 with scales 0.5 and 2: codes 1 .. 32 and -1 .. -32.
  std::vector<std::byte> row(68);
  for (int b = 0; b < 2; ++b) {
    const uint16_t scale = f32_to_f16(b ? 2.f : 0.5f);
    std::memcpy(&row[static_cast<size_t>(34 * b)], &scale, 2);
    for (int i = 0; i < 32; ++i) row[static_cast<size_t>(34 * b + 2 + i)] = static_cast<std::byte>(b ? -1 - i : i + 1);
  }
  const Quantized w{BlockType::q8_0, 1, 64, row.data(), 68};
  std::vector<float> a(64), c(1);
  a[0] = 127;  // scale 1, codes 127 and 3 (2.5 goes to the even 2, 3.5 to 4)
  a[1] = 2.5f;
  a[2] = 3.5f;
  a[40] = -12.7f;  // scale 0.1, code -127
  ThreadPool pool(1);
  const auto ref = make_ref_backend(pool);
  run(*ref, {.m = 1, .k = 64, .a = a.data(), .lda = 64, .c = c.data(), .ldc = 1, .activations = Activations::q8},
      {{{&w}}});
  const float first = std::fma(1.f, 0.5f * (127 * 1 + 2 * 2 + 4 * 3), 0.f);
  EXPECT_EQ(c[0], std::fma(12.7f / 127.f, 2.f * (127 * 9), first));
}

TEST(WeightTest, WhatIsNoNumberStaysSo) {
  ThreadPool pool(2);
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(make_ref_backend(pool));
  for (const std::string& isa : cpu_isas()) backends.push_back(make_cpu_backend(pool, isa));
  for (const BlockType type : {BlockType::q8_0, BlockType::q4_k}) {
    const Matrix w(type, 3, 256, 1);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()})
      for (const auto& backend : backends) {
        std::vector<float> a = numbers(2 * 256, 2), c(6);
        a[77] = bad;
        run(*backend,
            {.m = 2, .k = 256, .a = a.data(), .lda = 256, .c = c.data(), .ldc = 3, .activations = Activations::q8},
            {{{&w.view}}});
        for (size_t i = 0; i < 6; ++i) EXPECT_EQ(std::isnan(c[i]), i < 3) << backend->name();
      }
  }
}

TEST(WeightTest, TinyAndZeroActivations) {
  ThreadPool pool(1);
  const auto ref = make_ref_backend(pool);
  const Matrix w(BlockType::q4_k, 40, 256, 1);
  for (const float size : {0.f, 1e-45f, 1e-40f, 3e-39f, 1e-37f, 1e38f}) {
    std::vector<float> a(256), want(40), c(40);
    for (size_t i = 0; i < 256; ++i) a[i] = size * static_cast<float>(static_cast<int>(i % 7) - 3) / 3.f;
    WeightGemm g{.m = 1, .k = 256, .a = a.data(), .lda = 256, .c = want.data(), .ldc = 40};
    g.activations = Activations::q8;
    run(*ref, g, {{{&w.view}}});
    g.c = c.data();
    each_backend([&](const Backend& backend, const std::string& name) {
      run(backend, g, {{{&w.view}}});
      EXPECT_EQ(difference(c, want, c.size()), "") << name << ' ' << size;
    });
  }
}

// Products of bf16 and their sums around the smallest normal number, which count as zero below it.
TEST(WeightTest, PairsWithoutSubnormals) {
  ThreadPool pool(1);
  const auto ref = make_ref_backend(pool);
  const int64_t k = 6, n = 40;
  std::vector<uint16_t> stored(static_cast<size_t>(n * k));
  const Quantized w{BlockType::bf16, n, k, reinterpret_cast<const std::byte*>(stored.data()), k * 2};
  Random random(3);
  int zeros = 0, others = 0;
  for (int turn = 0; turn < 200; ++turn) {
    std::vector<float> a(static_cast<size_t>(k)), want(static_cast<size_t>(n)), c(want), bias(want);
    const auto draw = [&](int lowest, int exponents) {
      const float x = 1.f + static_cast<float>(random.bits() % 128) / 128.f;
      return std::ldexp(random.bits() % 2 ? x : -x,
                        lowest + static_cast<int>(random.bits() % static_cast<uint32_t>(exponents)));
    };
    for (float& x : a) x = draw(turn % 4 ? -63 : -128, 3);
    for (uint16_t& x : stored) x = f32_to_bf16(draw(turn % 4 ? -65 : 0, 3));
    for (float& x : bias) x = turn % 2 ? draw(-128, 4) : 0.f;
    WeightGemm g{.m = 1, .k = k, .a = a.data(), .lda = k, .c = want.data(), .ldc = n, .bias = bias.data()};
    g.activations = Activations::bf16;
    run(*ref, g, {{{&w}}});
    for (const float x : want) {
      EXPECT_TRUE(x == 0 || std::fabs(x) >= 0x1p-126f) << x;
      ++(x == 0 ? zeros : others);
    }
    g.c = c.data();
    each_backend([&](const Backend& backend, const std::string& name) {
      run(backend, g, {{{&w}}});
      EXPECT_EQ(difference(c, want, c.size()), "") << name << " turn " << turn;
    });
  }
  EXPECT_GT(zeros, 500);
  EXPECT_GT(others, 500);
  volatile float tiny = 0x1p-126f;
  EXPECT_GT(tiny / 4, 0.f) << "subnormals have to count again afterwards";
}

// ---- every instruction set against ref ---------------------------------------------------------------------------------
TEST(WeightTest, AllTypesDepthsAndRows) {
  constexpr int64_t kMost = 70, kColumns = 75;
  ThreadPool one(1);
  const auto ref = make_ref_backend(one);
  for (const BlockType type : types())
    for (const int64_t k : depths(type)) {
      const Matrix w(type, kColumns, k, 17);
      const int64_t lda = k + 5, ldc = kColumns + 3;
      const std::vector<float> a = numbers(kMost * lda, 23), bias = numbers(kColumns, 29);
      for (const Activations activations : kActivations) {
        if (activations == Activations::q8 && is_plain(type)) continue;
        std::vector<float> want(static_cast<size_t>(kMost * ldc), 7.f);
        WeightGemm g{.m = kMost, .k = k, .a = a.data(), .lda = lda, .c = want.data(), .ldc = ldc};
        g.bias = bias.data();
        g.activations = activations;
        run(*ref, g, {{{&w.view}}});
        each_backend([&](const Backend& backend, const std::string& name) {
          if (k != depths(type).back() && backend.pool().size() != 1) return;  // large enough to wake threads
          for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 29, 70}) {
            if (backend.pool().size() != 1 && m != 1 && m != kMost) continue;
            std::vector<float> c(want.size(), 7.f);
            g.m = m;
            g.c = c.data();
            run(backend, g, {{{&w.view}}});
            ASSERT_EQ(difference(c, want, static_cast<size_t>(m * ldc)), "") << fmt::format(
                "{} {}, m {}, k {}, {}", block_spec(type).name, activations_name(activations), m, k, name);
          }
        });
      }
    }
}

TEST(WeightTest, OneRowIsARowOfMany) {
  constexpr int64_t m = 20, n = 96, k = 512;
  each_backend([&](const Backend& backend, const std::string& name) {
    for (const BlockType type : types())
      for (const Activations activations : kActivations) {
        const Matrix w(type, n, k, 31);
        const std::vector<float> a = numbers(m * k, 37);
        std::vector<float> all(m * n), alone(m * n);
        WeightGemm g{.m = m, .k = k, .a = a.data(), .lda = k, .c = all.data(), .ldc = n, .activations = activations};
        run(backend, g, {{{&w.view}}});
        g.m = 1;
        for (int64_t i = 0; i < m; i += 6) {
          g.a = a.data() + i * k;
          g.c = alone.data() + i * n;
          run(backend, g, {{{&w.view}}});
          for (int64_t j = i * n; j < (i + 1) * n; ++j)
            ASSERT_TRUE(same(alone[static_cast<size_t>(j)], all[static_cast<size_t>(j)])) << name;
        }
      }
  });
}

// Parts of different types and orders of rows, in a batch: with matrices of activations of its own, or one for all.
TEST(WeightTest, PartsAndBatches) {
  constexpr int64_t m = 9, k = 512, batch = 3;
  const std::vector<std::pair<BlockType, int64_t>> kinds = {{BlockType::q4_k, 40}, {BlockType::q8_0, 64},
                                                            {BlockType::q6_k, 7},  {BlockType::bf16, 33},
                                                            {BlockType::fp8, 150}, {BlockType::f32, 32}};
  std::vector<Matrix> matrices;
  std::vector<std::vector<int32_t>> orders;
  int64_t n = 0;
  for (const auto& [type, rows] : kinds) {
    for (uint32_t i = 0; i < batch; ++i) matrices.emplace_back(type, rows, k, 41 + i + 10 * static_cast<uint32_t>(n));
    std::vector<int32_t> order(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) order[static_cast<size_t>(r)] = static_cast<int32_t>((r * 11 + 3) % rows);
    if (rows % 11)
      orders.push_back(order);
    else
      orders.emplace_back();
    n += rows;
  }
  std::vector<Part> parts;
  for (size_t p = 0; p < kinds.size(); ++p) {
    parts.emplace_back();
    for (size_t i = 0; i < batch; ++i) parts.back().matrices.push_back(&matrices[p * batch + i].view);
    if (!orders[p].empty()) parts.back().order = orders[p].data();
  }
  const std::vector<float> a = numbers(batch * m * k, 43), bias = numbers(n, 47);
  ThreadPool one(1);
  const auto ref = make_ref_backend(one);
  for (const int64_t stride : {m * k, k, int64_t{0}})  // apart, beside each other, shared
    for (const Activations activations : kActivations) {
      std::vector<float> want(static_cast<size_t>(batch * m * n));
      WeightGemm g{.m = m, .k = k, .a = a.data(), .lda = stride == k ? batch * k : k, .c = want.data(), .ldc = n};
      g.bias = bias.data();
      g.activations = activations;
      g.batch = batch;
      g.a_stride = stride;
      g.c_stride = m * n;
      run(*ref, g, parts);
      // ref itself: an ordered row is that row
      if (stride == 0 && activations == Activations::f32) {
        std::vector<float> w(static_cast<size_t>(k));
        dequantize_row(*parts[0].matrices[1], orders[0][5], w.data());
        float c = 0;
        ref->gemm({Layout::nt, 1, 1, k, a.data(), k, w.data(), k, &c, 1});
        EXPECT_EQ(want[static_cast<size_t>(m * n + 5)], c + bias[5]);
      }
      each_backend([&](const Backend& backend, const std::string& name) {
        std::vector<float> c(want.size());
        WeightGemm mine = g;
        mine.c = c.data();
        run(backend, mine, parts);
        EXPECT_EQ(difference(c, want, c.size()), "") << name << ' ' << activations_name(activations) << ' ' << stride;
      });
    }
}

TEST(WeightTest, Groups) {
  constexpr int64_t k = 768, n = 100;
  const std::vector<int32_t> offsets = {0, 1, 1, 8, 30, 31};
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1, rows = offsets.back();
  const std::vector<float> a = numbers(rows * k, 53);
  ThreadPool one(1);
  const auto ref = make_ref_backend(one);
  for (const BlockType type : types()) {
    std::vector<Matrix> matrices;
    for (int64_t i = 0; i < groups; ++i) matrices.emplace_back(type, n, k, 59 + static_cast<uint32_t>(i));
    Part part;
    for (const Matrix& m : matrices) part.matrices.push_back(&m.view);
    for (const Activations activations : kActivations) {
      std::vector<float> want(static_cast<size_t>(rows * n));
      WeightGemm g{.m = rows, .k = k, .a = a.data(), .lda = k, .c = want.data(), .ldc = n, .activations = activations};
      g.batch = groups;
      g.offsets = offsets.data();
      run(*ref, g, {part});
      each_backend([&](const Backend& backend, const std::string& name) {
        std::vector<float> c(want.size());
        WeightGemm mine = g;
        mine.c = c.data();
        run(backend, mine, {part});
        EXPECT_EQ(difference(c, want, c.size()), "") << name << ' ' << block_spec(type).name;
      });
    }
  }
}

TEST(WeightTest, EveryFp8Code) {
  std::vector<std::byte> data(256 * 4);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i / 4);  // row r: code r everywhere
  const std::vector<float> scales = {3.f, 0x1.8p110f};
  Quantized w{BlockType::fp8, 256, 4, data.data(), 4, scales.data(), 1, 0};
  const std::vector<float> a(4, 1.f);
  each_backend([&](const Backend& backend, const std::string& name) {
    std::vector<float> c(256);
    run(backend, {.m = 1, .k = 4, .a = a.data(), .lda = 4, .c = c.data(), .ldc = 256}, {{{&w}}});
    for (int r = 0; r < 256; ++r) {
      const float x = fp8_to_f32(static_cast<uint8_t>(r)) * scales[static_cast<size_t>(r / 128)];
      ASSERT_TRUE(same(c[static_cast<size_t>(r)], 0.f + (x + x + x + x))) << name << ' ' << r;
    }
  });
}

TEST(WeightTest, OneFp8NanMakesItsRowNan) {
  std::vector<std::byte> data(40 * 300, std::byte{0x38});  // 1
  data[7 * 300 + 150] = std::byte{0xFF};
  const std::vector<float> scales(3, 0.5f);
  const Quantized w{BlockType::fp8, 40, 300, data.data(), 300, scales.data(), 3, 0};
  const std::vector<float> a(20 * 300, 1.f);
  each_backend([&](const Backend& backend, const std::string& name) {
    for (const int64_t m : {1, 20}) {
      std::vector<float> c(static_cast<size_t>(m * 40));
      run(backend, {.m = m, .k = 300, .a = a.data(), .lda = 300, .c = c.data(), .ldc = 40}, {{{&w}}});
      for (size_t i = 0; i < c.size(); ++i)
        ASSERT_TRUE(i % 40 == 7 ? std::isnan(c[i]) : c[i] == 150.f) << name << ' ' << i;
    }
  });
}

TEST(WeightTest, PackedSizeIsTheFilesSize) {
  // Decoding reads the packed form once for every token.
  for (const BlockType type : types()) {
    const double file = static_cast<double>(block_row_bytes(type, 4096)) * 4096;
    const double packed = static_cast<double>(cpu::packed_weight_bytes(type, 4096, 4096));
    EXPECT_LE(packed, 1.032 * file) << block_spec(type).name;
  }
}

TEST(WeightTest, Embedding) {
  const std::vector<int32_t> ids = {3, 0, 3, 19};
  for (const BlockType type : types()) {
    const Matrix table(type, 20, 256, 61);
    std::vector<float> want(256);
    ThreadPool one(1);
    const auto check = [&](const Backend& backend) {
      std::vector<float> y(ids.size() * 260, 7.f);
      backend.embed_stored({static_cast<int64_t>(ids.size()), table.view, ids.data(), y.data(), 260});
      for (size_t r = 0; r < ids.size(); ++r) {
        dequantize_row(table.view, ids[r], want.data());
        for (size_t i = 0; i < 260; ++i) ASSERT_TRUE(same(y[r * 260 + i], i < 256 ? want[i] : 7.f)) << backend.name();
      }
    };
    check(*make_ref_backend(one));
    each_backend([&](const Backend& backend, const std::string&) { check(backend); });
  }
}

// Matrices that stay where they are, at odd addresses as files have them, against packed ones; of parts of different
// types, grouped and not. What belongs to an empty group is not even there.
TEST(WeightTest, MappedIsPacked) {
  constexpr int64_t k = 1280, gate = 75, up = 64;
  const std::vector<int32_t> offsets = {0, 1, 1, 8, 30, 30, 31, 331};
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1, rows = offsets.back(), n = gate + up;
  const std::vector<float> a = numbers(rows * k, 67), bias = numbers(n, 71);
  std::vector<BlockType> list = types();
  for (size_t t = 0; t < list.size(); ++t) {
    const BlockType kinds[] = {list[t], list[(t + 1) % list.size()]};
    std::vector<Matrix> matrices;
    std::vector<std::vector<std::byte>> odd;
    std::vector<std::vector<Quantized>> views(2);
    std::vector<Part> parts(2);
    for (size_t p = 0; p < 2; ++p)
      for (int64_t i = 0; i < groups; ++i)
        matrices.emplace_back(kinds[p], p ? up : gate, k, 73 + static_cast<uint32_t>(matrices.size()));
    for (const Matrix& m : matrices) {
      const size_t p = odd.size() / static_cast<size_t>(groups), i = odd.size() % static_cast<size_t>(groups);
      odd.emplace_back(1, std::byte{});
      odd.back().insert(odd.back().end(), m.data.begin(), m.data.end());
      parts[p].matrices.push_back(&m.view);
      views[p].push_back(m.view);
      views[p].back().data = offsets[i] < offsets[i + 1] ? odd.back().data() + 1 : nullptr;
    }
    const auto mapped = [&](const Backend& backend, WeightGemm g) {
      const WeightPart list[] = {{kinds[0], gate, nullptr, 0, views[0].data()},
                                 {kinds[1], up, nullptr, 0, views[1].data()}};
      g.parts = list;
      AlignedBytes scratch(backend.weight_gemm_scratch(g));
      g.scratch = scratch.data();
      backend.weight_gemm(g);
    };
    for (const Activations activations : kActivations)
      for (const int64_t m : {rows, int64_t{1}}) {  // all groups, or one matrix alone
        std::vector<float> want(static_cast<size_t>(m * n)), c(want.size());
        WeightGemm g{.m = m, .k = k, .a = a.data(), .lda = k, .c = want.data(), .ldc = n, .bias = bias.data()};
        g.activations = activations;
        std::vector<Part> used = parts;
        if (m == rows)
          g.batch = groups, g.offsets = offsets.data();
        else
          for (Part& p : used) p.matrices.resize(1);
        const auto check = [&](const Backend& backend, const std::string& name) {
          g.c = want.data();
          run(backend, g, used);
          std::fill(c.begin(), c.end(), 7.f);
          g.c = c.data();
          mapped(backend, g);
          ASSERT_EQ(difference(c, want, c.size()), "")
              << name << ' ' << block_spec(kinds[0]).name << ' ' << activations_name(activations) << ' ' << m;
        };
        each_backend(check);
        if (m > 1 && t > 0) continue;  // slow
        ThreadPool one(1);
        check(*make_ref_backend(one), "ref");
      }
  }
}

}  // namespace
}  // namespace ponder::kernels
