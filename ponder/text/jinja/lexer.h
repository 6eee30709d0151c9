// Cuts a template into text and the tokens of its tags, with Jinja's rules for white space around tags
// (trim_blocks and lstrip_blocks on, as transformers sets them). Internal.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ponder/base/error.h"

namespace ponder::text::jinja {

struct Position {
  int line = 1;
  int column = 1;  // in code points
};

// "NAME:LINE:COLUMN: what"
[[noreturn]] void fail_at(const std::string& name, Position at, const std::string& what);

struct Token {
  enum class Kind {
    text,            // between tags
    block_begin,     // {%
    block_end,       // %}
    variable_begin,  // {{
    variable_end,    // }}
    name,
    string,
    integer,
    real,
    op,
    end
  };
  Kind kind = Kind::end;
  Position at;
  std::string text;  // of a string: what it means; of a number: without underscores

  bool is(Kind k, std::string_view what) const { return kind == k && text == what; }
};

struct WhiteSpaceRules {
  bool trim_blocks = true;    // the line end after a block tag goes
  bool lstrip_blocks = true;  // white space before a block tag that starts its line goes
};

std::vector<Token> tokenize(std::string_view source, const std::string& name, WhiteSpaceRules rules);

}  // namespace ponder::text::jinja
