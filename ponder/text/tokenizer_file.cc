// Reading tokenizer.json: which kind it is, and its parts. The file is passed over once; its vocabulary and its merges
// are then read entry by entry, in whichever order they stand, and what has been read of them is let go.
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/text/bpe.h"
#include "ponder/text/tokenizer.h"
#include "ponder/text/tokenizer_json.h"

namespace ponder::text {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxRatio = 100;  // of what zstd unpacks; tokenizers have 5
constexpr size_t kMaxAddedBytes = 1024, kMaxAllAddedBytes = size_t{2} << 20;
constexpr size_t kMaxAdded = size_t{1} << 16;
constexpr size_t kMaxPartBytes = size_t{1} << 20;  // of parts that are looked through again and again
constexpr size_t kMaxSteps = 64;

// A value of the file that may be absent or of another type: members of nothing are nothing. It is where it was found
// in the file, and read anew by each call.
class Value {
 public:
  Value() = default;
  explicit Value(JsonReader& r) : at_(r), passed_(r.skip()) {}  // r passes it

  explicit operator bool() const { return at_ && passed_.json != "null"; }
  bool is_object() const { return kind() == '{'; }
  bool is_array() const { return kind() == '['; }
  bool is_true() const { return passed_.json == "true"; }
  size_t bytes() const { return passed_.json.size(); }
  size_t count() const { return passed_.items; }
  JsonReader reader() const { return *at_; }

  Value operator[](std::string_view key) const;  // the first of that name
  std::optional<std::string> text() const;
  std::optional<int64_t> integer() const { return json_integer(passed_.json); }
  std::string type() const { return (*this)["type"].text().value_or(""); }
  template <class F>
  void items(F&& f) const {
    if (!is_array()) return;
    JsonReader r = reader();
    r.items([&] { f(Value(r)); });
  }

 private:
  char kind() const { return at_ ? passed_.json[0] : '\0'; }

  std::optional<JsonReader> at_;
  JsonReader::Passed passed_;
};

Value Value::operator[](std::string_view key) const {
  Value out;
  if (!is_object()) return out;
  JsonReader r = reader();
  r.members([&](std::string_view name) {
    if (name == key && !out.at_) {
      out = Value(r);
    } else {
      r.skip();
    }
  });
  return out;
}

std::optional<std::string> Value::text() const {
  if (kind() != '"') return std::nullopt;
  std::string unescaped;
  return std::string(reader().text(unescaped));
}

// The members of one object that are known by name, found in one go.
template <size_t n>
class Members {
 public:
  explicit Members(std::array<std::string_view, n> names) : names_(names) {}
  // Passes the member that the reader is at.
  void take(std::string_view name, JsonReader& r) {
    const auto at = static_cast<size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
    if (at < n && !values_[at].bytes()) {
      values_[at] = Value(r);
    } else {
      r.skip();
    }
  }
  const Value& operator[](std::string_view name) const {
    return values_.at(static_cast<size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin()));
  }

 private:
  std::array<std::string_view, n> names_;
  std::array<Value, n> values_;
};

// What a reader has passed of a large part, which nobody reads again.
class Forgotten {
 public:
  Forgotten(const JsonReader& r, bool owned) : from_(r.position()), owned_(owned) {}
  void follow(const JsonReader& r) {
    const auto passed = static_cast<size_t>(r.position() - from_);
    if (!owned_ || passed < kStep) return;
    forget_pages(from_, passed);
    from_ = r.position();
  }

 private:
  static constexpr size_t kStep = size_t{1} << 20;
  const char* from_;
  bool owned_;
};

class Reader {
 public:
  // `owned`: the text is the reader's to forget.
  Reader(std::string_view text, std::string_view name, bool owned);

  std::unique_ptr<Tokenizer> read();

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(Exit::data, "{}: {}", name_, fmt::format(format, std::forward<Args>(args)...));
  }

  int32_t place(std::string_view content, std::optional<int64_t> id);
  void read_vocabulary();
  void read_added();
  std::unique_ptr<Tokenizer> word_level();
  std::unique_ptr<Tokenizer> bpe();
  bool is_byte_level() const;
  const Value& small(const char* part) const;
  void read_normalizer(const Value& n);
  void read_step(const Value& step);
  void read_merges();
  void read_model_options();
  void read_post_processor(const Value& p, SpecialIds& special, const Tokenizer& t) const;

  std::string_view name_;
  bool owned_;
  Members<4> root_{{"added_tokens", "normalizer", "pre_tokenizer", "post_processor"}};
  Members<10> model_{{"type", "vocab", "merges", "byte_fallback", "dropout", "continuing_subword_prefix",
                      "end_of_word_suffix", "ignore_merges", "fuse_unk", "unk_token"}};
  BpeParts parts_;
  std::optional<std::string> unknown_;
  bool byte_level_ = false;
};

