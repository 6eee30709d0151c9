// A regular expression as tokenizer files mean it (Oniguruma's Ruby syntax), run by PCRE2's JIT compiler.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace ponder::text {

class SplitRegex {
 public:
  // Throws Error (data) where the expression does not compile or means something else in PCRE2.
  SplitRegex(std::string_view pattern, bool literal);
  ~SplitRegex();
  SplitRegex(const SplitRegex&) = delete;
  SplitRegex& operator=(const SplitRegex&) = delete;

  struct Match {
    size_t begin, end;
  };
  // All matches in one text after another, from left to right. `next` returns false at the end of a text.
  class Scan {
   public:
    explicit Scan(const SplitRegex& regex);
    ~Scan();
    Scan(const Scan&) = delete;
    Scan& operator=(const Scan&) = delete;
    void start(std::string_view text);
    bool next(Match& match);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace ponder::text
