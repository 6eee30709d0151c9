#include "ponder/text/model_text.h"

#include <algorithm>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"

namespace ponder::text {
namespace {

constexpr size_t kMaxTemplateBytes = 1 << 20;

// A token named in tokenizer_config.json: "text" or {"content": "text"}; nullopt: null.
std::optional<int32_t> named_token(const Json& value, const Tokenizer& t, const std::string& path, const char* key) {
  if (value.is_null()) return std::nullopt;
  const Json* content = &value;
  if (value.is_object() && value.contains("content")) content = &value["content"];
  if (!content->is_string()) throw_error(Exit::data, "{}: {} is neither a token nor null", path, key);
  const auto& text = content->get_ref<const std::string&>();
  const auto id = t.find(text);
  if (!id) throw_error(Exit::data, "{}: {} is \"{}\", which is not in the vocabulary", path, key, text.substr(0, 40));
  return id;
}

std::optional<std::string> template_of(const Json& value, const std::string& path) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return std::nullopt;
  std::optional<std::string> first;
  if (value.is_array()) {
    for (const Json& entry : value) {
      if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") ||
          !entry["template"].is_string())
        throw_error(Exit::data, "{}: an entry of chat_template needs \"name\" and \"template\"", path);
      if (entry["name"] == "default") return entry["template"].get<std::string>();
      if (!first) first = entry["template"].get<std::string>();
    }
    return first;
  }
  throw_error(Exit::data, "{}: chat_template is neither a text nor a list", path);
}

void read_config(const std::string& path, ModelText& out) {
  const Json j = read_json(path);
  if (!j.is_object()) throw_error(Exit::data, "{}: not a JSON object", path);
  SpecialIds special = out.tokenizer->special();
  const auto token = [&](const char* key, std::optional<int32_t>& id) {
    if (j.contains(key)) id = named_token(j[key], *out.tokenizer, path, key);
  };
  token("bos_token", special.bos);
  token("eos_token", special.eos);
  token("pad_token", special.pad);
  if (j.contains("add_bos_token") && j["add_bos_token"].is_boolean()) special.add_bos = j["add_bos_token"];
  special.add_bos = special.add_bos && special.bos;
  out.tokenizer->set_special(special);
  if (j.contains("chat_template")) out.chat_template = template_of(j["chat_template"], path);
}

// generation_config.json or, in its place, config.json.
void read_ends(const std::string& path, ModelText& out) {
  const Json j = read_json(path);
  if (!j.is_object() || !j.contains("eos_token_id")) return;
  const Json& eos = j["eos_token_id"];
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer() || id < 0 || id > INT32_MAX)
      throw_error(Exit::data, "{}: eos_token_id {} is no token id", path, id.dump().substr(0, 40));
    out.eos_ids.push_back(id);
  };
  if (eos.is_array()) {
    for (const Json& id : eos) add(id);
  } else if (!eos.is_null()) {
    add(eos);
  }
}

void finish(ModelText& out) {
  const SpecialIds& special = out.tokenizer->special();
  if (special.bos) out.bos_text = out.tokenizer->token(*special.bos);
  if (special.eos) {
    out.eos_text = out.tokenizer->token(*special.eos);
    out.eos_ids.push_back(*special.eos);
  }
  std::sort(out.eos_ids.begin(), out.eos_ids.end());
  out.eos_ids.erase(std::unique(out.eos_ids.begin(), out.eos_ids.end()), out.eos_ids.end());
}

}  // namespace

ModelText load_model_text(const std::string& folder) {
  const auto in = [&](const char* name) { return join_path(folder, name); };
  ModelText out;
  const bool packed = !path_exists(in("tokenizer.json")) && path_exists(in("tokenizer.json.zst"));
  out.tokenizer = load_tokenizer(in(packed ? "tokenizer.json.zst" : "tokenizer.json"));
  if (path_exists(in("tokenizer_config.json"))) read_config(in("tokenizer_config.json"), out);
  if (path_exists(in("chat_template.jinja")))
    out.chat_template = read_file(in("chat_template.jinja"), kMaxTemplateBytes);
  for (const char* name : {"generation_config.json", "config.json"})
    if (path_exists(in(name))) {
      read_ends(in(name), out);
      break;
    }
  finish(out);
  return out;
}

ModelText model_text(const GgufVocabulary& vocabulary, std::string_view name) {
  ModelText out;
  out.tokenizer = tokenizer_from_gguf(vocabulary, name);
  if (!vocabulary.chat_template.empty()) out.chat_template = vocabulary.chat_template;
  for (const auto& end : {vocabulary.eot, vocabulary.eom})
    if (end) out.eos_ids.push_back(static_cast<int32_t>(*end));
  finish(out);
  return out;
}

void save_model_text(const ModelText& text, const std::string& folder) {
  const Tokenizer& t = *text.tokenizer;
  t.save(join_path(folder, "tokenizer.json"));
  std::string json;
  JsonWriter w(json);
  const auto token = [&](const char* key, std::optional<int32_t> id) {
    if (id) {
      w.member(key, t.token(*id));
    } else {
      w.key(key).null();
    }
  };
  w.begin_object().member("tokenizer_class", "PreTrainedTokenizerFast").member("clean_up_tokenization_spaces", false);
  w.member("add_bos_token", t.special().add_bos);
  token("bos_token", t.special().bos);
  token("eos_token", t.special().eos);
  token("pad_token", t.special().pad);
  if (text.chat_template) w.member("chat_template", *text.chat_template);
  w.end_object();
  write_file_atomic(join_path(folder, "tokenizer_config.json"), json + "\n");
}

}  // namespace ponder::text
