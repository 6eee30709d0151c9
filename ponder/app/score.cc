// score: log-probabilities of given texts, JSON Lines in and out (docs/formats.md).
#include <algorithm>
#include <cstdio>
#include <deque>
#include <set>

#include "ponder/app/answers.h"
#include "ponder/app/commands.h"
#include "ponder/app/conversation.h"
#include "ponder/app/json_lines.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/app/result_file.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::app {
namespace {

constexpr int64_t kHeadRows = 256;      // rows whose logits are in memory at once
constexpr int64_t kBatchTokens = 2048;  // texts are computed together up to so many; results do not depend on it

using Top = std::vector<std::pair<int32_t, float>>;

struct Scores {
  std::vector<float> logp;  // [T - 1]: entry i is about ids[i + 1]
  std::vector<Top> top;
  std::vector<float> logits, mtp;  // [T, V], [T - 1, V] where asked for
};

class Scorer {
 public:
  struct Want {
    size_t top = 0;
    bool logits = false, mtp = false;
  };
  Scorer(const model::Model& model, const kernels::Backend& backend, kernels::Activations activations, const Want& want)
      : model_(model), want_(want), ctx_{.backend = backend, .arena = arena_, .activations = activations} {}

  // All texts in one forward pass.
  std::vector<Scores> score(const std::vector<std::span<const int32_t>>& texts) {
    std::vector<Scores> out(texts.size());
    arena_.reset();
    rows_.clear();
    std::vector<int32_t> text_of, targets;  // of each row; -1: the last of its text predicts nothing that is known
    for (size_t i = 0; i < texts.size(); ++i) {
      rows_.add(texts[i]);
      text_of.insert(text_of.end(), texts[i].size(), static_cast<int32_t>(i));
      targets.insert(targets.end(), texts[i].begin() + 1, texts[i].end());
      targets.push_back(-1);
    }
    const Tensor h = model_.final_norm(ctx_, model_.body(ctx_, rows_.batch(pages_, model_.page_layout())));
    each_head(h, [&](int64_t begin, const Tensor& logits) {
      std::vector<int32_t> next;
      for (int64_t r = 0; r < logits.rows(); ++r) next.push_back(std::max(0, targets[static_cast<size_t>(begin + r)]));
      const Tensor logp = ops::token_log_prob(ctx_, logits, next, 1.f, false).logp_R;
      for (int64_t r = 0; r < logits.rows(); ++r) {
        const auto row = static_cast<size_t>(begin + r);
        Scores& s = out[static_cast<size_t>(text_of[row])];
        if (want_.logits) append(s.logits, logits.row(r));
        if (targets[row] < 0) continue;
        s.logp.push_back(logp.f32()[r]);
        if (want_.top > 0) s.top.push_back(top_of(logits.row(r), targets[row], logp.f32()[r]));
      }
    });
    if (want_.mtp) score_mtp(texts, h, out);
    return out;
  }

 private:
  template <class F>
  void each_head(const Tensor& h, F&& f) {
    for (int64_t begin = 0; begin < h.rows(); begin += kHeadRows) {
      const Arena::Mark mark = arena_.mark();
      f(begin, model_.head(ctx_, h.row_range(begin, std::min(kHeadRows, h.rows() - begin))));
      arena_.release(mark);
    }
  }
  void append(std::vector<float>& to, const float* logits) const {
    to.insert(to.end(), logits, logits + model_.config().vocab_size);
  }

  void score_mtp(const std::vector<std::span<const int32_t>>& texts, const Tensor& h, std::vector<Scores>& out) {
    int64_t begin = 0;
    for (size_t i = 0; i < texts.size(); begin += static_cast<int64_t>(texts[i++].size())) {
      if (texts[i].size() < 2) continue;
      next_.clear();
      next_.add(texts[i].subspan(1));
      const Tensor rows = h.row_range(begin, static_cast<int64_t>(texts[i].size()) - 1);
      const Tensor m = model_.mtp(ctx_, 0, rows, next_.batch(next_pages_, model_.page_layout()));
      each_head(m, [&](int64_t, const Tensor& logits) {
        for (int64_t r = 0; r < logits.rows(); ++r) append(out[i].mtp, logits.row(r));
      });
    }
  }

  // The largest logits, of equal ones the lowest id. log p = logit - log sum exp, the latter from the token whose
  // log-probability is known.
  Top top_of(const float* logits, int32_t target, float logp) const {
    const int32_t vocab = model_.config().vocab_size;
    Top best;  // descending
    for (int32_t id = 0; id < vocab; ++id) {
      if (best.size() == want_.top && !(logits[id] > best.back().second)) continue;
      if (best.size() == want_.top) best.pop_back();
      const auto place = std::upper_bound(best.begin(), best.end(), logits[id],
                                          [](float value, const auto& other) { return value > other.second; });
      best.insert(place, {id, logits[id]});
    }
    const double normalizer = double{logits[target]} - logp;
    for (auto& [id, value] : best) value = id == target ? logp : static_cast<float>(value - normalizer);
    return best;
  }

