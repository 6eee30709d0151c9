// The one door to a device: every kernel that ops, the sampler and the optimizer call.
//
// `ref/` defines each kernel in plain scalar loops; `cpu/` gives the same bits fast (Highway, AVX2 and AVX-512 chosen
// at run time). A kernel takes one struct of named views, allocates nothing, trusts its arguments (ops checked the
// shapes) and is noexcept. All matrices are row-major f32; `ld` is the distance between rows in elements.
//
// The rules that make bits equal (docs/numerics.md):
//  R1  A *dot* over k is cut into blocks of kDotBlock; each block is a chain s = fma(a, b, s) from +0 in ascending k;
//      the block sums are added in order to the start value (0, or the old output where `accumulate`).
//  R2  A *row sum* (norms, softmax) uses kLanes interleaved sums: lane i adds elements i, i + 16, i + 32 ... in order
//      from +0; then lanes are folded in halves: x[i] += x[i + 8] (i < 8), x[i] += x[i + 4] (i < 4), ... down to one.
//      `sum of a*b` uses fma in the lanes. Missing elements of the last group add nothing.
//  R3  exp, log and friends are the functions of kernels/math.h (the same polynomial in scalar and SIMD form).
//  R4  Everything else is one IEEE operation after the other, in the order written in ref/. The bits (payload, sign) of
//      a NaN are nobody's promise.
// SIMD lanes and threads run across outputs, so vector width, tiling, batch and thread count cannot matter.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ponder/base/threads.h"
#include "ponder/tensor/quantized.h"
#include "ponder/tensor/tensor.h"

