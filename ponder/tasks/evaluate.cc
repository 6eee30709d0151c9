#include "ponder/tasks/evaluate.h"

#include <algorithm>
#include <cmath>

#include "ponder/base/error.h"

namespace ponder::tasks {
namespace {

double ratio(int64_t a, int64_t b) { return b ? static_cast<double>(a) / static_cast<double>(b) : 0.0; }

}  // namespace

Summary::Summary(std::span<const std::string_view> modes) {
  for (const auto name : modes) modes_.push_back({name, 0, 0});
}

void Summary::add(const Grade& grade, int64_t tokens) {
  shortest_ = answers_ ? std::min(shortest_, tokens) : tokens;
  longest_ = std::max(longest_, tokens);
  ++answers_;
  tokens_ += tokens;
  right_ += grade.verdict == Grade::Verdict::right;
  wrong_ += grade.verdict == Grade::Verdict::wrong;
  unknown_ += grade.verdict == Grade::Verdict::unknown;
  for (Mode& m : modes_) {
    if (m.name != grade.mode) continue;
    ++m.answers;
    m.right += grade.right();
  }
  const Diagnostics& d = grade.diagnostics;
  gave_up_ += d.gave_up;
  truncated_ += d.truncated;
  malformed_ += d.malformed;
  claimed_ += d.claimed;
  for (int Diagnostics::*count : {&Diagnostics::checks, &Diagnostics::rejected, &Diagnostics::equations,
                                  &Diagnostics::wrong_arithmetic, &Diagnostics::leaves, &Diagnostics::copy_errors,
                                  &Diagnostics::wrong_checks, &Diagnostics::false_yes, &Diagnostics::missed_yes}) {
    sums_.*count += d.*count;
  }
}

const Summary::Mode& Summary::mode(std::string_view name) const {
  const auto it = std::find_if(modes_.begin(), modes_.end(), [&](const Mode& m) { return m.name == name; });
  PONDER_CHECK(it != modes_.end(), "there is no mode \"{}\"", name);
  return *it;
}

double Summary::mode_share(std::string_view name) const { return share(mode(name).answers); }
double Summary::mode_success(std::string_view name) const { return ratio(mode(name).right, mode(name).answers); }
double Summary::wrong_arithmetic() const { return ratio(sums_.wrong_arithmetic, sums_.equations); }
double Summary::copy_errors() const { return ratio(sums_.copy_errors, sums_.leaves); }
double Summary::wrong_checks() const { return ratio(sums_.wrong_checks, sums_.leaves); }

Metrics Summary::metrics() const {
  Metrics out = {{"grade/right", share(right_)}, {"grade/wrong", share(wrong_)}, {"grade/unknown", share(unknown_)}};
  for (const Mode& m : modes_) {
    out.emplace_back(fmt::format("mode/{}/share", m.name), share(m.answers));
    out.emplace_back(fmt::format("mode/{}/success", m.name), ratio(m.right, m.answers));
  }
  out.insert(out.end(), {{"completions/mean_length", mean_length()},
                         {"completions/min_length", static_cast<double>(shortest_)},
                         {"completions/max_length", static_cast<double>(longest_)},
                         {"completions/clipped_ratio", truncated()},
                         {"completions/malformed", share(malformed_)},
                         {"search/rejected_leaves", rejected_leaves()},
                         {"search/checks", share(sums_.checks)},
                         {"search/claims", share(claimed_)},
                         {"search/gives_up", gives_up()},
                         {"errors/arithmetic", wrong_arithmetic()},
                         {"errors/numbers", copy_errors()},
                         {"errors/check", wrong_checks()},
                         {"errors/false_yes", share(sums_.false_yes)},
                         {"errors/missed_yes", share(sums_.missed_yes)}});
  return out;
}

double pass_at_k(int n, int c, int k) {
  PONDER_CHECK(c >= 0 && c <= n && k >= 1 && k <= n, "pass@{} of {} answers, {} right", k, n, c);
  double none = 1.0;  // prod_{i=n-c+1..n} (1 - k/i)
  for (int i = n - c + 1; i <= n; ++i) none *= std::max(0.0, 1.0 - static_cast<double>(k) / i);
  return 1.0 - none;
}

bool majority_right(std::span<const Sample> samples) {
  struct Group {
    const Grade* first;
    int votes;
  };
  std::vector<Group> groups;
  for (const Sample& s : samples) {
    if (s.grade.answer.empty()) continue;
    const auto it =
        std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.first->answer == s.grade.answer; });
    if (it == groups.end()) {
      groups.push_back({&s.grade, 1});
    } else {
      ++it->votes;
    }
  }
  // max_element returns the first of equals.
  const auto best =
      std::max_element(groups.begin(), groups.end(), [](const Group& a, const Group& b) { return a.votes < b.votes; });
  return best != groups.end() && best->first->right();
}

