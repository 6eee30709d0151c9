#include "ponder/model/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "ponder/base/file.h"
#include "ponder/base/log.h"

namespace ponder::model {
namespace {

// Released MTP layers repeat the embedding and the head; here they are shared.
const char* duplicate_of(const std::string& name) {
  if (layer_of(name) < 0) return nullptr;
  if (name.ends_with(".embed_tokens.weight")) return "model.embed_tokens.weight";
  if (name.ends_with(".shared_head.head.weight")) return "lm_head.weight";
  return nullptr;
}

}  // namespace

namespace {

// A tensor that must be there, in the released shape.
StoredTensor fetch(const WeightSource& source, const ops::Slice& s) {
  StoredTensor t = source.find(s.name);
  if (!t.matrix.data) throw_error(Exit::data, "{}: tensor {} is missing", source.path(), s.name);
  if (t.shape != s.shape)
    throw_error(Exit::data, "{}: tensor {} has shape [{}], but the model's config asks for [{}]", source.path(), s.name,
                fmt::join(t.shape, ", "), fmt::join(s.shape, ", "));
  return t;
}

bool equal_numbers(const StoredTensor& a, const StoredTensor& b) {
  if (a.shape != b.shape || a.matrix.type != b.matrix.type) return false;
  const size_t bytes = static_cast<size_t>(block_row_bytes(a.matrix.type, a.matrix.cols));
  for (int64_t r = 0; r < a.matrix.rows; ++r)
    if (std::memcmp(a.matrix.row(r), b.matrix.row(r), bytes) != 0) return false;
  return true;
}

StoredTensor converted(const StoredTensor& t, BlockType to) {
  StoredTensor out = t;
  const int64_t row_bytes = block_row_bytes(to, t.matrix.cols);
  auto made = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(t.matrix.rows * row_bytes));
  std::vector<float> row(static_cast<size_t>(t.matrix.cols));
  for (int64_t r = 0; r < t.matrix.rows; ++r) {
    dequantize_row(t.matrix, r, row.data());
    quantize(to, row.data(), t.matrix.cols, made->data() + r * row_bytes);
  }
  out.matrix = {.type = to, .rows = t.matrix.rows, .cols = t.matrix.cols, .data = made->data(), .row_bytes = row_bytes};
  out.memory = made;
  return out;
}

// One released tensor to be packed as `count` matrices of n rows, the packed forms `stride` bytes apart from `offset` on.
struct Packing {
  const ops::Slice* slice;
  int64_t n, count;
  BlockType type;
  int64_t offset, stride;
};

// All packings of a model, in one piece of memory: on huge pages, which small buffers would not get.
struct Plan {
  struct Part {
    ops::Param* param;
    size_t index;
    int64_t offset;
  };
  int64_t room_for_experts;  // bytes that are left
  std::vector<Packing> packings;
  std::vector<Part> parts;
  int64_t bytes = 0;
  std::map<std::pair<BlockType, BlockType>, int64_t>
      replaced;  // matrices of types without a kernel, by old and new type
};

// The parts of a stored Param: its slices in order are the rows of its matrices, [part 0; part 1; ...] of matrix 0, the
// same of matrix 1 ... A slice that spans several matrices (all heads of k_b) is cut.
void plan_parts(ops::Param& p, const WeightSource& source, const kernels::Backend& backend, Plan& plan) {
  const ops::Param::Matrices& m = p.matrices;
  struct Piece {
    const ops::Slice* slice;
    int64_t first, n;
    Quantized stored;
    bool in_file;
  };
  std::vector<Piece> pieces;
  for (const ops::Slice& s : p.slices) {
    const StoredTensor t = fetch(source, s);
    const int64_t rows = s.shape[0], matrices = std::max<int64_t>(1, rows / m.n);
    for (int64_t i = 0; i < matrices; ++i)
      pieces.push_back({&s, i * (rows / matrices), rows / matrices, t.matrix, !t.memory});
  }
  PONDER_CHECK(pieces.size() % static_cast<size_t>(m.batch) == 0, "{}: {} pieces for {} matrices", p.name,
               pieces.size(), m.batch);
  const size_t parts = pieces.size() / static_cast<size_t>(m.batch);
  const auto piece = [&](size_t part, int64_t matrix) -> const Piece& {
    return pieces[static_cast<size_t>(matrix) * parts + part];
  };
  int64_t bytes = 0;
  for (size_t i = 0; i < parts; ++i) {
    const Piece& first = piece(i, 0);
    const BlockType type = multiplied_type(backend, first.stored.type, m.k);
    const auto stride = static_cast<int64_t>(backend.packed_weight_bytes(type, first.n, m.k));
    p.stored->parts.push_back({.type = type, .n = first.n, .packed = nullptr, .stride = stride});
    bytes += m.batch * stride;
    for (int64_t b = 0; b < m.batch; ++b)
      if (const Piece& other = piece(i, b); multiplied_type(backend, other.stored.type, m.k) != type)
        throw_error(Exit::data, "{}: {} is {}, {} is {}; the experts of a layer must have one type", source.path(),
                    first.slice->name, block_spec(first.stored.type).name, other.slice->name,
                    block_spec(other.stored.type).name);
  }
  const bool mapped = p.routed && bytes > plan.room_for_experts;
  if (mapped) p.stored->mapped.resize(pieces.size());
  if (p.routed && !mapped) plan.room_for_experts -= bytes;
  for (size_t i = 0; i < parts; ++i) {
    kernels::WeightPart& part = p.stored->parts[i];
    if (mapped) {
      Quantized* matrices = p.stored->mapped.data() + i * static_cast<size_t>(m.batch);
      for (int64_t b = 0; b < m.batch; ++b) {
        matrices[b] = piece(i, b).stored;
        PONDER_CHECK(matrices[b].type == part.type && piece(i, b).in_file, "{}: it cannot stay in the file",
                     piece(i, b).slice->name);
      }
      part.stride = 0;
      part.mapped = matrices;
      continue;
    }
    plan.parts.push_back({&p, i, plan.bytes});
    for (int64_t b = 0; b < m.batch; ++b) {
      const Piece& one = piece(i, b);
      if (part.type != one.stored.type) ++plan.replaced[{one.stored.type, part.type}];
      if (one.first > 0)
        ++plan.packings.back().count;
      else
        plan.packings.push_back({one.slice, one.n, 1, part.type, plan.bytes + b * part.stride, part.stride});
    }
    plan.bytes += m.batch * part.stride;
  }
}

void pack(const Packing& job, const WeightSource& source, const kernels::Backend& backend, std::byte* memory) {
  const StoredTensor stored = fetch(source, *job.slice);
  const StoredTensor t = stored.matrix.type == job.type ? stored : converted(stored, job.type);
  for (int64_t i = 0; i < job.count; ++i) {
    std::byte* to = memory + job.offset + i * job.stride;
    if (t.row_order.empty()) {
      backend.pack_weights(t.matrix.row_range(i * job.n, job.n), nullptr, to);
    } else {
      Quantized rows = t.matrix;
      rows.rows = job.n;
      backend.pack_weights(rows, t.row_order.data() + i * job.n, to);
    }
  }
  // The file's pages would stay in memory beside the packed ones.
  if (!stored.memory)
    forget_pages(stored.matrix.data, static_cast<size_t>(stored.matrix.rows * stored.matrix.row_bytes));
}

}  // namespace

