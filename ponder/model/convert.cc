#include "ponder/model/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "ponder/base/config.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/rng.h"
#include "ponder/model/attention.h"
#include "ponder/model/gguf_names.h"
#include "ponder/model/model.h"
#include "ponder/model/weights.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::model {
namespace {

constexpr BlockType kSchemes[] = {BlockType::f32,  BlockType::f16,  BlockType::bf16, BlockType::q8_0,
                                  BlockType::q4_0, BlockType::q4_1, BlockType::q5_0, BlockType::q5_1,
                                  BlockType::q4_k, BlockType::q5_k, BlockType::q6_k, BlockType::iq4_nl};

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

bool plain(BlockType t) { return t == BlockType::f32 || t == BlockType::f16 || t == BlockType::bf16; }

// Rows that are no whole blocks take the next larger type with smaller blocks, as llama.cpp does.
BlockType fitting(BlockType type, int64_t cols) {
  const auto fits = [&](BlockType t) { return cols % block_spec(t).elements == 0; };
  if (fits(type)) return type;
  const BlockType small = type == BlockType::q4_k   ? BlockType::q5_0
                          : type == BlockType::q5_k ? BlockType::q5_1
                                                    : BlockType::q8_0;
  return fits(small) ? small : BlockType::f16;
}

bool is_router(const std::string& released) { return released.ends_with("mlp.gate.weight"); }

// Rows `begin` .. of a tensor in the type `to`; the order is the released one.
class RowWriter {
 public:
  RowWriter(const StoredTensor& t, BlockType to) : t_(t), to_(to), row_bytes_(block_row_bytes(to, t.matrix.cols)) {}
  int64_t row_bytes() const { return row_bytes_; }
  void operator()(int64_t row, std::byte* out) const {
    if (to_ == t_.matrix.type) {
      std::memcpy(out, t_.matrix.row(t_.stored_row(row)), static_cast<size_t>(row_bytes_));
      return;
    }
    thread_local std::vector<float> numbers;
    numbers.resize(static_cast<size_t>(t_.matrix.cols));
    t_.read_row(row, numbers.data());
    quantize(to_, numbers.data(), t_.matrix.cols, out);
  }

 private:
  const StoredTensor& t_;
  BlockType to_;
  int64_t row_bytes_;
};

int64_t elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

StoredTensor fetch(const WeightSource& source, const std::string& name) {
  StoredTensor t = source.find(name);
  if (!t.matrix.data) throw_error(Exit::data, "{}: tensor {} is missing", source.path(), name);
  return t;
}

}  // namespace

std::vector<std::string> type_schemes() {
  std::vector<std::string> names = {"keep", "q4_k_m", "fp8"};
  for (const BlockType t : kSchemes) names.push_back(lower(block_spec(t).name));
  return names;
}

TypeScheme::TypeScheme(const std::string& name) : name_(lower(name)) {
  if (name_ == "keep" || name_ == "fp8" || name_ == "q4_k_m") return;
  if (const auto t = find_block_type(name_); t && std::count(std::begin(kSchemes), std::end(kSchemes), *t)) {
    type_ = *t;
    return;
  }
  const std::string near = nearest_name(name_, type_schemes());
  throw_error(Exit::usage, "unknown type \"{}\"{} (known: {})", name,
              near.empty() ? "" : fmt::format("; did you mean {}?", near), fmt::join(type_schemes(), ", "));
}

BlockType TypeScheme::matrix_type(const std::string& released, const ModelConfig& c, int64_t cols, BlockType from,
                                  bool gguf) const {
  if (is_router(released)) return gguf ? BlockType::f32 : plain(from) ? from : BlockType::bf16;
  const bool embedding = released == "model.embed_tokens.weight", head = released == "lm_head.weight";
  if (name_ == "keep") {
    if (gguf) return from == BlockType::fp8 ? BlockType::bf16 : from;
    return plain(from) || from == BlockType::fp8 ? from : BlockType::bf16;
  }
  if (name_ == "fp8") {
    if (gguf || embedding || head || released.ends_with("eh_proj.weight")) return BlockType::bf16;  // as released
    return BlockType::fp8;
  }
  if (name_ != "q4_k_m") return fitting(type_, cols);
  if (head || (embedding && c.tie_word_embeddings))
    return cols % block_spec(BlockType::q6_k).elements == 0 ? BlockType::q6_k : BlockType::q8_0;
  const int layer = layer_of(released), layers = c.kv_layers();
  const bool more = layer >= 0 && (layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2);
  const bool sensitive = released.ends_with(".v_proj.weight") || released.ends_with(".down_proj.weight");
  return fitting(more && sensitive ? BlockType::q6_k : BlockType::q4_k, cols);
}

