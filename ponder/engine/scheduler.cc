#include "ponder/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "ponder/base/error.h"

namespace ponder::engine {

using kernels::kPageSize;

namespace {
bool cancelled(const std::unique_ptr<Sequence>& s) { return s->finish == Finish::cancelled; }
}  // namespace

Scheduler::Scheduler(const EngineConfig& config, const model::KvPool& pool, bool by_token)
    : config_(config), pool_(pool), by_token_(by_token), cache_(pool.pages()) {}

void Scheduler::add(const Request& request, int64_t id) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  Sequence* leader = nullptr;
  for (size_t i = 0; i < request.seeds.size(); ++i) {
    std::unique_ptr<Sequence> s = new_sequence();
    s->request = id;
    s->answer = static_cast<int32_t>(i);
    s->seed = request.seeds[i];
    s->sampling = request.sampling;
    if (s->sampling.temperature < kGreedy) s->sampling.temperature = 0;
    s->prompt = prompt - request.answered;
    s->max_length = prompt + request.max_new_tokens;
    s->stop_tokens = request.stop_tokens;
    // Never moved to larger memory: a step's spans point to the pages, and steps allocate nothing.
    s->tokens.reserve(static_cast<size_t>(s->max_length) + 2);
    s->pages.reserve(static_cast<size_t>(pages_for(s->max_length + 1)));
    s->hashes.reserve(static_cast<size_t>(pages_for(s->max_length + 1)));
    s->tokens.assign(request.prompt.begin(), request.prompt.end());
    if (leader && config_.share_prefixes) {
      s->leader = leader;
      ++leader->followers;
    } else {
      leader = s.get();
    }
    waiting_.push_back(std::move(s));
  }
}

// Those that were taken out keep the memory of their lists.
std::unique_ptr<Sequence> Scheduler::new_sequence() {
  if (spare_.empty()) return std::make_unique<Sequence>();
  std::unique_ptr<Sequence> s = std::move(spare_.back());
  spare_.pop_back();
  s->tokens.clear(), s->hashes.clear();
  s->computed = s->drafted = 0;
  s->leader = nullptr;
  s->followers = 0;
  s->finish = Finish::running;
  return s;
}

void Scheduler::cancel(int64_t request, int32_t answer) {
  const auto mark = [&](const std::unique_ptr<Sequence>& s) {
    if (s->request == request && (answer < 0 || s->answer == answer)) s->finish = Finish::cancelled;
  };
  for (const auto& s : running_) mark(s);
  for (const auto& s : waiting_) mark(s);
}

void Scheduler::begin_step(uint64_t version, std::vector<Event>& events) {
  if (version_ != version) {  // old prefixes miss by themselves: the version salts their hash
    version_ = version;
    for (auto& s : running_) drop_pages(*s);
  }
  copies_.clear();  // of a step that failed
  const auto report = [&](const std::unique_ptr<Sequence>& s) {
    if (cancelled(s)) events.push_back({s->request, s->answer, -1, 0, 0, Finish::cancelled});
  };
  for (auto& s : running_) report(s);
  for (auto& s : waiting_) {
    report(s);
    if (cancelled(s)) release_followers(*s);
  }
  std::erase_if(waiting_, cancelled);
  take_out_finished();
  admit();
}

void Scheduler::admit() {
  while (!waiting_.empty() && static_cast<int>(running_.size()) < config_.max_sequences) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// Full pages of the prompt that are still in memory; the last token is always computed, for its logits.
void Scheduler::find_prefix(Sequence& s) {
  uint64_t hash = version_;
  for (int64_t i = 0; (i + 1) * kPageSize < s.length(); ++i) {
    hash = page_hash(s, i, hash);
    const int32_t page = cache_.find(hash);
    if (page < 0) break;
    s.pages.push_back(page);
    s.hashes.push_back(hash);
    s.computed += kPageSize;
    shared_tokens_ += kPageSize;
  }
}

std::span<const Work> Scheduler::plan(Rows& rows) {
  work_.clear();
  rows.clear();
  int64_t budget = config_.max_step_rows;
  for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence& s = *running_[i];
    if (s.leader) continue;
    if (config_.share_prefixes && s.pages.empty()) find_prefix(s);
    s.computed = std::min(s.computed, s.confirmed() - 1);  // after a step that failed, its last row is computed again
    // A draft is judged in the step that computes the token before it, or not at all.
    if (s.length() - s.computed > budget) s.forget_drafts();
    const bool prompt = by_token_ && s.computed < s.prompt;
    const int64_t count = std::min((prompt ? s.prompt : s.length()) - s.computed, budget);
    if (!reserve_pages(s, s.computed + count)) continue;  // waits; older sequences hold the pages
    work_.push_back({&s, static_cast<int32_t>(work_.size()), static_cast<int32_t>(count), s.computed, prompt});
    budget -= count;
  }
  if (by_token_)
    std::sort(work_.begin(), work_.end(),
              [](const Work& a, const Work& b) { return a.prompt != b.prompt ? a.prompt : a.row < b.row; });
  for (Work& w : work_) {
    w.row = static_cast<int32_t>(rows.tokens.size());
    const std::vector<int32_t>& tokens = w.sequence->tokens;
    rows.tokens.insert(rows.tokens.end(), tokens.begin() + w.position, tokens.begin() + w.position + w.count);
    for (int64_t p = w.position; p < w.position + w.count; ++p) rows.positions.push_back(static_cast<int32_t>(p));
    rows.spans.push_back({w.row, w.count, static_cast<int32_t>(w.position), w.sequence->pages.data()});
    rows.prompt_spans += w.prompt;
  }
  PONDER_CHECK(!work_.empty() || running_.empty(), "no sequence can go on with {} pages", cache_.pages());
  return work_;
}

