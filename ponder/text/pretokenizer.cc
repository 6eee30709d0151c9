#include "ponder/text/pretokenizer.h"

#include "ponder/base/error.h"
#include "ponder/text/pretokenizer_regex.h"

namespace ponder::text {

// Either a hand-written function or an expression.
struct Pretokenizer::Splitter {
  NextPiece next = nullptr;
  std::unique_ptr<SplitRegex> regex;
  SplitStep::Keep keep = SplitStep::Keep::isolated;

  // Cuts every one of `pieces` of the text.
  void split(std::string_view text, const std::vector<Piece>& pieces, std::vector<Piece>& out) const {
    const auto put = [&](size_t begin, size_t end) {
      if (begin < end) out.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    };
    if (next) {
      for (const Piece piece : pieces) {
        const char *p = text.data() + piece.begin, *end = text.data() + piece.end;
        while (p < end) {
          const char* q = next(p, end);
          put(static_cast<size_t>(p - text.data()), static_cast<size_t>(q - text.data()));
          p = q;
        }
      }
      return;
    }
    SplitRegex::Scan scan(*regex);
    for (const Piece piece : pieces) {
      scan.start(text.substr(piece.begin, piece.end - piece.begin));
      size_t done = piece.begin;
      for (SplitRegex::Match m; scan.next(m);) {
        if (keep != SplitStep::Keep::matches) put(done, piece.begin + m.begin);
        if (keep != SplitStep::Keep::gaps) put(piece.begin + m.begin, piece.begin + m.end);
        done = piece.begin + m.end;
      }
      if (keep != SplitStep::Keep::matches) put(done, piece.end);
    }
  }
};

Pretokenizer::Pretokenizer(std::vector<SplitStep> steps, Engine engine) : steps_(std::move(steps)) {
  for (const SplitStep& step : steps_) {
    auto s = std::make_unique<Splitter>();
    s->keep = step.keep;
    using Kind = SplitStep::Kind;
    const std::string_view pattern = step.kind == Kind::digit        ? R"(\p{N})"
                                     : step.kind == Kind::digits     ? R"(\p{N}+)"
                                     : step.kind == Kind::byte_level ? kGpt2Pattern
                                                                     : std::string_view(step.pattern);
    // A known splitter gives matches and gaps alike, so it serves only where both are kept.
    if (engine == Engine::known && step.kind != Kind::literal && step.keep == SplitStep::Keep::isolated)
      s->next = known_splitter(pattern);
    if (!s->next) s->regex = std::make_unique<SplitRegex>(pattern, step.kind == Kind::literal);
    splitters_.push_back(std::move(s));
  }
}

Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

std::vector<Pretokenizer::Piece> Pretokenizer::split(std::string_view text) const {
  if (text.size() >= UINT32_MAX)
    throw_error(Exit::data, "a text of {} bytes; less than 4 GiB are possible", text.size());
  std::vector<Piece> pieces, next;
  if (!text.empty()) pieces.push_back({0, static_cast<uint32_t>(text.size())});
  for (const auto& splitter : splitters_) {
    next.clear();
    next.reserve(std::max(pieces.size() * 2, text.size() / 8));
    splitter->split(text, pieces, next);
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace ponder::text