EvalResult evaluate(const Task& task, std::span<const Problem> problems, int samples, const Generate& generate,
                    size_t batch) {
  PONDER_CHECK(samples >= 1, "{} samples per problem", samples);
  EvalResult out{.items = {}, .summary = Summary(task.modes()), .accuracy = 0, .standard_error = 0, .samples = samples};
  const auto n = static_cast<size_t>(samples);
  const size_t total = problems.size() * n;
  for (const Problem& p : problems) out.items.push_back({p, std::vector<Sample>(n)});
  if (batch == 0) batch = std::max<size_t>(total, 1);
  for (size_t begin = 0; begin < total; begin += batch) {
    std::vector<Prompt> prompts;
    for (size_t i = begin; i < std::min(total, begin + batch); ++i)
      prompts.push_back({task.prompt(problems[i / n]), i});
    auto completions = generate(prompts);
    PONDER_CHECK(completions.size() == prompts.size(), "{} completions for {} prompts", completions.size(),
                 prompts.size());
    for (size_t j = 0; j < prompts.size(); ++j) {
      const size_t i = begin + j;
      Sample& s = out.items[i / n].samples[i % n];
      s.completion = std::move(completions[j]);
      s.grade = task.grade(problems[i / n], s.completion);
      out.summary.add(s.grade, static_cast<int64_t>(s.completion.size()));
    }
  }
  double sum = 0, squares = 0;
  std::vector<double> means;
  for (const EvalItem& item : out.items) {
    double mean = 0;
    for (const Sample& s : item.samples) mean += s.grade.score();
    sum += means.emplace_back(mean / samples);
  }
  const auto count = static_cast<double>(out.items.size());
  if (count > 0) out.accuracy = sum / count;
  for (const double mean : means) squares += (mean - out.accuracy) * (mean - out.accuracy);
  out.standard_error = count == 1 ? std::nan("") : std::sqrt(squares / std::max(1.0, (count - 1) * count));
  return out;
}

Metrics EvalResult::metrics() const {
  Metrics out = {{"accuracy", accuracy}, {"accuracy_stderr", standard_error}};
  const auto over_items = [&](const auto& f) {
    double sum = 0;
    for (const EvalItem& item : items) sum += f(item);
    return items.empty() ? 0.0 : sum / static_cast<double>(items.size());
  };
  for (int k = 1; k <= samples; k *= 2) {
    out.emplace_back(fmt::format("pass@{}", k), over_items([&](const EvalItem& item) {
                       const auto right = std::count_if(item.samples.begin(), item.samples.end(),
                                                        [](const Sample& s) { return s.grade.right(); });
                       return pass_at_k(samples, static_cast<int>(right), k);
                     }));
  }
  if (samples > 1) {
    out.emplace_back(fmt::format("cons@{}", samples),
                     over_items([](const EvalItem& item) { return majority_right(item.samples) ? 1.0 : 0.0; }));
  }
  const Metrics rest = summary.metrics();
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

}  // namespace ponder::tasks