// Preempts the youngest sequence, if it is younger than `keep` and has no rows in this step. It keeps its tokens and is
// computed again. (If an older one could be preempted, two that do not fit together would take turns for ever.)
bool Scheduler::make_room(const Sequence& keep) {
  for (size_t i = running_.size(); i-- > 0;) {
    Sequence& s = *running_[i];
    if (&s == &keep) return false;  // those before it are older
    if (s.pages.empty()) continue;
    if (std::any_of(work_.begin(), work_.end(), [&](const Work& w) { return w.sequence == &s; })) return false;
    drop_pages(s);
    ++preempted_;
    return true;
  }
  return false;
}

bool Scheduler::reserve_pages(Sequence& s, int64_t positions) {
  while (static_cast<int64_t>(s.pages.size()) < pages_for(positions)) {
    const int32_t page = cache_.allocate();
    if (page >= 0)
      s.pages.push_back(page);
    else if (!make_room(s))
      return false;
  }
  return true;
}

void Scheduler::drop_pages(Sequence& s) {
  for (int32_t p : s.pages) cache_.release(p);
  s.pages.clear();
  s.hashes.clear();
  s.forget_drafts();
  s.computed = 0;
}

std::span<Sequence* const> Scheduler::fork_followers(Sequence& leader) {
  forked_.clear();
  if (leader.followers == 0) return forked_;
  for (auto& f : running_)
    if (f->leader == &leader) {
      fork(leader, *f);
      if (f->complete()) forked_.push_back(f.get());
    }
  release_followers(leader);  // those not admitted yet will find the prompt's full pages by hash
  return forked_;
}

void Scheduler::release_followers(Sequence& leader) {
  if (leader.followers == 0) return;
  leader.followers = 0;
  for (auto& f : running_)
    if (f && f->leader == &leader) f->leader = nullptr;
  for (auto& f : waiting_)
    if (f->leader == &leader) f->leader = nullptr;
}

// Takes over what the leader has computed of the common prompt: full pages are shared, the last one is copied, but not
// before the step ends, for MTP modules have yet to write their keys. (A page that a follower has to give back until then
// may be given to another one: its copy comes later.)
void Scheduler::fork(const Sequence& leader, Sequence& s) {
  const int64_t prompt = s.length();
  const int64_t full = prompt / kPageSize;
  for (int64_t i = 0; i < full; ++i) {
    cache_.retain(leader.pages[static_cast<size_t>(i)]);
    s.pages.push_back(leader.pages[static_cast<size_t>(i)]);
  }
  for (size_t i = 0; i < std::min(leader.hashes.size(), static_cast<size_t>(full)); ++i)
    s.hashes.push_back(leader.hashes[i]);
  if (prompt % kPageSize == 0 || reserve_pages(s, prompt)) {
    if (prompt % kPageSize) copies_.push_back({leader.pages[static_cast<size_t>(full)], s.pages.back()});
    s.computed = prompt;
  } else {
    s.computed = full * kPageSize;  // no page for the rest now: it is computed when there is one
  }
  shared_tokens_ += s.computed;
}

// Of tokens up to the end of a full page. Where generated tokens are computed in another way than a prompt's, a page that
// holds some is found only by requests for which these same tokens are generated.
uint64_t Scheduler::page_hash(const Sequence& s, int64_t page, uint64_t previous) const {
  const int64_t begin = page * kPageSize;
  const uint64_t hash = KvCache::hash(previous, {s.tokens.data() + begin, static_cast<size_t>(kPageSize)});
  if (!by_token_ || begin + kPageSize <= s.prompt) return hash;
  const auto generated = static_cast<int32_t>(std::max<int64_t>(0, s.prompt - begin));
  return KvCache::hash(hash, {&generated, 1});
}

void Scheduler::remember_pages(Sequence& s) {
  if (!config_.share_prefixes) return;
  const int64_t known = std::min(s.computed, config_.remember_answers ? s.confirmed() : s.prompt);
  while (static_cast<int64_t>(s.hashes.size() + 1) * kPageSize <= known) {
    const size_t i = s.hashes.size();
    const uint64_t hash = page_hash(s, static_cast<int64_t>(i), i ? s.hashes.back() : version_);
    cache_.remember(s.pages[i], hash);
    s.hashes.push_back(hash);
  }
}

void Scheduler::end_step() {
  for (const PageCopy& c : copies_) pool_.copy_page(c.from, c.to);
  copies_.clear();
  for (const Work& w : work_) remember_pages(*w.sequence);
  take_out_finished();
}

void Scheduler::take_out_finished() {
  for (auto& s : running_)
    if (s->finish != Finish::running) {
      release_followers(*s);
      drop_pages(*s);
      spare_.push_back(std::move(s));
    }
  std::erase(running_, nullptr);
}

}  // namespace ponder::engine
