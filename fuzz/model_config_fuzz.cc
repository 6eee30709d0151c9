// Any bytes as a model's config.json, or, where they begin as GGUF does, as the metadata that stand for one: a config that
// is written and read again as the same, or an Error.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

#include "ponder/base/error.h"
#include "ponder/model/config.h"
#include "ponder/model/gguf_names.h"

namespace {

using namespace ponder::model;

void use(const ModelConfig& c) {
  if (c.kv_layers() <= 0 || c.moe_layers() > c.kv_layers() || (!c.mla() && c.head_width() <= 0)) std::abort();
  if (!(c.softmax_scale() > 0)) std::abort();
  try {
    gguf_metadata(c, "fuzz");
  } catch (const ponder::Error& e) {  // a rotary embedding that GGUF has no place for
    if (e.code() != ponder::Exit::data) throw;
  }
  if (!c.mla() && c.num_attention_heads * c.head_width() <= 4096)
    for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"})
      gguf_row_order(name, c);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const bool gguf = text.starts_with("GGUF");
    const ModelConfig c = gguf ? config_from_gguf(ponder::GgufFile::parse(std::as_bytes(std::span(text)), "fuzz"))
                               : parse_config_json(text, "fuzz");
    use(c);
    const std::string written = config_json(c);
    if (config_json(parse_config_json(written, "written")) != written) std::abort();
  } catch (const ponder::Error& e) {
    if (e.code() != ponder::Exit::data || !std::string_view(e.what()).starts_with("fuzz")) std::abort();
  }
  return 0;
}
