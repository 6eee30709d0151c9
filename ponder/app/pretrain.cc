// Pre-training: a task's corpus, or the user's own text byte by byte.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "ponder/app/commands.h"
#include "ponder/app/evaluator.h"
#include "ponder/app/options.h"
#include "ponder/app/stage.h"
#include "ponder/app/texts.h"
#include "ponder/base/log.h"
#include "ponder/train/data.h"

namespace ponder::app {
namespace {

class Pretraining final : public Training {
 public:
  explicit Pretraining(Run& run) : run_(run), recipe_(run.recipe()) {
    if (recipe_.on_text()) {
      texts_ = read_texts(recipe_.data, recipe_.run.seed);
      log_info("{}: {} texts in {} pieces, {} tokens; {} texts held out", recipe_.name, format_grouped(texts_.texts),
               format_grouped(texts_.train.set().size()), format_grouped(static_cast<int64_t>(texts_.train.ids.size())),
               format_grouped(texts_.held_out_texts));
    } else {
      corpus_ = tasks::make_corpus(*run.task, recipe_.pretrain.tokens, recipe_.run.seed);
      log_info("{}: a corpus of {} texts, {} tokens, over {} training problems; {} problems are held out", recipe_.name,
               format_grouped(corpus_.size()), format_grouped(static_cast<int64_t>(corpus_.ids.size())),
               format_grouped(run.task->problem_count(tasks::Split::train)),
               format_grouped(run.task->problem_count(tasks::Split::held_out)));
    }
    plan_steps();
    trainer_ = std::make_unique<train::Trainer>(*run.model, *run.machine.backend, recipe_.optim, steps());
    if (!recipe_.on_text() && recipe_.eval.problems > 0) {
      evaluator_ = std::make_unique<Evaluator>(recipe_, *run.task);
      engine_ = make_engine(*run.model, *run.machine.backend, *run.task, evaluator_->most_answers(),
                            recipe_.max_completion_length());
    }
  }

  int64_t steps() const override { return epoch_begin_.back(); }

  StepOutcome step(int64_t step) override {
    const auto examples = batch(step);
    const train::StepReport r = trainer_->step(examples, step, recipe_.pretrain.last_token);
    StepOutcome out{.metrics = {{"loss", r.loss},
                                {"grad_norm", r.grad_norm},
                                {"learning_rate", r.learning_rate},
                                {"epoch", static_cast<double>(step + 1) / static_cast<double>(epoch_batches_)}},
                    .tokens = r.tokens,
                    .flops = r.flops,
                    .skipped = r.skipped,
                    .offender = r.offender};
    if (run_.model->mtp_modules() > 0 && recipe_.optim.mtp_loss_weight > 0) put(out.metrics, "mtp/loss", r.mtp_loss);
    if (run_.model->config().n_routed_experts > 0) {
      put(out.metrics, "moe/max_violation", r.max_violation);
      put(out.metrics, "moe/dead_experts", r.dead_experts);
      if (recipe_.optim.router_aux_loss_coef > 0) put(out.metrics, "moe/balance_loss", r.balance);
    }
    return out;
  }

  EvalOutcome evaluate(int64_t step, bool edge) override {
    if (evaluator_) return evaluate_stage(run_, *evaluator_, *engine_, step, edge);
    EvalOutcome out;
    if (texts_.held_out.set().size() > 0) {
      std::vector<train::Example> examples;
      int64_t bytes = 0;
      for (int64_t i = 0; i < texts_.held_out.set().size(); ++i) {
        const auto ids = texts_.held_out.set().text(i);
        examples.push_back({ids, 1});
        bytes += std::count_if(ids.begin() + 1, ids.end(), [](int32_t id) { return id < 256; });
      }
      if (bytes == 0) return out;  // the texts that are held out are empty
      int64_t predictions = 0;
      const double loss = trainer_->evaluate(examples, &predictions);
      const double bits = loss * static_cast<double>(predictions) / std::numbers::ln2 / static_cast<double>(bytes);
      out.metrics = {{"val/loss", loss}, {"val/bpb", bits}};
      out.line =
          fmt::format("held out: loss {:.4f}, {:.4f} bits per byte over {} bytes", loss, bits, format_grouped(bytes));
      out.score_name = "bits per byte", out.score = -bits;
    }
    return out;
  }

