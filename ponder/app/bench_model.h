// bench MODEL: how fast a model reads prompts and decodes, beside what the machine's memory and arithmetic allow.
#pragma once

#include <string>

namespace ponder::app {

class Arguments;

int bench_model(const std::string& name, const Arguments& args);

}  // namespace ponder::app
