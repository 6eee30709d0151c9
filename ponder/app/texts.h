// The user's own texts as tokens of the byte-level vocabulary.
#pragma once

#include <cstdint>

#include "ponder/app/recipe.h"
#include "ponder/train/data.h"

namespace ponder::app {

struct Texts {
  train::PackedTexts train{{}, {0}}, held_out{{}, {0}};  // pieces of at most max_length tokens
  int64_t texts = 0, held_out_texts = 0;                 // documents
};

// Reads .jsonl files (the named fields of each line, joined by a line break) and plain ones (a text each). A text is
// <bos>, its bytes, <end>; one longer than max_length is cut into pieces, nothing is dropped. Which texts are held out is
// a function of the seed. Throws Error (data) that names file and line.
Texts read_texts(const DataSection& data, uint64_t seed);

}  // namespace ponder::app
