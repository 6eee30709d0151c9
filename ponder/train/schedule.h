// Learning rates over a run: a warm-up, then one of four shapes. Steps are optimizer steps, counted from 0; the shapes
// and their edge cases are those of Hugging Face's get_scheduler (constant_with_warmup, linear, cosine,
// cosine_with_min_lr, warmup_stable_decay), so that published recipes mean here what they meant there.
#pragma once

#include <cstdint>
#include <string>

namespace ponder::train {

struct ScheduleConfig {
  double learning_rate = 1e-6;
  std::string lr_scheduler_type = "constant";
  int64_t warmup_steps = 0;
  double warmup_ratio = 0;
  int64_t warmup_offset = 0;
  double min_lr_ratio = 0;
  int64_t num_decay_steps = 0;
  std::string decay_type = "cosine";
  std::string warmup_type = "linear";

  template <class V>
  void fields(V& v) {
    v.field("learning_rate", learning_rate,
            {.help = "the highest rate", .synonyms = {"lr", "optim.lr", "actor.adam.lr"}, .min = 0});
    v.field(
        "lr_scheduler_type", lr_scheduler_type,
        {.help = "shape after the warm-up; wsd: stable, then a decay at the end",
         .choices = {"constant", "linear", "cosine", "wsd"},
         .value_synonyms = {
             {"constant_with_warmup", "constant"}, {"cosine_with_min_lr", "cosine"}, {"warmup_stable_decay", "wsd"}}});
    v.field("warmup_steps", warmup_steps, {.help = "steps from 0 to the full rate", .min = 0});
    v.field("warmup_ratio", warmup_ratio,
            {.help = "the same as a share of all steps; warmup_steps goes first",
             .synonyms = {"lr_warmup_steps_ratio"},
             .min = 0,
             .max = 1});
    v.field(
        "warmup_offset", warmup_offset,
        {.help = "0: the first rate is 0, as Hugging Face; 1: all rates come one step earlier", .min = 0, .max = 1});
    v.field("min_lr_ratio", min_lr_ratio,
            {.help = "what a decay ends at (and wsd begins at), as a share of learning_rate",
             .synonyms = {"min_lr_rate"},
             .min = 0,
             .max = 1});
    v.field("num_decay_steps", num_decay_steps,
            {.help = "wsd: length of the decay; 0: a tenth of all steps", .min = 0});
    v.field("decay_type", decay_type, {.help = "wsd: shape of the decay", .choices = {"cosine", "linear", "1-sqrt"}});
    v.field("warmup_type", warmup_type, {.help = "wsd: shape of the warm-up", .choices = {"linear", "cosine"}});
  }
};

class Schedule {
 public:
  // max_steps: optimizer steps of the run; 0 (unknown) is an Error where the shape depends on it.
  Schedule(const ScheduleConfig& config, int64_t max_steps);

  double factor(int64_t step) const;  // of learning_rate
  double rate(int64_t step) const { return config_.learning_rate * factor(step); }

 private:
  double wsd(double x) const;

  ScheduleConfig config_;
  double warmup_, total_, decay_;
};

}  // namespace ponder::train
