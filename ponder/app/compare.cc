#include "ponder/app/compare.h"

#include <algorithm>
#include <cmath>

#include "ponder/app/answers.h"
#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

constexpr int64_t kHeadRows = 64;  // rows whose logits are in memory at once

// The hidden states of a piece of text, and logits of some of its rows.
class Side {
 public:
  Side(const CompareSide& side, const kernels::Backend& backend)
      : model_(*side.model), ctx_{.backend = backend, .arena = arena_, .activations = side.activations} {}
  void read(std::span<const int32_t> ids) {
    arena_.reset();
    rows_.clear();
    rows_.add(ids);
    h_ = model_.final_norm(ctx_, model_.body(ctx_, rows_.batch(pages_, model_.page_layout())));
    mark_ = arena_.mark();
  }
  Tensor logits(int64_t begin, int64_t n) {
    arena_.release(mark_);
    return model_.head(ctx_, h_.row_range(begin, n));
  }

 private:
  const model::Model& model_;
  Arena arena_;
  ops::Ctx ctx_;
  model::SequenceBatch rows_;
  std::unique_ptr<model::KvPool> pages_;
  Tensor h_;
  Arena::Mark mark_ = {};
};

double log_sum_exp(const float* z, int64_t n) {
  const double max = *std::max_element(z, z + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(z[i] - max);
  return max + std::log(sum);
}

struct Position {
  double kl, log_a, log_b, logp_a, logp_b;
  bool same;
};
Position compare_rows(const float* a, const float* b, int64_t n, int32_t target) {
  const double log_a = log_sum_exp(a, n), log_b = log_sum_exp(b, n);
  double kl = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double p = a[i] - log_a;
    kl += std::exp(p) * (p - (b[i] - log_b));
  }
  return {std::max(kl, 0.0),
          log_a,
          log_b,
          a[target] - log_a,
          b[target] - log_b,
          std::max_element(a, a + n) - a == std::max_element(b, b + n) - b};
}

}  // namespace

Comparison compare(const CompareSide& a, const CompareSide& b, const CompareText& text,
                   const kernels::Backend& backend) {
  Side side_a(a, backend), side_b(b, backend);
  Progress progress("compare");
  Comparison out;
  std::vector<double> kls;
  double logp_a = 0, logp_b = 0;
  const auto count = static_cast<int64_t>(text.ids.size()), step = text.context - (text.bos >= 0 ? 1 : 0);
  for (int64_t begin = 0; begin + 1 < count; begin += step) {
    if (stop_requested()) throw_error(Exit::resumable, "stopped");
    const int64_t end = std::min(begin + step, count);
    std::vector<int32_t> ids(static_cast<size_t>(end - begin + (text.bos >= 0 ? 1 : 0)), text.bos);
    std::copy(text.ids.begin() + begin, text.ids.begin() + end, ids.end() - (end - begin));
    const auto rows = static_cast<int64_t>(ids.size()) - 1;
    side_a.read(ids);
    side_b.read(ids);
    for (int64_t r = 0; r < rows; r += kHeadRows) {
      const int64_t n = std::min(kHeadRows, rows - r);
      const Tensor za = side_a.logits(r, n), zb = side_b.logits(r, n);
      std::vector<Position> found(static_cast<size_t>(n));
      backend.pool().run(n, [&](int64_t i, int) {
        found[static_cast<size_t>(i)] =
            compare_rows(za.row(i), zb.row(i), za.cols(), ids[static_cast<size_t>(r + i + 1)]);
      });
      for (int64_t i = 0; i < n; ++i) {
        const Position& p = found[static_cast<size_t>(i)];
        // A logit of minus infinity leaves the sum finite, but not the divergence.
        if (!std::isfinite(p.log_a) || !std::isfinite(p.log_b) || !std::isfinite(p.kl))
          throw_error(Exit::data,
                      "{}: the logits for token {} of the text are not finite; `ponder model verify` looks at the "
                      "weights",
                      std::isfinite(p.log_a) && !std::isfinite(p.log_b) ? b.name : a.name,
                      begin + r + i + 1 - (text.bos >= 0 ? 1 : 0));
        kls.push_back(p.kl);
        out.top1 += p.same;
        logp_a += p.logp_a, logp_b += p.logp_b;
      }
    }
    progress.update({begin, count, ""});
  }
  out.positions = static_cast<int64_t>(kls.size());
  if (kls.empty()) return out;
  const auto n = static_cast<double>(kls.size());
  for (const double kl : kls) out.kl += kl / n;
  std::sort(kls.begin(), kls.end());
  out.kl_99 = kls[static_cast<size_t>(0.99 * (n - 1))];
  out.kl_max = kls.back();
  out.top1 /= n;
  out.perplexity_a = std::exp(-logp_a / n), out.perplexity_b = std::exp(-logp_b / n);
  return out;
}

