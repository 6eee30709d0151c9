#include "ponder/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ponder/base/error.h"

namespace ponder::train {
namespace {

// From 1 (progress 0) to 0 (progress 1). Past its end a cosine rises again, as Hugging Face's does.
double half_cosine(double progress) { return 0.5 * (1 + std::cos(std::numbers::pi * progress)); }

// A factor of 0 .. 1 moved into min_ratio .. 1.
double above(double min_ratio, double factor) { return factor * (1 - min_ratio) + min_ratio; }

}  // namespace

Schedule::Schedule(const ScheduleConfig& config, int64_t max_steps) : config_(config) {
  const bool needs_total =
      config.lr_scheduler_type != "constant" || (config.warmup_steps == 0 && config.warmup_ratio > 0);
  if (max_steps <= 0 && needs_total)
    throw_error(Exit::data, "lr_scheduler_type = \"{}\" with this warm-up needs the number of steps: set max_steps",
                config.lr_scheduler_type);
  total_ = static_cast<double>(max_steps);
  warmup_ =
      config.warmup_steps > 0 ? static_cast<double>(config.warmup_steps) : std::ceil(config.warmup_ratio * total_);
  decay_ = config.num_decay_steps > 0 ? static_cast<double>(config.num_decay_steps) : std::ceil(total_ / 10);
  if (config.lr_scheduler_type == "wsd" && warmup_ + decay_ > total_)
    throw_error(Exit::data, "wsd: {} warm-up and {} decay steps do not fit into {}", warmup_, decay_, total_);
}

double Schedule::factor(int64_t step) const {
  const double x = static_cast<double>(step + config_.warmup_offset);
  if (config_.lr_scheduler_type == "wsd") return wsd(x);
  if (x < warmup_) return x / warmup_;
  const double progress = (x - warmup_) / std::max(total_ - warmup_, 1.0);
  if (config_.lr_scheduler_type == "linear") return above(config_.min_lr_ratio, std::max(1 - progress, 0.0));
  if (config_.lr_scheduler_type == "cosine") return above(config_.min_lr_ratio, half_cosine(progress));
  return 1;
}

// Warm-up from min_lr_ratio, stable, decay to min_lr_ratio (MiniCPM, Hu et al. 2024, section 4).
double Schedule::wsd(double x) const {
  const double min_ratio = config_.min_lr_ratio, decay_begin = total_ - decay_;
  if (x < warmup_) {
    const double progress = x / warmup_;
    return above(min_ratio, config_.warmup_type == "cosine" ? 1 - half_cosine(progress) : progress);
  }
  if (x < decay_begin) return 1;
  if (x >= total_) return min_ratio;
  const double progress = (x - decay_begin) / decay_;
  if (config_.decay_type == "linear") return above(min_ratio, 1 - progress);
  if (config_.decay_type == "1-sqrt") return above(min_ratio, 1 - std::sqrt(progress));
  return above(min_ratio, half_cosine(progress));
}

}  // namespace ponder::train
