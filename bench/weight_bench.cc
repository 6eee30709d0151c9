// Products with stored weights against two limits of the machine: one row against the speed of reading memory, many rows
// against a loop of nothing but f32 multiply-adds.
//
//   weight_bench [--threads=N] [--rounds=N] [--isa=avx2] [--only=SUBSTRING] [--rows=1,8,32,512] [--activations=f32|bf16|q8] [--best] [--pack]
//
// Limits are measured in the same round as the product, so that clock changes and busy neighbours hit all alike; the
// table shows medians. Matrices are repeated until they fill kMemory, so that weights come from memory and not from a
// cache, as they do while a model decodes.
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"

namespace ponder {
namespace {

using kernels::Activations;
using kernels::Backend;
using kernels::WeightGemm;
using kernels::WeightPart;

constexpr int64_t kMemory = 192 << 20;
constexpr int kChains = 12;  // more than latency (4) x pipes (2)
constexpr int64_t kPeakSteps = 20000;

// One thread is timed by its own clock, which stops while others have the core; several by the wall's.
clockid_t g_clock = CLOCK_MONOTONIC;
double now() {
  timespec t;
  clock_gettime(g_clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

#if defined(__x86_64__)
[[gnu::target("avx512f")]] float fma_loop_avx512() {
  __m512 sum[kChains];
  for (auto& s : sum) s = _mm512_set1_ps(1.f);
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (auto& s : sum) s = _mm512_fmadd_ps(s, a, b);
  }
  for (int j = 1; j < kChains; ++j) sum[0] = _mm512_add_ps(sum[0], sum[j]);
  return _mm512_cvtss_f32(sum[0]);
}
[[gnu::target("avx2,fma")]] float fma_loop_avx2() {
  __m256 sum[kChains];
  for (auto& s : sum) s = _mm256_set1_ps(1.f);
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (auto& s : sum) s = _mm256_fmadd_ps(s, a, b);
  }
  for (int j = 1; j < kChains; ++j) sum[0] = _mm256_add_ps(sum[0], sum[j]);
  return _mm256_cvtss_f32(sum[0]);
}
[[gnu::target("avx2")]] int64_t read_bytes(const std::byte* p, int64_t bytes) {
  __m256i sum[8] = {};
  for (int64_t i = 0; i + 256 <= bytes; i += 256)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
      sum[j] = _mm256_xor_si256(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + j * 32)));
  for (int j = 1; j < 8; ++j) sum[0] = _mm256_xor_si256(sum[0], sum[j]);
  return _mm256_extract_epi64(sum[0], 0);
}
#else
int64_t read_bytes(const std::byte* p, int64_t bytes) {
  int64_t sum = 0, x;
  for (int64_t i = 0; i + 8 <= bytes; i += 8) {
    std::memcpy(&x, p + i, 8);
    sum ^= x;
  }
  return sum;
}
#endif

double fma_peak(ThreadPool& pool, const std::string& isa) {  // multiply-adds per second
  volatile float sink = 0;
  const int64_t tasks = 8 * pool.size();
  int width = 4;
  const double start = now();
  pool.run(tasks, [&](int64_t, int) {
#if defined(__x86_64__)
    sink = isa == "avx2" ? fma_loop_avx2() : fma_loop_avx512();
#endif
  });
  if (isa != "neon") width = isa == "avx2" ? 8 : 16;
  return static_cast<double>(kChains * width * kPeakSteps * tasks) / (now() - start);
}

double read_peak(ThreadPool& pool, const std::byte* memory, int64_t bytes) {  // bytes per second
  volatile int64_t sink = 0;
  const double start = now();
  pool.run_ranges(bytes, 1 << 20,
                  [&](int64_t begin, int64_t end, int) { sink = read_bytes(memory + begin, end - begin); });
  return static_cast<double>(bytes) / (now() - start);
}

template <class T>
struct Aligned {
  explicit Aligned(int64_t n)
      : data(static_cast<T*>(std::aligned_alloc(64, (static_cast<size_t>(n) * sizeof(T) / 64 + 1) * 64))) {}
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() { std::free(data); }
  T* data;
};

double pick(std::vector<double> v, bool best) {
  if (best) return *std::max_element(v.begin(), v.end());
  std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(v.size()) / 2, v.end());
  return v[v.size() / 2];
}

struct Options {
  int threads = 0, rounds = 9;
  kernels::Activations activations = kernels::Activations::q8;
  bool best = false, pack = false;
  std::string only, isa;
  std::vector<int64_t> rows = {1, 8, 32, 512};
};

struct Case {
  BlockType type;
  int64_t n, k;
};

