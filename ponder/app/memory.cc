#include "ponder/app/memory.h"

#include <cmath>
#include <set>

#include "ponder/base/error.h"
#include "ponder/model/attention.h"
#include "ponder/model/weights.h"

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
      const std::string whole = name.substr(0, name.size() - std::string_view(half).size()) + "kv_b_proj.weight";
      if (!names_.count(whole)) break;
      const BlockType type = stored(whole);
      const bool plain = type == BlockType::f32 || type == BlockType::f16 || type == BlockType::bf16;
      return half == model::kKbTransposed && !plain ? BlockType::f32 : type;
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
      needs.packed +=
          matrices * static_cast<int64_t>(backend.packed_weight_bytes(packed, s.shape[0] / matrices, s.shape[1]));
      const bool routed = s.name.find(".mlp.experts.") != s.name.npos;
      (routed ? needs.routed : needs.dense) += bytes;
      (routed ? needs.routed_macs : needs.dense_macs) += static_cast<double>(s.size());
    }
  return needs;
}

}  // namespace ponder::app
