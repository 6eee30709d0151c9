#include "ponder/app/memory.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "ponder/app/machine.h"
#include "ponder/base/error.h"
#include "ponder/base/log.h"
#include "ponder/engine/engine.h"
#include "ponder/model/attention.h"

namespace ponder::app {
namespace {

// The type of a tensor without making it: halves of kv_b are cut out of the whole (model/source.h).
class Types {
 public:
  explicit Types(const model::WeightSource& source) : source_(source) {
    for (std::string& name : source.names()) names_.insert(std::move(name));
  }
  BlockType operator()(const std::string& name) const {
    for (const char* half : {model::kVb, model::kKb, model::kKbTransposed}) {
      if (!name.ends_with(half) || names_.count(name)) continue;
      const std::string prefix = name.substr(0, name.size() - std::string_view(half).size());
      const bool cut = names_.count(prefix + "kv_b_proj.weight");  // else half is kKb, and the other way round there
      const BlockType type = stored(prefix + (cut ? "kv_b_proj.weight" : model::kKbTransposed));
      const bool plain = type == BlockType::f32 || type == BlockType::f16 || type == BlockType::bf16;
      const bool turned = !cut || half == model::kKbTransposed;
      return turned && !plain ? BlockType::f32 : type;
    }
    return stored(name);
  }

