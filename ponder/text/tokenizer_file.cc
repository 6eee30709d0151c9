// Reading tokenizer.json: which kind it is, and its parts. The file is passed over once; its vocabulary and its merges
// are then read entry by entry, in whichever order they stand, and what has been read of them is let go.
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/text/bpe.h"
#include "ponder/text/tokenizer.h"
#include "ponder/text/tokenizer_parts.h"

namespace ponder::text {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxRatio = 100;  // of what zstd unpacks; tokenizers have 5
constexpr size_t kMaxAddedBytes = 1024, kMaxAllAddedBytes = size_t{2} << 20;
constexpr size_t kMaxAdded = size_t{1} << 16;
// Of parts of which a tree is built.
constexpr JsonLimits kPartLimits = {.max_bytes = size_t{1} << 20, .max_values = size_t{1} << 16};
constexpr size_t kMaxSteps = 64;

// What a small part holds may be absent or of another type: members of nothing are nothing.
const Json& member(const Json& v, const char* key) {
  static const Json kNothing;
  const auto it = v.find(key);
  return it == v.end() ? kNothing : *it;
}

const Json::array_t& items(const Json& v) {
  static const Json::array_t kNone;
  const auto* array = v.get_ptr<const Json::array_t*>();
  return array ? *array : kNone;
}

const std::string* text_of(const Json& v) { return v.get_ptr<const std::string*>(); }
std::string text_or_empty(const Json& v) { return text_of(v) ? *text_of(v) : ""; }
std::string type_of(const Json& v) { return text_or_empty(member(v, "type")); }
bool is_true(const Json& v) { return v == Json(true); }

class Reader {
 public:
  // `owned`: the text is the reader's to forget.
  Reader(std::string_view text, std::string name, bool owned) : name_(std::move(name)), owned_(owned) {
    find_parts(text, name_, root_, model_);
  }

  std::unique_ptr<Tokenizer> read();

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(Exit::data, "{}: {}", name_, fmt::format(format, std::forward<Args>(args)...));
  }

  Json small(const Parts& parts, const char* name) const;
  Json root(const char* name) const { return small(root_, name); }
  Json model(const char* name) const { return small(model_, name); }
  int32_t place(std::string_view content, const Scalar& id);
  void read_vocabulary();
  void read_added();
  std::unique_ptr<Tokenizer> word_level();
  std::unique_ptr<Tokenizer> bpe();
  bool is_byte_level() const;
  void read_normalizer(const Json& n);
  void read_step(const Json& step);
  void read_merges();
  void read_model_options();
  void read_post_processor(const Json& p, SpecialIds& special, const Tokenizer& t) const;

  std::string name_;
  bool owned_;
  Parts root_{{"added_tokens", {}}, {"normalizer", {}}, {"pre_tokenizer", {}}, {"post_processor", {}}};
  Parts model_{{"type", {}},     {"vocab", {}},         {"merges", {}},
               {"dropout", {}},  {"byte_fallback", {}}, {"continuing_subword_prefix", {}},
               {"fuse_unk", {}}, {"ignore_merges", {}}, {"end_of_word_suffix", {}},
               {"unk_token", {}}};
  BpeParts parts_;
  std::string unknown_;  // the token for bytes without one, or ""
  bool byte_level_ = false;
};

// A part that is used as a tree.
Json Reader::small(const Parts& parts, const char* name) const {
  const std::string_view json = parts.at(name).json;
  if (json.empty()) return nullptr;
  if (json.size() > kPartLimits.max_bytes)
    fail("a {} of {} bytes; at most {} are read", name, json.size(), kPartLimits.max_bytes);
  return parse_json(json, fmt::format("{}: {}", name_, name), 1, kPartLimits);
}

