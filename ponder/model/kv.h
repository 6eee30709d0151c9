// Keys and values live in pages of 64 positions; what belongs to a sequence lives in its pages and nowhere else.
//
// A KvPool is the memory: `pages` pages for each of `layers` layers, the same page number in all of them. The engine
// decides who owns which page (engine/kv_cache.h). Training fills scratch pages through the same code, layer by layer
// in the same memory (one layer is enough: backward reads the rows on the tape), and so rounds as the cache does.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ponder/kernels/backend.h"
#include "ponder/model/config.h"
#include "ponder/tensor/tensor.h"

namespace ponder::model {

// Absorbed: pages hold the latent, one head shared by all queries, and queries are taken into its space. Expanded: pages
// hold keys and values of every head. By token: pages hold the latent; tokens of a prompt attend to keys and values made
// from it (less arithmetic for many rows), generated ones in its own space (fewer bytes for one row). The form is a
// property of the token, whatever batch it is in.
enum class MlaForm { absorbed, expanded, by_token };
const char* mla_form_name(MlaForm form);  // absorbed, expanded, by-token

kernels::PageLayout page_layout(const ModelConfig& config, MlaForm form);

class KvPool {
 public:
  KvPool(const kernels::PageLayout& layout, int layers, int64_t pages);
  const kernels::PageLayout& layout() const { return layout_; }
  int64_t pages() const { return pages_; }
  float* layer(int layer) const { return memory_.f32() + (layer % layers_) * pages_ * layout_.page_floats(); }
  size_t bytes() const { return memory_.bytes(); }
  // Copies a page to another, in all layers.
  void copy_page(int32_t from, int32_t to) const;

 private:
  kernels::PageLayout layout_;
  int layers_;
  int64_t pages_;
  Buffer memory_;
};

// One forward pass: rows of several sequences, one below the other.
struct Batch {
  std::span<const int32_t> tokens;       // [T]
  std::span<const int32_t> positions;    // [T]
  std::span<const kernels::Span> spans;  // which rows belong to which sequence, and its pages
  const KvPool* kv = nullptr;
  // So many spans at the beginning are tokens of prompts (MlaForm::by_token only). Whole known texts, as in training and
  // scoring, count as generated.
  size_t prompt_spans = 0;
};

// Whole sequences laid one below the other with pages of a scratch pool: training, scoring, evaluation of a loss.
class SequenceBatch {
 public:
  void clear();
  void add(std::span<const int32_t> tokens);
  // Pages for all sequences, taken from `pool`, which is made larger where it is too small.
  Batch batch(std::unique_ptr<KvPool>& pool, const kernels::PageLayout& layout);

  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t pages() const;
  const std::vector<kernels::Span>& spans() const { return spans_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  std::vector<int32_t> tokens_, positions_, pages_;
  std::vector<kernels::Span> spans_;
};

}  // namespace ponder::model
