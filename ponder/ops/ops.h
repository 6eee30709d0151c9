// The differentiable operations. Each one checks shapes, calls its kernel and, where there is a tape, records its
// backward, which stands beside it in the same .cc file.
//
// Shapes in names: T rows (tokens of all sequences of a batch, one below the other), D model width, F hidden width of an
// MLP, H heads, E experts, K experts per token, S = T * K slots, V vocabulary, R rows that want logits.
#pragma once

#include <cstdint>
#include <span>

#include "ponder/ops/ctx.h"
#include "ponder/ops/param.h"
#include "ponder/ops/tape.h"

namespace ponder::ops {

Tensor embed(Ctx& ctx, Param& table_VD, std::span<const int32_t> ids_T);
Tensor add(Ctx& ctx, const Tensor& a_TD, const Tensor& b_TD, Tensor into_TD = {});  // `into`: where y is wanted
Tensor gather_rows(Ctx& ctx, const Tensor& x_TD, std::span<const int32_t> rows_R);  // distinct rows
Tensor concat(Ctx& ctx, const Tensor& a_TD, const Tensor& b_TE);                    // [a | b]

// y = x W^T (+ b). W is [N, D].
Tensor linear(Ctx& ctx, const Tensor& x_TD, Param& w_ND, Param* bias_N = nullptr);

// Zhang & Sennrich 2019. Over the last `w.size()` entries: a [T, H * D] input with w [D] is normalised per head.
Tensor rms_norm(Ctx& ctx, const Tensor& x_TD, Param& w_D, float eps);
// The same, in place on some columns of a fused projection (q/k norms of Qwen3), all heads of these columns.
void rms_norm_heads(Ctx& ctx, Tensor& x_TD, Param& w_D, float eps);

// Rotary embedding tables, one row a position: rotary/2 cosines, then rotary/2 sines (already scaled: YaRN, llama3).
struct RopeTable {
  const float* cos_sin = nullptr;
  int rotary = 0;
  bool interleaved = false;
};
// Rotates `heads` heads of width x.cols() / heads in place.
void rope_heads(Ctx& ctx, Tensor& x_TD, int heads, const RopeTable& table, std::span<const int32_t> positions_T);

// SwiGLU (Shazeer 2020): silu(gate) * up of rows [gate | up].
Tensor swiglu(Ctx& ctx, const Tensor& gate_up_TF2);

// Where keys and values live: pages of the layer, and the sequences that the rows of this batch belong to.
struct KvRef {
  kernels::PageLayout layout;
  std::span<const kernels::Span> spans;
  float* pages = nullptr;
};
// Stores k and v into the pages, then attends over all that the pages hold up to each query's position.
// `v` may be the leading columns of `k` (MLA's latent). With a tape every span must be a whole sequence.
Tensor attention(Ctx& ctx, const Tensor& q, const Tensor& k, const Tensor& v, int heads, float scale, const KvRef& kv);
// The two halves of it, for inference; `out` [T, H * dv] may be columns of a wider tensor.
void store_kv(Ctx& ctx, const Tensor& k, const Tensor& v, const KvRef& kv);
void attend(Ctx& ctx, const Tensor& q, int heads, float scale, const KvRef& kv, const Tensor& out);

// Multi-head latent attention (DeepSeek-V2 section 2.1; reference equations in docs/paper-map.md).
struct MlaDims {
  int heads, nope, rope, v, lora;
};
// `k_b` and `v_b`: the Param kv_b of released checkpoints, twice; of stored weights the two halves of it, W_UK and W_UV
// of all heads, W_UK transposed per head for absorbed queries (as GGUF has it).
// [c | k^R] = [RMSNorm(c_raw) | RoPE(k_raw)]: what the cache holds, and the key that all heads share.
Tensor mla_latent(Ctx& ctx, const Tensor& kv_a, Param& norm, float eps, const MlaDims& d, const RopeTable& table,
                  std::span<const int32_t> positions);
// Absorbed form. Queries: [W_UK^T q^C | RoPE(q^R)] per head. Outputs: W_UV u per head.
Tensor mla_absorb_query(Ctx& ctx, const Tensor& q, Param& k_b, const MlaDims& d, const RopeTable& table,
                        std::span<const int32_t> positions);
Tensor mla_absorb_output(Ctx& ctx, const Tensor& u, Param& v_b, const MlaDims& d);
// Expanded form. Queries: [q^C | RoPE(q^R)]; keys [W_UK c | k^R] and values W_UV c per head.
Tensor mla_expand_query(Ctx& ctx, const Tensor& q, const MlaDims& d, const RopeTable& table,
                        std::span<const int32_t> positions);
struct KeysValues {
  Tensor k, v;
};
struct HeadRange {
  int first, count;
};
KeysValues mla_expand(Ctx& ctx, const Tensor& latent, Param& k_b, Param& v_b, const MlaDims& d, HeadRange heads);
// Attention in the expanded form over pages of latents (`kv`, stored already) for rotated queries q [T, H * (nope + rope)]:
// keys and values of all positions that the spans see are made again, of as many heads at a time as `bytes` hold (one at
// least). Inference only.
constexpr int64_t kMlaExpandedBytes = int64_t{32} << 20;
void mla_attend_latents(Ctx& ctx, const Tensor& q, Param& k_b, Param& v_b, const MlaDims& d, float scale,
                        const KvRef& kv, const Tensor& out, int64_t bytes = kMlaExpandedBytes);
int64_t mla_attend_latents_bytes(const MlaDims& d, int64_t positions);  // of memory that it takes for so many

// Mixture of experts (DeepSeek-V3 report, section 2.1.2).
struct RouterConfig {
  int experts = 0, top_k = 0, n_group = 1, topk_group = 1;
  kernels::Scoring scoring = kernels::Scoring::sigmoid;
  kernels::GroupScore group_score = kernels::GroupScore::top2_sum;
  bool normalize = true;
  float scaling = 1.f;
};
struct Routing {
  Tensor logits_TE, scores_TE, gates_TK, index_TK;  // index: i32, best first
  Tensor slot_of, place_of, offsets;                // i32: slots sorted by expert (kernels::Dispatch)
};
Routing route(Ctx& ctx, const Tensor& x_TD, Param& router_ED, const float* bias_E, const RouterConfig& config);
Tensor dispatch(Ctx& ctx, const Tensor& x_TD, const Routing& r);  // [S, D], sorted by expert
Tensor grouped_linear(Ctx& ctx, const Tensor& x_SD, Param& w_END, const Routing& r);
// Asks the disk for the chosen experts that are in the file (StoredWeights::mapped), and does not wait for them; of very
// many only for the first, which are multiplied with first.
void read_ahead(const Param& w_END, const Routing& r);
// y_t = base_t + sum_j gate_tj * x_place(t,j), j in slot order. base may be empty.
Tensor combine(Ctx& ctx, const Tensor& x_SD, const Routing& r, const Tensor& base_TD);

// Complementary sequence-wise balance loss (DeepSeek-V3 report, equations 17 to 20), per sequence of `spans`, without alpha:
// sum_i f_i P_i with f from the unbiased, ungrouped top-k. Adds `weight` * its gradient (through P) in backward.
// Returns the sum over sequences.
double balance_loss(Ctx& ctx, const Routing& r, std::span<const kernels::Span> spans, const RouterConfig& config,
                    float weight);

// log softmax(logits / temperature)[target], and the entropy of that distribution where asked for.
struct TokenLogProb {
  Tensor logp_R, entropy_R;
};
TokenLogProb token_log_prob(Ctx& ctx, const Tensor& logits_RV, std::span<const int32_t> targets_R, float temperature,
                            bool want_entropy);

}  // namespace ponder::ops