  train::AdamW& optimizer() override { return trainer_->optimizer(); }

  std::vector<std::pair<std::string, std::string>> columns() const override {
    return {{"loss", "loss"},        {"mtp", "mtp/loss"},           {"|g|", "grad_norm"},
            {"lr", "learning_rate"}, {"load", "moe/max_violation"}, {"tok/s", "tok_per_s"},
            {"of peak", "mfu"}};
  }

  void plan_memory(MemoryPlan& plan) override {
    // The largest micro-batch of a step near the middle, the largest text, all that differs in shape.
    std::vector<train::Example> largest;
    int64_t most = 0;
    for (int64_t b = 0; b < plan_.batches(); ++b) {
      const auto examples = batch_of(plan_.batch(b));
      for (const auto part : train::micro_batches(examples, recipe_.optim.micro_batch_tokens)) {
        int64_t tokens = 0;
        for (const train::Example& e : part) tokens += static_cast<int64_t>(e.ids.size());
        if (tokens > most) most = tokens, largest.assign(part.begin(), part.end());
      }
    }
    const bool mtp = recipe_.optim.mtp_loss_weight > 0 && run_.model->mtp_modules() > 0;
    plan_training_memory(plan, *trainer_, largest, {.mtp = mtp, .last_token = recipe_.pretrain.last_token});
    if (engine_) plan_engine_memory(plan, *engine_, *run_.model, *run_.task, evaluator_->most_answers());
  }

 private:
  train::TextSet set() const {
    if (recipe_.on_text()) return texts_.train.set();
    return {corpus_.ids, corpus_.offsets};
  }

  // Which step begins each epoch: max_steps decides how many there are, else num_train_epochs.
  void plan_steps() {
    const int64_t limit = recipe_.run.max_steps;
    while (limit > 0 ? epoch_begin_.back() < limit
                     : static_cast<int64_t>(epoch_begin_.size()) <= recipe_.run.num_train_epochs) {
      load_epoch(static_cast<int64_t>(epoch_begin_.size()) - 1);
      if (plan_.batches() == 0) throw_error(Exit::data, "stage {}: there are no texts to learn from", recipe_.name);
      if (epoch_begin_.size() == 1) epoch_batches_ = plan_.batches();
      epoch_begin_.push_back(epoch_begin_.back() + plan_.batches());
    }
    if (limit > 0) epoch_begin_.back() = std::min(epoch_begin_.back(), limit);
    load_epoch(0);
  }
  void load_epoch(int64_t epoch) {
    plan_ = train::plan_batches(set(), recipe_.pretrain.batch_tokens, recipe_.pretrain.group_by_length,
                                recipe_.run.seed, static_cast<uint64_t>(epoch));
    epoch_ = epoch;
  }
  std::vector<train::Example> batch_of(std::span<const int32_t> texts) const {
    std::vector<train::Example> examples;
    for (const int32_t i : texts) examples.push_back({set().text(i), 1});
    return examples;
  }
  std::vector<train::Example> batch(int64_t step) {
    const auto epoch = std::upper_bound(epoch_begin_.begin(), epoch_begin_.end(), step) - epoch_begin_.begin() - 1;
    if (epoch != epoch_) load_epoch(epoch);
    return batch_of(plan_.batch(step - epoch_begin_[static_cast<size_t>(epoch)]));
  }

  Run& run_;
  const StageRecipe& recipe_;
  Texts texts_;
  tasks::Corpus corpus_;
  std::vector<int64_t> epoch_begin_ = {0};
  int64_t epoch_batches_ = 0;  // of the first one, whole
  train::BatchPlan plan_;
  int64_t epoch_ = -1;
  std::unique_ptr<train::Trainer> trainer_;
  std::unique_ptr<Evaluator> evaluator_;
  std::unique_ptr<engine::Engine> engine_;
};

}  // namespace

bool pretrain_stage(Run& run) {
  prepare_task(run);
  prepare_model(run, run.recipe().on_text() ? text::ByteLevel().vocab_size() : run.task->tokenizer().vocab_size());
  Pretraining training(run);
  return run_stage(run, training);
}

int pretrain_command(const Arguments& args) { return run_recipe(args, "pretrain"); }

}  // namespace ponder::app
