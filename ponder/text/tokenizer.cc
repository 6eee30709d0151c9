#include "ponder/text/tokenizer.h"

#include <algorithm>
#include <array>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/text/stream.h"

namespace ponder::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxTokens = size_t{1} << 20;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// GPT-2's alphabet: every byte as one printable character. Printable bytes stand for themselves; the others are
// numbered from U+0100 on.
std::array<std::string, 256> byte_alphabet() {
  std::array<std::string, 256> out;
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const int c = printable ? b : next++;
    auto& s = out[static_cast<size_t>(b)];
    if (c >= 0x80) s += static_cast<char>(0xC0 | c >> 6);
    s += static_cast<char>(c >= 0x80 ? 0x80 | (c & 0x3F) : c);
  }
  return out;
}

const std::array<std::string_view, 3> kByteSpecials = {"<pad>", "<bos>", "<end>"};

std::vector<std::string> byte_tokens() {
  const auto bytes = byte_alphabet();
  std::vector<std::string> out(bytes.begin(), bytes.end());
  out.insert(out.end(), kByteSpecials.begin(), kByteSpecials.end());
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

Tokenizer::Tokenizer(std::vector<std::string> tokens, std::span<const int32_t> specials)
    : tokens_(std::move(tokens)), specials_(specials.begin(), specials.end()), is_special_(tokens_.size()) {
  ids_.reserve(tokens_.size());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const bool fresh = ids_.emplace(tokens_[i], static_cast<int32_t>(i)).second;
    PONDER_CHECK(fresh && !tokens_[i].empty(), "token {} (\"{}\") is empty or occurs twice", i, tokens_[i]);
  }
  for (const int32_t id : specials_) is_special_.at(static_cast<size_t>(id)) = true;
  std::stable_sort(specials_.begin(), specials_.end(),
                   [&](int32_t a, int32_t b) { return token(a).size() > token(b).size(); });
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

const std::string& Tokenizer::token(int32_t id) const {
  static const std::string none;
  return id >= 0 && id < vocab_size() ? tokens_[static_cast<size_t>(id)] : none;
}

std::optional<int32_t> Tokenizer::find(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? std::nullopt : std::optional(it->second);
}

int32_t Tokenizer::id(std::string_view token) const {
  const auto found = find(token);
  PONDER_CHECK(found, "the vocabulary has no token \"{}\"", token);
  return *found;
}

void Tokenizer::cut_at_specials(std::string_view text,
                                const std::function<void(std::string_view, std::optional<int32_t>)>& f) const {
  std::array<bool, 256> begins{};
  for (const int32_t id : specials_) begins[static_cast<unsigned char>(token(id)[0])] = true;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    if (begins[static_cast<unsigned char>(text[i])]) {
      const auto hit = std::find_if(specials_.begin(), specials_.end(),
                                    [&](int32_t id) { return text.substr(i).starts_with(token(id)); });
      if (hit != specials_.end()) {
        if (i > start) f(text.substr(start, i - start), std::nullopt);
        f(token(*hit), *hit);
        start = i += token(*hit).size();
        continue;
      }
    }
    ++i;
  }
  if (start < text.size()) f(text.substr(start), std::nullopt);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  StreamDecoder stream(*this);
  std::string out;
  for (const int32_t id : ids) out += stream.push(id);
  return out + stream.flush();
}

void Tokenizer::save(const std::string& path) const { write_file_atomic(path, to_json()); }

std::vector<int32_t> WordLevel::encode(std::string_view text) const {
  std::vector<int32_t> out;
  cut_at_specials(text, [&](std::string_view s, std::optional<int32_t> mark) {
    if (mark) return out.push_back(*mark);
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
  });
  return out;
}

