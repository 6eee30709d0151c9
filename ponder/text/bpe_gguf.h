// A byte-level BPE out of GGUF metadata, and back. The struct is what tokenizer.ggml.* holds; reading the file itself is
// ponder/tensor's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ponder/text/tokenizer.h"

namespace ponder::text {

// The field's key follows "tokenizer.ggml." unless said otherwise.
struct GgufVocabulary {
  // token_type: the kinds that a BPE has.
  static constexpr int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

  std::string model = "gpt2";        // model; only "gpt2" is byte-level BPE
  std::string pre;                   // pre: names the normaliser and pre-tokenizer
  std::vector<std::string> tokens;   // tokens
  std::vector<int64_t> token_types;  // token_type; empty: all are normal
  std::vector<std::string> merges;   // merges: "a b", by rank
  // bos_token_id, eos_token_id, padding_token_id; eot_token_id, eom_token_id: others that end an answer
  std::optional<int64_t> bos, eos, pad, eot, eom;
  std::optional<bool> add_bos;  // add_bos_token; nothing: what `pre` has by custom
  std::string chat_template;    // tokenizer.chat_template; "": none
};

// Control and user-defined tokens become added tokens, unused ones become ids without a token. `name` begins the
// messages. Throws Error (data): another model than gpt2, a `pre` that is not known (the message lists those that are),
// ids out of range, malformed text.
std::unique_ptr<Tokenizer> tokenizer_from_gguf(const GgufVocabulary& vocabulary, std::string_view name);

// The same in the other direction. Ids without a token up to `rows` (of the embedding) become "[PADn]", unused. eot, eom
// and chat_template are left to the caller. Throws Error (data) for tokenizers that GGUF has no name for.
GgufVocabulary gguf_vocabulary(const Tokenizer& tokenizer, int64_t rows);

}  // namespace ponder::text
