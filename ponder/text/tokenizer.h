// Text to token ids and back.
//
// A tokenizer is read from and written to Hugging Face's tokenizer.json, so that other programs can use the same file.
// Three kinds: WordLevel (one token per word, for the puzzles: a number is one token), ByteLevel (one token per byte,
// for the user's own text: nothing is ever unknown) and Bpe (bpe.h: byte-level BPE, which DeepSeek, Qwen, Llama 3 and
// SmolLM2 use; from GGUF metadata too, bpe_gguf.h). model_text.h reads what else a model folder says about text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/text/tokenizer_added.h"
#include "ponder/text/tokenizer_vocabulary.h"

namespace ponder::text {

struct SpecialIds {
  std::optional<int32_t> pad, bos, eos;
  // A raw text that the model continues begins with bos. A chat template spells its own: encode never adds it.
  bool add_bos = false;
};

// What encode does with an added token spelled out in the text.
enum class Specials {
  recognise,  // it is that token, as Hugging Face does
  ignore      // it is plain text like any other: for text that is not to be trusted
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The ids of a text. Nothing is added in front or behind. Throws Error (data) where the text has no ids, naming the
  // word.
  std::vector<int32_t> encode(std::string_view text, Specials specials = Specials::recognise) const;
  // The bytes that token `id` adds to a text; `first` if the text is empty so far (words are joined by spaces). An id
  // without a token gives nothing. The bytes of one token need not be whole characters: see StreamDecoder.
  virtual std::string piece(int32_t id, bool first) const = 0;
  // A file of the same tokenizer. load_tokenizer reads it back; so does Hugging Face's tokenizers library.
  virtual std::string to_json() const = 0;

  // Always valid UTF-8: what is not becomes U+FFFD. decode(encode(s)) == s but for white space between words
  // (WordLevel), and normalisation and bytes that no token has (Bpe). skip_special leaves out tokens that are special.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  int32_t vocab_size() const { return vocabulary_.size(); }
  // The token as the vocabulary spells it ("" for ids outside or without a token), and back.
  std::string token(int32_t id) const { return std::string(vocabulary_[id]); }
  std::optional<int32_t> find(std::string_view token) const { return vocabulary_.find(token); }
  // The id of a token that must exist.
  int32_t id(std::string_view token) const;

  const SpecialIds& special() const { return special_; }
  void set_special(const SpecialIds& special) { special_ = special; }
  // A mark, which skip_special drops. Added tokens that are not special (<think>) are text that is one token.
  bool is_special(int32_t id) const { return id >= 0 && id < vocab_size() && is_special_[static_cast<size_t>(id)]; }
  const std::vector<AddedToken>& added() const { return added_; }  // ascending ids

  void save(const std::string& path) const;

 protected:
  // `vocabulary` is indexed. pad, bos and eos are known by their usual names (<pad>, <bos>, <s>,
  // <end>, <eos>, </s> ...) until somebody says otherwise.
  Tokenizer(Vocabulary vocabulary, std::vector<AddedToken> added);

  // The ids of a stretch without (recognised) added tokens, but for those that are looked for after normalisation.
  virtual void encode_stretch(std::string_view text, Specials specials, std::vector<int32_t>& out) const = 0;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Vocabulary vocabulary_;
  std::vector<AddedToken> added_;
  std::vector<bool> is_special_;
  AddedTokenMatcher matcher_;  // those that are not `normalized`
  SpecialIds special_;
};

// Words separated by white space, one token each. An unknown word is an error.
class WordLevel final : public Tokenizer {
 public:
  WordLevel(Vocabulary words, std::span<const int32_t> specials);
  WordLevel(const std::vector<std::string>& words, std::span<const int32_t> specials)
      : WordLevel(Vocabulary(words), specials) {}
  std::string piece(int32_t id, bool first) const override;
  std::string to_json() const override;

 protected:
  void encode_stretch(std::string_view text, Specials specials, std::vector<int32_t>& out) const override;
};

// Ids 0..255 are the bytes; then <pad>, <bos>, <end>. In the file this is a byte-level BPE without merges.
class ByteLevel final : public Tokenizer {
 public:
  ByteLevel();
  std::string piece(int32_t id, bool first) const override;
  std::string to_json() const override;

 protected:
  void encode_stretch(std::string_view text, Specials specials, std::vector<int32_t>& out) const override;
};

// Reads a tokenizer.json or tokenizer.json.zst (at most 64 MiB unpacked). Errors name the file and what is wrong, or
// which kind of tokenizer is not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);
// The same from memory; `name` is for messages. Throws Error (data) for anything that is not such a file.
std::unique_ptr<Tokenizer> parse_tokenizer(std::string_view json, std::string_view name);

// GPT-2's alphabet: every byte as one printable character (UTF-8). Printable bytes stand for themselves; the others are
// numbered from U+0100 on.
const std::vector<std::string>& byte_alphabet();
// The byte that a character of the alphabet stands for, or -1.
int byte_of(uint32_t code_point);

}  // namespace ponder::text