  const model::Model& model_;
  Want want_;
  Arena arena_;
  ops::Ctx ctx_;
  model::SequenceBatch rows_, next_;
  std::unique_ptr<model::KvPool> pages_, next_pages_;
};

std::vector<int32_t> ids_of(const JsonLine& line, const LoadedModel& loaded) {
  const model::ModelConfig& config = loaded.model->config();
  const Json& json = line.value;
  const auto given = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
  std::vector<int32_t> ids;
  if (given("ids")) {
    ids = json_ids(json["ids"], "ids", config.vocab_size);
  } else if (given("text")) {
    ids = encode_raw(loaded, json_text(json["text"], "text"));
  } else if (given("messages")) {
    // Where the assistant has spoken last the conversation is complete; else the cue for its turn belongs to it.
    text::ChatRequest request = chat_request(json, line.text);
    if (!json.contains("add_generation_prompt") && !json["messages"].empty()) {
      const Json& last = json["messages"].back();
      request.add_generation_prompt = !last.is_object() || last.value("role", Json()) != "assistant";
    }
    ids = encode_rendered(loaded, render_prompt(loaded, std::move(request), Thinking::Mode::automatic));
  } else {
    throw_error(Exit::data, "one of \"ids\", \"text\" and \"messages\" is needed");
  }
  if (ids.empty()) throw_error(Exit::data, "there are no tokens to score");
  if (static_cast<int64_t>(ids.size()) > config.max_position_embeddings)
    throw_error(Exit::data, "{} tokens, but the model's context is {}", ids.size(), config.max_position_embeddings);
  return ids;
}

struct Item {
  std::string id, name;  // as JSON; in the file of logits
  std::string error;
  std::vector<int32_t> ids;
};

class Output {
 public:
  Output(const LoadedModel& loaded, kernels::Activations activations) : loaded_(loaded), activations_(activations) {}

  void write(const Item& item, Scores&& s) {
    if (!s.logits.empty()) keep(item.name, std::move(s.logits));
    if (!s.mtp.empty()) keep(item.name + ".mtp", std::move(s.mtp));
    std::string json;
    JsonWriter w(json);
    w.begin_object().key("id").raw(item.id).member("ids", std::span<const int32_t>(item.ids));
    w.key("logprobs").begin_array().null();
    for (const float x : s.logp) w.value(x);
    w.end_array().key("top").begin_array().null();
    for (size_t t = 0; t < s.logp.size(); ++t) {
      w.begin_array();
      if (t < s.top.size())
        for (const auto& [token, logp] : s.top[t])
          w.begin_object().member("id", token).member("logprob", logp).end_object();
      w.end_array();
    }
    w.end_array().member("activations", kernels::activations_name(activations_));
    if (loaded_.model->config().mla()) w.member("mla", model::mla_form_name(loaded_.model->mla_form()));
    w.end_object();
    print_line(json);
  }
  void save(const std::string& path) const { write_safetensors(path, tensors_); }

 private:
  void keep(const std::string& name, std::vector<float>&& values) {
    const int64_t vocab = loaded_.model->config().vocab_size;
    kept_.push_back(std::move(values));
    std::vector<float>& v = kept_.back();
    tensors_.push_back({name, make_tensor(v.data(), {static_cast<int64_t>(v.size()) / vocab, vocab}), DType::f32});
  }

  const LoadedModel& loaded_;
  kernels::Activations activations_;
  std::deque<std::vector<float>> kept_;
  std::vector<NamedTensor> tensors_;
};

}  // namespace

int score_command(const Arguments& args) {
  const bool logits = args.has("logits"), mtp = args.has("mtp");
  if (mtp && !logits) throw_error(Exit::usage, "--mtp adds to --logits FILE; name that file, too");
  if (logits) check_result_file(args.text("logits"));
  Machine machine(args.threads());
  model::ModelOptions options = model_options(args, true);
  options.mtp = mtp;
  const LoadedModel loaded = load_any_model(args.positional[0], machine, options, args.has("allow-paging"));
  if (mtp && loaded.model->mtp_modules() == 0) throw_error(Exit::data, "{}: the model has no MTP module", loaded.path);
  const kernels::Activations activations = activations_option(args, loaded, true);
  Scorer scorer(*loaded.model, *machine.backend, activations,
                {.top = static_cast<size_t>(args.integer("top", 5, 0, 1024)), .logits = logits, .mtp = mtp});
  Output output(loaded, activations);

  std::vector<Item> pending;
  int64_t tokens = 0;
  const auto flush = [&] {
    if (pending.empty()) return;
    if (stop_requested()) throw_error(Exit::resumable, "stopped");
    std::vector<std::span<const int32_t>> texts;
    for (const Item& item : pending)
      if (item.error.empty()) texts.emplace_back(item.ids);
    std::vector<Scores> scores;
    if (!texts.empty()) scores = scorer.score(texts);
    size_t next = 0;
    for (const Item& item : pending) {
      if (item.error.empty())
        output.write(item, std::move(scores[next++]));
      else
        print_line(error_line(item.id, item.error));
    }
    flush_output();
    pending.clear();
    tokens = 0;
  };
  std::set<std::string> names;  // of the tensors in the file of logits
  const auto take_names = [&](const std::string& name) {
    if (name == "__metadata__")
      throw_error(Exit::data, "--logits: safetensors keep the name {} for themselves; take another id", name);
    if (names.contains(name) || (mtp && names.contains(name + ".mtp")))
      throw_error(Exit::data, "--logits: a second text with the id {}", name);
    names.insert(name);
    if (mtp) names.insert(name + ".mtp");
  };
  install_stop_signals();
  const int code = read_json_requests(
      args.text("in"),
      [&](const JsonLine& line) {
        Item item{line.id, line.value.value("id", Json()).is_string() ? line.value["id"].get<std::string>() : line.id,
                  "", ids_of(line, loaded)};
        if (logits) take_names(item.name);
        const auto count = static_cast<int64_t>(item.ids.size());
        if (tokens > 0 && tokens + count > kBatchTokens) flush();
        tokens += count;
        pending.push_back(std::move(item));
      },
      [&](const std::string& id, const std::string& error) {
        pending.push_back({id, "", error, {}});
      },
      flush);
  flush();
  if (logits) output.save(args.text("logits"));
  return code;
}

}  // namespace ponder::app
