#include "ponder/app/sampling.h"

#include <algorithm>
#include <charconv>

#include "ponder/app/json_lines.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"
#include "ponder/tensor/gguf.h"

namespace ponder::app {
namespace {

constexpr size_t kMaxBias = 1024;

// Published values (model cards and generation_config.json of the releases). The first family whose marks all stand in
// the chat template counts.
struct Family {
  const char* name;
  const char* marks[2];
  engine::Sampling thinking, plain;
  bool system_prompt = true;
  const char* end_phrase = "\n</think>\n\n";
};
// What Qwen3 was trained to find where its thinking is cut off (Qwen3 technical report, 4.3).
constexpr const char* kQwenEnd =
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly "
    "now.\n</think>\n\n";
const engine::Sampling kUsual = {.temperature = 0.7f, .top_p = 0.95f};
const engine::Sampling kReasoner = {.temperature = 0.6f, .top_p = 0.95f};
const Family kFamilies[] = {
    {"DeepSeek-V3.1", {"<｜User｜>", "thinking"}, kReasoner, kReasoner},
    {"DeepSeek-R1", {"<｜User｜>", "</think>"}, kReasoner, kReasoner, false},
    {"DeepSeek-V3", {"<｜User｜>", ""}, {.temperature = 0.3f}, {.temperature = 0.3f}},
    {"Qwen3",
     {"<|im_start|>", "enable_thinking"},
     {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20},
     {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20},
     true,
     kQwenEnd},
    {"Qwen2.5",
     {"<|im_start|>", "Qwen, created by"},
     {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repetition_penalty = 1.05f},
     {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20, .repetition_penalty = 1.05f}},
    {"SmolLM2", {"<|im_start|>", "SmolLM"}, {.temperature = 0.2f, .top_p = 0.9f}, {.temperature = 0.2f, .top_p = 0.9f}},
    {"Llama 3",
     {"<|start_header_id|>", ""},
     {.temperature = 0.6f, .top_p = 0.9f},
     {.temperature = 0.6f, .top_p = 0.9f}},
    {"reasoning models", {"</think>", ""}, kReasoner, kUsual},
};

// generation_config.json of Hugging Face. What it does not say stays; do_sample false is greedy.
bool apply_generation_config(const std::string& path, engine::Sampling& s) {
  const Json json = read_json(path);
  if (!json.is_object()) return false;
  const int32_t any = 1;
  bool said = false;
  for (const char* key : {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"})
    if (json.contains(key) && !json[key].is_null()) said |= set_sampling_field(s, key, json[key], any);
  if (said && json.contains("do_sample") && json["do_sample"] == false) s.temperature = 0;
  return said;
}

bool apply_gguf(const GgufFile& file, engine::Sampling& s) {
  bool said = false;
  const auto take = [&](const char* key, float& field, double min, double max) {
    const std::string name = std::string("general.sampling.") + key;
    if (!file.has(name)) return;
    const double x = file.number(name);
    if (!(x >= min && x <= max)) throw_error(Exit::data, "{}: {:g} is out of range ({:g} to {:g})", name, x, min, max);
    field = static_cast<float>(x);
    said = true;
  };
  take("temp", s.temperature, 0, 100);
  take("top_p", s.top_p, 0, 1);
  take("min_p", s.min_p, 0, 1);
  take("penalty_repeat", s.repetition_penalty, 0.01, 100);
  if (file.has("general.sampling.top_k")) {
    s.top_k = static_cast<int32_t>(std::clamp<int64_t>(file.integer("general.sampling.top_k"), 0, 1 << 30));
    said = true;
  }
  return said;
}

}  // namespace

Recommended recommended_sampling(const LoadedModel& loaded, bool thinking) {
  if (loaded.task) return {{.temperature = 0}, "greedy, as this miniature searches best"};
  Recommended out{kUsual, "usual values"};
  if (loaded.chat) {
    const std::string& source = loaded.chat->source();
    for (const Family& f : kFamilies)
      if (source.find(f.marks[0]) != source.npos && source.find(f.marks[1]) != source.npos) {
        out = {thinking ? f.thinking : f.plain, f.name, f.system_prompt, f.end_phrase};
        break;
      }
  }
  try {
    const std::string config = join_path(loaded.path, "generation_config.json");
    if (const GgufFile* gguf = loaded.source->gguf()) {
      if (apply_gguf(*gguf, out.sampling)) out.origin = "general.sampling of the file";
    } else if (path_exists(config) && apply_generation_config(config, out.sampling)) {
      out.origin = "generation_config.json";
    }
  } catch (const Error& e) {
    log_warn("recommended sampling: {}", e.what());
  }
  return out;
}

engine::Sampling sampling_options(const Arguments& args, const engine::Sampling& recommended, int32_t vocab) {
  engine::Sampling s = recommended;
  const auto number = [&](const char* name, float& field, double min, double max) {
    field = static_cast<float>(args.number(name, field, min, max));
  };
  number("temperature", s.temperature, 0, 100);
  number("top-p", s.top_p, 0, 1);
  number("min-p", s.min_p, 0, 1);
  s.top_k = static_cast<int32_t>(std::max<int64_t>(0, args.integer("top-k", s.top_k, -1, 1 << 30)));
  number("repetition-penalty", s.repetition_penalty, 0.01, 100);
  number("frequency-penalty", s.frequency_penalty, -2, 2);
  number("presence-penalty", s.presence_penalty, -2, 2);
  s.min_tokens = static_cast<int32_t>(args.integer("min-tokens", s.min_tokens, 0, 1 << 24));
  for (const std::string& word : args.all("logit-bias")) {
    int32_t id = 0;
    float bias = 0;
    const char *const begin = word.data(), *const end = begin + word.size();
    const auto token = std::from_chars(begin, end, id);
    const auto value = token.ec == std::errc() && token.ptr < end && *token.ptr == ':'
                           ? std::from_chars(token.ptr + 1, end, bias)
                           : std::from_chars_result{begin, std::errc::invalid_argument};
    if (value.ec != std::errc() || value.ptr != end || !(bias >= -100 && bias <= 100) || id < 0)
      throw_error(Exit::usage, "--logit-bias {}: ID:BIAS is expected, the bias from -100 to 100", word);
    if (id >= vocab)
      throw_error(Exit::usage, "--logit-bias {}: the vocabulary has {} tokens, with ids from 0 to {}", word, vocab,
                  vocab - 1);
    s.logit_bias.emplace_back(id, bias);
  }
  return s;
}

bool set_sampling_field(engine::Sampling& s, const std::string& key, const Json& value, int32_t vocab) {
  const auto number = [&](double min, double max) { return static_cast<float>(json_number(value, key, min, max)); };
  if (key == "temperature") {
    s.temperature = number(0, 100);
  } else if (key == "top_p") {
    s.top_p = number(0, 1);
  } else if (key == "min_p") {
    s.min_p = number(0, 1);
  } else if (key == "top_k") {  // vLLM and verl: -1 is off, too
    s.top_k = static_cast<int32_t>(std::max<int64_t>(0, json_integer(value, key, -1, 1 << 30)));
  } else if (key == "repetition_penalty") {
    s.repetition_penalty = number(0.01, 100);
  } else if (key == "frequency_penalty") {
    s.frequency_penalty = number(-2, 2);
  } else if (key == "presence_penalty") {
    s.presence_penalty = number(-2, 2);
  } else if (key == "min_tokens") {
    s.min_tokens = static_cast<int32_t>(json_integer(value, key, 0, 1 << 24));
  } else if (key == "logit_bias") {
    if (!value.is_object()) throw_error(Exit::data, "logit_bias: an object of token ids and biases is expected");
    if (value.size() > kMaxBias) throw_error(Exit::data, "logit_bias: at most {} tokens", kMaxBias);
    s.logit_bias.clear();
    for (const auto& [name, bias] : value.items()) {
      int32_t id = -1;
      const auto end = std::from_chars(name.data(), name.data() + name.size(), id);
      if (end.ec != std::errc() || end.ptr != name.data() + name.size() || id < 0 || id >= vocab)
        throw_error(Exit::data, "logit_bias: \"{}\" is none of the {} token ids", name, vocab);
      s.logit_bias.emplace_back(id, static_cast<float>(json_number(bias, "logit_bias." + name, -100, 100)));
    }
  } else {
    return false;
  }
  return true;
}

std::string sampling_text(const engine::Sampling& s) {
  if (s.temperature == 0) return s.adjusts() ? "greedy, with penalties or biases" : "greedy";
  std::string out = fmt::format("temperature {:g}", s.temperature);
  if (s.top_p < 1) out += fmt::format(", top-p {:g}", s.top_p);
  if (s.top_k > 0) out += fmt::format(", top-k {}", s.top_k);
  if (s.min_p > 0) out += fmt::format(", min-p {:g}", s.min_p);
  if (s.repetition_penalty != 1) out += fmt::format(", repetition penalty {:g}", s.repetition_penalty);
  if (s.frequency_penalty != 0) out += fmt::format(", frequency penalty {:g}", s.frequency_penalty);
  if (s.presence_penalty != 0) out += fmt::format(", presence penalty {:g}", s.presence_penalty);
  return out;
}

}  // namespace ponder::app