void run_case(const Case& cs, const Backend& backend, const std::string& isa, const Options& o) {
  const auto [type, n, k] = cs;
  const std::string name = fmt::format("{} {}x{}", block_spec(type).name, n, k);
  if (name.find(o.only) == std::string::npos) return;
  ThreadPool& pool = backend.pool();
  // Any bytes do, as long as scales are numbers: f16 0x2E2E is 0.097.
  Aligned<std::byte> stored(n * block_row_bytes(type, k));
  std::memset(stored.data, 0x2E, static_cast<size_t>(n * block_row_bytes(type, k)));
  const std::vector<float> scales(static_cast<size_t>((n / kScaleBlock + 1) * (k / kScaleBlock + 1)), 0.5f);
  const Quantized w{type, n, k, stored.data, block_row_bytes(type, k), scales.data(), k / kScaleBlock, 0};
  const int64_t size = static_cast<int64_t>(backend.packed_weight_bytes(type, n, k));
  const int64_t copies = std::max<int64_t>(1, kMemory / size);
  const Aligned<std::byte> packed(size * copies);
  const double start = now();
  backend.pack_weights(w, nullptr, packed.data);
  const double packing = now() - start;
  for (int64_t i = 1; i < copies; ++i) std::memcpy(packed.data + i * size, packed.data, static_cast<size_t>(size));

  std::string line = fmt::format("{:<20}", name);
  for (const int64_t m : o.rows) {
    const Aligned<float> a(m * k), c(m * n);
    uint32_t x = 1;
    for (int64_t i = 0; i < m * k; ++i)
      a.data[i] = static_cast<float>(static_cast<int32_t>(x = x * 1664525u + 1013904223u)) * 0x1p-31f;
    WeightPart part{type, n, packed.data};
    WeightGemm g{.m = m, .k = k, .a = a.data, .lda = k, .parts = {&part, 1}, .c = c.data, .ldc = n};
    g.activations = o.activations;
    const Aligned<std::byte> scratch(static_cast<int64_t>(backend.weight_gemm_scratch(g)));
    g.scratch = scratch.data;
    int64_t copy = 0;
    const auto product = [&] {
      part.packed = packed.data + copy++ % copies * size;
      backend.weight_gemm(g);
    };
    const double products = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    const int64_t repeats =
        m == 1 ? std::max<int64_t>(1, copies / 4) : std::max<int64_t>(1, static_cast<int64_t>(8e-3 * 1e11 / products));
    std::vector<double> limits, speeds;
    product();
    for (int round = 0; round < o.rounds; ++round) {
      const double before = m == 1 ? read_peak(pool, packed.data, kMemory / 4 * 3) : fma_peak(pool, isa);
      const double begin = now();
      for (int64_t r = 0; r < repeats; ++r) product();
      const double each = (now() - begin) / static_cast<double>(repeats);
      limits.push_back(before);
      speeds.push_back((m == 1 ? static_cast<double>(size) : products) / each);
    }
    const double limit = pick(limits, o.best), speed = pick(speeds, o.best);
    if (m == 1)
      line += fmt::format("{:>7.1f} of {:>4.1f} GB/s {:>3.0f} %", speed * 1e-9, limit * 1e-9, 100 * speed / limit);
    else
      line += fmt::format("  m={}:{:>6.0f} {:>5.2f}x", m, 2e-9 * speed, speed / limit);
  }
  if (o.pack) line += fmt::format("  packing {:.2f} GB/s", static_cast<double>(size) / packing * 1e-9);
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

std::vector<Case> cases() {
  constexpr std::array types = {BlockType::bf16,   BlockType::f16,   BlockType::fp8,  BlockType::q8_0,
                                BlockType::q4_0,   BlockType::q4_1,  BlockType::q5_0, BlockType::q5_1,
                                BlockType::q4_k,   BlockType::q5_k,  BlockType::q6_k, BlockType::iq4_nl,
                                BlockType::iq4_xs, BlockType::mxfp4, BlockType::f32};
  constexpr std::array<std::array<int64_t, 2>, 3> shapes = {{{1536, 1536}, {8960, 1536}, {1536, 8960}}};
  std::vector<Case> list;
  for (const BlockType type : types)
    for (const auto& [n, k] : shapes) list.push_back({type, n, k});
  return list;
}

}  // namespace
}  // namespace ponder

int main(int argc, char** argv) {
  using namespace ponder;
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i], value = arg.substr(std::min(arg.size(), arg.find('=') + 1));
    if (arg.starts_with("--threads=")) {
      o.threads = std::stoi(value);
    } else if (arg.starts_with("--rounds=")) {
      o.rounds = std::stoi(value);
    } else if (arg.starts_with("--only=")) {
      o.only = value;
    } else if (arg.starts_with("--isa=")) {
      o.isa = value;
    } else if (arg.starts_with("--rows=")) {
      o.rows.clear();
      for (size_t at = 0; at < value.size();
           at = value.find(',', at) == std::string::npos ? value.size() : value.find(',', at) + 1)
        o.rows.push_back(std::stoll(value.substr(at)));
    } else if (arg.starts_with("--activations=")) {
      for (const auto a : {kernels::Activations::f32, kernels::Activations::bf16, kernels::Activations::q8})
        if (value == kernels::activations_name(a)) o.activations = a;
    } else if (arg == "--best") {
      o.best = true;
    } else if (arg == "--pack") {
      o.pack = true;
    } else {
      fmt::print(
          "usage: weight_bench [--threads=N] [--rounds=N] [--isa=avx2] [--only=SUBSTRING] [--rows=1,8,32,512] "
          "[--activations=f32|bf16|q8] "
          "[--best] [--pack]\n");
      return 2;
    }
  }
  ThreadPool pool(o.threads);
  if (pool.size() == 1) g_clock = CLOCK_THREAD_CPUTIME_ID;
  const auto backend = kernels::make_cpu_backend(pool, o.isa);
  if (!backend) {
    fmt::print("this CPU has no such instruction set\n");
    return 1;
  }
  const std::string isa = o.isa.empty() ? kernels::cpu_isas().front() : o.isa;
  fmt::print("{}, {} threads, {} activations; m > 1: Gop/s and multiple of f32 multiply-adds\n", backend->name(),
             pool.size(), kernels::activations_name(o.activations));
  for (const Case& c : cases()) run_case(c, *backend, isa, o);
}