namespace ponder::kernels {

constexpr int kDotBlock = 128;
constexpr int kLanes = 16;
constexpr int kPageSize = 64;  // positions in a page of the key/value cache

// ---- gemm -----------------------------------------------------------------------------------------------------------
// nt: C[m,n] = sum_k A[m,k] B[n,k]   (linear forward; B may be packed)
// nn: C[m,n] = sum_k A[m,k] B[k,n]   (input gradient)
// tn: C[m,n] = sum_k A[k,m] B[k,n]   (weight gradient)
enum class Layout { nt, nn, tn };

struct Gemm {
  Layout layout;
  int64_t m, n, k;
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  const float* packed_b = nullptr;  // nt: B as pack_nt wrote it; b may then be null
  const float* bias = nullptr;      // nt: [n], added last: C = (sum) + bias
  bool accumulate = false;          // C += ... instead of C = ...
  // `batch` products of one shape: operands of product i at + i * stride (packed_b at + i * packed_size(n, k)).
  int64_t batch = 1, a_stride = 0, b_stride = 0, c_stride = 0;
  // Grouped products (experts): rows of A are sorted by group; group g owns rows offsets[g] .. offsets[g + 1], and
  // `batch` is the number of groups. nt, nn: those rows times B_g, m is ignored, a_stride and c_stride are 0.
  // tn: k runs over those rows of A and of B, k is ignored, C_g at + g * c_stride; an empty group gives 0 (or C_g).
  const int32_t* offsets = nullptr;
};

// ---- products with stored weights --------------------------------------------------------------------------------------
// C[m, n] = sum_k A[m, k] W[n, k] (+ bias), W in the type its file has, repacked once by `pack_weights`.
//
// What activations are rounded to is an explicit choice, the same for every row whatever the batch:
//   f32   W is expanded exactly (dequantize_row), then rule R1.
//   bf16  A is rounded to bf16 (nearest even) first. Where W is BF16, too, the dot is one of pairs: R1 with blocks of
//         kPairBlock, but of the two numbers 2 i and 2 i + 1 the odd one is added first, and subnormals count as zero
//         everywhere, as inputs and as results (after rounding). This is what AVX-512's bf16 instruction computes.
//   q8    for block types: every row of A is cut into blocks of 32 numbers (types with blocks of 32) or 256 (K types,
//         IQ4_XS), a = amax / 127, codes q = nearest even of x * (1 / a); all q are 0 where 1 / a is 0 or not finite, so
//         that zeros stay zeros and a NaN or an infinity makes the row's results NaN. Let a sub-block be the numbers
//         that share a scale s and, where the type has one, a minimum z: w_i = s * c_i - z, c_i whole, s and z the
//         exact f32 products of the block's scales. Then, sub-blocks in order:
//           t = fma(s, float(sum c_i q_i), t) from +0;   t = fma(-z, float(sum q_i), t)      within a block of A
//           y = fma(a, t, y) from +0                                                          over the blocks of A
//         The sums of integers are exact, so any order inside a sub-block gives the same bits. Types without blocks
//         (F32, F16, BF16, FP8) take f32.
enum class Activations : uint8_t { f32, bf16, q8 };
const char* activations_name(Activations a);
constexpr int kPairBlock = 512;
inline bool is_pair_product(BlockType weights, Activations a) {
  return weights == BlockType::bf16 && a == Activations::bf16;
}

// The packed form of one matrix [n, k] (64-byte aligned), or of `batch` of them `stride` bytes apart. Or, where `mapped`
// is given, the matrices themselves, which a product packs a few rows at a time while it runs: the same bits, for weights
// that stay in a file larger than memory. A matrix without rows of A (an empty group) is not touched.
struct WeightPart {
  BlockType type;
  int64_t n;
  const std::byte* packed;
  int64_t stride = 0;
  const Quantized* mapped = nullptr;  // [batch]
};
struct WeightGemm {
  int64_t m, k;  // grouped: m is offsets[batch], or more when asking for weight_gemm_scratch
  const float* a;
  int64_t lda;
  std::span<const WeightPart> parts;  // side by side in C: their n add up to its columns
  float* c;
  int64_t ldc;
  const float* bias = nullptr;  // [columns of C]
  Activations activations = Activations::f32;
  int64_t batch = 1, a_stride = 0, c_stride = 0;  // as in Gemm; a_stride 0: all matrices have the same A
  const int32_t* offsets = nullptr;               // grouped (experts), as in Gemm; from offsets[0] = 0
  std::byte* scratch = nullptr;                   // weight_gemm_scratch() bytes, 64-byte aligned
};
struct EmbedStored {  // y[r] = row ids[r] of the table, expanded exactly
  int64_t rows;
  Quantized table;  // as the file has it
  const int32_t* ids;
  float* y;
  int64_t ldy;
};

// ---- norms and pointwise --------------------------------------------------------------------------------------------
struct RmsNorm {  // y = x * inv * w,  inv = 1 / sqrt(sum(x^2) / d + eps)      ((x * inv) * w)
  int64_t rows, d;
  const float* x;
  int64_t ldx;
  const float* w;
  float eps;
  float* y;
  int64_t ldy;
  float* inv;  // [rows] saved for backward; may be null
};
struct RmsNormGrad {  // dx = (g - xn * (sum(g * xn) / d)) * inv, g = dy * w, xn = x * inv;  dw = sum_rows dy * xn (R1)
  int64_t rows, d;
  const float* x;
  int64_t ldx;
  const float* w;
  const float* inv;
  const float* dy;
  int64_t lddy;
  float* dx;
  int64_t lddx;
  bool accumulate_dx;
  float* dw;       // [d], accumulated; may be null
  float* scratch;  // [ceil(rows / kDotBlock), d] where dw is wanted
};
// Rotates the first `rotary` entries of each head; pairs (2i, 2i+1) if interleaved, else (i, i + rotary/2).
struct Rope {
  int64_t rows, heads, rotary;
  const float* x;  // head h of row r at x + r * ldx + h * head_stride
  int64_t ldx, head_stride;
  float* y;  // may equal x (in place); only the rotated entries are written
  int64_t ldy, y_head_stride;
  const int32_t* positions;  // [rows]
  const float* cos_sin;      // [max_position, rotary]: rotary/2 cosines, then rotary/2 sines
  bool interleaved;
  bool inverse;     // rotate by -angle (backward)
  bool accumulate;  // y += instead of y =
};
struct SwiGlu {  // h = silu(gate) * up, gate_up = [gate | up] in each row;  silu(g) = g * sigmoid(g)
  int64_t rows, f;
  const float* gate_up;
  int64_t ldg;
  float* h;
  int64_t ldh;
};
struct SwiGluGrad {  // dgate = dh * up * s * (1 + g * (1 - s)), dup = dh * silu(g)
  int64_t rows, f;
  const float* gate_up;
  int64_t ldg;
  const float* dh;
  int64_t lddh;
  float* dgate_up;
  int64_t lddg;
};
struct Add {  // y = a + b  (y may be a or b)
  int64_t rows, d;
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* y;
  int64_t ldy;
};
struct Embed {  // y[r] = table[ids[r]]
  int64_t rows, d;
  const float* table;
  const int32_t* ids;
  float* y;
  int64_t ldy;
};
struct EmbedGrad {  // dtable[ids[r]] += dy[r], r ascending
  int64_t rows, d, vocab;
  const int32_t* ids;
  const float* dy;
  int64_t lddy;
  float* dtable;
};
struct GatherRows {  // y[r] = x[index[r]]
  int64_t rows, d;
  const float* x;
  int64_t ldx;
  const int32_t* index;
  float* y;
  int64_t ldy;
};
struct ScatterRows {  // y[index[r]] += x[r]; the indices are distinct
  int64_t rows, d;
  const float* x;
  int64_t ldx;
  const int32_t* index;
  float* y;
  int64_t ldy;
};
struct ColumnSum {  // y[d] += sum_rows x (R1 with b = 1: s = s + x within a block)
  int64_t rows, d;
  const float* x;
  int64_t ldx;
  float* y;
  float* scratch;  // [ceil(rows / kDotBlock), d]
};

// ---- attention ------------------------------------------------------------------------------------------------------
// Pages hold, for each kv head: keys transposed [dk][kPageSize], then values [kPageSize][dv].
// `values_in_keys`: the value is the first dv entries of the key (MLA's latent); pages then hold both forms of it.
struct PageLayout {
  int kv_heads, dk, dv;
  int64_t head_floats() const { return int64_t{kPageSize} * (dk + dv); }
  int64_t page_floats() const { return kv_heads * head_floats(); }
};
// `count` consecutive queries (or new keys) of one sequence: rows [row, row + count), positions [position, ...).
// pages[i] is the page of positions 64 i .. 64 i + 63.
struct Span {
  int32_t row, count, position;
  const int32_t* pages;
};
struct StoreKv {  // writes rows of k and v into the pages at their positions
  PageLayout layout;
  std::span<const Span> spans;
  const float* k;  // kv head h of row r at k + r * ldk + h * dk
  int64_t ldk;
  const float* v;  // likewise with dv
  int64_t ldv;
  float* pages;  // page p at pages + p * layout.page_floats()
};
// One online softmax per query and head, pages in order (Milakov & Gimelshein 2018). Per page, over its visible keys:
//   s_j = (q . k_j) * scale (R1);  m' = max(m, max_j s_j);  p_j = exp(s_j - m');  a = exp(m - m'), 0 on the first page
//   l = fma(l, a, sum_j p_j) (R2);   o = fma(o, a, sum_j p_j v_j) (a chain of fma over j from +0)
// at the end o * (1 / l) and lse = m + log(l).
struct Attention {
  PageLayout layout;
  int heads;
  float scale;
  std::span<const Span> spans;
  const float* q;  // head h of row r at q + r * ldq + h * dk
  int64_t ldq;
  const float* pages;
  float* out;  // head h of row r at out + r * ldo + h * dv
  int64_t ldo;
  float* lse;  // [rows, heads]; may be null
};
// Gradient of the above where each span is a whole sequence (position 0) whose keys and values are rows of this batch.
//   p = exp(s - lse);  delta = sum(dout * out) (R2 over dv);  dp = dout . v (R1);  ds = p * (dp - delta) * scale
//   dq = sum_j ds_j k_j: per page a chain over j from +0, pages added in order.
//   dk_j = sum ds q, dv_j = sum p dout: query pages of 64 in order, heads of the kv group inside; per (page, head) a
//   chain over the queries that see the key, from +0, added in that order; dk before dv, should they share memory.
struct AttentionGrad {
  PageLayout layout;
  int heads;
  float scale;
  std::span<const Span> spans;
  const float *q, *k, *v, *out, *dout, *lse;
  int64_t ldq, ldk, ldv, ldo, lddo;
  float *dq, *dk, *dv;  // written (dq), accumulated (dk, dv); with values in keys dv points into dk's rows
  int64_t lddq, lddk, lddv;
};

// ---- mixture of experts ---------------------------------------------------------------------------------------------
enum class Scoring { sigmoid, softmax };
enum class GroupScore { top2_sum, max };  // V3 (noaux_tc), V2 (group_limited_greedy)
struct Route {  // DeepSeek-V3 report, section 2.1.2; reference order of choice: higher first, ties to the lower index
  int64_t rows;
  int experts, top_k, n_group, topk_group;  // at most 64 groups
  Scoring scoring;
  GroupScore group_score;
  bool normalize;       // gates divided by (their sum + 1e-20)
  float scaling;        // routed_scaling_factor, applied last
  const float* logits;  // [rows, experts]
  const float* bias;    // [experts] for the choice only; may be null
  float* scores;        // [rows, experts] sigmoid or softmax, saved
  int32_t* index;       // [rows, top_k], best first
  float* gates;         // [rows, top_k]
};
struct RouteGrad {
  int64_t rows;
  int experts, top_k;
  Scoring scoring;
  bool normalize;
  float scaling;
  const float* scores;
  const int32_t* index;
  const float* gates;
  const float* dgates;
  float* dlogits;  // [rows, experts], written
};
// Sorts the rows x top_k slots by expert (stable): slot_of[i] is the slot (row * top_k + j) at sorted place i,
// place_of[slot] its inverse, offsets[experts + 1] the bounds. Integers only.
struct Dispatch {
  int64_t rows;
  int experts, top_k;
  const int32_t* index;
  int32_t *slot_of, *place_of, *offsets;
};
struct Combine {  // y[r] = base[r] + sum_j gates[r, j] * x[place_of[r, j]]   (fma, j ascending, start value base)
  int64_t rows, d;
  int top_k;
  const float* x;  // [rows * top_k, d] sorted by expert
  const float* gates;
  const int32_t* place_of;
  const float* base;  // may be null (0)
  int64_t ldb;
  float* y;
  int64_t ldy;
};
struct CombineGrad {  // dx[place] = gate * dy[r];  dgates[r, j] = sum(dy[r] * x[place]) (R2)
  int64_t rows, d;
  int top_k;
  const float *x, *gates, *dy;
  int64_t lddy;
  const int32_t* place_of;
  float* dx;
  float* dgates;
};

// ---- loss and sampling ----------------------------------------------------------------------------------------------
// z = logits * inv_temperature; logp = (z[target] - max) - log(sum exp(z - max)) (R2).
// entropy = log(sum) - sum(e (z - max)) / sum (R2), e = exp(z - max), where e = 0 contributes nothing.
struct LogProb {
  int64_t rows, vocab;
  const float* logits;
  int64_t ldl;
  float inv_temperature;
  const int32_t* targets;  // [rows]
  float* logp;             // [rows]
  float* max;              // [rows]    saved for backward
  float* log_sum;          // [rows]
  float* entropy;          // [rows]; may be null
};
// dlogits = inv_temperature * (dlogp * (onehot - p) - dentropy * p * (log p + entropy)), log p = (z - max) - log_sum
struct LogProbGrad {
  int64_t rows, vocab;
  const float* logits;
  int64_t ldl;
  float inv_temperature;
  const int32_t* targets;
  const float *max, *log_sum, *entropy;  // entropy only where dentropy is given
  const float* dlogp;
  const float* dentropy;  // may be null
  float* dlogits;         // may be logits itself
  int64_t lddl;
};
// The token is the arg-max over allowed ids of z + gumbel(seed, position, id) (Gumbel 1954), ties to the lowest id;
// greedy (temperature 0) the arg-max of the logits. gumbel = -log(-log(u)), u = fma(float(w >> 9), 2^-23, 2^-24), which
// is exact and never 0 or 1 (with 24 bits, one draw in 2^24 would round to 1: infinite noise),
// w = philox(seed, position, id / 4)[id % 4].
// top_k, top_p, min_p cut the distribution first (sample_cut.h; ties at the border are kept).
struct SampleRow {
  float temperature = 1.f, top_p = 1.f, min_p = 0.f;
  int32_t top_k = 0;
  uint64_t seed = 0;
  int64_t position = 0;  // absolute position that the new token will have
};
struct Sample {
  int64_t rows, vocab;
  const float* logits;
  int64_t ldl;
  const SampleRow* params;  // [rows]
  int32_t* tokens;          // [rows]
  float* logp;              // [rows] log-prob of the token under softmax(logits / T), before any cut (T = 1 if greedy)
  float* entropy;           // [rows]; may be null
  float* scratch;           // [threads, 2 * vocab] for rows that cut
};

// ---- optimizer ------------------------------------------------------------------------------------------------------
struct AdamW {  // Loshchilov & Hutter 2019, as PyTorch: p *= 1 - lr wd; p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)
  int64_t n;
  float *p, *m, *v;
  const float* g;
  float grad_scale;  // clipping
  float lr, beta1, beta2, eps, weight_decay;
  double correction1, correction2;  // 1 - beta^t
};
// Sum of x^2 in f64: chunks of 4096 (each R2 in f64 over 16 lanes), added in order; non-finite carries through.
struct SumSquares {
  int64_t n;
  const float* x;
  double* out;
  double* scratch;  // [ceil(n / 4096)]
};

class Backend {
 public:
  explicit Backend(ThreadPool& pool) : pool_(pool) {}
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // "ref", "cpu/avx2", "cpu/avx512"

