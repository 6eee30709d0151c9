// Cutting a text into the pieces inside which BPE merges: words with their leading space, numbers, runs of signs ...
//
// A pre-tokenizer is a list of steps; each cuts every piece that the one before left. The expressions of the known
// models (DeepSeek V3/R1, Qwen 2 and 3, Llama 3, GPT-2, digits) run as hand-written splitters; any other expression
// runs in PCRE2 (JIT). Texts are well-formed UTF-8 of less than 4 GiB.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ponder::text {

// One step as a tokenizer.json spells it.
struct SplitStep {
  enum class Kind {
    regex,       // Split with a regular expression: `pattern`
    literal,     // Split with a string: `pattern`
    digit,       // Digits, individual_digits: true
    digits,      // Digits, individual_digits: false
    byte_level,  // ByteLevel with use_regex: GPT-2's expression
  };
  Kind kind = Kind::regex;
  std::string pattern;
  // What happens to the matches and to the gaps between them. `isolated` keeps both as pieces of their own, the others
  // drop one of them.
  enum class Keep { isolated, matches, gaps };
  Keep keep = Keep::isolated;
  bool operator==(const SplitStep&) const = default;
};

class Pretokenizer {
 public:
  struct Piece {
    uint32_t begin, end;  // bytes of the text
  };
  // known: hand-written splitters where there are any. regex: PCRE2 for every step (tests compare the two).
  enum class Engine { known, regex };

  // Throws Error (data) for an expression that does not compile, with the place in it.
  explicit Pretokenizer(std::vector<SplitStep> steps, Engine engine = Engine::known);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  // The pieces in order, none empty. Throws Error (data) where an expression needs more work than any sane one.
  std::vector<Piece> split(std::string_view text) const;
  const std::vector<SplitStep>& steps() const { return steps_; }

 private:
  struct Splitter;
  std::vector<SplitStep> steps_;
  std::vector<std::unique_ptr<Splitter>> splitters_;
};

// --- The steps of known models ---------------------------------------------------------------------------------------

// The expressions, word for word as their files have them (a carriage return or line feed may stand for itself there).
extern const std::string_view kGpt2Pattern, kQwenPattern, kLlama3Pattern, kDeepSeekV3Pattern, kDeepSeekV3CjkPattern;

// The hand-written splitter of an expression: from p, where a piece begins, to the end of that piece (a match or the
// gap before the next one). p < end.
using NextPiece = const char* (*)(const char* p, const char* end);
// nullptr: there is none.
NextPiece known_splitter(std::string_view pattern);

}  // namespace ponder::text
