// From a stream of tokens to a stream of text: whole characters only, thinking apart from the answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ponder::text {

class Tokenizer;

// Bytes in, UTF-8 out. What is decided is let out at once; only a proper prefix of a valid character, or of a surrogate,
// is held back.
// Bytes that cannot become valid give U+FFFD, one for each maximal ill-formed subpart (Unicode 15, section 3.9, as
// Rust, Python and the WHATWG do).
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);
  // The end: what is still held becomes U+FFFD.
  std::string flush();

 private:
  std::string held_;
};

// Token ids in, text out. The pieces joined are tokenizer.decode of all ids. The bytes of all tokens, added ones too,
// are one stream: a character that one of them leaves unfinished becomes U+FFFD in front of the next text.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  std::string push(int32_t id);
  std::string flush() { return utf8_.flush(); }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  Utf8Stream utf8_;
  bool first_ = true;
};

// Splits a model's output into reasoning and answer.
//
// The end of the prompt decides the start: after `<think>` the stream begins inside the reasoning, after `</think>` in
// the answer; otherwise reasoning opens only if the output itself begins with `<think>` (white space before it is
// dropped). The first `</think>` inside closes; all that follows is answer, tags included. Texts are verbatim, tags
// removed.
class ThinkSplitter {
 public:
  // token: only a piece that is the tag and nothing else is a tag (models with tokens for them). text: tags are found
  // in the joined text, however it is cut; a suffix that may become the tag is held back.
  enum class Tags { token, text };
  enum class State { undecided, reasoning, content };
  struct Delta {
    State part;  // reasoning or content
    std::string text;
    bool operator==(const Delta&) const = default;
  };

  ThinkSplitter(std::string_view prompt_tail, Tags tags);
  std::vector<Delta> push(std::string_view piece);
  // The end of the output: what is held comes out as the part it stands in. An undecided stream was answer.
  std::vector<Delta> finish();
  State state() const { return state_; }

 private:
  void emit(std::vector<Delta>& out, std::string_view text) const;
  void push_text(std::vector<Delta>& out);

  Tags tags_;
  State state_ = State::undecided;
  std::string held_;
};

}  // namespace ponder::text