int32_t Reader::place(std::string_view content, const Scalar& id) {
  const int64_t i = as_integer(id) ? *as_integer(id) : -1;
  if (i < 0 || i >= static_cast<int64_t>(Vocabulary::kMaxTokens))
    fail("token \"{}\" needs an id from 0 to {}", content.substr(0, 40), Vocabulary::kMaxTokens - 1);
  const auto at = static_cast<int32_t>(i);
  if (content.empty()) fail("token {} is empty", i);
  const std::string_view there = parts_.vocabulary[at];
  if (there.empty()) {
    parts_.vocabulary.set(at, content);
  } else if (there != content) {
    fail("id {} belongs to \"{}\" and to \"{}\"", i, there.substr(0, 40), content.substr(0, 40));
  }
  return at;
}

void Reader::read_vocabulary() {
  const Part& vocab = model_.at("vocab");
  if (!vocab.is_object()) fail("the model has no \"vocab\" object");
  // Around each token there are quotes, a colon, a digit and a comma, or more.
  parts_.vocabulary.reserve(vocab.items, vocab.json.size() + root_.at("added_tokens").json.size());
  read_entries(vocab, name_, owned_, [&](const Entry& token) {
    const int32_t id = place(token.name, token.value);
    if (!parts_.unknown && token.name == unknown_) parts_.unknown = id;
  });
}

void Reader::read_added() {
  std::vector<bool> seen;
  size_t bytes = 0;
  const Part& all = root_.at("added_tokens");
  if (!all.is_array()) return;
  read_entries(all, name_, owned_, [&](const Entry& entry) {
    const std::string* const content = as_text(entry["content"]);
    if (!content) fail("an added token has no \"content\"");
    if (content->size() > kMaxAddedBytes)
      fail("an added token of {} bytes; {} are possible", content->size(), kMaxAddedBytes);
    const int32_t id = place(*content, entry["id"]);
    seen.resize(std::max(seen.size(), static_cast<size_t>(id) + 1));
    if (seen[static_cast<size_t>(id)]) return;
    seen[static_cast<size_t>(id)] = true;
    bytes += content->size();
    if (parts_.added.size() == kMaxAdded || bytes > kMaxAllAddedBytes)
      fail("more than {} added tokens, or {} bytes of them", kMaxAdded, kMaxAllAddedBytes);
    parts_.added.push_back({.id = id,
                            .special = entry.is_true("special"),
                            .normalized = entry.is_true("normalized"),
                            .single_word = entry.is_true("single_word"),
                            .lstrip = entry.is_true("lstrip"),
                            .rstrip = entry.is_true("rstrip")});
  });
}

std::unique_ptr<Tokenizer> Reader::word_level() {
  Vocabulary& words = parts_.vocabulary;
  for (int32_t id = 0; id < words.size(); ++id) {
    const std::string_view word = words[id];
    if (word.empty()) fail("the ids have holes; they must be 0 to {}", words.size() - 1);
    if (word.find_first_of(" \t\n\v\f\r") != word.npos) fail("the word \"{}\" holds white space", word.substr(0, 40));
  }
  words.index();
  if (const auto twice = words.twice()) fail("\"{}\" has two ids", words[*twice].substr(0, 40));
  if (type_of(root("pre_tokenizer")) != "WhitespaceSplit")
    fail("a WordLevel tokenizer is read only with the pre-tokenizer WhitespaceSplit");
  std::vector<int32_t> specials;
  for (const AddedToken& a : parts_.added) {
    if (a.special) specials.push_back(a.id);
  }
  return std::make_unique<WordLevel>(std::move(words), specials);
}

void Reader::read_normalizer(const Json& n) {
  if (n.is_null()) return;
  const auto type = type_of(n);
  if (type == "NFC") {
    parts_.nfc = true;
  } else if (type == "Sequence") {
    for (const Json& v : items(member(n, "normalizers"))) read_normalizer(v);
  } else {
    fail("normalizers of type {} are not supported; NFC and none are (SentencePiece tokenizers have others)",
         type.substr(0, 40));
  }
}

