// What a stage will have in memory, said before it starts and compared with the truth at its end.
//
// Sizes of weights and of optimizer state are arithmetic; activations and scratch are what one pass over the largest
// batch took, since the code that allocates them knows best. So the plan is made after such a dry pass.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ponder/engine/engine.h"
#include "ponder/tasks/task.h"
#include "ponder/train/trainer.h"

namespace ponder::app {

class MemoryPlan {
 public:
  // `resident`: whether the bytes are in memory already when the plan is totalled (touched), or will only come.
  void add(std::string family, int64_t bytes, bool resident);
  // What is resident now, plus what will come.
  void finish();
  int64_t total() const { return total_; }
  // One line for each family, then the total and the machine's memory.
  std::vector<std::string> lines() const;

 private:
  struct Family {
    std::string name;
    int64_t bytes;
    bool resident;
  };
  std::vector<Family> families_;
  int64_t total_ = 0, other_ = 0;
};

// One pass over `largest`, forward and backward, whose gradients are then dropped; adds weights, gradients, moments and
// activations.
void plan_training_memory(MemoryPlan& plan, train::Trainer& trainer, std::span<const train::Example> largest,
                          const train::PassOptions& options);
// A few tokens of `answers` answers at once; adds pages and scratch.
void plan_engine_memory(MemoryPlan& plan, engine::Engine& engine, const model::Model& model, const tasks::Task& task,
                        int64_t answers);

}  // namespace ponder::app
