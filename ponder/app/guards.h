// Signs that a training run goes wrong, as warnings (each once, until it has passed).
#pragma once

#include <deque>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ponder/base/run_dir.h"

namespace ponder::app {

class Guards {
 public:
  // The row of one step; returns what to warn of.
  std::vector<std::string> step(const std::vector<Metric>& row);
  // After an evaluation: its accuracy, beside the training rewards since the one before.
  std::vector<std::string> evaluation(double held_out_accuracy);

 private:
  void raise(const char* name, bool sign, std::string text, std::vector<std::string>& out);

  std::set<std::string> raised_;
  std::deque<double> grad_norms_, lengths_;
  int uniform_steps_ = 0;
  double first_entropy_ = 0, reward_sum_ = 0;
  int reward_steps_ = 0;
  std::vector<std::pair<double, double>> evaluations_;  // mean reward since the one before, accuracy
};

}  // namespace ponder::app
