// Reading tokenizer.json: which kind it is, and its parts. simdjson parses 10 MB in some 20 ms, which a chat waits for.
#include <simdjson.h>
#include <zstd.h>

#include <algorithm>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/text/bpe.h"
#include "ponder/text/tokenizer.h"

namespace ponder::text {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxRatio = 100;  // of what zstd unpacks; tokenizers have 5
constexpr size_t kMaxTokens = size_t{1} << 20;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxAddedBytes = 1024;

// A value that may be absent or of another type: members of nothing are nothing.
class Value {
 public:
  Value() = default;
  explicit Value(element e) : element_(e), present_(!e.is_null()) {}

  explicit operator bool() const { return present_; }
  Value operator[](std::string_view key) const {
    element found;
    return present_ && element_.is_object() && element_[key].get(found) == simdjson::SUCCESS ? Value(found) : Value();
  }
  std::optional<std::string_view> text() const { return get<std::string_view>(); }
  std::optional<object> members() const { return get<object>(); }
  bool is_array() const { return present_ && element_.is_array(); }
  std::vector<Value> items() const {
    std::vector<Value> out;
    if (const auto all = get<array>()) {
      for (const element e : *all) out.push_back(Value(e));
    }
    return out;
  }
  std::optional<int64_t> integer() const { return get<int64_t>(); }
  bool is_true() const { return get<bool>().value_or(false); }
  std::string_view type() const { return (*this)["type"].text().value_or(""); }

 private:
  template <class T>
  std::optional<T> get() const {
    T out;
    return present_ && element_.get(out) == simdjson::SUCCESS ? std::optional(out) : std::nullopt;
  }
  element element_;
  bool present_ = false;
};

class Reader {
 public:
  Reader(element root, std::string_view name) : root_(root), model_(root_["model"]), name_(name) {}

  std::unique_ptr<Tokenizer> read(std::string json);

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(Exit::data, "{}: {}", name_, fmt::format(format, std::forward<Args>(args)...));
  }

  void read_vocabulary();
  int32_t place(std::string_view content, Value id);
  std::unique_ptr<Tokenizer> word_level();
  std::unique_ptr<Tokenizer> bpe(std::string json);
  void read_normalizer(Value n);
  void read_step(Value step);
  void read_merges();
  void read_model_options();
  void read_post_processor(Value p, SpecialIds& special, const Tokenizer& t) const;

  Value root_, model_;
  std::string_view name_;
  BpeParts parts_;
  bool byte_level_ = false;
};

int32_t Reader::place(std::string_view content, Value id) {
  const int64_t i = id.integer().value_or(-1);
  if (i < 0 || i >= static_cast<int64_t>(kMaxTokens))
    fail("token \"{}\" needs an id from 0 to {}", content.substr(0, 40), kMaxTokens - 1);
  const auto at = static_cast<size_t>(i);
  if (content.empty()) fail("token {} is empty", i);
  auto& tokens = parts_.tokens;
  if (tokens.size() <= at) tokens.resize(at + 1);
  if (!tokens[at].empty() && tokens[at] != content)
    fail("id {} belongs to \"{}\" and to \"{}\"", i, tokens[at].substr(0, 40), content.substr(0, 40));
  tokens[at] = content;
  return static_cast<int32_t>(i);
}

void Reader::read_vocabulary() {
  const auto vocab = model_["vocab"].members();
  if (!vocab) fail("the model has no \"vocab\" object");
  parts_.tokens.reserve(vocab->size());
  for (const auto& [content, id] : *vocab) place(content, Value(id));
  std::vector<bool> seen;
  for (const Value& entry : root_["added_tokens"].items()) {
    const auto content = entry["content"].text();
    if (!content) fail("an added token has no \"content\"");
    if (content->size() > kMaxAddedBytes)
      fail("an added token of {} bytes; {} are possible", content->size(), kMaxAddedBytes);
    const int32_t id = place(*content, entry["id"]);
    seen.resize(std::max(seen.size(), static_cast<size_t>(id) + 1));
    if (seen[static_cast<size_t>(id)]) continue;
    seen[static_cast<size_t>(id)] = true;
    parts_.added.push_back({.id = id,
                            .special = entry["special"].is_true(),
                            .normalized = entry["normalized"].is_true(),
                            .single_word = entry["single_word"].is_true(),
                            .lstrip = entry["lstrip"].is_true(),
                            .rstrip = entry["rstrip"].is_true()});
  }
  if (parts_.tokens.empty()) fail("the vocabulary is empty");
}

