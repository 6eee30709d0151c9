// Tokens to a tree. Internal.
#pragma once

#include <string>
#include <vector>

#include "ponder/text/jinja/ast.h"

namespace ponder::text::jinja {

Body parse(std::vector<Token> tokens, const std::string& name);

}  // namespace ponder::text::jinja
