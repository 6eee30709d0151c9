#include "ponder/engine/generate.h"

#include <algorithm>

namespace ponder::engine {

std::vector<std::vector<Answer>> generate(Engine& engine, std::vector<Request> requests,
                                          const std::function<bool(int64_t)>& progress) {
  PONDER_CHECK(engine.idle(), "generate needs an engine without other work");
  std::vector<std::vector<Answer>> answers(requests.size());
  int64_t first = -1, finished = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    answers[i].resize(requests[i].seeds.size());
    for (Answer& a : answers[i]) {
      const size_t longest = static_cast<size_t>(std::min(requests[i].max_new_tokens, 4096));
      a.tokens.reserve(longest), a.logp.reserve(longest), a.entropy.reserve(longest);
    }
    const int64_t id = engine.add(std::move(requests[i]));
    if (i == 0) first = id;
  }
  while (!engine.idle()) {
    for (const Event& e : engine.step()) {
      Answer& a = answers[static_cast<size_t>(e.request - first)][static_cast<size_t>(e.answer)];
      if (e.token >= 0) {
        a.tokens.push_back(e.token);
        a.logp.push_back(e.logp);
        a.entropy.push_back(e.entropy);
      }
      a.finish = e.finish;
      finished += e.finish != Finish::running;
    }
    if (progress && !progress(finished)) {
      for (size_t i = 0; i < answers.size(); ++i) engine.cancel(first + static_cast<int64_t>(i));
    }
  }
  return answers;
}

}  // namespace ponder::engine