std::unique_ptr<Tokenizer> Reader::word_level() {
  for (const auto& word : parts_.tokens) {
    if (word.empty()) fail("the ids have holes; they must be 0 to {}", parts_.tokens.size() - 1);
    if (word.find_first_of(" \t\n\v\f\r") != std::string::npos)
      fail("the word \"{}\" holds white space", word.substr(0, 40));
  }
  if (const auto twice = TokenIndex(parts_.tokens).twice())
    fail("\"{}\" has two ids", parts_.tokens[static_cast<size_t>(*twice)].substr(0, 40));
  if (root_["pre_tokenizer"].type() != "WhitespaceSplit")
    fail("a WordLevel tokenizer is read only with the pre-tokenizer WhitespaceSplit");
  std::vector<int32_t> specials;
  for (const AddedToken& a : parts_.added) {
    if (a.special) specials.push_back(a.id);
  }
  return std::make_unique<WordLevel>(std::move(parts_.tokens), specials);
}

void Reader::read_normalizer(Value n) {
  if (!n) return;
  const auto type = n.type();
  if (type == "NFC") {
    parts_.nfc = true;
  } else if (type == "Sequence") {
    for (const Value& v : n["normalizers"].items()) read_normalizer(v);
  } else {
    fail("normalizers of type {} are not supported; NFC and none are (SentencePiece tokenizers have others)",
         type.substr(0, 40));
  }
}

void Reader::read_step(Value step) {
  const auto type = step.type();
  using Kind = SplitStep::Kind;
  using Keep = SplitStep::Keep;
  if (type == "Sequence") {
    for (const Value& v : step["pretokenizers"].items()) read_step(v);
  } else if (type == "ByteLevel") {
    if (step["add_prefix_space"].is_true()) fail("a ByteLevel pre-tokenizer with add_prefix_space is not supported");
    if (!step["use_regex"] || step["use_regex"].is_true()) parts_.steps.push_back({.kind = Kind::byte_level});
    byte_level_ = true;
  } else if (type == "Digits") {
    parts_.steps.push_back({.kind = step["individual_digits"].is_true() ? Kind::digit : Kind::digits});
  } else if (type == "Split") {
    const auto regex = step["pattern"]["Regex"].text(), literal = step["pattern"]["String"].text();
    if (!regex && !literal) fail("a Split pre-tokenizer has neither \"Regex\" nor \"String\"");
    const auto behavior = step["behavior"].text().value_or("");
    const bool invert = step["invert"].is_true();
    if (behavior != "Isolated" && behavior != "Removed")
      fail("a Split pre-tokenizer with the behavior \"{}\" is not supported; Isolated and Removed are",
           behavior.substr(0, 40));
    parts_.steps.push_back({.kind = regex ? Kind::regex : Kind::literal,
                            .pattern = std::string(regex ? *regex : *literal),
                            .keep = behavior == "Isolated" ? Keep::isolated
                                    : invert               ? Keep::matches
                                                           : Keep::gaps});
  } else {
    fail(
        "pre-tokenizers of type {} are not supported; Sequence, Split, Digits and ByteLevel are (Metaspace is "
        "SentencePiece's)",
        type.substr(0, 40));
  }
  if (parts_.steps.size() > 64) fail("more than 64 pre-tokenizers");
}

void Reader::read_merges() {
  if (!model_["merges"].is_array()) fail("a BPE model needs an array \"merges\"");
  for (const Value& merge : model_["merges"].items()) {
    const auto number = parts_.merges.size();
    if (const auto both = merge.text()) {
      const size_t space = both->find(' ');
      if (space == std::string_view::npos || both->find(' ', space + 1) != std::string_view::npos)
        fail("merge {} (\"{}\") is not two tokens with a space between", number, both->substr(0, 40));
      parts_.merges.emplace_back(both->substr(0, space), both->substr(space + 1));
      continue;
    }
    const auto pair = merge.items();
    const auto left = pair.size() == 2 ? pair[0].text() : std::nullopt,
               right = pair.size() == 2 ? pair[1].text() : std::nullopt;
    if (!left || !right) fail("merge {} is neither \"a b\" nor [\"a\", \"b\"]", number);
    parts_.merges.emplace_back(*left, *right);
  }
}

void Reader::read_model_options() {
  if (model_["byte_fallback"].is_true())
    fail("a BPE with byte_fallback is a SentencePiece one, which is not supported; byte-level BPE is");
  if (model_["dropout"]) fail("a BPE with dropout is not supported: its ids would be random");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model_[key].text().value_or("").empty()) fail("a BPE with {} is not supported", key);
  }
  parts_.ignore_merges = model_["ignore_merges"].is_true();
  parts_.fuse_unknown = model_["fuse_unk"].is_true();
  if (const auto unknown = model_["unk_token"].text(); unknown && !unknown->empty()) {
    const auto id = model_["vocab"][*unknown].integer();
    if (!id) fail("the unk_token \"{}\" is not in the vocabulary", unknown->substr(0, 40));
    parts_.unknown = static_cast<int32_t>(*id);
  }
}