std::string WordLevel::piece(int32_t id, bool first) const {
  const std::string& word = token(id);
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

ByteLevel::ByteLevel() : Tokenizer(byte_tokens(), std::array<int32_t, 3>{256, 257, 258}) {}

std::vector<int32_t> ByteLevel::encode(std::string_view text, bool recognise_specials) const {
  std::vector<int32_t> out;
  out.reserve(text.size());
  const auto put = [&](std::string_view s, std::optional<int32_t> mark) {
    if (mark) return out.push_back(*mark);
    for (const char c : s) out.push_back(static_cast<unsigned char>(c));
  };
  if (recognise_specials) {
    cut_at_specials(text, put);
  } else {
    put(text, std::nullopt);
  }
  return out;
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

std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, std::string_view name) {
  const Json j = parse_json(json, std::string(name), 1, {.max_bytes = kMaxFileBytes});
  const auto member = [&](const Json& in, const char* key) -> const Json& {
    static const Json none;
    if (!in.is_object()) return none;
    const auto it = in.find(key);
    return it == in.end() ? none : *it;
  };
  const auto type_of = [&](const Json& part) {
    const auto& type = member(part, "type");
    return type.is_string() ? type.get<std::string>() : std::string();
  };
  const Json& model = member(j, "model");
  const std::string kind = type_of(model);
  if (kind.empty())
    throw_error(Exit::data, "{}: no \"model\" with a \"type\"; a Hugging Face tokenizer.json has one", name);
  if (kind != "WordLevel" && kind != "BPE") {
    throw_error(Exit::data, "{}: tokenizers of type {} are not supported; WordLevel and byte-level ones are", name,
                kind.substr(0, 40));
  }

  // id -> token, from the model's vocabulary and the added tokens, without holes.
  std::vector<std::string> tokens;
  std::vector<int32_t> specials;
  const auto place = [&](const std::string& content, const Json& id) {
    const int64_t i = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (i < 0 || i >= static_cast<int64_t>(kMaxTokens)) {
      throw_error(Exit::data, "{}: token \"{}\" needs an id from 0 to {}", name, content.substr(0, 40), kMaxTokens - 1);
    }
    const auto at = static_cast<size_t>(i);
    if (content.empty()) throw_error(Exit::data, "{}: token {} is empty", name, i);
    if (tokens.size() <= at) tokens.resize(at + 1);
    if (!tokens[at].empty() && tokens[at] != content) {
      throw_error(Exit::data, "{}: id {} belongs to \"{}\" and to \"{}\"", name, i, tokens[at].substr(0, 40),
                  content.substr(0, 40));
    }
    tokens[at] = content;
    return static_cast<int32_t>(i);
  };
  const Json& vocab = member(model, "vocab");
  if (!vocab.is_object()) throw_error(Exit::data, "{}: the model has no \"vocab\" object", name);
  for (const auto& [content, id] : vocab.items()) place(content, id);
  const Json& added = member(j, "added_tokens");
  if (added.is_array()) {
    for (const auto& entry : added) {
      const auto& content = member(entry, "content");
      if (!content.is_string()) throw_error(Exit::data, "{}: an added token has no \"content\"", name);
      const int32_t id = place(content.get<std::string>(), member(entry, "id"));
      const auto& special = member(entry, "special");
      if (special.is_boolean() && special.get<bool>()) specials.push_back(id);
    }
  }
  std::vector<std::string_view> sorted(tokens.begin(), tokens.end());
  std::sort(sorted.begin(), sorted.end());
  if (sorted.empty()) throw_error(Exit::data, "{}: the vocabulary is empty", name);
  if (sorted.front().empty())
    throw_error(Exit::data, "{}: the ids have holes; they must be 0 to {}", name, tokens.size() - 1);
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) throw_error(Exit::data, "{}: \"{}\" has two ids", name, twice->substr(0, 40));

  if (kind == "WordLevel") {
    if (type_of(member(j, "pre_tokenizer")) != "WhitespaceSplit") {
      throw_error(Exit::data, "{}: a WordLevel tokenizer is read only with the pre-tokenizer WhitespaceSplit", name);
    }
    for (const auto& word : tokens) {
      if (std::any_of(word.begin(), word.end(), is_space))
        throw_error(Exit::data, "{}: the word \"{}\" holds white space", name, word.substr(0, 40));
    }
    std::sort(specials.begin(), specials.end());
    specials.erase(std::unique(specials.begin(), specials.end()), specials.end());
    return std::make_unique<WordLevel>(std::move(tokens), specials);
  }
  const Json& merges = member(model, "merges");
  if (tokens != byte_tokens() || (merges.is_array() && !merges.empty())) {
    throw_error(Exit::data,
                "{}: a BPE tokenizer with merges is not supported yet; WordLevel and plain byte-level ones are", name);
  }
  return std::make_unique<ByteLevel>();
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  return parse_tokenizer(read_file(path, kMaxFileBytes), path);
}

}  // namespace ponder::text