 private:
  BlockType stored(const std::string& name) const {
    const model::StoredTensor t = source_.find(name);
    if (!t.matrix.data) throw_error(Exit::data, "{}: tensor {} is missing", source_.path(), name);
    return t.matrix.type;
  }
  const model::WeightSource& source_;
  std::set<std::string> names_;
};

}  // namespace

double WeightNeeds::read(int64_t rows) const {
  if (!experts) return dense;
  const double missed = std::pow(1 - static_cast<double>(chosen) / experts, static_cast<double>(rows));
  return dense + routed * (1 - missed);
}

WeightNeeds weight_needs(const model::WeightSource& source, const kernels::Backend& backend,
                         const model::ModelOptions& options) {
  model::ModelOptions declared = options;
  declared.stored = declared.declare_only = true;
  const model::ModelConfig& c = source.config();
  const model::Model model(c, declared);
  const Types type_of(source);
  WeightNeeds needs{.experts = c.n_routed_experts, .chosen = c.num_experts_per_tok};
  for (const ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) {
      if (s.shape.size() == 1) {
        needs.packed += s.size() * int64_t{sizeof(float)};
        needs.dense += static_cast<double>(s.size()) * sizeof(float);
        continue;
      }
      const BlockType type = type_of(s.name);
      const auto bytes = static_cast<double>(s.shape[0] * block_row_bytes(type, s.shape[1]));
      if (p.looked_up) needs.table += static_cast<int64_t>(bytes);
      if (!p.multiplied) continue;
      // A slice may span several matrices (all heads of k_b).
      const int64_t matrices = std::max<int64_t>(1, s.shape[0] / p.matrices.n);
      const BlockType packed = model::multiplied_type(backend, type, s.shape[1]);
      const int64_t packed_bytes =
          matrices * static_cast<int64_t>(backend.packed_weight_bytes(packed, s.shape[0] / matrices, s.shape[1]));
      needs.packed += packed_bytes;
      if (p.for_prompts) continue;
      (p.routed ? needs.routed : needs.dense) += bytes;
      (p.routed ? needs.routed_macs : needs.dense_macs) += static_cast<double>(s.size());
      if (!p.routed) continue;
      needs.routed_packed += packed_bytes;
      if (packed != type) needs.routed_rounded.insert(block_spec(type).name);
    }
  return needs;
}

namespace {

constexpr int64_t kFloat = sizeof(float), kStepRows = engine::EngineConfig().max_step_rows;

int64_t page_bytes(const model::ModelConfig& c, const model::ModelOptions& options, const UseSize& use) {
  const int64_t pages = use.sequences * ((use.context + kernels::kPageSize) / kernels::kPageSize);
  const int64_t layers = options.mtp ? c.kv_layers() : c.num_hidden_layers;
  return pages * layers * model::page_layout(c, options.mla_form).page_floats() * kFloat;
}

// Floats of one row that a layer has at once: what Block::forward and its parts make.
int64_t layer_floats(const model::ModelConfig& c, model::MlaForm form, bool moe) {
  const int64_t d = c.hidden_size, heads = c.num_attention_heads;
  int64_t n = 6 * d;  // in and out, both norms, the attention's output and the sum
  if (c.mla()) {
    const int64_t rope = c.qk_rope_head_dim, nope = c.qk_nope_head_dim, lora = c.kv_lora_rank, v = c.v_head_dim;
    n += 2 * c.q_lora_rank + heads * (nope + rope) + 2 * (lora + rope) + heads * v;
    const int64_t absorbed = heads * (2 * lora + rope), expanded = heads * (2 * nope + rope + v);
    n += form == model::MlaForm::absorbed   ? absorbed
         : form == model::MlaForm::expanded ? expanded
                                            : std::max(absorbed, heads * (nope + rope + v));
  } else {
    n += (2 * heads + 2 * c.num_key_value_heads) * c.head_width();
  }
  if (!moe) return n + 3 * int64_t{c.intermediate_size} + d;
  const int64_t f = c.moe_intermediate_size, k = c.num_experts_per_tok;
  return n + 2 * c.n_routed_experts + k * (2 * d + 3 * f) + 3 * f * c.n_shared_experts + 2 * d;
}

// Room that a checkpoint of other types would leave.
struct Smaller {
  const char* type;
  double bits;  // of a weight
};
constexpr Smaller kSmaller[] = {{"q8_0", 8.5}, {"q6_k", 6.6}, {"q4_k_m", 4.9}};

std::string gib(int64_t bytes) { return format_bytes(static_cast<uint64_t>(std::max<int64_t>(bytes, 0))); }

}  // namespace

MemoryNeeds memory_needs(const model::WeightSource& source, const kernels::Backend& backend,
                         const model::ModelOptions& options, const UseSize& use, int64_t room) {
  const model::ModelConfig& c = source.config();
  MemoryNeeds needs;
  if (options.stored) {
    WeightNeeds weights = weight_needs(source, backend, options);
    needs.experts = std::min(weights.routed_packed, room);
    needs.weights = weights.packed - weights.routed_packed + needs.experts;
    needs.rounded_experts = std::move(weights.routed_rounded);
  } else {
    model::ModelOptions declared = options;
    declared.declare_only = true;
    needs.weights = model::Model(c, declared).params().count() * kFloat * (options.gradients ? 2 : 1);
  }
  needs.pages = page_bytes(c, options, use);
  const int64_t rows = std::min(kStepRows, use.context * use.sequences);
  int64_t widest = 0;
  for (int layer = 0; layer < c.num_hidden_layers; ++layer)
    widest = std::max(widest, layer_floats(c, options.mla_form, c.moe_layer(layer)));
  const int64_t head = (std::min(use.sequences, rows) + 2 * backend.pool().size()) * c.vocab_size;
  needs.scratch = (rows * widest + head) * kFloat;
  if (c.mla() && options.mla_form == model::MlaForm::by_token)  // a step's prompts are those of one or two sequences
    needs.scratch += ops::mla_attend_latents_bytes(
        {c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, c.kv_lora_rank},
        use.context * std::min<int64_t>(use.sequences, 2));
  needs.program = (int64_t{24} << 20) + int64_t{256} * c.vocab_size;
  return needs;
}

std::string what_would_fit(const model::WeightSource& source, const MemoryNeeds& needs, const UseSize& use,
                           int64_t available) {
  std::vector<std::string> advice;
  const int64_t rest = available - (needs.total() - needs.pages);
  if (rest > 0 && needs.pages > 0) {
    const auto share = static_cast<double>(rest) / static_cast<double>(needs.pages);
    const auto tokens =
        static_cast<int64_t>(share * static_cast<double>(use.context)) / kernels::kPageSize * kernels::kPageSize;
    if (const auto fewer = static_cast<int64_t>(share * static_cast<double>(use.sequences));
        fewer > 0 && fewer < use.sequences)
      advice.push_back(fmt::format("{} sequences", fewer));
    if (tokens > 0) advice.push_back(fmt::format("a context of {}", format_grouped(tokens)));
  }
  const auto params =
      static_cast<double>(model::Model(source.config(), model::ModelOptions{.declare_only = true}).params().count());
  const int64_t others = needs.total() - needs.weights;
  for (const Smaller& s : kSmaller) {
    const auto bytes = static_cast<int64_t>(params * s.bits / 8);
    if (bytes >= needs.weights || bytes + others > available) continue;
    advice.push_back(fmt::format("the weights as {} ({}; `ponder quantize`)", s.type, gib(bytes)));
    break;
  }
  MemoryNeeds pageable = needs;
  pageable.rounded_experts.clear();
  if (room_for_experts(needs, available))
    advice.push_back(
        "experts left in the file (`--allow-paging` of chat, generate, score, compare and bench; `ponder fit` says how "
        "fast)");
  else if (room_for_experts(pageable, available))
    advice.push_back(
        fmt::format("`--allow-paging` after `ponder convert --type q4_k_m`: experts in {} cannot stay in the "
                    "file, since there are no kernels for that",
                    fmt::join(needs.rounded_experts, ", ")));
  if (advice.empty()) return fmt::format("nothing of this model fits; a machine with {} would do", gib(needs.total()));
  return fmt::format("what would fit: {}", fmt::join(advice, ", or "));
}

std::optional<int64_t> room_for_experts(const MemoryNeeds& needs, int64_t available) {
  const int64_t room = available - available / 8 - (needs.total() - needs.experts);
  if (needs.experts == 0 || !needs.rounded_experts.empty() || room < 0) return std::nullopt;
  return std::min(room, needs.experts);
}

int64_t check_memory(const model::WeightSource& source, const kernels::Backend& backend,
                     const model::ModelOptions& options, bool allow_paging, int64_t available) {
  const UseSize least{.context = kernels::kPageSize, .sequences = 1};
  const MemoryNeeds needs = memory_needs(source, backend, options, least);
  if (needs.total() <= available) return model::kAllExperts;
  if (allow_paging && room_for_experts(needs, available)) {
    const UseSize usual{.context = std::min<int64_t>(UseSize().context, source.config().max_position_embeddings)};
    return room_for_experts(memory_needs(source, backend, options, usual), available).value_or(0);
  }
  throw_error(Exit::resources, "{}: it needs {} of memory ({} of them weights), {} are available: {} are missing; {}",
              source.path(), gib(needs.total()), gib(needs.weights), gib(available), gib(needs.total() - available),
              what_would_fit(source, needs, least, available));
}

}  // namespace ponder::app