// ---- GGUF -----------------------------------------------------------------------------------------------------------

namespace {

// One tensor of a GGUF file and the released tensors that it stacks.
struct Stack {
  std::string name;
  BlockType type;
  std::vector<int64_t> shape;
  std::vector<std::string> released;
};

std::vector<Stack> plan_gguf(const WeightSource& source, const TypeScheme& scheme) {
  const ModelConfig& c = source.config();
  const Model model(c, ModelOptions{.stored = true, .declare_only = true});
  check_names(model, source);
  std::vector<Stack> stacks;
  std::map<std::string, size_t> at;
  for (const ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) {
      const auto place = gguf_place(s.name);
      PONDER_CHECK(place, "{} has no place in GGUF", s.name);
      if (const auto found = at.find(place->name); found != at.end()) {
        stacks[found->second].released.push_back(s.name);
        continue;
      }
      Stack stack{place->name, BlockType::f32, s.shape, {s.name}};
      if (s.shape.size() == 2) {
        stack.type = scheme.matrix_type(s.name, c, s.shape[1], fetch(source, s.name).matrix.type, true);
        if (place->expert >= 0)
          stack.shape = {c.n_routed_experts, s.shape[0], s.shape[1]};
        else if (s.name.ends_with(kVb) || s.name.ends_with(kKbTransposed))
          stack.shape = {c.num_attention_heads, s.shape[0] / c.num_attention_heads, s.shape[1]};
      }
      at[place->name] = stacks.size();
      stacks.push_back(std::move(stack));
    }
  return stacks;
}

void fill_stack(const WeightSource& source, const Stack& stack, ThreadPool& pool, std::span<std::byte> out) {
  std::byte* to = out.data();
  for (const std::string& name : stack.released) {
    StoredTensor t = fetch(source, name);
    const bool vector = t.shape.size() == 1;
    std::vector<int32_t> order = gguf_row_order(name, source.config());
    if (vector) {
      auto* numbers = reinterpret_cast<float*>(to);
      std::vector<float> released(static_cast<size_t>(t.matrix.cols));
      t.read_f32(released.data());
      for (size_t i = 0; i < released.size(); ++i)
        numbers[order.empty() ? i : static_cast<size_t>(order[i])] = released[i];
      to += released.size() * sizeof(float);
      continue;
    }
    const RowWriter write(t, stack.type);
    const int64_t rows = t.shape[0];
    // Repeated rows (random_source) are rounded once.
    bool repeats = !t.row_order.empty() && t.matrix.rows < rows;
    for (int64_t i = 0; repeats && i < t.matrix.rows; ++i) repeats = t.stored_row(i) == i;
    const int64_t distinct = repeats ? t.matrix.rows : rows;
    pool.run_ranges(distinct, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        write(i, to + (order.empty() ? i : order[static_cast<size_t>(i)]) * write.row_bytes());
    });
    if (distinct < rows) {
      PONDER_CHECK(order.empty() || distinct == rows, "{}: repeated rows cannot be permuted", name);
      for (int64_t i = distinct; i < rows; ++i)
        std::memcpy(to + i * write.row_bytes(), to + t.row_order[static_cast<size_t>(i)] * write.row_bytes(),
                    static_cast<size_t>(write.row_bytes()));
    }
    to += rows * write.row_bytes();
  }
}

}  // namespace

