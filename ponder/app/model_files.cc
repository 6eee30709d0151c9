#include "ponder/app/model_files.h"

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"
#include "ponder/text/model_text.h"
#include "ponder/text/tokenizer.h"

namespace ponder::app {

text::GgufVocabulary vocabulary_of(const GgufFile& file) {
  const auto key = [](const char* name) { return std::string("tokenizer.ggml.") + name; };
  const auto id = [&](const char* name) -> std::optional<int64_t> {
    if (!file.has(key(name))) return {};
    return file.integer(key(name));
  };
  text::GgufVocabulary v;
  v.model = file.text(key("model"));
  if (file.has(key("pre"))) v.pre = file.text(key("pre"));
  v.tokens = file.strings(key("tokens"));
  if (file.has(key("token_type"))) v.token_types = file.integers(key("token_type"));
  if (file.has(key("merges"))) v.merges = file.strings(key("merges"));
  v.bos = id("bos_token_id"), v.eos = id("eos_token_id"), v.pad = id("padding_token_id");
  v.eot = id("eot_token_id"), v.eom = id("eom_token_id");
  if (file.has(key("add_bos_token"))) v.add_bos = file.boolean(key("add_bos_token"));
  if (file.has("tokenizer.chat_template")) v.chat_template = file.text("tokenizer.chat_template");
  return v;
}

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
  if (v.eom) put("eom_token_id", {*v.eom});
  if (v.pad) put("padding_token_id", {*v.pad});
  if (v.add_bos) put("add_bos_token", {*v.add_bos});
  if (!v.chat_template.empty()) m.emplace_back("tokenizer.chat_template", GgufValue{v.chat_template});
  return m;
}

namespace {

// What a model folder says about text and use, beside config.json and the weights.
constexpr const char* kCompanions[] = {"tokenizer.json",
                                       "tokenizer.json.zst",
                                       "tokenizer_config.json",
                                       "chat_template.jinja",
                                       "chat_template.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "generation_config.json",
                                       "LICENSE",
                                       "task.toml"};

bool generated(std::string_view key) {
  for (const char* known :
       {"general.architecture", "general.file_type", "general.quantization_version", "general.alignment"})
    if (key == known) return true;
  return false;
}

void write_generation_config(const text::ModelText& text, const std::string& folder) {
  std::string json;
  JsonWriter w(json);
  w.begin_object();
  if (const auto bos = text.tokenizer->special().bos) w.member("bos_token_id", *bos);
  if (!text.eos_ids.empty()) w.member("eos_token_id", std::span<const int32_t>(text.eos_ids));
  w.end_object();
  write_file_atomic(join_path(folder, "generation_config.json"), json + "\n");
}

}  // namespace

text::ModelText read_model_text(const model::WeightSource& source) {
  const std::string& path = source.path();
  try {
    if (const GgufFile* file = source.gguf())
      return file->has("tokenizer.ggml.model") ? text::model_text(vocabulary_of(*file), path) : text::ModelText{};
    for (const char* name : {"tokenizer.json", "tokenizer.json.zst"})
      if (path_exists(join_path(path, name))) return text::load_model_text(path);
  } catch (const Error& e) {
    log_warn("{} Only ids can be used.", e.what());
  }
  return {};
}

GgufMetadata companions_for_gguf(const model::WeightSource& source) {
  GgufMetadata m;
  if (const GgufFile* file = source.gguf()) {
    for (const auto& [key, value] : file->metadata())
      if (key.starts_with("tokenizer.") || (key.starts_with("general.") && !generated(key))) m.emplace_back(key, value);
    return m;
  }
  const std::string& folder = source.path();
  if (path_exists(join_path(folder, "task.toml")))
    log_warn("{}: GGUF has no place for task.toml; its vocabulary is left out", folder);
  try {
    const text::ModelText text = text::load_model_text(folder);
    text::GgufVocabulary v = text::gguf_vocabulary(*text.tokenizer, source.config().vocab_size);
    // llama.cpp ends an answer at eos, eot and eom.
    for (const int32_t id : text.eos_ids) {
      if (v.eos == id) continue;
      if (std::optional<int64_t>* free = !v.eos ? &v.eos : !v.eot ? &v.eot : !v.eom ? &v.eom : nullptr)
        *free = id;
      else
        log_warn("{}: GGUF has no place for another token that ends an answer; {} is left out", folder,
                 text.tokenizer->token(id));
    }
    v.chat_template = text.chat_template.value_or("");
    return vocabulary_metadata(v);
  } catch (const Error& e) {
    log_warn("{} The file has no tokenizer: ponder takes ids, llama.cpp does not load it.", e.what());
    return {};
  }
}

void write_companion_files(const model::WeightSource& source, const std::string& folder) {
  const GgufFile* file = source.gguf();
  if (!file) {
    for (const char* name : kCompanions)
      if (const std::string from = join_path(source.path(), name); path_exists(from))
        write_file_atomic(join_path(folder, name), read_file(from));
    // Ends that only config.json names, which is written anew.
    if (!path_exists(join_path(folder, "generation_config.json")))
      if (const text::ModelText text = read_model_text(source); text.tokenizer) write_generation_config(text, folder);
    return;
  }
  if (!file->has("tokenizer.ggml.model")) return log_warn("{}: it has no tokenizer; ids only", source.path());
  try {
    const text::ModelText text = text::model_text(vocabulary_of(*file), source.path());
    text::save_model_text(text, folder);
    write_generation_config(text, folder);
  } catch (const Error& e) {
    log_warn("{} The folder has no tokenizer; ids only.", e.what());
  }
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
