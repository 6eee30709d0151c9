// All that a model folder (or a GGUF file) says about text: its tokenizer, its chat template, what begins and ends.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/text/bpe_gguf.h"
#include "ponder/text/tokenizer.h"

namespace ponder::text {

struct ModelText {
  std::unique_ptr<Tokenizer> tokenizer;      // special() says bos, eos, pad and whether a raw text begins with bos
  std::optional<std::string> chat_template;  // Jinja
  std::string bos_text, eos_text;            // as templates see them; "": there is none
  std::vector<int32_t> eos_ids;              // any of them ends an answer; ascending
};

// tokenizer.json or tokenizer.json.zst; where present tokenizer_config.json (bos_token, eos_token, pad_token: a string
// or an object with "content"; add_bos_token; chat_template: a string or a list of {name, template}, of which "default"
// counts), chat_template.jinja (which wins) and generation_config.json, or config.json where there is none
// (eos_token_id: a number or a list).
// Throws Error (data) naming the file.
ModelText load_model_text(const std::string& folder);
ModelText model_text(const GgufVocabulary& vocabulary, std::string_view name);

// tokenizer.json and tokenizer_config.json into a folder that exists; load_model_text and Hugging Face read them.
void save_model_text(const ModelText& text, const std::string& folder);

}  // namespace ponder::text