namespace {

// llama.cpp's number for "mostly this type" (enum llama_ftype), for people; loaders look at the tensors.
int64_t gguf_file_type(const TypeScheme& scheme, const std::vector<Stack>& stacks) {
  if (scheme.name() == "q4_k_m") return 15;
  std::map<BlockType, int64_t> numbers;
  for (const Stack& s : stacks)
    if (s.shape.size() > 1) numbers[s.type] += elements(s.shape);
  BlockType most = BlockType::f32;
  for (const auto& [type, n] : numbers)
    if (n > numbers[most]) most = type;
  static const std::map<BlockType, int64_t> known = {
      {BlockType::f32, 0},     {BlockType::q4_0, 2},     {BlockType::q4_1, 3},    {BlockType::q8_0, 7},
      {BlockType::q5_0, 8},    {BlockType::q5_1, 9},     {BlockType::q2_k, 10},   {BlockType::q3_k, 12},
      {BlockType::q4_k, 14},   {BlockType::q5_k, 16},    {BlockType::q6_k, 18},   {BlockType::iq2_xxs, 19},
      {BlockType::iq2_xs, 20}, {BlockType::iq3_xxs, 23}, {BlockType::iq1_s, 24},  {BlockType::iq4_nl, 25},
      {BlockType::iq3_s, 26},  {BlockType::iq2_s, 28},   {BlockType::iq4_xs, 30}, {BlockType::iq1_m, 31},
      {BlockType::bf16, 32},   {BlockType::tq1_0, 36},   {BlockType::tq2_0, 37},  {BlockType::mxfp4, 38},
      {BlockType::nvfp4, 39}};
  const auto at = known.find(most);
  return at == known.end() ? 1 : at->second;
}

// The first tensor of every part: as many tensors in a row as fit.
std::vector<size_t> cut_parts(const std::vector<GgufWrite::Item>& tensors, uint64_t max_bytes) {
  std::vector<size_t> begins = {0};
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& t = tensors[i];
    const auto own =
        static_cast<uint64_t>(elements(t.shape) / t.shape.back() * block_row_bytes(t.type, t.shape.back()));
    if (i > begins.back() && bytes + own > max_bytes) begins.push_back(i), bytes = 0;
    bytes += own;
  }
  return begins;
}

}  // namespace

std::string write_gguf_model(const WeightSource& source, const std::string& path, const TypeScheme& scheme,
                             const std::vector<std::pair<std::string, GgufValue>>& metadata, ThreadPool& pool,
                             const ConvertProgress& progress, uint64_t max_bytes) {
  std::string stem = path;
  if (stem.ends_with(".gguf")) stem.resize(stem.size() - 5);
  const std::vector<Stack> stacks = plan_gguf(source, scheme);
  GgufWrite content{gguf_metadata(source.config(), base_name(stem)), {}};
  content.metadata.push_back({"general.file_type", GgufValue{gguf_file_type(scheme, stacks)}});
  content.metadata.push_back({"general.quantization_version", GgufValue{int64_t{2}}});
  for (const auto& [key, value] : metadata) {
    const auto at = std::find_if(content.metadata.begin(), content.metadata.end(),
                                 [&, k = &key](const auto& known) { return known.first == *k; });
    if (at == content.metadata.end())
      content.metadata.push_back({key, value});
    else
      at->second = value;
  }
  for (const Stack& s : stacks) content.tensors.push_back({s.name, s.type, s.shape});
  const std::vector<float> divisors = gguf_rope_divisors(source.config());
  if (!divisors.empty())
    content.tensors.push_back({"rope_freqs.weight", BlockType::f32, {static_cast<int64_t>(divisors.size())}});

  const std::vector<size_t> begins = cut_parts(content.tensors, max_bytes);
  const size_t parts = begins.size();
  const auto name = [&](size_t part) { return fmt::format("{}-{:05}-of-{:05}.gguf", stem, part + 1, parts); };
  int64_t done = 0;
  for (size_t part = parts; part-- > 0;) {
    const size_t begin = begins[part], end = part + 1 < parts ? begins[part + 1] : content.tensors.size();
    GgufWrite one;
    if (part == 0) one.metadata = content.metadata;
    if (parts > 1) {
      one.metadata.push_back({"split.no", GgufValue{static_cast<int64_t>(part)}});
      one.metadata.push_back({"split.count", GgufValue{static_cast<int64_t>(parts)}});
      one.metadata.push_back({"split.tensors.count", GgufValue{static_cast<int64_t>(content.tensors.size())}});
    }
    one.tensors.assign(content.tensors.begin() + static_cast<int64_t>(begin),
                       content.tensors.begin() + static_cast<int64_t>(end));
    write_gguf(parts > 1 ? name(part) : path, one, [&](size_t i, std::span<std::byte> out) {
      if (progress) progress(done++, static_cast<int64_t>(content.tensors.size()), one.tensors[i].name);
      if (begin + i == stacks.size())
        std::memcpy(out.data(), divisors.data(), out.size());
      else
        fill_stack(source, stacks[begin + i], pool, out);
    });
  }
  return parts > 1 ? name(0) : path;
}