// Llama 3: a TemplateProcessing that puts the BOS in front of a text.
void Reader::read_post_processor(Value p, SpecialIds& special, const Tokenizer& t) const {
  for (const Value& part : p["processors"].items()) read_post_processor(part, special, t);
  for (const Value& part : p["single"].items()) {
    const auto mark = part["SpecialToken"]["id"].text();
    if (!mark) return;
    if (const auto id = t.find(*mark)) {
      special.bos = id;
      special.add_bos = true;
    }
    return;
  }
}

std::unique_ptr<Tokenizer> Reader::bpe(std::string json) {
  if (model_["merges"].is_array() && model_["merges"].items().empty()) {
    ByteLevel plain;
    const auto same = [&] {
      for (int32_t i = 0; i < plain.vocab_size(); ++i) {
        if (parts_.tokens[static_cast<size_t>(i)] != plain.token(i)) return false;
      }
      return true;
    };
    if (static_cast<int32_t>(parts_.tokens.size()) == plain.vocab_size() && same())
      return std::make_unique<ByteLevel>();
  }
  read_model_options();
  read_normalizer(root_["normalizer"]);
  if (const Value pre = root_["pre_tokenizer"]) read_step(pre);
  if (!byte_level_) {
    fail(
        "a BPE without a ByteLevel pre-tokenizer is not supported (SentencePiece models are of that kind); "
        "byte-level BPE is");
  }
  read_merges();
  auto out = std::make_unique<Bpe>(std::move(parts_), name_, std::move(json));
  SpecialIds special = out->special();
  read_post_processor(root_["post_processor"], special, *out);
  out->set_special(special);
  return out;
}

std::unique_ptr<Tokenizer> Reader::read(std::string json) {
  const auto kind = model_.type();
  if (kind.empty()) fail("no \"model\" with a \"type\"; a Hugging Face tokenizer.json has one");
  if (kind != "WordLevel" && kind != "BPE")
    fail("tokenizers of type {} are not supported{}; byte-level BPE and WordLevel are", kind.substr(0, 40),
         kind == "Unigram"     ? " (SentencePiece)"
         : kind == "WordPiece" ? " (BERT)"
                               : "");
  read_vocabulary();
  return kind == "BPE" ? bpe(std::move(json)) : word_level();
}

std::string unpacked(std::string_view packed, const std::string& path) {
  std::string out;
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  const size_t limit = std::min(kMaxFileBytes, kMaxRatio * packed.size());
  ZSTD_inBuffer in{packed.data(), packed.size(), 0};
  const auto declared = ZSTD_getFrameContentSize(packed.data(), packed.size());
  out.resize(declared <= limit ? declared + 1 : std::min(limit, size_t{1} << 20));
  size_t have = 0;
  for (size_t left = 1; left != 0;) {
    if (have == out.size()) out.resize(std::min(out.size() * 2, limit + 1));
    ZSTD_outBuffer to{out.data(), out.size(), have};
    left = ZSTD_decompressStream(context.get(), &to, &in);
    if (ZSTD_isError(left)) throw_error(Exit::data, "{}: damaged zstd data: {}", path, ZSTD_getErrorName(left));
    if (to.pos > limit) throw_error(Exit::data, "{}: more than {} bytes unpacked", path, limit);
    if (to.pos == have && in.pos == in.size && left != 0)
      throw_error(Exit::data, "{}: the zstd data end too early", path);
    have = to.pos;
  }
  out.resize(have);
  return out;
}

// `json` is kept by a tokenizer that writes the file as it was.
std::unique_ptr<Tokenizer> parse_owned(std::string json, std::string_view name) {
  if (json.size() > kMaxFileBytes)
    throw_error(Exit::data, "{}: {} bytes; at most {} are read", name, json.size(), kMaxFileBytes);
  json.reserve(json.size() + simdjson::SIMDJSON_PADDING);  // or simdjson copies it
  auto error = simdjson::SUCCESS;
  {
    simdjson::dom::parser parser;
    if (const auto allocated = parser.allocate(std::max<size_t>(json.size(), 64), kMaxDepth); allocated)
      throw_error(Exit::resources, "{}: no memory to parse {} bytes", name, json.size());
    element root;
    error = parser.parse(json.data(), json.size(), false).get(root);
    if (!error) return Reader(root, name).read(std::move(json));
  }
  // The other parser says where the fault is; some things (huge integers) only this one refuses.
  check_json(json, std::string(name), {.max_bytes = kMaxFileBytes, .max_depth = kMaxDepth});
  throw_error(Exit::data, "{}: {}", name, simdjson::error_message(error));
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, std::string_view name) {
  return parse_owned(std::string(json), name);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  std::string bytes = read_file(path, kMaxFileBytes);
  if (bytes.starts_with("\x28\xB5\x2F\xFD")) bytes = unpacked(bytes, path);
  return parse_owned(std::move(bytes), path);
}

}  // namespace ponder::text
