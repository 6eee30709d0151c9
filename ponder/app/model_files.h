// What a model has beside its weights, when it is written in another format: the tokenizer and the chat template.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ponder/model/source.h"
#include "ponder/tensor/gguf.h"
#include "ponder/text/bpe_gguf.h"
#include "ponder/text/model_text.h"

namespace ponder::app {

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

// The keys tokenizer.ggml.* and tokenizer.chat_template, read and made.
text::GgufVocabulary vocabulary_of(const GgufFile& file);
// Empty where there is none; what is there but cannot be used gives a warning.
text::ModelText read_model_text(const model::WeightSource& source);
GgufMetadata vocabulary_metadata(const text::GgufVocabulary& vocabulary);

// The tokenizer, the template and the marks of a model, as a .gguf file of `rows` tokens has them. What stands in a GGUF
// source goes over as it is, sampling recommendations and licence included. A source without a tokenizer, or with one
// that GGUF has no name for, gives nothing, with a warning.
GgufMetadata companions_for_gguf(const model::WeightSource& source);
// Likewise as files of an existing folder: those of a folder are copied, those of a GGUF file are made.
void write_companion_files(const model::WeightSource& source, const std::string& folder);

// A byte-level BPE for a model with random weights: the bytes, a begin and an end, one merge, and unused ids up to
// `rows`. Loaders of GGUF ask for one. Error (usage): fewer rows than that.
text::GgufVocabulary dummy_vocabulary(int64_t rows);

}  // namespace ponder::app
