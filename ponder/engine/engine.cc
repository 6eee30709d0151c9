#include "ponder/engine/engine.h"

#include <algorithm>

namespace ponder::engine {

using kernels::kPageSize;

namespace {
EngineConfig completed(EngineConfig c, const model::Model& m) {
  if (c.max_sequences <= 0) c.max_sequences = default_sequences(m);
  if (c.pages <= 0)
    c.pages = std::max<int64_t>(64, int64_t{c.max_sequences} * pages_for(m.config().max_position_embeddings / 4));
  return c;
}
}  // namespace

int default_sequences(const model::Model& model) {
  constexpr int64_t kCacheBytes = int64_t{16} << 20, kUsualPages = 2;
  const int64_t bytes = model.kv_layers() * kUsualPages * model.page_layout().page_floats() * int64_t{sizeof(float)};
  const int64_t fit = kCacheBytes / bytes;
  return fit < 32 ? 256
                  : static_cast<int>(std::clamp<int64_t>(fit, 64, 512));  // too large to fit: amortise the weights
}

Engine::Engine(const model::Model& model, const kernels::Backend& backend, const EngineConfig& config)
    : model_(model),
      backend_(backend),
      config_(completed(config, model)),
      pool_(model.page_layout(), model.kv_layers(), config_.pages),
      scheduler_(config_, pool_, model.mla_form() == model::MlaForm::by_token),
      sampler_(model) {
  config_.draft = config.draft && model.mtp_modules() > 0;
  events_.reserve(static_cast<size_t>(2 * config_.max_sequences));
}

EngineStats Engine::stats() const {
  EngineStats s = stats_;
  s.preempted = scheduler_.preempted();
  s.shared_tokens = scheduler_.shared_tokens();
  return s;
}

int64_t Engine::add(const Request& request) {
  const int64_t longest = static_cast<int64_t>(request.prompt.size()) + request.max_new_tokens;
  if (request.prompt.empty()) throw_error(Exit::data, "a request needs at least one prompt token");
  PONDER_CHECK(request.answered >= 0 && request.answered < static_cast<int64_t>(request.prompt.size()),
               "{} of {} prompt tokens are said to be an answer", request.answered, request.prompt.size());
  if (request.max_new_tokens < 1)
    throw_error(Exit::data, "max_new_tokens is {}; it must be at least 1", request.max_new_tokens);
  for (int32_t t : request.prompt)
    if (t < 0 || t >= model_.config().vocab_size)
      throw_error(Exit::data, "prompt token {} is outside the vocabulary of {}", t, model_.config().vocab_size);
  if (longest > model_.config().max_position_embeddings)
    throw_error(Exit::data, "prompt of {} tokens and {} new ones exceed the model's context of {}",
                request.prompt.size(), request.max_new_tokens, model_.config().max_position_embeddings);
  if (pages_for(longest + 1) > cache().pages())
    throw_error(
        Exit::resources,
        "prompt of {} tokens and {} new ones need {} pages of {} positions, but the cache has {}; give it more pages",
        request.prompt.size(), request.max_new_tokens, pages_for(longest + 1), kPageSize, cache().pages());
  scheduler_.add(request, next_request_);
  return next_request_++;
}

std::span<const Event> Engine::step() {
  events_.clear();
  scheduler_.begin_step(model_.params().version(), events_);
  const std::span<const Work> work = scheduler_.plan(rows_);
  if (work.empty()) return events_;

  arena_.reset();
  ops::Ctx ctx{.backend = backend_, .arena = arena_, .activations = config_.activations};
  const Tensor x = model_.body(ctx, rows_.batch(pool_));
  stats_.rows += static_cast<int64_t>(rows_.tokens.size());
  decide(work);
  const Tensor h = normed_rows(ctx, x);
  if (!decisions_.empty()) accept_tokens(sampler_.draw(ctx, h, decisions_));
  if (config_.draft) draft_tokens(ctx, work, h);
  ++stats_.steps;
  stats_.flops += ctx.flops;
  scheduler_.end_step();
  return events_;
}

// Rows that decide a token: the last confirmed one and, behind it, each draft (`plan` keeps them together). Followers whose prompt is complete now
// read the same row as their leader and then have pages of their own.
void Engine::decide(std::span<const Work> work) {
  decisions_.clear();
  for (const Work& w : work) {
    Sequence& s = *w.sequence;
    s.computed += w.count;
    s.drew = s.complete();
    if (!s.drew) continue;
    const auto row = static_cast<int32_t>(w.row + (s.confirmed() - 1 - w.position));
    for (int32_t d = 0; d <= s.drafted; ++d) decisions_.push_back({&s, row + d, d});
    for (Sequence* f : scheduler_.fork_followers(s)) decisions_.push_back({f, row, 0});
  }
}

// The final norm of all rows where drafts need them, and of those that decide otherwise (rows are independent); the
// followers of a prompt read its last row once each.
Tensor Engine::normed_rows(ops::Ctx& ctx, const Tensor& x) {
  if (config_.draft || decisions_.size() * 2 > rows_.tokens.size()) return model_.final_norm(ctx, x);
  if (decisions_.empty()) return x;
  gathered_.clear();
  for (Decision& d : decisions_) {
    gathered_.push_back(d.row);
    d.row = static_cast<int32_t>(gathered_.size()) - 1;
  }
  return model_.final_norm(ctx, ops::gather_rows(ctx, x, gathered_));
}

// What was drafted is replaced by what was drawn; a draft that was right saves a step.
void Engine::accept_tokens(const Sampler::Drawn& drawn) {
  for (size_t i = 0; i < decisions_.size();) {
    Sequence& s = *decisions_[i].sequence;
    const int64_t drafts = s.drafted;
    const int32_t proposal = drafts ? s.tokens.back() : -1;
    s.forget_drafts();
    for (int64_t d = 0; d <= drafts; ++d) {
      const size_t at = i + static_cast<size_t>(d);
      s.tokens.push_back(drawn.tokens.i32()[at]);
      accept(s, s.tokens.back(), drawn.logp.f32()[at], drawn.entropy.f32()[at]);
      const bool right = d < drafts && s.tokens.back() == proposal;
      stats_.accepted += right;
      if (s.finish != Finish::running || !right) break;
    }
    s.computed = std::min(s.computed, s.confirmed() - 1);
    stats_.drafted += drafts;
    i += static_cast<size_t>(drafts) + 1;
  }
}

void Engine::accept(Sequence& s, int32_t token, float logp, float entropy) {
  const bool stops = std::find(s.stop_tokens.begin(), s.stop_tokens.end(), token) != s.stop_tokens.end();
  if (stops)
    s.finish = Finish::stop;
  else if (s.confirmed() >= s.max_length)
    s.finish = Finish::length;
  events_.push_back({s.request, s.answer, token, logp, entropy, s.finish});
  ++stats_.sampled;
}

// Row i of an MTP module needs the hidden state of token i (a row of this step) and token i + 1 (known by now). The last
// known row proposes the token after the next one, by the same counters that will judge it.
void Engine::draft_tokens(ops::Ctx& ctx, std::span<const Work> work, const Tensor& h) {
  rows_.clear(), gathered_.clear(), decisions_.clear();
  for (const Work& w : work) {
    Sequence& s = *w.sequence;
    const int64_t known = std::min<int64_t>(w.position + w.count, s.confirmed() - 1);
    if (s.finish != Finish::running || known <= w.position) continue;
    rows_.spans.push_back({static_cast<int32_t>(rows_.tokens.size()), static_cast<int32_t>(known - w.position),
                           static_cast<int32_t>(w.position), s.pages.data()});
    rows_.prompt_spans += w.prompt;
    for (int64_t p = w.position; p < known; ++p) {
      gathered_.push_back(static_cast<int32_t>(w.row + (p - w.position)));
      rows_.tokens.push_back(s.tokens[static_cast<size_t>(p + 1)]);
      rows_.positions.push_back(static_cast<int32_t>(p));
    }
    if (s.drew && s.confirmed() + 1 < s.max_length)
      decisions_.push_back({&s, static_cast<int32_t>(rows_.tokens.size()) - 1, 0});
  }
  if (rows_.tokens.empty()) return;
  const Tensor y = model_.mtp(ctx, 0, ops::gather_rows(ctx, h, gathered_), rows_.batch(pool_));
  if (decisions_.empty()) return;
  const Tensor tokens = sampler_.draw(ctx, y, decisions_).tokens;
  for (size_t i = 0; i < decisions_.size(); ++i) {
    decisions_[i].sequence->tokens.push_back(tokens.i32()[i]);
    decisions_[i].sequence->drafted = 1;
  }
}

}  // namespace ponder::engine