std::string Comparison::text() const {
  return fmt::format(
      "KL {:.3g} nats (99 % below {:.3g}, largest {:.3g}); same likeliest token {:.2f} %; perplexity {:.4f} and "
      "{:.4f}; "
      "{} positions",
      kl, kl_99, kl_max, 100 * top1, perplexity_a, perplexity_b, format_grouped(positions));
}

std::string Comparison::json() const {
  std::string json;
  JsonWriter(json)
      .begin_object()
      .member("positions", positions)
      .member("kl", kl)
      .member("kl_99", kl_99)
      .member("kl_max", kl_max)
      .member("top1", top1)
      .member("perplexity_a", perplexity_a)
      .member("perplexity_b", perplexity_b)
      .end_object();
  return json;
}

CompareText read_compare_text(const LoadedModel& model, const std::string& path, int64_t tokens, int64_t context) {
  if (!model.tokenizer) throw_error(Exit::data, "{}: the model has no tokenizer to read {} with", model.path, path);
  // A token is seldom longer than eight bytes.
  std::string bytes = read_file(path, size_t{1} << 30);
  if (bytes.size() > static_cast<size_t>(tokens) * 8) bytes.resize(static_cast<size_t>(tokens) * 8);
  CompareText text;
  text.ids = model.tokenizer->encode(bytes);
  if (static_cast<int64_t>(text.ids.size()) > tokens) text.ids.resize(static_cast<size_t>(tokens));
  if (text.ids.size() < 2) throw_error(Exit::data, "{}: there is no text to compare on", path);
  text.context = std::min<int64_t>(context, model.model->config().max_position_embeddings);
  const text::SpecialIds& special = model.tokenizer->special();
  if (special.add_bos && special.bos) text.bos = *special.bos;
  return text;
}

namespace {

// "f32,q8": one for each side, or one for both.
std::pair<std::string, std::string> both(const std::string& list) {
  const size_t comma = list.find(',');
  if (comma == list.npos) return {list, list};
  return {list.substr(0, comma), list.substr(comma + 1)};
}

}  // namespace

int compare_command(const Arguments& args) {
  if (!args.has("text")) throw_error(Exit::usage, "--text FILE is missing: what is to be read");
  install_stop_signals();
  Machine machine(args.threads());
  const auto mla = both(args.text("mla", "absorbed")), names = both(args.text("activations", "f32"));
  const auto activations_a = parse_activations(names.first), activations_b = parse_activations(names.second);
  const bool paging = args.has("allow-paging");
  const std::string &name_a = args.positional[0], &name_b = args.positional.back();
  const LoadedModel a =
      load_any_model(name_a, machine, {.stored = true, .mtp = false, .mla_form = mla_form(mla.first, true)}, paging);
  const CompareText text = read_compare_text(a, args.text("text"), args.integer("tokens", 8192, 2, 1 << 30),
                                             args.integer("context", 512, 2, 1 << 20));
  LoadedModel other;
  const bool same = name_a == name_b && mla.first == mla.second;
  if (!same)
    other =
        load_any_model(name_b, machine, {.stored = true, .mtp = false, .mla_form = mla_form(mla.second, true)}, paging);
  const LoadedModel& b = same ? a : other;
  if (a.model->config().vocab_size != b.model->config().vocab_size)
    throw_error(Exit::data, "{} has {} tokens, {} has {}; only models with one vocabulary can be compared", a.path,
                a.model->config().vocab_size, b.path, b.model->config().vocab_size);
  const Comparison c =
      compare({a.model.get(), activations_a, a.path}, {b.model.get(), activations_b, b.path}, text, *machine.backend);
  fmt::print("{}\n", args.json() ? c.json() : c.text());
  return 0;
}

}  // namespace ponder::app