void check_names(const Model& model, const WeightSource& source) {
  std::set<std::string> known;
  for (const ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) known.insert(s.name);
  for (const std::string& name : source.names()) {
    if (known.count(name) || name.ends_with("rotary_emb.inv_freq")) continue;
    if (name.ends_with("kv_b_proj.weight") || name.ends_with(kVb) || name.ends_with(kKbTransposed)) continue;
    const int layer = layer_of(name);
    if (layer >= model.kv_layers() && layer < source.config().kv_layers()) continue;  // MTP modules that were left out
    if (model.config().tie_word_embeddings && name == "lm_head.weight") continue;
    if (const char* original = duplicate_of(name)) {
      StoredTensor o = source.find(original);
      if (!o.matrix.data && model.config().tie_word_embeddings) o = source.find("model.embed_tokens.weight");
      if (!o.matrix.data || !equal_numbers(o, source.find(name)))
        throw_error(Exit::data, "{}: tensor {} differs from {}, which MTP modules share", source.path(), name,
                    original);
      continue;
    }
    throw_error(Exit::data, "{}: tensor {} does not belong to this {} (check config.json)", source.path(), name,
                model.config().model_type);
  }
}

BlockType multiplied_type(const kernels::Backend& backend, BlockType type, int64_t k) {
  if (backend.multiplies(type)) return type;
  return k % block_spec(BlockType::q8_0).elements == 0 ? BlockType::q8_0 : BlockType::f32;
}

