#include "ponder/app/model_files.h"

#include "ponder/base/error.h"
#include "ponder/text/tokenizer.h"

namespace ponder::app {

GgufMetadata vocabulary_metadata(const text::GgufVocabulary& v) {
  GgufMetadata m;
  const auto put = [&](const char* key, GgufValue value) {
    m.emplace_back(std::string("tokenizer.ggml.") + key, std::move(value));
  };
  put("model", {v.model});
  put("pre", {v.pre});
  put("tokens", {v.tokens});
  put("token_type", {v.token_types});
  put("merges", {v.merges});
  if (v.bos) put("bos_token_id", {*v.bos});
  if (v.eos) put("eos_token_id", {*v.eos});
  if (v.eot) put("eot_token_id", {*v.eot});
  if (v.pad) put("padding_token_id", {*v.pad});
  if (v.add_bos) put("add_bos_token", {*v.add_bos});
  if (!v.chat_template.empty()) m.emplace_back("tokenizer.chat_template", GgufValue{v.chat_template});
  return m;
}

text::GgufVocabulary dummy_vocabulary(int64_t rows) {
  text::GgufVocabulary v;
  v.pre = "gpt-2";
  v.tokens = text::byte_alphabet();
  const auto bytes = static_cast<int64_t>(v.tokens.size());
  if (rows < bytes + 3)
    throw_error(Exit::usage, "a vocabulary of {} is too small for the bytes and their marks ({})", rows, bytes + 3);
  v.tokens.insert(v.tokens.end(), {"<bos>", "<eos>", "th"});
  v.merges = {"t h"};
  v.bos = bytes, v.eos = bytes + 1;
  v.add_bos = false;
  v.token_types.assign(v.tokens.size(), text::GgufVocabulary::kNormal);
  v.token_types[static_cast<size_t>(*v.bos)] = v.token_types[static_cast<size_t>(*v.eos)] =
      text::GgufVocabulary::kControl;
  while (static_cast<int64_t>(v.tokens.size()) < rows) v.tokens.push_back(fmt::format("[PAD{}]", v.tokens.size()));
  v.token_types.resize(v.tokens.size(), text::GgufVocabulary::kUnused);
  return v;
}

}  // namespace ponder::app
