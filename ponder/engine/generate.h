// A batch of requests, start to end.
#pragma once

#include <functional>
#include <vector>

#include "ponder/engine/engine.h"

namespace ponder::engine {

struct Answer {
  std::vector<int32_t> tokens;  // the stop token included
  std::vector<float> logp, entropy;
  Finish finish = Finish::running;
};

// answers[i][j] is the answer of request i with its seed j. `progress` (may be empty) is called after every step with the
// number of finished answers; when it returns false the rest is cancelled.
std::vector<std::vector<Answer>> generate(Engine& engine, std::vector<Request> requests,
                                          const std::function<bool(int64_t finished)>& progress = {});

}  // namespace ponder::engine
