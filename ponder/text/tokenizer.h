// Text to token ids and back.
//
// A tokenizer is read from and written to Hugging Face's tokenizer.json, so that other programs can use the same file.
// Two kinds are ours: WordLevel (one token per word, for the puzzles: a number is one token) and ByteLevel (one token
// per byte, for the user's own text: nothing is ever unknown). Byte-level BPE with merges is not read yet; the error
// says so.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace ponder::text {

struct SpecialIds {
  std::optional<int32_t> pad, bos, eos;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The ids of a text. Special tokens spelled out in it ("<bos>") are recognised, as Hugging Face does. Nothing is
  // added in front or behind. Throws Error (data) where the text has no ids, naming the word.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // The bytes that token `id` adds to a text; `first` if the text is empty so far (words are joined by spaces). An id
  // without a token gives nothing. The bytes of one token need not be whole characters: see StreamDecoder.
  virtual std::string piece(int32_t id, bool first) const = 0;
  // The file's content. load_tokenizer reads it back; so does Hugging Face's tokenizers library.
  virtual std::string to_json() const = 0;

  // Always valid UTF-8: what is not becomes U+FFFD. decode(encode(s)) == s but for white space between words.
  std::string decode(std::span<const int32_t> ids) const;

  int32_t vocab_size() const { return static_cast<int32_t>(tokens_.size()); }
  // The token as the vocabulary spells it ("" for ids outside), and back.
  const std::string& token(int32_t id) const;
  std::optional<int32_t> find(std::string_view token) const;
  // The id of a token that must exist.
  int32_t id(std::string_view token) const;
  const SpecialIds& special() const { return special_; }
  bool is_special(int32_t id) const { return id >= 0 && id < vocab_size() && is_special_[static_cast<size_t>(id)]; }

  void save(const std::string& path) const;

 protected:
  // tokens[i] is token i; `specials` names those that are marks, not text. pad, bos and eos are known by their usual
  // names (<pad>, <bos>, <s>, <end>, <eos>, </s> ...).
  Tokenizer(std::vector<std::string> tokens, std::span<const int32_t> specials);

  // Cuts a text at the special tokens spelled out in it (leftmost, then longest): f(stretch, nothing) or f(mark, its
  // id).
  void cut_at_specials(std::string_view text,
                       const std::function<void(std::string_view, std::optional<int32_t>)>& f) const;
  const std::vector<int32_t>& specials() const { return specials_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
  std::vector<int32_t> specials_;  // longest first
  std::vector<bool> is_special_;
  SpecialIds special_;
};

// Words separated by white space, one token each. An unknown word is an error.
class WordLevel final : public Tokenizer {
 public:
  WordLevel(std::vector<std::string> words, std::span<const int32_t> specials)
      : Tokenizer(std::move(words), specials) {}
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string piece(int32_t id, bool first) const override;
  std::string to_json() const override;
};

// Ids 0..255 are the bytes; then <pad>, <bos>, <end>. In the file this is a byte-level BPE without merges.
class ByteLevel final : public Tokenizer {
 public:
  ByteLevel();
  std::vector<int32_t> encode(std::string_view text) const override { return encode(text, true); }
  // `recognise_specials` false: "<end>" in the text is five letters (for text that is not to be trusted).
  std::vector<int32_t> encode(std::string_view text, bool recognise_specials) const;
  std::string piece(int32_t id, bool first) const override;
  std::string to_json() const override;
};

// Reads a tokenizer.json (at most 64 MiB). Errors name the file and what is wrong.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);
// The same from memory; `name` is for messages. Throws Error (data) for anything that is not such a file.
std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, std::string_view name);

}  // namespace ponder::text