// ---- safetensors ----------------------------------------------------------------------------------------------------

namespace {

constexpr const char* kScales = "_scale_inv";

StoredType stored_type(BlockType t) {
  switch (t) {
    case BlockType::f16: return StoredType::f16;
    case BlockType::bf16: return StoredType::bf16;
    case BlockType::fp8: return StoredType::f8_e4m3;
    default: return StoredType::f32;
  }
}

// One tensor of the file: a released tensor in a type, or the scales of one that becomes FP8.
struct Output {
  std::string released;
  BlockType type;
  bool scales = false;
};

// Bands of 128 rows have scales of their own, so they are rounded independently.
void fill_fp8(const StoredTensor& t, bool scales, ThreadPool& pool, std::byte* out) {
  const int64_t rows = t.shape[0], cols = t.shape[1], blocks = (cols + kScaleBlock - 1) / kScaleBlock;
  pool.run((rows + kScaleBlock - 1) / kScaleBlock, [&](int64_t band, int) {
    const int64_t begin = band * kScaleBlock, n = std::min<int64_t>(kScaleBlock, rows - begin);
    std::vector<float> numbers(static_cast<size_t>(n * cols)), band_scales(static_cast<size_t>(blocks));
    std::vector<std::byte> codes(static_cast<size_t>(n * cols));
    for (int64_t i = 0; i < n; ++i) t.read_row(begin + i, numbers.data() + i * cols);
    quantize_fp8(numbers.data(), n, cols, codes.data(), band_scales.data());
    if (scales)
      std::memcpy(out + band * blocks * 4, band_scales.data(), band_scales.size() * 4);
    else
      std::memcpy(out + begin * cols, codes.data(), codes.size());
  });
}

void fill_output(const WeightSource& source, const Output& o, ThreadPool& pool, std::span<std::byte> out) {
  const StoredTensor t = fetch(source, o.released);
  if (o.type == BlockType::fp8) {
    if (t.matrix.type != BlockType::fp8 || !t.row_order.empty()) return fill_fp8(t, o.scales, pool, out.data());
    if (o.scales)
      std::memcpy(out.data(), t.matrix.scales, out.size());
    else
      for (int64_t r = 0; r < t.matrix.rows; ++r)
        std::memcpy(out.data() + r * t.matrix.cols, t.matrix.row(r), static_cast<size_t>(t.matrix.cols));
    return;
  }
  const RowWriter write(t, o.type);
  const int64_t rows = t.shape.size() == 1 ? 1 : t.shape[0];
  pool.run_ranges(rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) write(i, out.data() + i * write.row_bytes());
  });
}

}  // namespace