void load_weights(Model& model, const WeightSource& source) {
  for (ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) fetch(source, s).read_f32(p.value.f32() + s.offset);
  check_names(model, source);
  model.params().bump_version();
}

void load_stored(Model& model, std::shared_ptr<const WeightSource> source, const kernels::Backend& backend,
                 const LoadProgress& progress, int64_t experts) {
  PONDER_CHECK(model.params().stored(), "the model was made with trainable weights");
  Plan plan{.room_for_experts = experts};
  for (ops::Param& p : model.params().list()) {
    if (p.value.rank == 1) {
      for (const ops::Slice& s : p.slices) fetch(*source, s).read_f32(p.value.f32() + s.offset);
      continue;
    }
    p.stored = std::make_unique<ops::StoredWeights>();
    if (p.looked_up) p.stored->table = fetch(*source, p.slices[0]).matrix;
    if (p.multiplied) plan_parts(p, *source, backend, plan);
  }
  check_names(model, *source);
  for (const auto& [types, matrices] : plan.replaced)
    log_warn("{}: there are no kernels for {}: {} matrices {} {}", source->path(), block_spec(types.first).name,
             matrices, types.second == BlockType::f32 ? "are expanded to" : "are rounded to",
             block_spec(types.second).name);
  Buffer memory(static_cast<size_t>(plan.bytes));
  auto* base = static_cast<std::byte*>(memory.data());
  for (const Plan::Part& part : plan.parts) part.param->stored->parts[part.index].packed = base + part.offset;
  std::vector<Packing>& packings = plan.packings;
  // Largest first, so that no thread is left with the head at the end.
  std::stable_sort(packings.begin(), packings.end(),
                   [](const Packing& a, const Packing& b) { return a.n * a.count > b.n * b.count; });
  std::atomic<int64_t> done = 0;
  std::mutex reporting;
  std::exception_ptr failure;
  backend.pool().run(static_cast<int64_t>(packings.size()), [&](int64_t i, int) {
    try {
      pack(packings[static_cast<size_t>(i)], *source, backend, base);
    } catch (...) {
      const std::lock_guard lock(reporting);
      failure = std::current_exception();
    }
    const int64_t n = ++done;
    if (!progress) return;
    const std::lock_guard lock(reporting);
    progress(n, static_cast<int64_t>(packings.size()));
  });
  if (failure) std::rethrow_exception(failure);
  model.params().bump_version();
  model.params().keep(std::move(source), std::move(memory));
}

std::unique_ptr<Model> load_model(const std::string& path, const ModelOptions& options) {
  const auto source = WeightSource::open(path);
  auto model = std::make_unique<Model>(source->config(), options);
  load_weights(*model, *source);
  return model;
}

void save_model(const Model& model, const std::string& folder, DType stored) {
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, const ops::Param& p, const ops::Slice& s) {
    Tensor t = s.shape.size() == 1 ? make_tensor(p.value.f32() + s.offset, {s.shape[0]})
                                   : make_tensor(p.value.f32() + s.offset, {s.shape[0], s.shape[1]});
    tensors.push_back({name, t, name.ends_with("e_score_correction_bias") ? DType::f32 : stored});
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
