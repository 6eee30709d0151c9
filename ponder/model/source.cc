#include "ponder/model/source.h"

#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/log.h"
#include "ponder/model/attention.h"
#include "ponder/model/gguf_names.h"
#include "ponder/tensor/tensor_file.h"
#include "ponder/tensor/tensor_io.h"

namespace ponder::model {

int layer_of(std::string_view name) {
  constexpr std::string_view prefix = "model.layers.";
  if (!name.starts_with(prefix)) return -1;
  int layer = 0;
  for (size_t i = prefix.size(); i < name.size() && name[i] != '.'; ++i) {
    if (name[i] < '0' || name[i] > '9' || layer > 100000) return -1;
    layer = layer * 10 + (name[i] - '0');
  }
  return layer;
}

void StoredTensor::read_f32(float* out) const {
  const int64_t rows = shape.size() == 1 ? 1 : shape[0];
  for (int64_t i = 0; i < rows; ++i) read_row(i, out + i * matrix.cols);
}

namespace {

class SafetensorsSource final : public WeightSource {
 public:
  SafetensorsSource(const std::string& folder, const ModelConfig& config) : checkpoint_(Checkpoint::open(folder)) {
    config_ = config;
  }
  const std::string& path() const override { return checkpoint_.path(); }
  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    for (const TensorEntry* e : checkpoint_.entries())
      if (!e->name.ends_with("_scale_inv")) out.push_back(e->name);
    return out;
  }
  int64_t bytes() const override {
    int64_t n = 0;
    for (const TensorEntry* e : checkpoint_.entries()) n += static_cast<int64_t>(e->bytes.size());
    return n;
  }

 protected:
  StoredTensor find_stored(const std::string& name) const override {
    const TensorEntry* e = checkpoint_.find(name);
    if (!e) return {};
    StoredTensor t;
    t.shape.assign(e->dim, e->dim + e->rank);
    if (e->rank == 2) {
      t.matrix = checkpoint_.matrix(name);
      return t;
    }
    const auto type = block_type(e->dtype);
    if (!type || *type == BlockType::fp8 || e->rank > 1)
      throw_error(Exit::data, "{}: tensor {} is {} of shape {}; vectors are F32, F16 or BF16", path(), name,
                  stored_type_name(e->dtype), e->shape_string());
    t.shape = {e->size()};
    t.matrix = {.type = *type,
                .rows = 1,
                .cols = e->size(),
                .data = e->bytes.data(),
                .row_bytes = block_row_bytes(*type, e->size())};
    return t;
  }

 private:
  Checkpoint checkpoint_;
};

class GgufSource final : public WeightSource {
 public:
  explicit GgufSource(const std::string& path) : file_(GgufFile::open(path)) {
    config_ = config_from_gguf(file_);
    check_tensors();
  }
  const std::string& path() const override { return file_.path(); }
  const GgufFile* gguf() const override { return &file_; }
  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    for (const GgufTensor& t : file_.tensors()) {
      const int copies = is_expert_stack(t.name) ? config_.n_routed_experts : 1;
      for (int e = 0; e < copies; ++e)
        if (const auto name = released_name(t.name, e)) out.push_back(*name);
    }
    return out;
  }
  int64_t bytes() const override {
    int64_t n = 0;
    for (const GgufTensor& t : file_.tensors()) n += t.bytes;
    return n;
  }

 protected:
  StoredTensor find_stored(const std::string& name) const override {
    const auto place = gguf_place(name);
    const GgufTensor* g = place ? file_.find(place->name) : nullptr;
    if (!g) return {};
    StoredTensor t;
    t.matrix = g->matrix();
    if (place->expert >= 0) {
      const int64_t rows = g->rank == 3 ? g->dim[1] : 0;
      if (rows == 0 || (place->expert + 1) * rows > t.matrix.rows)
        throw_error(Exit::data, "{}: tensor {} has shape {}, expected the matrices of {} experts", path(), g->name,
                    g->shape_string(), config_.n_routed_experts);
      t.matrix = t.matrix.row_range(place->expert * rows, rows);
    }
    if (g->rank == 1)
      t.shape = {t.matrix.cols};
    else
      t.shape = {t.matrix.rows, t.matrix.cols};
    t.row_order = gguf_row_order(name, config_);
    if (!t.row_order.empty() &&
        static_cast<int64_t>(t.row_order.size()) != (g->rank == 1 ? t.matrix.cols : t.matrix.rows))
      throw_error(Exit::data, "{}: tensor {} has shape {}, which does not fit the number of heads", path(), g->name,
                  g->shape_string());
    if (g->rank == 1 && !t.row_order.empty()) permute_vector(t);
    return t;
  }

