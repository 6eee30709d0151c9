#include "ponder/engine/engine.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ponder::engine {

using kernels::kPageSize;

struct Engine::Sequence {
  int64_t request = 0;
  int32_t answer = 0;
  uint64_t seed = 0;
  Sampling sampling;
  int64_t prompt = 0, max_length = 0;  // tokens
  std::vector<int32_t> stop_tokens;
  std::vector<int32_t> tokens;  // prompt and answer
  std::vector<int32_t> pages;
  std::vector<uint64_t> hashes;  // of the full pages that are remembered or were found
  int64_t computed = 0;          // tokens whose keys and values are in the pages
  int64_t drafted = 0;           // tokens beyond the last confirmed one, at the end of `tokens`
  Sequence* leader = nullptr;    // computes the prompt that this one waits for
  int followers = 0;             // how many wait for this one
  Finish finish = Finish::running;

  int64_t confirmed() const { return static_cast<int64_t>(tokens.size()) - drafted; }
  void reset() {
    stop_tokens.clear(), tokens.clear(), pages.clear(), hashes.clear();
    computed = drafted = 0;
    leader = nullptr;
    followers = 0;
    finish = Finish::running;
  }
};

namespace {
int64_t pages_for(int64_t positions) { return (positions + kPageSize - 1) / kPageSize; }
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
      cache_(config_.pages),
      pool_(model.page_layout(), model.kv_layers(), cache_.pages()),
      by_token_(model.mla_form() == model::MlaForm::by_token) {
  config_.draft = config.draft && model.mtp_modules() > 0;
  events_.reserve(static_cast<size_t>(2 * config_.max_sequences));
}

Engine::~Engine() = default;

bool Engine::idle() const { return waiting_.empty() && running_.empty(); }

size_t Engine::bytes() const { return pool_.bytes() + arena_.reserved(); }

int64_t Engine::add(Request request) {
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
  if (pages_for(longest + 1) > cache_.pages())
    throw_error(
        Exit::resources,
        "prompt of {} tokens and {} new ones need {} pages of {} positions, but the cache has {}; give it more pages",
        request.prompt.size(), request.max_new_tokens, pages_for(longest + 1), kPageSize, cache_.pages());
  const int64_t id = next_request_++;
  Sequence* leader = nullptr;
  for (size_t i = 0; i < request.seeds.size(); ++i) {
    std::unique_ptr<Sequence> s;
    if (spare_.empty()) {
      s = std::make_unique<Sequence>();
    } else {
      s = std::move(spare_.back());
      spare_.pop_back();
      s->reset();
    }
    s->request = id;
    s->answer = static_cast<int32_t>(i);
    s->seed = request.seeds[i];
    s->sampling = request.sampling;
    s->prompt = static_cast<int64_t>(request.prompt.size()) - request.answered;
    s->max_length = longest;
    s->stop_tokens = request.stop_tokens;
    s->tokens.reserve(static_cast<size_t>(longest) + 2);
    s->pages.reserve(static_cast<size_t>(pages_for(longest + 1)));
    s->hashes.reserve(static_cast<size_t>(pages_for(longest + 1)));
    s->tokens.assign(request.prompt.begin(), request.prompt.end());
    if (leader && config_.share_prefixes) {
      s->leader = leader;
      ++leader->followers;
    } else {
      leader = s.get();
    }
    waiting_.push_back(std::move(s));
  }
  return id;
}

void Engine::cancel(int64_t request, int32_t answer) {
  const auto mark = [&](const std::unique_ptr<Sequence>& s) {
    if (s->request == request && (answer < 0 || s->answer == answer)) s->finish = Finish::cancelled;
  };
  for (const auto& s : running_) mark(s);
  for (const auto& s : waiting_) mark(s);
}

void Engine::drop_pages(Sequence& s) {
  for (int32_t p : s.pages) cache_.release(p);
  s.pages.clear();
  s.hashes.clear();
  s.tokens.resize(static_cast<size_t>(s.confirmed()));
  s.computed = s.drafted = 0;
}

// Preempts the youngest sequence that is not `keep` and not needed by it. It keeps its tokens and is computed again.
bool Engine::make_room(const Sequence& keep) {
  for (size_t i = running_.size(); i-- > 0;) {
    Sequence& s = *running_[i];
    if (&s == &keep || s.pages.empty()) continue;
    if (std::any_of(work_.begin(), work_.end(), [&](const Work& w) { return w.sequence == &s; })) return false;
    drop_pages(s);
    ++stats_.preempted;
    return true;
  }
  return false;
}

bool Engine::reserve_pages(Sequence& s, int64_t positions) {
  while (static_cast<int64_t>(s.pages.size()) < pages_for(positions)) {
    const int32_t page = cache_.allocate();
    if (page >= 0)
      s.pages.push_back(page);
    else if (!make_room(s))
      return false;
  }
  return true;
}

// Takes over what the leader has computed of the common prompt: full pages are shared, the last one is copied.
void Engine::fork(const Sequence& leader, Sequence& s) {
  const int64_t prompt = static_cast<int64_t>(s.tokens.size());
  const int64_t full = prompt / kPageSize;
  for (int64_t i = 0; i < full; ++i) {
    cache_.retain(leader.pages[static_cast<size_t>(i)]);
    s.pages.push_back(leader.pages[static_cast<size_t>(i)]);
  }
  for (size_t i = 0; i < std::min(leader.hashes.size(), static_cast<size_t>(full)); ++i)
    s.hashes.push_back(leader.hashes[i]);
  if (prompt % kPageSize == 0 || reserve_pages(s, prompt)) {
    if (prompt % kPageSize) pool_.copy_page(leader.pages[static_cast<size_t>(full)], s.pages.back());
    s.computed = prompt;
  } else {
    s.computed = full * kPageSize;  // no page for the rest now: it is computed when there is one
  }
  stats_.shared_tokens += s.computed;
}

void Engine::admit() {
  const auto cancelled = [](const std::unique_ptr<Sequence>& s) { return s->finish == Finish::cancelled; };
  if (std::any_of(waiting_.begin(), waiting_.end(), cancelled)) {
    for (auto& s : waiting_)
      if (cancelled(s)) events_.push_back({s->request, s->answer, -1, 0, 0, Finish::cancelled});
    std::erase_if(waiting_, cancelled);  // followers wait for a leader of the same request: they go together
  }
  while (!waiting_.empty() && static_cast<int>(running_.size()) < config_.max_sequences) {
    Sequence& s = *waiting_.front();
    if (config_.share_prefixes && !s.leader) {
      // Full pages of the prompt that are still in memory; the last token is always computed, for its logits.
      uint64_t hash = version_;
      for (int64_t i = 0; (i + 1) * kPageSize < static_cast<int64_t>(s.tokens.size()); ++i) {
        hash = page_hash(s, i, hash);
        const int32_t page = cache_.find(hash);
        if (page < 0) break;
        s.pages.push_back(page);
        s.hashes.push_back(hash);
        s.computed += kPageSize;
        stats_.shared_tokens += kPageSize;
      }
    }
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// Of tokens up to the end of a full page. Where generated tokens are computed in another way than a prompt's, a page that
// holds some is found only by requests for which these same tokens are generated.
uint64_t Engine::page_hash(const Sequence& s, int64_t page, uint64_t previous) const {
  const int64_t begin = page * kPageSize;
  const uint64_t hash = KvCache::hash(previous, {s.tokens.data() + begin, static_cast<size_t>(kPageSize)});
  if (!by_token_ || begin + kPageSize <= s.prompt) return hash;
  const auto generated = static_cast<int32_t>(std::max<int64_t>(0, s.prompt - begin));
  return KvCache::hash(hash, {&generated, 1});
}

void Engine::remember_pages(Sequence& s) {
  if (!config_.share_prefixes) return;
  const int64_t known = std::min(s.computed, config_.remember_answers ? s.confirmed() : s.prompt);
  while (static_cast<int64_t>(s.hashes.size() + 1) * kPageSize <= known) {
    const size_t i = s.hashes.size();
    const uint64_t hash = page_hash(s, static_cast<int64_t>(i), i ? s.hashes.back() : version_);
    cache_.remember(s.pages[i], hash);
    s.hashes.push_back(hash);
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

// Who gets which rows of this step, the oldest sequences first; rows of prompts stand before the others.
void Engine::plan_step() {
  work_.clear(), sampled_.clear(), tokens_.clear(), positions_.clear(), spans_.clear();
  int64_t budget = config_.max_step_rows;
  for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence& s = *running_[i];
    if (s.leader) continue;
    const bool prompt = by_token_ && s.computed < s.prompt;
    const int64_t end = prompt ? s.prompt : static_cast<int64_t>(s.tokens.size());
    const int64_t count = std::min(end - s.computed, budget);
    if (!reserve_pages(s, s.computed + count)) continue;  // waits; older sequences hold the pages
    work_.push_back({&s, static_cast<int32_t>(work_.size()), static_cast<int32_t>(count), s.computed, prompt});
    budget -= count;
  }
  if (by_token_)
    std::sort(work_.begin(), work_.end(),
              [](const Work& a, const Work& b) { return a.prompt != b.prompt ? a.prompt : a.row < b.row; });
  prompt_spans_ = 0;
  for (Work& w : work_) {
    w.row = static_cast<int32_t>(tokens_.size());
    const std::vector<int32_t>& tokens = w.sequence->tokens;
    tokens_.insert(tokens_.end(), tokens.begin() + w.position, tokens.begin() + w.position + w.count);
    for (int64_t p = w.position; p < w.position + w.count; ++p) positions_.push_back(static_cast<int32_t>(p));
    spans_.push_back({w.row, w.count, static_cast<int32_t>(w.position), w.sequence->pages.data()});
    prompt_spans_ += w.prompt;
  }
}

std::span<const Event> Engine::step() {
  events_.clear();
  if (version_ != model_.params().version()) {  // old prefixes miss by themselves: the version salts their hash
    version_ = model_.params().version();
    for (auto& s : running_) drop_pages(*s);
  }
  admit();
  for (auto& s : running_)
    if (s->finish == Finish::cancelled) events_.push_back({s->request, s->answer, -1, 0, 0, Finish::cancelled});
  finish_step();
  if (running_.empty()) return events_;

  arena_.reset();
  plan_step();
  PONDER_CHECK(!work_.empty(), "no sequence can go on with {} pages", cache_.pages());

  ops::Ctx ctx{.backend = backend_, .arena = arena_, .activations = config_.activations};
  const Tensor x = model_.body(ctx, {tokens_, positions_, spans_, &pool_, prompt_spans_});
  // Rows that decide a token: the last confirmed one and, behind it, each draft. Followers whose prompt is complete now
  // read the same row and then have pages of their own.
  for (const Work& w : work_) {
    Sequence& s = *w.sequence;
    s.computed += w.count;
    if (s.computed < static_cast<int64_t>(s.tokens.size())) continue;
    for (int64_t d = 0; d <= s.drafted; ++d)
      sampled_.push_back(
          {&s, static_cast<int32_t>(w.row + (s.confirmed() - 1 - w.position) + d), static_cast<int32_t>(d)});
    if (s.followers > 0) {
      const size_t leader_row = sampled_.size() - 1;
      for (auto& f : running_)
        if (f->leader == &s) {
          fork(s, *f);
          f->leader = nullptr;
          --s.followers;
          if (f->computed == static_cast<int64_t>(f->tokens.size()))
            sampled_.push_back({f.get(), sampled_[leader_row].row, 0});
        }
      for (auto& f : waiting_)  // not admitted yet: these will find the prompt's full pages by hash
        if (f->leader == &s) f->leader = nullptr, --s.followers;
    }
  }

  // Rows are independent, so norms are taken of all rows where drafts need them and of the sampled ones otherwise; the
  // followers of a prompt read its last row once each.
  Tensor h = x;
  if (config_.draft || sampled_.size() * 2 > tokens_.size()) {
    h = model_.final_norm(ctx, x);
  } else if (!sampled_.empty()) {
    rows_.clear();
    for (Sampled& q : sampled_) {
      rows_.push_back(q.row);
      q.row = static_cast<int32_t>(rows_.size()) - 1;
    }
    h = model_.final_norm(ctx, ops::gather_rows(ctx, x, rows_));
  }
  if (!sampled_.empty()) {
    const Drawn drawn = sample(ctx, h);
    for (size_t i = 0; i < sampled_.size();) {
      Sequence& s = *sampled_[i].sequence;
      const int64_t drafts = s.drafted;
      // What was drafted is replaced by what is sampled; a draft that was right saves a step.
      const int32_t proposal = drafts ? s.tokens.back() : -1;
      s.tokens.resize(static_cast<size_t>(s.confirmed()));
      s.drafted = 0;
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
  if (config_.draft) draft_tokens(ctx, h);
  for (const Work& w : work_) remember_pages(*w.sequence);
  ++stats_.steps;
  stats_.rows += static_cast<int64_t>(tokens_.size());
  stats_.flops += ctx.flops;
  finish_step();
  return events_;
}

// Row i of an MTP module needs the hidden state of token i (a row of this step) and token i + 1 (known by now). The last
// known row proposes the token after the next one, by the same counters that will judge it.
void Engine::draft_tokens(ops::Ctx& ctx, const Tensor& h) {
  tokens_.clear(), positions_.clear(), spans_.clear(), rows_.clear(), sampled_.clear();
  prompt_spans_ = 0;
  for (const Work& w : work_) {
    Sequence& s = *w.sequence;
    const int64_t known = std::min<int64_t>(w.position + w.count, s.confirmed() - 1);
    if (s.finish != Finish::running || known <= w.position) continue;
    spans_.push_back({static_cast<int32_t>(tokens_.size()), static_cast<int32_t>(known - w.position),
                      static_cast<int32_t>(w.position), s.pages.data()});
    prompt_spans_ += w.prompt;
    for (int64_t p = w.position; p < known; ++p) {
      rows_.push_back(static_cast<int32_t>(w.row + (p - w.position)));
      tokens_.push_back(s.tokens[static_cast<size_t>(p + 1)]);
      positions_.push_back(static_cast<int32_t>(p));
    }
    if (s.computed == s.confirmed() - 1 && s.confirmed() + 1 < s.max_length)
      sampled_.push_back({&s, static_cast<int32_t>(tokens_.size()) - 1, 0});
  }
  if (tokens_.empty()) return;
  const Tensor y =
      model_.mtp(ctx, 0, ops::gather_rows(ctx, h, rows_), {tokens_, positions_, spans_, &pool_, prompt_spans_});
  if (sampled_.empty()) return;
  const Tensor tokens = sample(ctx, y).tokens;
  for (size_t i = 0; i < sampled_.size(); ++i) {
    sampled_[i].sequence->tokens.push_back(tokens.i32()[i]);
    sampled_[i].sequence->drafted = 1;
  }
}

// Draws a token for each of `sampled_` from its row of h (normed).
Engine::Drawn Engine::sample(ops::Ctx& ctx, const Tensor& h) {
  rows_.clear(), sample_rows_.clear();
  for (const Sampled& q : sampled_) {
    const Sampling& p = q.sequence->sampling;
    rows_.push_back(q.row);
    sample_rows_.push_back(
        {p.temperature, p.top_p, p.min_p, p.top_k, q.sequence->seed, q.sequence->confirmed() + q.draft});
  }
  const int64_t n = static_cast<int64_t>(rows_.size());
  const Tensor logits = model_.head(ctx, ops::gather_rows(ctx, h, rows_));
  const Drawn drawn{ctx.empty({n}, DType::i32), ctx.empty({n}), ctx.empty({n})};
  const Tensor scratch = ctx.empty({backend_.pool().size(), 2 * logits.cols()});
  backend_.sample({.rows = n,
                   .vocab = logits.cols(),
                   .logits = logits.f32(),
                   .ldl = logits.ld,
                   .params = sample_rows_.data(),
                   .tokens = drawn.tokens.i32(),
                   .logp = drawn.logp.f32(),
                   .entropy = drawn.entropy.f32(),
                   .scratch = scratch.f32()});
  for (int64_t i = 0; i < n; ++i) {
    const Sampled& q = sampled_[static_cast<size_t>(i)];
    if (!q.sequence->sampling.adjusts()) continue;
    // Drawn again from changed logits; log-prob and entropy stay those of the model.
    const Tensor changed = ctx.empty({1, logits.cols()}), one = ctx.empty({4});
    std::copy_n(logits.row(i), logits.cols(), changed.f32());
    adjust(q, changed.f32());
    backend_.sample({.rows = 1,
                     .vocab = logits.cols(),
                     .logits = changed.f32(),
                     .ldl = changed.ld,
                     .params = sample_rows_.data() + i,
                     .tokens = drawn.tokens.i32() + i,
                     .logp = one.f32(),
                     .scratch = scratch.f32()});
    const float temperature = q.sequence->sampling.temperature;
    backend_.log_prob({.rows = 1,
                       .vocab = logits.cols(),
                       .logits = logits.row(i),
                       .ldl = logits.ld,
                       .inv_temperature = temperature == 0.f ? 1.f : 1.f / temperature,
                       .targets = drawn.tokens.i32() + i,
                       .logp = drawn.logp.f32() + i,
                       .max = one.f32(),
                       .log_sum = one.f32() + 1});
  }
  return drawn;
}

void Engine::adjust(const Sampled& q, float* logits) {
  const Sequence& s = *q.sequence;
  const Sampling& p = s.sampling;
  const int64_t length = s.confirmed() + q.draft;
  counts_.resize(static_cast<size_t>(model_.config().vocab_size));
  // Negative while a token was only in the prompt.
  for (int64_t i = 0; i < length; ++i) {
    int32_t& count = counts_[static_cast<size_t>(s.tokens[static_cast<size_t>(i)])];
    if (i < s.prompt)
      count = -1;
    else
      count = std::max(count, 0) + 1;
  }
  for (int64_t i = 0; i < length; ++i) {
    const int32_t token = s.tokens[static_cast<size_t>(i)];
    const int32_t count = std::exchange(counts_[static_cast<size_t>(token)], 0);
    if (count == 0) continue;  // seen already
    float& z = logits[token];
    z = z > 0 ? z / p.repetition_penalty : z * p.repetition_penalty;
    if (count > 0) z = z - p.frequency_penalty * static_cast<float>(count) - p.presence_penalty;
  }
  for (const auto& [token, bias] : p.logit_bias)
    if (token >= 0 && token < model_.config().vocab_size) logits[token] += bias;
  if (length - s.prompt < p.min_tokens)
    for (const int32_t token : s.stop_tokens) logits[token] = -INFINITY;
}

// Takes finished and cancelled sequences out and gives their pages back.
void Engine::finish_step() {
  for (auto& s : running_)
    if (s->finish != Finish::running) {
      if (s->followers > 0)  // only by cancellation, which takes the followers along
        for (auto& f : running_)
          if (f->leader == s.get()) f->leader = nullptr;
      drop_pages(*s);
      spare_.push_back(std::move(s));
    }
  std::erase(running_, nullptr);
}

}  // namespace ponder::engine
