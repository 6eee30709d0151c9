#include "ponder/app/memory_plan.h"

#include <algorithm>

#include "ponder/app/machine.h"
#include "ponder/base/log.h"
#include "ponder/engine/generate.h"

namespace ponder::app {

void MemoryPlan::add(std::string family, int64_t bytes, bool resident) {
  if (bytes > 0) families_.push_back({std::move(family), bytes, resident});
}

void MemoryPlan::finish() {
  const int64_t now = current_rss_bytes();
  int64_t known = 0, coming = 0;
  for (const Family& f : families_) (f.resident ? known : coming) += f.bytes;
  other_ = std::max<int64_t>(0, now - known);
  total_ = now > 0 ? now + coming : known + coming;
}

void plan_training_memory(MemoryPlan& plan, train::Trainer& trainer, std::span<const train::Example> largest,
                          const train::PassOptions& options) {
  train::Pass& pass = trainer.pass();
  trainer.begin();
  const auto result = pass.forward(largest, options);
  const std::vector<float> dlogp(result.logp.size(), 0.f), dentropy(result.entropy.size(), 0.f),
      dmtp(result.mtp_logp.size(), 0.f);
  pass.backward(dlogp, dentropy, dmtp);
  trainer.begin();
  const auto weights = static_cast<int64_t>(trainer.model().params().value_bytes());
  plan.add("weights", weights, true);
  plan.add("gradients", weights, true);
  plan.add("optimizer moments", trainer.optimizer().bytes(), trainer.optimizer().steps() > 0);
  plan.add("activations and scratch", static_cast<int64_t>(pass.peak_bytes()), true);
}

void plan_engine_memory(MemoryPlan& plan, engine::Engine& engine, const model::Model& model, const tasks::Task& task,
                        int64_t answers) {
  const auto prompt = task.prompt(task.problem(tasks::Split::train, 0));
  std::vector<engine::Request> requests(1);
  requests[0].prompt = prompt;
  requests[0].seeds.resize(static_cast<size_t>(answers));
  requests[0].max_new_tokens = 2;
  engine::generate(engine, std::move(requests));
  // Pages are used in turn, so after a while all have been.
  const auto pages = engine.cache().pages() * model.kv_layers() * model.page_layout().page_floats() *
                     static_cast<int64_t>(sizeof(float));
  plan.add("key/value pages", pages, false);
  plan.add("sampler's scratch", static_cast<int64_t>(engine.bytes()) - pages, true);
}

std::vector<std::string> MemoryPlan::lines() const {
  std::vector<std::string> lines;
  const auto line = [&](const std::string& name, int64_t bytes) {
    lines.push_back(fmt::format("  {:<28} {:>10}", name, format_bytes(static_cast<uint64_t>(bytes))));
  };
  for (const Family& f : families_) line(f.name, f.bytes);
  line("program and data", other_);
  line(fmt::format("in all, of {}", format_bytes(static_cast<uint64_t>(memory_bytes()))), total_);
  return lines;
}

}  // namespace ponder::app