  // Floats that pack_nt writes for an [n, k] matrix; 0: this backend does not pack.
  virtual int64_t packed_size(int64_t n, int64_t k) const = 0;
  virtual void pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed) const noexcept = 0;

  virtual void gemm(const Gemm&) const noexcept = 0;

  // Types that weight_gemm takes; every other type is expanded by the loader to the nearest of these.
  virtual bool multiplies(BlockType type) const = 0;
  // Bytes of the packed form of [n, k] (a multiple of 64, within 3.2 % of the file's for whole panels of 32 rows), and
  // making it: row i of the packed matrix is row `order[i]` of W (null: as they stand). FP8: scales below 2^120. Packing may run on several threads for different matrices at once.
  virtual size_t packed_weight_bytes(BlockType type, int64_t n, int64_t k) const = 0;
  virtual void pack_weights(const Quantized& w, const int32_t* order, std::byte* packed) const noexcept = 0;
  // Needs m, k, parts' types and whether they are mapped, activations, batch, a_stride and whether there are offsets;
  // grows with m.
  virtual size_t weight_gemm_scratch(const WeightGemm&) const = 0;
  virtual void weight_gemm(const WeightGemm&) const noexcept = 0;
  virtual void embed_stored(const EmbedStored&) const noexcept = 0;

