#include "ponder/model/weights.h"

#include <cstring>
#include <set>
#include <vector>

#include "ponder/base/file.h"

namespace ponder::model {
namespace {

bool has_shape(const TensorEntry& e, const std::vector<int64_t>& shape) {
  if (e.rank != static_cast<int>(shape.size())) return false;
  for (int i = 0; i < e.rank; ++i)
    if (e.dim[i] != shape[static_cast<size_t>(i)]) return false;
  return true;
}

// The layer of "model.layers.N. ..."; -1 for other names.
int layer_of(const std::string& name) {
  constexpr std::string_view prefix = "model.layers.";
  if (name.compare(0, prefix.size(), prefix) != 0) return -1;
  int layer = 0;
  for (size_t i = prefix.size(); i < name.size() && name[i] != '.'; ++i) {
    if (name[i] < '0' || name[i] > '9' || layer > 100000) return -1;
    layer = layer * 10 + (name[i] - '0');
  }
  return layer;
}

bool ends_with(const std::string& s, std::string_view end) {
  return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}

// Released MTP layers repeat the embedding and the head; here they are shared.
const char* duplicate_of(const std::string& name) {
  if (layer_of(name) < 0) return nullptr;
  if (ends_with(name, ".embed_tokens.weight")) return "model.embed_tokens.weight";
  if (ends_with(name, ".shared_head.head.weight")) return "lm_head.weight";
  return nullptr;
}

}  // namespace

void load_weights(Model& model, const Checkpoint& checkpoint) {
  std::set<std::string> known;
  for (ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) {
      known.insert(s.name);
      const TensorEntry* e = checkpoint.find(s.name);
      if (!e) throw_error(Exit::data, "{}: tensor {} is missing", checkpoint.path(), s.name);
      if (!has_shape(*e, s.shape)) {
        std::string expected;
        for (int64_t d : s.shape) expected += fmt::format("{}{}", expected.empty() ? "" : ", ", d);
        throw_error(Exit::data, "{}: tensor {} has shape {}, but config.json asks for [{}]", checkpoint.path(), s.name,
                    e->shape_string(), expected);
      }
      read_f32(*e, p.value.f32() + s.offset);
    }
  for (const TensorEntry* e : checkpoint.entries()) {
    if (known.count(e->name) || ends_with(e->name, "rotary_emb.inv_freq")) continue;
    if (layer_of(e->name) >= model.kv_layers()) continue;  // MTP modules that were left out
    if (model.config().tie_word_embeddings && e->name == "lm_head.weight") continue;
    if (const char* original = duplicate_of(e->name)) {
      const TensorEntry* o = checkpoint.find(original);
      if (!o && model.config().tie_word_embeddings) o = checkpoint.find("model.embed_tokens.weight");
      if (!o || o->bytes.size() != e->bytes.size() ||
          std::memcmp(o->bytes.data(), e->bytes.data(), o->bytes.size()) != 0)
        throw_error(Exit::data, "{}: tensor {} differs from {}, which MTP modules share", checkpoint.path(), e->name,
                    original);
      continue;
    }
    throw_error(Exit::data, "{}: tensor {} does not belong to this {} (check config.json)", checkpoint.path(), e->name,
                model.config().model_type);
  }
  model.params().bump_version();
}

std::unique_ptr<Model> load_model(const std::string& folder, const ModelOptions& options) {
  const std::string path = folder + "/config.json";
  auto model = std::make_unique<Model>(parse_config_json(read_file(path, size_t{16} << 20), path), options);
  load_weights(*model, Checkpoint::open(folder));
  return model;
}

void save_model(const Model& model, const std::string& folder, DType stored) {
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, const ops::Param& p, const ops::Slice& s) {
    Tensor t = s.shape.size() == 1 ? make_tensor(p.value.f32() + s.offset, {s.shape[0]})
                                   : make_tensor(p.value.f32() + s.offset, {s.shape[0], s.shape[1]});
    tensors.push_back({name, t, ends_with(name, "e_score_correction_bias") ? DType::f32 : stored});
  };
  const ops::Param *embedding = nullptr, *head = nullptr;
  for (const ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) {
      add(s.name, p, s);
      if (s.name == "model.embed_tokens.weight") embedding = &p;
      if (s.name == "lm_head.weight") head = &p;
    }
  for (int k = 0; k < model.mtp_modules(); ++k) {  // as released
    const std::string prefix = fmt::format("model.layers.{}.", model.config().num_hidden_layers + k);
    add(prefix + "embed_tokens.weight", *embedding, embedding->slices[0]);
    const ops::Param& h = head ? *head : *embedding;
    add(prefix + "shared_head.head.weight", h, h.slices[0]);
  }
  write_checkpoint(folder, tensors, {{"format", "pt"}});
  write_file_atomic(folder + "/config.json", config_json(model.config()));
}

}  // namespace ponder::model
