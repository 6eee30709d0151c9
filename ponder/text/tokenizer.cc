#include "ponder/text/tokenizer.h"

#include <algorithm>
#include <array>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/text/stream.h"
#include "ponder/text/unicode.h"

namespace ponder::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

const std::array<std::string_view, 3> kByteSpecials = {"<pad>", "<bos>", "<end>"};

std::vector<std::string> byte_tokens() {
  std::vector<std::string> out = byte_alphabet();
  out.insert(out.end(), kByteSpecials.begin(), kByteSpecials.end());
  return out;
}

std::vector<AddedToken> marks(std::span<const int32_t> ids) {
  std::vector<AddedToken> out;
  for (const int32_t id : ids) out.push_back({.id = id});
  return out;
}

OrderedJson file_frame(const Tokenizer& t) {
  OrderedJson added = OrderedJson::array();
  for (int32_t id = 0; id < t.vocab_size(); ++id) {
    if (!t.is_special(id)) continue;
    added.push_back({{"id", id},
                     {"content", t.token(id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", nullptr}};
}

OrderedJson vocab_json(const Tokenizer& t, int32_t count) {
  OrderedJson vocab = OrderedJson::object();
  // ordered_json looks every key up linearly when it is assigned; the tokens are distinct, so they are appended.
  auto& entries = vocab.get_ref<OrderedJson::object_t&>();
  for (int32_t id = 0; id < count; ++id) entries.emplace_back(t.token(id), id);
  return vocab;
}

}  // namespace

const std::vector<std::string>& byte_alphabet() {
  static const auto alphabet = [] {
    std::vector<std::string> out(256);
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      append_utf8(out[b], printable ? b : next++);
    }
    return out;
  }();
  return alphabet;
}

int byte_of(uint32_t c) {
  static const auto bytes = [] {
    std::array<int16_t, 324> out;
    out.fill(-1);
    for (size_t b = 0; b < 256; ++b) out.at(code_point(byte_alphabet()[b].data()).value) = static_cast<int16_t>(b);
    return out;
  }();
  return c < bytes.size() ? bytes[c] : -1;
}

Tokenizer::Tokenizer(Vocabulary vocabulary, std::vector<AddedToken> added)
    : vocabulary_(std::move(vocabulary)),
      added_(std::move(added)),
      is_special_(static_cast<size_t>(vocabulary_.size())) {
  std::sort(added_.begin(), added_.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  std::vector<std::pair<std::string, AddedToken>> raw;
  for (const AddedToken& a : added_) {
    PONDER_CHECK(a.id >= 0 && a.id < vocab_size() && !token(a.id).empty(), "added token {} is no token", a.id);
    is_special_[static_cast<size_t>(a.id)] = a.special;
    if (!a.normalized) raw.emplace_back(token(a.id), a);
  }
  matcher_ = AddedTokenMatcher(std::move(raw));
  const auto first_of = [&](std::initializer_list<std::string_view> names) -> std::optional<int32_t> {
    for (const auto name : names) {
      if (const auto id = find(name)) return id;
    }
    return std::nullopt;
  };
  special_ = {.pad = first_of({"<pad>", "[PAD]"}),
              .bos = first_of({"<bos>", "<s>"}),
              .eos = first_of({"<end>", "<eos>", "</s>"})};
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Specials specials) const {
  std::vector<int32_t> out;
  if (specials == Specials::ignore) {
    encode_stretch(text, specials, out);
    return out;
  }
  matcher_.cut(text, [&](std::string_view stretch, std::optional<int32_t> id) {
    if (id) {
      out.push_back(*id);
    } else {
      encode_stretch(stretch, specials, out);
    }
  });
  return out;
}

int32_t Tokenizer::id(std::string_view token) const {
  const auto found = find(token);
  PONDER_CHECK(found, "the vocabulary has no token \"{}\"", token);
  return *found;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamDecoder stream(*this, skip_special);
  std::string out;
  for (const int32_t id : ids) out += stream.push(id);
  return out + stream.flush();
}

void Tokenizer::save(const std::string& path) const { write_file_atomic(path, to_json()); }

WordLevel::WordLevel(Vocabulary words, std::span<const int32_t> specials)
    : Tokenizer(std::move(words), marks(specials)) {
  const auto twice = vocabulary().twice();
  PONDER_CHECK(!twice, "the word \"{}\" occurs twice", token(*twice));
  for (int32_t id = 0; id < vocab_size(); ++id) PONDER_CHECK(!vocabulary()[id].empty(), "word {} is empty", id);
}

void WordLevel::encode_stretch(std::string_view s, Specials, std::vector<int32_t>& out) const {
  for (size_t i = 0; i < s.size();) {
    if (is_space(s[i])) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < s.size() && !is_space(s[end])) ++end;
    const std::string_view word = s.substr(i, end - i);
    const auto id = find(word);
    if (!id)
      throw_error(Exit::data, "the word \"{}\" is not one of the {} words this model knows", word.substr(0, 40),
                  vocab_size());
    out.push_back(*id);
    i = end;
  }
}

std::string WordLevel::piece(int32_t id, bool first) const {
  std::string word = token(id);
  return first || word.empty() ? word : " " + word;
}

std::string WordLevel::to_json() const {
  OrderedJson j = file_frame(*this);
  j["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
  j["post_processor"] = nullptr;
  j["decoder"] = nullptr;
  // There is no <unk> in the vocabulary: an unknown word is an error there as here.
  j["model"] = {{"type", "WordLevel"}, {"vocab", vocab_json(*this, vocab_size())}, {"unk_token", "<unk>"}};
  return j.dump(1) + "\n";
}

ByteLevel::ByteLevel() : Tokenizer(Vocabulary(byte_tokens()), marks(std::array<int32_t, 3>{256, 257, 258})) {
  SpecialIds ids = special();
  ids.add_bos = true;  // as the texts that these models are trained on
  set_special(ids);
}

void ByteLevel::encode_stretch(std::string_view text, Specials, std::vector<int32_t>& out) const {
  out.reserve(out.size() + text.size());
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
}

std::string ByteLevel::piece(int32_t id, bool) const {
  if (id < 0 || id > 255) return token(id);
  return std::string(1, static_cast<char>(id));
}

std::string ByteLevel::to_json() const {
  OrderedJson j = file_frame(*this);
  j["pre_tokenizer"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  j["post_processor"] = nullptr;
  j["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  j["model"] = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false},
                {"vocab", vocab_json(*this, 256)},
                {"merges", OrderedJson::array()}};
  return j.dump(1) + "\n";
}

}  // namespace ponder::text