 private:
  // names() can only list what has a released name. Anything else would be left out of the model, and of what is
  // converted, unsaid. (rope_freqs.weight: config_from_gguf.)
  void check_tensors() const {
    for (const GgufTensor& t : file_.tensors()) {
      if (t.name == "rope_freqs.weight") continue;
      if (!released_name(t.name, 0))
        throw_error(
            Exit::data,
            "{}: tensor {} is not known for the architecture \"{}\": without it the model would be another one. "
            "Export it in a form without this tensor",
            path(), shown(t.name), file_.text("general.architecture"));
      if (is_expert_stack(t.name) && config_.n_routed_experts == 0)
        throw_error(Exit::data, "{}: tensor {} holds experts, but the metadata have no expert_count", path(), t.name);
    }
  }

  // A bias of q or k: its numbers are rows of one.
  static void permute_vector(StoredTensor& t) {
    auto made = std::make_shared<std::vector<float>>(t.row_order.size());
    std::vector<float> as_is(t.row_order.size());
    dequantize_row(t.matrix, 0, as_is.data());
    for (size_t i = 0; i < as_is.size(); ++i) (*made)[i] = as_is[static_cast<size_t>(t.row_order[i])];
    t.matrix = {.type = BlockType::f32,
                .rows = 1,
                .cols = t.matrix.cols,
                .data = reinterpret_cast<const std::byte*>(made->data()),
                .row_bytes = t.matrix.cols * 4};
    t.memory = made;
    t.row_order.clear();
  }

  GgufFile file_;
};

bool plain(BlockType t) { return t == BlockType::f32 || t == BlockType::f16 || t == BlockType::bf16; }

// `heads` matrices [n, k], the rows of `from` in its order, as `heads` matrices [k, n]. Plain types are moved, others
// expanded.
StoredTensor transposed(const StoredTensor& from, int64_t heads, int64_t n, int64_t k) {
  const BlockType type = plain(from.matrix.type) ? from.matrix.type : BlockType::f32;
  const int64_t size = block_spec(type).bytes;
  auto made = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(heads * n * k * size));
  std::vector<float> row(static_cast<size_t>(k));
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < n; ++i) {
      const std::byte* source = from.matrix.row(from.stored_row(h * n + i));
      if (!plain(from.matrix.type)) {
        from.read_row(h * n + i, row.data());
        source = reinterpret_cast<const std::byte*>(row.data());
      }
      for (int64_t j = 0; j < k; ++j)
        std::memcpy(made->data() + ((h * k + j) * n + i) * size, source + j * size, static_cast<size_t>(size));
    }
  StoredTensor t;
  t.matrix = {.type = type, .rows = heads * k, .cols = n, .data = made->data(), .row_bytes = n * size};
  t.shape = {heads * k, n};
  t.memory = made;
  return t;
}

// Rows [begin, begin + n) of every block of `height` rows.
StoredTensor rows_of_heads(StoredTensor t, int64_t heads, int64_t height, int64_t begin, int64_t n) {
  std::vector<int32_t> order;
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < n; ++i) order.push_back(static_cast<int32_t>(t.stored_row(h * height + begin + i)));
  t.row_order = std::move(order);
  t.shape[0] = heads * n;
  return t;
}

}  // namespace