  virtual void rms_norm(const RmsNorm&) const noexcept = 0;
  virtual void rms_norm_grad(const RmsNormGrad&) const noexcept = 0;
  virtual void rope(const Rope&) const noexcept = 0;
  virtual void swiglu(const SwiGlu&) const noexcept = 0;
  virtual void swiglu_grad(const SwiGluGrad&) const noexcept = 0;
  virtual void add(const Add&) const noexcept = 0;
  virtual void embed(const Embed&) const noexcept = 0;
  virtual void embed_grad(const EmbedGrad&) const noexcept = 0;
  virtual void gather_rows(const GatherRows&) const noexcept = 0;
  virtual void scatter_rows(const ScatterRows&) const noexcept = 0;
  virtual void column_sum(const ColumnSum&) const noexcept = 0;
  virtual void store_kv(const StoreKv&) const noexcept = 0;
  virtual void attention(const Attention&) const noexcept = 0;
  virtual void attention_grad(const AttentionGrad&) const noexcept = 0;
  virtual void route(const Route&) const noexcept = 0;
  virtual void route_grad(const RouteGrad&) const noexcept = 0;
  virtual void dispatch(const Dispatch&) const noexcept = 0;
  virtual void combine(const Combine&) const noexcept = 0;
  virtual void combine_grad(const CombineGrad&) const noexcept = 0;
  virtual void log_prob(const LogProb&) const noexcept = 0;
  virtual void log_prob_grad(const LogProbGrad&) const noexcept = 0;
  virtual void sample(const Sample&) const noexcept = 0;
  virtual void adamw(const AdamW&) const noexcept = 0;
  virtual void sum_squares(const SumSquares&) const noexcept = 0;

  ThreadPool& pool() const { return pool_; }

 protected:
  ThreadPool& pool_;
};

// The definition, in plain loops (one thread).
std::unique_ptr<Backend> make_ref_backend(ThreadPool& pool);
// The fast one. `isa`: "" the best that this CPU has, or "avx2", "avx512", "neon"; null where it has none (no FMA).
std::unique_ptr<Backend> make_cpu_backend(ThreadPool& pool, const std::string& isa = "");
std::vector<std::string> cpu_isas();  // those that this build holds and this CPU runs, best first
// cpu where there is one, else ref.
std::unique_ptr<Backend> make_best_backend(ThreadPool& pool);

}  // namespace ponder::kernels
