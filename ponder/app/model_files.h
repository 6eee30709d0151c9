// What a model has beside its weights, when it is written in another format: the tokenizer and the chat template.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ponder/tensor/gguf.h"
#include "ponder/text/bpe_gguf.h"

namespace ponder::app {

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

// The keys tokenizer.ggml.* and tokenizer.chat_template.
GgufMetadata vocabulary_metadata(const text::GgufVocabulary& vocabulary);

// A byte-level BPE for a model with random weights: the bytes, a begin and an end, one merge, and unused ids up to
// `rows`. Loaders of GGUF ask for one. Error (usage): fewer rows than that.
text::GgufVocabulary dummy_vocabulary(int64_t rows);

}  // namespace ponder::app
