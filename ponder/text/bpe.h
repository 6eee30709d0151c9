// Byte-level BPE: the tokenizer of DeepSeek V2 to R1, Qwen 2 and 3, Llama 3, GPT-2 and SmolLM2.
//
// encode: added tokens are cut out; what lies between is repaired (bytes that are no UTF-8 become U+FFFD), normalised,
// cut by the pre-tokenizer, and each piece's bytes are merged by rank. All four steps are those of Hugging Face's
// tokenizers library, id for id. A byte that no token has vanishes before merging, as there.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/text/bpe_merge.h"
#include "ponder/text/pretokenizer.h"
#include "ponder/text/tokenizer.h"

namespace ponder::text {

// What a file says about a byte-level BPE.
struct BpeParts {
  // All tokens are set. Throws Error (data) beginning with `name` where one has two ids.
  void index_vocabulary(std::string_view name);
  // The next merge; then the vocabulary is indexed. Throws Error (data) beginning with `name` where its parts or its
  // result are no tokens.
  void add_merge(std::string_view left, std::string_view right, std::string_view name);

  Vocabulary vocabulary;  // in the byte alphabet
  std::vector<AddedToken> added;
  std::vector<Merge> merges;  // rank is place
  // A merge of something that is no token can never happen: an error, or (GGUF, as llama.cpp) left out.
  bool skip_impossible_merges = false;
  std::vector<SplitStep> steps;
  bool nfc = false;
  bool ignore_merges = false;      // a piece that is a token is that token, whatever merging would give
  std::optional<int32_t> unknown;  // for bytes without a token; nothing: they vanish
  bool fuse_unknown = false;       // neighbouring unknown bytes are one
};

class Bpe final : public Tokenizer {
 public:
  // Throws Error (data) beginning with `name` where a pre-tokenizer's expression cannot be used.
  Bpe(BpeParts parts, std::string_view name);

  std::string piece(int32_t id, bool first) const override;
  std::string to_json() const override;

  const Pretokenizer& pretokenizer() const { return pretokenizer_; }
  std::span<const Merge> merges() const { return merges_.merges(); }
  bool nfc() const { return nfc_; }
  bool ignore_merges() const { return ignore_merges_; }

 protected:
  void encode_stretch(std::string_view text, Specials specials, std::vector<int32_t>& out) const override;

 private:
  void encode_pieces(std::string_view text, std::vector<int32_t>& out) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>& out) const;

  Pretokenizer pretokenizer_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_;
  bool nfc_, ignore_merges_, fuse_unknown_;
  std::optional<int32_t> unknown_;
  AddedTokenMatcher normalized_;  // the added tokens that are looked for after normalisation
  uint32_t owner_;                // distinguishes tokenizers in the caches of pieces
};

}  // namespace ponder::text