StoredTensor WeightSource::find(const std::string& name) const {
  StoredTensor t = find_stored(name);
  constexpr std::string_view kAttention = ".self_attn.";
  const size_t at = name.find(kAttention);
  if (t.matrix.data || !config_.mla() || at == name.npos) return t;
  const std::string prefix = name.substr(0, at + kAttention.size()), wanted = name.substr(prefix.size());
  const int64_t heads = config_.num_attention_heads, nope = config_.qk_nope_head_dim, v = config_.v_head_dim,
                lora = config_.kv_lora_rank;
  const auto stored = [&](const char* sibling, int64_t rows, int64_t cols) {
    StoredTensor s = find_stored(prefix + sibling);
    if (s.matrix.data && s.shape != std::vector<int64_t>{rows, cols})
      throw_error(Exit::data, "{}: tensor {}{} has shape [{}], expected [{}, {}]", path(), prefix, sibling,
                  fmt::join(s.shape, ", "), rows, cols);
    return s;
  };
  constexpr const char* kKvB = "kv_b_proj.weight";
  if (wanted == kVb || wanted == kKb || wanted == kKbTransposed) {
    if (const StoredTensor s = stored(kKvB, heads * (nope + v), lora); s.matrix.data) {
      if (wanted == kVb) return rows_of_heads(s, heads, nope + v, nope, v);
      const StoredTensor k_b = rows_of_heads(s, heads, nope + v, 0, nope);
      return wanted == kKb ? k_b : transposed(k_b, heads, nope, lora);
    }
    if (const StoredTensor s = stored(kKbTransposed, heads * lora, nope); wanted == kKb && s.matrix.data)
      return transposed(s, heads, lora, nope);
  } else if (wanted == kKvB) {
    const StoredTensor k_t = stored(kKbTransposed, heads * lora, nope), v_b = stored(kVb, heads * v, lora);
    if (k_t.matrix.data && v_b.matrix.data) return joined(k_t, v_b);
  }
  return t;
}

// [W_UK ; W_UV] of every head out of the two halves: in their type where both are plain and the same, else in F32.
StoredTensor WeightSource::joined(const StoredTensor& k_transposed, const StoredTensor& v_b) const {
  const int64_t heads = config_.num_attention_heads, nope = config_.qk_nope_head_dim, v = config_.v_head_dim,
                lora = config_.kv_lora_rank;
  const StoredTensor k_b = transposed(k_transposed, heads, lora, nope);
  const BlockType type = k_b.matrix.type == v_b.matrix.type ? v_b.matrix.type : BlockType::f32;
  const int64_t row_bytes = block_row_bytes(type, lora);
  auto made = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(heads * (nope + v) * row_bytes));
  std::byte* to = made->data();
  const auto copy = [&](const StoredTensor& from, int64_t begin, int64_t rows) {
    for (int64_t i = begin; i < begin + rows; ++i, to += row_bytes) {
      if (type == from.matrix.type)
        std::memcpy(to, from.matrix.row(i), static_cast<size_t>(row_bytes));
      else
        dequantize_row(from.matrix, i, reinterpret_cast<float*>(to));
    }
  };
  for (int64_t h = 0; h < heads; ++h) {
    copy(k_b, h * nope, nope);
    copy(v_b, h * v, v);
  }
  StoredTensor t;
  t.matrix = {.type = type, .rows = heads * (nope + v), .cols = lora, .data = made->data(), .row_bytes = row_bytes};
  t.shape = {t.matrix.rows, lora};
  t.memory = made;
  return t;
}

void WeightSource::drop_absent_mtp() {
  if (config_.num_nextn_predict_layers == 0) return;
  for (const std::string& name : names())
    if (layer_of(name) >= config_.num_hidden_layers) return;
  log_warn("{}: num_nextn_predict_layers is {}, but there are no such tensors; there is no MTP, then", path(),
           config_.num_nextn_predict_layers);
  config_.num_nextn_predict_layers = 0;
}

std::unique_ptr<WeightSource> WeightSource::open(const std::string& path) {
  std::unique_ptr<WeightSource> source;
  if (path.ends_with(".gguf")) {
    source = std::make_unique<GgufSource>(path);
  } else {
    const std::string config = path + "/config.json";
    source = open(path, parse_config_json(read_file(config, size_t{16} << 20), config));
  }
  source->drop_absent_mtp();
  return source;
}

std::unique_ptr<WeightSource> WeightSource::open(const std::string& path, const ModelConfig& config) {
  return std::make_unique<SafetensorsSource>(path, config);
}

}  // namespace ponder::model