void Reader::read_step(const Json& step) {
  const auto type = type_of(step);
  using Kind = SplitStep::Kind;
  using Keep = SplitStep::Keep;
  if (type == "Sequence") {
    for (const Json& v : items(member(step, "pretokenizers"))) read_step(v);
  } else if (type == "ByteLevel") {
    if (is_true(member(step, "add_prefix_space")))
      fail("a ByteLevel pre-tokenizer with add_prefix_space is not supported");
    const Json& regex = member(step, "use_regex");
    if (regex.is_null() || is_true(regex)) parts_.steps.push_back({.kind = Kind::byte_level});
    byte_level_ = true;
  } else if (type == "Digits") {
    parts_.steps.push_back({.kind = is_true(member(step, "individual_digits")) ? Kind::digit : Kind::digits});
  } else if (type == "Split") {
    const Json& pattern = member(step, "pattern");
    const std::string *regex = text_of(member(pattern, "Regex")), *literal = text_of(member(pattern, "String"));
    if (!regex && !literal) fail("a Split pre-tokenizer has neither \"Regex\" nor \"String\"");
    const auto behavior = text_or_empty(member(step, "behavior"));
    const bool invert = is_true(member(step, "invert"));
    if (behavior != "Isolated" && behavior != "Removed")
      fail("a Split pre-tokenizer with the behavior \"{}\" is not supported; Isolated and Removed are",
           behavior.substr(0, 40));
    parts_.steps.push_back({.kind = regex ? Kind::regex : Kind::literal,
                            .pattern = regex ? *regex : *literal,
                            .keep = behavior == "Isolated" ? Keep::isolated
                                    : invert               ? Keep::matches
                                                           : Keep::gaps});
  } else {
    fail(
        "pre-tokenizers of type {} are not supported; Sequence, Split, Digits and ByteLevel are (Metaspace is "
        "SentencePiece's)",
        type.substr(0, 40));
  }
  if (parts_.steps.size() > kMaxSteps) fail("more than {} pre-tokenizers", kMaxSteps);
}

void Reader::read_merges() {
  const Part& merges = model_.at("merges");
  if (!merges.is_array()) fail("a BPE model needs an array \"merges\"");
  parts_.merges.reserve(std::min(merges.items, MergeTable::kMaxMerges));
  size_t number = 0;
  read_entries(merges, name_, owned_, [&](const Entry& merge) {
    std::array<std::string_view, 2> pair;
    if (const std::string* both = as_text(merge.value)) {
      const size_t space = both->find(' ');
      if (space == both->npos || both->find(' ', space + 1) != both->npos)
        fail("merge {} (\"{}\") is not two tokens with a space between", number, both->substr(0, 40));
      pair = {std::string_view(*both).substr(0, space), std::string_view(*both).substr(space + 1)};
    } else {
      const auto& f = merge.fields;
      if (!merge.is_array || f.size() != 2 || !as_text(f[0].value) || !as_text(f[1].value))
        fail("merge {} is neither \"a b\" nor [\"a\", \"b\"]", number);
      pair = {*as_text(f[0].value), *as_text(f[1].value)};
    }
    parts_.add_merge(pair[0], pair[1], name_);
    ++number;
  });
}

void Reader::read_model_options() {
  if (is_true(model("byte_fallback")))
    fail("a BPE with byte_fallback is a SentencePiece one, which is not supported; byte-level BPE is");
  if (const Json dropout = model("dropout"); !dropout.is_null() && dropout != Json(0.0))
    fail("a BPE with dropout is not supported: its ids would be random");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_or_empty(model(key)).empty()) fail("a BPE with {} is not supported", key);
  }
  parts_.ignore_merges = is_true(model("ignore_merges"));
  parts_.fuse_unknown = is_true(model("fuse_unk"));
  if (!unknown_.empty() && !parts_.unknown)
    fail("the unk_token \"{}\" is not in the vocabulary", unknown_.substr(0, 40));
}

// Llama 3: a TemplateProcessing that puts the BOS in front of a text.
void Reader::read_post_processor(const Json& p, SpecialIds& special, const Tokenizer& t) const {
  for (const Json& part : items(member(p, "processors"))) read_post_processor(part, special, t);
  const auto& single = items(member(p, "single"));
  const std::string* const mark = single.empty() ? nullptr : text_of(member(member(single[0], "SpecialToken"), "id"));
  if (const auto id = mark ? t.find(*mark) : std::nullopt) {
    special.bos = id;
    special.add_bos = true;
  }
}