Reader::Reader(std::string_view text, std::string_view name, bool owned) : name_(name), owned_(owned) {
  JsonReader r(text, name);
  if (r.ahead() != '{') {
    r.skip();
  } else {
    bool has_model = false;
    r.members([&](std::string_view member) {
      if (member != "model" || r.ahead() != '{' || has_model) return root_.take(member, r);
      has_model = true;
      r.members([&](std::string_view option) { model_.take(option, r); });
    });
  }
  r.finish();
}

int32_t Reader::place(std::string_view content, std::optional<int64_t> id) {
  const int64_t i = id.value_or(-1);
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
  const Value& vocab = model_["vocab"];
  if (!vocab.is_object()) fail("the model has no \"vocab\" object");
  // Around each token there are quotes, a colon, a digit and a comma, or more.
  parts_.vocabulary.reserve(vocab.count(), vocab.bytes() + root_["added_tokens"].bytes());
  JsonReader r = vocab.reader();
  Forgotten behind(r, owned_);
  r.members([&](std::string_view content) {
    const int32_t id = place(content, json_integer(r.skip().json));
    if (!parts_.unknown && content == unknown_) parts_.unknown = id;
    behind.follow(r);
  });
}

void Reader::read_added() {
  std::vector<bool> seen;
  size_t bytes = 0;
  const Value& all = root_["added_tokens"];
  if (!all.is_array()) return;
  JsonReader r = all.reader();
  r.items([&] {
    Members<7> entry{{"id", "content", "special", "normalized", "single_word", "lstrip", "rstrip"}};
    if (r.ahead() == '{') {
      r.members([&](std::string_view name) { entry.take(name, r); });
    } else {
      r.skip();
    }
    const auto content = entry["content"].text();
    if (!content) fail("an added token has no \"content\"");
    if (content->size() > kMaxAddedBytes)
      fail("an added token of {} bytes; {} are possible", content->size(), kMaxAddedBytes);
    const int32_t id = place(*content, entry["id"].integer());
    seen.resize(std::max(seen.size(), static_cast<size_t>(id) + 1));
    if (seen[static_cast<size_t>(id)]) return;
    seen[static_cast<size_t>(id)] = true;
    bytes += content->size();
    if (parts_.added.size() == kMaxAdded || bytes > kMaxAllAddedBytes)
      fail("more than {} added tokens, or {} bytes of them", kMaxAdded, kMaxAllAddedBytes);
    parts_.added.push_back({.id = id,
                            .special = entry["special"].is_true(),
                            .normalized = entry["normalized"].is_true(),
                            .single_word = entry["single_word"].is_true(),
                            .lstrip = entry["lstrip"].is_true(),
                            .rstrip = entry["rstrip"].is_true()});
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
  if (root_["pre_tokenizer"].type() != "WhitespaceSplit")
    fail("a WordLevel tokenizer is read only with the pre-tokenizer WhitespaceSplit");
  std::vector<int32_t> specials;
  for (const AddedToken& a : parts_.added) {
    if (a.special) specials.push_back(a.id);
  }
  return std::make_unique<WordLevel>(std::move(words), specials);
}

// A part of the root; its parts are looked through once for every level around them.
const Value& Reader::small(const char* part) const {
  const Value& v = root_[part];
  if (v.bytes() > kMaxPartBytes) fail("a {} of {} bytes; at most {} are read", part, v.bytes(), kMaxPartBytes);
  return v;
}

void Reader::read_normalizer(const Value& n) {
  if (!n) return;
  const auto type = n.type();
  if (type == "NFC") {
    parts_.nfc = true;
  } else if (type == "Sequence") {
    n["normalizers"].items([&](const Value& v) { read_normalizer(v); });
  } else {
    fail("normalizers of type {} are not supported; NFC and none are (SentencePiece tokenizers have others)",
         type.substr(0, 40));
  }
}

void Reader::read_step(const Value& step) {
  const auto type = step.type();
  using Kind = SplitStep::Kind;
  using Keep = SplitStep::Keep;
  if (type == "Sequence") {
    step["pretokenizers"].items([&](const Value& v) { read_step(v); });
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
  const Value& merges = model_["merges"];
  if (!merges.is_array()) fail("a BPE model needs an array \"merges\"");
  parts_.merges.reserve(std::min(merges.count(), MergeTable::kMaxMerges));
  std::array<std::string, 2> unescaped;
  JsonReader r = merges.reader();
  Forgotten behind(r, owned_);
  size_t number = 0;
  r.items([&] {
    std::array<std::string_view, 2> pair;
    if (r.ahead() == '"') {
      const std::string_view both = r.text(unescaped[0]);
      const size_t space = both.find(' ');
      if (space == both.npos || both.find(' ', space + 1) != both.npos)
        fail("merge {} (\"{}\") is not two tokens with a space between", number, both.substr(0, 40));
      pair = {both.substr(0, space), both.substr(space + 1)};
    } else {
      size_t texts = 0;
      bool good = r.ahead() == '[';
      if (good) {
        r.items([&] {
          good = good && texts < 2 && r.ahead() == '"';
          if (!good) return void(r.skip());
          pair[texts] = r.text(unescaped[texts]);
          ++texts;
        });
      }
      if (!good || texts != 2) fail("merge {} is neither \"a b\" nor [\"a\", \"b\"]", number);
    }
    parts_.add_merge(pair[0], pair[1], name_);
    ++number;
    behind.follow(r);
  });
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
  if (unknown_ && !parts_.unknown) fail("the unk_token \"{}\" is not in the vocabulary", unknown_->substr(0, 40));
}

// Llama 3: a TemplateProcessing that puts the BOS in front of a text.
void Reader::read_post_processor(const Value& p, SpecialIds& special, const Tokenizer& t) const {
  p["processors"].items([&](const Value& part) { read_post_processor(part, special, t); });
  bool first = true;
  p["single"].items([&](const Value& part) {
    const auto mark = part["SpecialToken"]["id"].text();
    if (const auto id = first && mark ? t.find(*mark) : std::nullopt) {
      special.bos = id;
      special.add_bos = true;
    }
    first = false;
  });
}

// The file that ByteLevel::to_json writes.
bool Reader::is_byte_level() const {
  const Vocabulary& v = parts_.vocabulary;
  const ByteLevel plain;
  if (!model_["merges"].is_array() || model_["merges"].count() > 0 || v.size() != plain.vocab_size()) return false;
  for (int32_t i = 0; i < v.size(); ++i) {
    if (v[i] != plain.token(i)) return false;
  }
  return true;
}

std::unique_ptr<Tokenizer> Reader::bpe() {
  if (is_byte_level()) return std::make_unique<ByteLevel>();
  read_model_options();
  read_normalizer(small("normalizer"));
  if (const Value& pre = small("pre_tokenizer")) read_step(pre);
  if (!byte_level_) {
    fail(
        "a BPE without a ByteLevel pre-tokenizer is not supported (SentencePiece models are of that kind); "
        "byte-level BPE is");
  }
  parts_.index_vocabulary(name_);
  read_merges();
  auto out = std::make_unique<Bpe>(std::move(parts_), name_);
  SpecialIds special = out->special();
  read_post_processor(small("post_processor"), special, *out);
  out->set_special(special);
  return out;
}

std::unique_ptr<Tokenizer> Reader::read() {
  const auto kind = model_["type"].text().value_or("");
  if (kind.empty()) fail("no \"model\" with a \"type\"; a Hugging Face tokenizer.json has one");
  if (kind != "WordLevel" && kind != "BPE")
    fail("tokenizers of type {} are not supported{}; byte-level BPE and WordLevel are", kind.substr(0, 40),
         kind == "Unigram"     ? " (SentencePiece)"
         : kind == "WordPiece" ? " (BERT)"
                               : "");
  if (kind == "BPE") unknown_ = model_["unk_token"].text();
  if (unknown_ && unknown_->empty()) unknown_.reset();
  read_vocabulary();
  read_added();
  if (parts_.vocabulary.size() == 0) fail("the vocabulary is empty");
  return kind == "BPE" ? bpe() : word_level();
}

std::unique_ptr<Tokenizer> parse(std::string_view json, std::string_view name, bool owned) {
  if (json.size() > kMaxFileBytes)
    throw_error(Exit::data, "{}: {} bytes; at most {} are read", name, json.size(), kMaxFileBytes);
  return Reader(json, name, owned).read();
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
