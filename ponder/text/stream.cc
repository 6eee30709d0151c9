#include "ponder/text/stream.h"

#include <algorithm>

#include "ponder/text/tokenizer.h"

namespace ponder::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
constexpr std::string_view kOpen = "<think>", kClose = "</think>";

struct Prefix {
  enum { valid, cut, ill } kind;
  size_t bytes;  // of the character, of the part seen so far, or of the maximal ill-formed subpart
};

// The beginning of s as UTF-8 (Unicode 15, table 3-7). s is not empty.
Prefix next_char(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char b = byte(0);
  if (b < 0x80) return {Prefix::valid, 1};
  const size_t length = b >= 0xC2 && b <= 0xDF ? 2 : b >= 0xE0 && b <= 0xEF ? 3 : b >= 0xF0 && b <= 0xF4 ? 4 : 0;
  if (length == 0) return {Prefix::ill, 1};
  // The second byte has a narrower range after four leaders: no overlong forms, no surrogates, nothing above U+10FFFF.
  const unsigned char low = b == 0xE0   ? 0xA0
                            : b == 0xF0 ? 0x90
                                        : 0x80,
                      high = b == 0xED   ? 0x9F
                             : b == 0xF4 ? 0x8F
                                         : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == s.size()) return {Prefix::cut, i};
    const bool fits = i == 1 ? byte(i) >= low && byte(i) <= high : byte(i) >= 0x80 && byte(i) <= 0xBF;
    if (!fits) return {Prefix::ill, i};
  }
  return {Prefix::valid, length};
}

// The first two bytes of a surrogate. They can no longer become valid, yet are held until the third byte, as Python's
// incremental decoder does (for its surrogatepass), so that streams are cut alike.
bool is_half_surrogate(std::string_view s) {
  return s.size() == 2 && s[0] == '\xED' && static_cast<unsigned char>(s[1]) >= 0xA0 &&
         static_cast<unsigned char>(s[1]) <= 0xBF;
}

// How much of the end of s may become `tag`.
size_t held_suffix(std::string_view s, std::string_view tag) {
  for (size_t n = std::min(s.size(), tag.size() - 1); n > 0; --n) {
    if (s.ends_with(tag.substr(0, n))) return n;
  }
  return 0;
}

// Before an opening tag. More than this is an answer, so that a stream of blanks is not held for ever.
constexpr size_t kMaxLeadingSpace = 64;
size_t leading_space(std::string_view s) { return std::min(s.find_first_not_of(" \t\r\n"), s.size()); }

std::string_view without_trailing_space(std::string_view s) { return s.substr(0, s.find_last_not_of(" \t\r\n") + 1); }

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  std::string joined;
  std::string_view rest = bytes;
  if (!held_.empty()) {
    joined = held_ + std::string(bytes);
    held_.clear();
    rest = joined;
  }
  std::string out;
  while (!rest.empty()) {
    const Prefix p = next_char(rest);
    if (p.kind == Prefix::cut || is_half_surrogate(rest)) {
      held_ = rest;
      break;
    }
    out += p.kind == Prefix::valid ? rest.substr(0, p.bytes) : kReplacement;
    rest.remove_prefix(p.bytes);
  }
  return out;
}

std::string Utf8Stream::flush() {
  std::string out;
  for (std::string_view rest = held_; !rest.empty(); rest.remove_prefix(next_char(rest).bytes)) out += kReplacement;
  held_.clear();
  return out;
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  const std::string bytes = tokenizer_->piece(id, first_);
  first_ = first_ && bytes.empty();
  return utf8_.push(bytes);
}

ThinkSplitter::ThinkSplitter(std::string_view prompt_tail, Tags tags) : tags_(tags) {
  const std::string_view tail = without_trailing_space(prompt_tail);
  if (tail.ends_with(kOpen)) state_ = State::reasoning;
  if (tail.ends_with(kClose)) state_ = State::content;
}

void ThinkSplitter::emit(std::vector<Delta>& out, std::string_view text) const {
  if (!text.empty()) out.push_back({state_, std::string(text)});
}

std::vector<ThinkSplitter::Delta> ThinkSplitter::push(std::string_view piece) {
  std::vector<Delta> out;
  if (tags_ == Tags::text) {
    held_ += piece;
    push_text(out);
  } else if (state_ == State::undecided && leading_space(piece) == piece.size() &&
             held_.size() + piece.size() <= kMaxLeadingSpace) {
    held_ += piece;
  } else if (state_ == State::undecided && piece == kOpen) {
    held_.clear();
    state_ = State::reasoning;
  } else if (state_ == State::reasoning && piece == kClose) {
    state_ = State::content;
  } else {
    if (state_ == State::undecided) state_ = State::content;
    emit(out, held_ + std::string(piece));
    held_.clear();
  }
  return out;
}

void ThinkSplitter::push_text(std::vector<Delta>& out) {
  if (state_ == State::undecided) {
    const size_t space = leading_space(held_);
    const std::string_view begun = std::string_view(held_).substr(space);
    if (space > kMaxLeadingSpace) {
      state_ = State::content;
    } else if (begun.starts_with(kOpen)) {
      held_.erase(0, held_.size() - begun.size() + kOpen.size());
      state_ = State::reasoning;
    } else if (!kOpen.starts_with(begun)) {
      state_ = State::content;
    }
  }
  if (state_ == State::reasoning) {
    const size_t close = held_.find(kClose);
    const size_t decided = close == std::string::npos ? held_.size() - held_suffix(held_, kClose) : close;
    emit(out, std::string_view(held_).substr(0, decided));
    held_.erase(0, decided);
    if (close != std::string::npos) {
      held_.erase(0, kClose.size());
      state_ = State::content;
    }
  }
  if (state_ == State::content) {
    emit(out, held_);
    held_.clear();
  }
}

std::vector<ThinkSplitter::Delta> ThinkSplitter::finish() {
  std::vector<Delta> out;
  if (state_ == State::undecided) state_ = State::content;
  emit(out, held_);
  held_.clear();
  return out;
}

}  // namespace ponder::text
