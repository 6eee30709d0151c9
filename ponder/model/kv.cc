#include "ponder/model/kv.h"

#include <algorithm>
#include <cstring>

namespace ponder::model {

using kernels::kPageSize;

const char* mla_form_name(MlaForm form) {
  switch (form) {
    case MlaForm::absorbed: return "absorbed";
    case MlaForm::expanded: return "expanded";
    case MlaForm::by_token: break;
  }
  return "by-token";
}

kernels::PageLayout page_layout(const ModelConfig& c, MlaForm form) {
  if (!c.mla()) return {c.num_key_value_heads, c.head_width(), c.head_width()};
  if (form != MlaForm::expanded) return {1, c.kv_lora_rank + c.qk_rope_head_dim, c.kv_lora_rank};
  return {c.num_attention_heads, c.qk_nope_head_dim + c.qk_rope_head_dim, c.v_head_dim};
}

KvPool::KvPool(const kernels::PageLayout& layout, int layers, int64_t pages)
    : layout_(layout),
      layers_(layers),
      pages_(pages),
      memory_(static_cast<size_t>(layers * pages * layout.page_floats()) * sizeof(float)) {}

void KvPool::copy_page(int32_t from, int32_t to) const {
  const int64_t n = layout_.page_floats();
  for (int l = 0; l < layers_; ++l)
    std::memcpy(layer(l) + to * n, layer(l) + from * n, static_cast<size_t>(n) * sizeof(float));
}

void SequenceBatch::clear() {
  tokens_.clear();
  positions_.clear();
  spans_.clear();
}

void SequenceBatch::add(std::span<const int32_t> tokens) {
  spans_.push_back({static_cast<int32_t>(tokens_.size()), static_cast<int32_t>(tokens.size()), 0, nullptr});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (size_t i = 0; i < tokens.size(); ++i) positions_.push_back(static_cast<int32_t>(i));
}

int64_t SequenceBatch::pages() const {
  int64_t n = 0;
  for (const kernels::Span& s : spans_) n += (s.count + kPageSize - 1) / kPageSize;
  return n;
}

Batch SequenceBatch::batch(std::unique_ptr<KvPool>& pool, const kernels::PageLayout& layout) {
  const int64_t need = pages();
  if (!pool || pool->pages() < need) pool = std::make_unique<KvPool>(layout, 1, std::max<int64_t>(need + need / 4, 16));
  pages_.resize(static_cast<size_t>(need));
  for (size_t i = 0; i < pages_.size(); ++i) pages_[i] = static_cast<int32_t>(i);
  const int32_t* next = pages_.data();
  for (kernels::Span& s : spans_) {
    s.pages = next;
    next += (s.count + kPageSize - 1) / kPageSize;
  }
  return {tokens_, positions_, spans_, pool.get()};
}

}  // namespace ponder::model