// The file that ByteLevel::to_json writes.
bool Reader::is_byte_level() const {
  const Vocabulary& v = parts_.vocabulary;
  const ByteLevel plain;
  if (!model_.at("merges").is_array() || model_.at("merges").items > 0 || v.size() != plain.vocab_size()) return false;
  for (int32_t i = 0; i < v.size(); ++i) {
    if (v[i] != plain.token(i)) return false;
  }
  return true;
}

std::unique_ptr<Tokenizer> Reader::bpe() {
  if (is_byte_level()) return std::make_unique<ByteLevel>();
  read_model_options();
  read_normalizer(root("normalizer"));
  if (const Json pre = root("pre_tokenizer"); !pre.is_null()) read_step(pre);
  if (!byte_level_) {
    fail(
        "a BPE without a ByteLevel pre-tokenizer is not supported (SentencePiece models are of that kind); "
        "byte-level BPE is");
  }
  parts_.index_vocabulary(name_);
  read_merges();
  auto out = std::make_unique<Bpe>(std::move(parts_), name_);
  SpecialIds special = out->special();
  read_post_processor(root("post_processor"), special, *out);
  out->set_special(special);
  return out;
}

std::unique_ptr<Tokenizer> Reader::read() {
  const std::string kind = text_or_empty(model("type"));
  if (kind.empty()) fail("no \"model\" with a \"type\"; a Hugging Face tokenizer.json has one");
  if (kind != "WordLevel" && kind != "BPE")
    fail("tokenizers of type {} are not supported{}; byte-level BPE and WordLevel are", kind.substr(0, 40),
         kind == "Unigram"     ? " (SentencePiece)"
         : kind == "WordPiece" ? " (BERT)"
                               : "");
  if (kind == "BPE") unknown_ = text_or_empty(model("unk_token"));
  read_vocabulary();
  read_added();
  if (parts_.vocabulary.size() == 0) fail("the vocabulary is empty");
  return kind == "BPE" ? bpe() : word_level();
}

std::unique_ptr<Tokenizer> parse(std::string_view json, std::string_view name, bool owned) {
  if (json.size() > kMaxFileBytes)
    throw_error(Exit::data, "{}: {} bytes; at most {} are read", name, json.size(), kMaxFileBytes);
  return Reader(json, std::string(name), owned).read();
}

// Memory for all that is allowed, of which only what is written costs something: a frame may lie about its size, or not
// tell it.
struct Unpacked {
  std::unique_ptr<char[]> data;
  size_t size = 0;
};

Unpacked unpack(std::string_view packed, const std::string& path) {
  const size_t limit = std::min(kMaxFileBytes, kMaxRatio * packed.size());
  Unpacked out{.data = std::make_unique_for_overwrite<char[]>(limit)};
  // All at once: in pieces, zstd would keep up to as much again to look back at.
  out.size = ZSTD_decompress(out.data.get(), limit, packed.data(), packed.size());
  if (!ZSTD_isError(out.size)) return out;
  switch (ZSTD_getErrorCode(out.size)) {
    case ZSTD_error_dstSize_tooSmall: throw_error(Exit::data, "{}: more than {} bytes unpacked", path, limit);
    case ZSTD_error_srcSize_wrong: throw_error(Exit::data, "{}: the zstd data end too early", path);
    default: throw_error(Exit::data, "{}: damaged zstd data: {}", path, ZSTD_getErrorName(out.size));
  }
}

}  // namespace

std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, std::string_view name) {
  return parse(json, name, false);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  std::string bytes = read_file(path, kMaxFileBytes);
  if (!bytes.starts_with("\x28\xB5\x2F\xFD")) return parse(bytes, path, true);
  const Unpacked text = unpack(bytes, path);
  bytes = {};
  return parse({text.data.get(), text.size}, path, true);
}

}  // namespace ponder::text