void write_safetensors_model(const WeightSource& source, const std::string& folder, const TypeScheme& scheme,
                             ThreadPool& pool, const ConvertProgress& progress, uint64_t max_shard_bytes) {
  const ModelConfig& c = source.config();
  const Model model(c, ModelOptions{.declare_only = true});
  check_names(model, source);
  std::vector<TensorSpec> specs;
  std::vector<Output> outputs;
  bool fp8 = false;
  const auto add = [&](const ops::Slice& s, const std::string& name) {
    const BlockType from = fetch(source, s.name).matrix.type;
    Output o{s.name, plain(from) ? from : BlockType::f32};
    if (s.shape.size() == 2) {
      o.type = scheme.matrix_type(s.name, c, s.shape[1], from, false);
      if (!plain(o.type) && o.type != BlockType::fp8)
        throw_error(Exit::usage, "safetensors have no {} (they have f32, f16, bf16, fp8); write a .gguf file instead",
                    block_spec(o.type).name);
    }
    specs.push_back({name, stored_type(o.type), s.shape});
    outputs.push_back(o);
    if (o.type != BlockType::fp8) return;
    fp8 = true;
    const auto blocks = [](int64_t n) { return (n + kScaleBlock - 1) / kScaleBlock; };
    specs.push_back({name + kScales, StoredType::f32, {blocks(s.shape[0]), blocks(s.shape[1])}});
    o.scales = true;
    outputs.push_back(o);
  };
  const ops::Slice *embedding = nullptr, *head = nullptr;
  for (const ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) {
      add(s, s.name);
      if (s.name == "model.embed_tokens.weight") embedding = &s;
      if (s.name == "lm_head.weight") head = &s;
    }
  for (int k = 0; k < c.num_nextn_predict_layers; ++k) {  // as released
    const std::string prefix = fmt::format("model.layers.{}.", c.num_hidden_layers + k);
    add(*embedding, prefix + "embed_tokens.weight");
    add(head ? *head : *embedding, prefix + "shared_head.head.weight");
  }
  int64_t done = 0;
  write_checkpoint(
      folder, specs,
      [&](size_t i, std::span<std::byte> out) {
        if (progress) progress(done++, static_cast<int64_t>(specs.size()), specs[i].name);
        fill_output(source, outputs[i], pool, out);
      },
      {{"format", "pt"}}, max_shard_bytes);
  write_file_atomic(join_path(folder, "config.json"), config_json(c, fp8));
}

// ---- random numbers -------------------------------------------------------------------------------------------------

namespace {

class RandomSource final : public WeightSource {
 public:
  RandomSource(const ModelConfig& config, uint64_t seed, int64_t distinct_rows)
      : declared_(config, ModelOptions{.declare_only = true}), seed_(seed), distinct_rows_(distinct_rows) {
    config_ = config;
    for (const ops::Param& p : declared_.params().list())
      for (const ops::Slice& s : p.slices) {
        names_.push_back(s.name);
        slices_[s.name] = {&p, &s, static_cast<uint64_t>(names_.size())};
      }
  }
  const std::string& path() const override { return path_; }
  std::vector<std::string> names() const override { return names_; }
  int64_t bytes() const override { return declared_.params().count() * 4; }

 protected:
  StoredTensor find_stored(const std::string& name) const override {
    const auto at = slices_.find(name);
    if (at == slices_.end()) return {};
    const auto& [param, slice, index] = at->second;
    const bool vector = slice->shape.size() == 1;
    const int64_t rows = vector ? 1 : slice->shape[0], cols = slice->shape.back();
    // Rotary embeddings permute the rows of q and k, which must therefore all be there.
    const bool repeat = distinct_rows_ > 0 && rows > distinct_rows_ && gguf_row_order(name, config_).empty();
    const int64_t made_rows = repeat ? distinct_rows_ : rows;
    auto made = std::make_shared<std::vector<float>>(static_cast<size_t>(made_rows * cols), param->init_value);
    if (param->init_std > 0) {
      // Uniform with the standard deviation of the initial values: a quarter of the cost of normal ones.
      CounterRng rng(seed_, Stream::init, index);
      const float scale = static_cast<float>(param->init_std * std::sqrt(12.0) / 4294967296.0);
      for (float& x : *made) x = (static_cast<float>(rng.next_u32()) - 2147483648.f) * scale;
    }
    StoredTensor t;
    t.shape = slice->shape;
    t.matrix = {.type = BlockType::f32,
                .rows = made_rows,
                .cols = cols,
                .data = reinterpret_cast<const std::byte*>(made->data()),
                .row_bytes = cols * 4};
    t.memory = made;
    if (repeat) {
      t.row_order.resize(static_cast<size_t>(rows));
      for (int64_t i = 0; i < rows; ++i) t.row_order[static_cast<size_t>(i)] = static_cast<int32_t>(i % made_rows);
    }
    return t;
  }

 private:
  struct Known {
    const ops::Param* param;
    const ops::Slice* slice;
    uint64_t index;
  };
  Model declared_;
  uint64_t seed_;
  int64_t distinct_rows_;
  std::string path_ = "random weights";
  std::vector<std::string> names_;
  std::map<std::string, Known> slices_;
};

}  // namespace

std::unique_ptr<WeightSource> random_source(const ModelConfig& config, uint64_t seed, int64_t distinct_rows) {
  return std::make_unique<RandomSource>(config, seed, distinct_rows);
}

}  // namespace ponder::model
