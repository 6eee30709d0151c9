// score: log-probabilities of given texts, JSON Lines in and out (docs/formats.md).
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <numeric>
#include <set>

#include "ponder/app/answers.h"
#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder::app {
namespace {

constexpr int64_t kHeadRows = 256;  // rows whose logits are in memory at once

struct Scores {
  std::vector<float> logp;  // [T - 1]: entry i is about ids[i + 1]
  std::vector<std::vector<std::pair<int32_t, float>>> top;
  std::vector<float> logits, mtp;  // [T, V], [T - 1, V] where asked for
};

class Scorer {
 public:
  Scorer(const model::Model& model, const kernels::Backend& backend) : model_(model), ctx_{backend, arena_} {}

  struct Want {
    int64_t top = 0;
    bool logits = false, mtp = false;
  };
  Scores score(std::span<const int32_t> ids, const Want& want) {
    Scores out;
    arena_.reset();
    rows_.clear();
    rows_.add(ids);
    const auto count = static_cast<int64_t>(ids.size());
    const Tensor h = model_.final_norm(ctx_, model_.body(ctx_, rows_.batch(pages_, model_.page_layout())));
    each_head(h, [&](int64_t begin, const Tensor& logits) {
      std::vector<int32_t> targets;
      for (int64_t i = begin; i < begin + logits.rows(); ++i)
        targets.push_back(i + 1 < count ? ids[static_cast<size_t>(i + 1)] : 0);
      const Tensor logp = ops::token_log_prob(ctx_, logits, targets, 1.f, false).logp_R;
      for (int64_t r = 0; r < logits.rows() && begin + r + 1 < count; ++r) {
        out.logp.push_back(logp.f32()[r]);
        if (want.top > 0)
          out.top.push_back(top_of(logits.row(r), targets[static_cast<size_t>(r)], logp.f32()[r], want.top));
      }
      if (want.logits) append(out.logits, logits);
    });
    if (want.mtp && count > 1) {
      next_.clear();
      next_.add(ids.subspan(1));
      const Tensor m = model_.mtp(ctx_, 0, h.row_range(0, count - 1), next_.batch(next_pages_, model_.page_layout()));
      each_head(m, [&](int64_t, const Tensor& logits) { append(out.mtp, logits); });
    }
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
  static void append(std::vector<float>& to, const Tensor& logits) {
    for (int64_t r = 0; r < logits.rows(); ++r) to.insert(to.end(), logits.row(r), logits.row(r) + logits.cols());
  }
  // log p = logit - log sum exp, the latter from the token whose log-probability is known.
  std::vector<std::pair<int32_t, float>> top_of(const float* logits, int32_t target, float logp, int64_t n) const {
    const int32_t vocab = model_.config().vocab_size;
    std::vector<int32_t> order(static_cast<size_t>(vocab));
    std::iota(order.begin(), order.end(), 0);
    const auto end = order.begin() + std::min<int64_t>(n, vocab);
    std::partial_sort(order.begin(), end, order.end(),
                      [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
    const double normalizer = double{logits[target]} - logp;
    std::vector<std::pair<int32_t, float>> out;
    for (auto id = order.begin(); id != end; ++id)
      out.emplace_back(*id, *id == target ? logp : static_cast<float>(logits[*id] - normalizer));
    return out;
  }

  const model::Model& model_;
  Arena arena_;
  ops::Ctx ctx_;
  model::SequenceBatch rows_, next_;
  std::unique_ptr<model::KvPool> pages_, next_pages_;
};

std::vector<int32_t> ids_of(const Json& json, const LoadedModel& loaded) {
  std::vector<int32_t> ids;
  const model::ModelConfig& config = loaded.model->config();
  if (json.contains("ids")) {
    if (!json["ids"].is_array()) throw_error(Exit::data, "ids: a list is expected");
    for (const Json& id : json["ids"]) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= config.vocab_size)
        throw_error(Exit::data, "ids: {} is none of the {} tokens", id.dump(), config.vocab_size);
      ids.push_back(id.get<int32_t>());
    }
  } else if (json.contains("text")) {
    if (!json["text"].is_string()) throw_error(Exit::data, "text: a text is expected");
    if (!loaded.tokenizer) throw_error(Exit::data, "text: the model has no tokenizer.json; use \"ids\"");
    ids = loaded.tokenizer->encode(json["text"].get<std::string>());
  } else if (json.contains("messages")) {
    throw_error(Exit::data, "messages: this model has no template; use \"text\" or \"ids\"");
  } else {
    throw_error(Exit::data, "one of \"ids\", \"text\" and \"messages\" is needed");
  }
  if (ids.empty()) throw_error(Exit::data, "there are no tokens to score");
  if (static_cast<int64_t>(ids.size()) > config.max_position_embeddings)
    throw_error(Exit::data, "{} tokens, but the model's context is {}", ids.size(), config.max_position_embeddings);
  return ids;
}

std::string score_json(const std::string& id, std::span<const int32_t> ids, const Scores& s) {
  std::string json;
  JsonWriter w(json);
  w.begin_object().key("id").raw(id).member("ids", ids).key("logprobs").begin_array().null();
  for (const float x : s.logp) w.value(x);
  w.end_array().key("top").begin_array().null();
  for (const auto& list : s.top) {
    w.begin_array();
    for (const auto& [token, logp] : list) w.begin_object().member("id", token).member("logprob", logp).end_object();
    w.end_array();
  }
  w.end_array().end_object();
  return json;
}

}  // namespace

int score_command(const Arguments& args) {
  const bool logits = args.has("logits"), mtp = args.has("mtp");
  if (mtp && !logits) throw_error(Exit::usage, "--mtp adds to --logits FILE; name that file, too");
  Machine machine(args.threads());
  const LoadedModel loaded = load_any_model(args.positional[0], machine, {.stored = true, .mtp = mtp});
  if (mtp && loaded.model->mtp_modules() == 0)
    throw_error(Exit::data, "{}: the model has no MTP module", loaded.path);
  Scorer scorer(*loaded.model, *machine.backend);
  const Scorer::Want want{.top = args.integer("top", 5, 0, 1024), .logits = logits, .mtp = mtp};

  std::deque<std::vector<float>> kept;
  std::vector<NamedTensor> tensors;
  std::set<std::string> names;
  const auto keep = [&](const std::string& name, std::vector<float>&& values) {
    if (!names.insert(name).second) throw_error(Exit::data, "--logits: a second text with the id {}", name);
    const int64_t vocab = loaded.model->config().vocab_size;
    kept.push_back(std::move(values));
    tensors.push_back(
        {name, make_tensor(kept.back().data(), {static_cast<int64_t>(kept.back().size()) / vocab, vocab}), DType::f32});
  };

  const std::string input = read_file(args.text("in", "/dev/stdin"));
  int number = 0;
  for (size_t begin = 0; begin < input.size();) {
    const size_t end = std::min(input.find('\n', begin), input.size());
    const std::string_view line = std::string_view(input).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    std::string id = fmt::format("{}", number);
    try {
      const Json json = parse_json(line, "request", number);
      if (!json.is_object()) throw_error(Exit::data, "an object is expected");
      if (json.contains("id")) id = json["id"].dump();
      const std::string name = json.contains("id") && json["id"].is_string() ? json["id"].get<std::string>() : id;
      const std::vector<int32_t> ids = ids_of(json, loaded);
      Scores s = scorer.score(ids, want);
      if (logits) keep(name, std::move(s.logits));
      if (mtp && ids.size() > 1) keep(name + ".mtp", std::move(s.mtp));
      fmt::print("{}\n", score_json(id, ids, s));
    } catch (const Error& e) {
      std::string json;
      JsonWriter(json).begin_object().key("id").raw(id).member("error", e.what()).end_object();
      fmt::print("{}\n", json);
    }
  }
  if (logits) write_safetensors(args.text("logits"), tensors);
  return 0;
}

}  // namespace ponder::app
