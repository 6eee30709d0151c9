#include "ponder/app/answers.h"

#include <algorithm>
#include <cmath>

#include "ponder/app/machine.h"
#include "ponder/app/options.h"

namespace ponder::app {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";

int64_t page_bytes(const model::Model& m) {
  return m.kv_layers() * m.page_layout().page_floats() * static_cast<int64_t>(sizeof(float));
}
int64_t affordable_pages(const model::Model& m) { return memory_bytes() / 4 / page_bytes(m); }

}  // namespace

// --- Numerics --------------------------------------------------------------------------------------------------------

model::MlaForm mla_form(const std::string& name, bool exact) {
  using model::MlaForm;
  for (const MlaForm form : {MlaForm::absorbed, MlaForm::expanded, MlaForm::by_token})
    if (name == model::mla_form_name(form) && !(exact && form == MlaForm::by_token)) return form;
  throw_error(Exit::usage, "--mla {}: absorbed{} is expected", name, exact ? " or expanded" : ", expanded or by-token");
}

model::ModelOptions model_options(const Arguments& args, bool exact) {
  const std::string cache = args.text("cache-type", "f32");
  if (cache != "f32")
    throw_error(Exit::usage, "--cache-type {}: this version keeps keys and values as f32 only", cache);
  return {.stored = true, .mla_form = mla_form(args.text("mla", exact ? "absorbed" : "by-token"), exact)};
}

kernels::Activations activations_option(const Arguments& args, const LoadedModel& loaded, bool exact) {
  if (!args.has("activations")) return exact ? kernels::Activations::f32 : loaded.fast_activations;
  return parse_activations(args.text("activations"));
}

kernels::Activations parse_activations(const std::string& name) {
  using kernels::Activations;
  for (const Activations a : {Activations::f32, Activations::bf16, Activations::q8})
    if (name == kernels::activations_name(a)) return a;
  throw_error(Exit::usage, "--activations {}: f32, bf16 or q8 is expected", name);
}

// --- Text ------------------------------------------------------------------------------------------------------------

AnswerText::AnswerText(const text::Tokenizer& tokenizer, const std::vector<int32_t>& prompt)
    : tokenizer_(tokenizer),
      tag_tokens_(tokenizer.find(kClose).has_value()),
      splitter_(prompt.empty() ? "" : tokenizer.decode(std::span(prompt).last(std::min<size_t>(prompt.size(), 16))),
                tag_tokens_ ? text::ThinkSplitter::Tags::token : text::ThinkSplitter::Tags::text) {}

std::vector<AnswerText::Delta> AnswerText::push(int32_t id) {
  const std::string& token = tokenizer_.token(id);
  if (tag_tokens_ && (token == kOpen || token == kClose)) {
    first_ = true;  // the text behind a tag begins without a space
    return splitter_.push(token);
  }
  if (tokenizer_.is_special(id)) return {};
  const std::string piece = utf8_.push(tokenizer_.piece(id, first_));
  first_ = false;
  return piece.empty() ? std::vector<Delta>() : splitter_.push(piece);
}

std::vector<AnswerText::Delta> AnswerText::finish() {
  std::vector<Delta> out;
  if (const std::string rest = utf8_.flush(); !rest.empty()) out = splitter_.push(rest);
  for (Delta& d : splitter_.finish()) out.push_back(std::move(d));
  return out;
}

std::string StopStrings::push(std::string_view text) {
  if (stopped_) return "";
  if (stops_.empty()) return std::string(text);
  held_ += text;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) end = std::min(end, held_.find(stop));
  if (end != std::string::npos) {
    stopped_ = true;
    return std::exchange(held_, "").substr(0, end);
  }
  size_t keep = 0;
  for (const std::string& stop : stops_)
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n)
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) keep = n;
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopStrings::flush() { return stopped_ ? "" : std::exchange(held_, ""); }

void check_stops(const std::vector<std::string>& stops, const char* name, Exit code) {
  constexpr size_t kMost = 16;
  if (stops.size() > kMost) throw_error(code, "{}: at most {} texts", name, kMost);
  for (const std::string& stop : stops)
    if (stop.empty()) throw_error(code, "{}: an empty text would end every answer at once", name);
}

std::vector<std::string> stop_option(const Arguments& args) {
  const std::vector<std::string>& stops = args.all("stop");
  check_stops(stops, "--stop", Exit::usage);
  return stops;
}

bool repeats_itself(std::span<const int32_t> tokens) {
  constexpr size_t kPeriod = 128, kTimes = 8, kTokens = 192;
  const size_t n = tokens.size();
  for (size_t period = 1; period <= kPeriod; ++period) {
    const size_t need = std::max(kTokens, kTimes * period);
    if (n < need) break;
    size_t same = period;
    while (same < need && tokens[n - 1 - same] == tokens[n - 1 - same + period]) ++same;
    if (same == need) return true;
  }
  return false;
}

// --- Answers ---------------------------------------------------------------------------------------------------------

const char* stop_detail_name(StopDetail detail) {
  switch (detail) {
    case StopDetail::eos: return "eos";
    case StopDetail::stop_string: return "stop_string";
    case StopDetail::max_tokens: return "max_tokens";
    case StopDetail::context_full: return "context_full";
    case StopDetail::loop_guard: return "loop_guard";
    case StopDetail::cancelled: break;
  }
  return "cancelled";
}

const char* Answer::finish_reason() const {
  return detail == StopDetail::max_tokens || detail == StopDetail::context_full ? "length" : "stop";
}

int64_t Answering::add(AnswerRequest request, Sink sink) {
  const int64_t engine_id = engine_.add({.prompt = request.prompt,
                                         .seeds = request.seeds,
                                         .sampling = request.sampling,
                                         .max_new_tokens = request.max_tokens,
                                         .stop_tokens = request.stop_tokens});
  const int64_t id = next_++;
  Job& job = jobs_[id];
  job.request = std::move(request), job.sink = std::move(sink);
  const AnswerRequest& r = job.request;
  job.answers.resize(r.seeds.size());
  job.streams.resize(r.seeds.size());
  for (size_t i = 0; i < r.seeds.size(); ++i) {
    Stream& s = job.streams[i];
    if (loaded_.tokenizer) s.text.emplace(*loaded_.tokenizer, r.prompt);
    s.in_reasoning = s.text && s.text->state() == AnswerText::State::reasoning;
    s.content = StopStrings(r.stop);
    if (r.stop_in_reasoning) s.reasoning = StopStrings(r.stop);
    places_[{engine_id, static_cast<int32_t>(i)}] = {&job, i};
  }
  running_ += static_cast<int64_t>(r.seeds.size());
  return id;
}

void Answering::step() {
  for (const engine::Event& event : engine_.step()) accept(event);
}

void Answering::accept(const engine::Event& event) {
  const auto at = places_.find({event.request, event.answer});
  if (at == places_.end()) return;  // ended here while the engine still had a token of it
  const Place place = at->second;
  Job& job = *place.job;
  Answer& a = job.answers[place.answer];
  if (event.token >= 0) push(job, place.answer, event.token, event.logp);
  const Stream& s = job.streams[place.answer];
  const AnswerRequest& r = job.request;
  const auto end = [&](StopDetail detail) {
    if (event.finish == engine::Finish::running) engine_.cancel(event.request, event.answer);
    places_.erase(at);
    finish(job, place.answer, detail);
  };
  const int64_t length = static_cast<int64_t>(r.prompt.size() + a.ids.size());
  if (s.content.stopped() || s.reasoning.stopped())
    end(StopDetail::stop_string);
  else if (event.finish == engine::Finish::cancelled)
    end(StopDetail::cancelled);
  else if (event.finish == engine::Finish::stop)
    end(StopDetail::eos);
  else if (event.finish == engine::Finish::length)
    end(length >= loaded_.model->config().max_position_embeddings ? StopDetail::context_full : StopDetail::max_tokens);
  else if (r.loop_guard && a.ids.size() % 32 == 0 && repeats_itself(a.ids))
    end(StopDetail::loop_guard);
  else if (r.think_budget >= 0 && s.in_reasoning && a.inserted_at < 0 && a.reasoning_tokens >= r.think_budget)
    end_thinking(place, event);
}

void Answering::push(Job& job, size_t index, int32_t token, float logp) {
  Answer& a = job.answers[index];
  Stream& s = job.streams[index];
  a.ids.push_back(token);
  a.logp.push_back(logp);
  if (!s.text) return;
  const bool stop =
      std::find(job.request.stop_tokens.begin(), job.request.stop_tokens.end(), token) != job.request.stop_tokens.end();
  const bool before = s.in_reasoning;
  if (!stop)
    for (const auto& d : s.text->push(token)) show(job, index, d);
  s.in_reasoning = s.text->state() == AnswerText::State::reasoning;
  a.thought |= s.in_reasoning;
  a.reasoning_tokens += before || s.in_reasoning;
}

void Answering::show(Job& job, size_t index, const AnswerText::Delta& delta) {
  Answer& a = job.answers[index];
  Stream& s = job.streams[index];
  const bool thinking = delta.part == AnswerText::State::reasoning;
  const auto pass = [&](AnswerText::State part, std::string text) {
    if (text.empty()) return;
    (part == AnswerText::State::reasoning ? a.reasoning : a.content) += text;
    if (job.sink) job.sink(index, {part, std::move(text)});
  };
  if (!thinking) pass(AnswerText::State::reasoning, s.reasoning.flush());
  if (s.reasoning.stopped()) return;
  pass(delta.part, (thinking ? s.reasoning : s.content).push(delta.text));
}

void Answering::end_thinking(const Place& place, const engine::Event& event) {
  Job& job = *place.job;
  const AnswerRequest& r = job.request;
  Answer& a = job.answers[place.answer];
  engine_.cancel(event.request, event.answer);
  places_.erase({event.request, event.answer});
  a.inserted_at = static_cast<int64_t>(a.ids.size());
  for (const int32_t token : r.end_phrase) {
    if (static_cast<int64_t>(a.ids.size()) >= r.max_tokens) break;
    push(job, place.answer, token, NAN);
    ++a.inserted;
  }
  const int64_t left = r.max_tokens - static_cast<int64_t>(a.ids.size());
  if (left < 1) return finish(job, place.answer, StopDetail::max_tokens);
  engine::Request rest{.prompt = r.prompt,
                       .seeds = {r.seeds[place.answer]},
                       .sampling = r.sampling,
                       .max_new_tokens = static_cast<int>(left),
                       .stop_tokens = r.stop_tokens,
                       .answered = static_cast<int>(a.ids.size())};
  rest.prompt.insert(rest.prompt.end(), a.ids.begin(), a.ids.end());
  places_[{engine_.add(std::move(rest)), 0}] = place;
}

void Answering::finish(Job& job, size_t index, StopDetail detail) {
  Answer& a = job.answers[index];
  Stream& s = job.streams[index];
  if (s.text) {
    for (const auto& d : s.text->finish()) show(job, index, d);
    for (const auto part : {AnswerText::State::reasoning, AnswerText::State::content}) {
      std::string rest = (part == AnswerText::State::reasoning ? s.reasoning : s.content).flush();
      if (rest.empty()) continue;
      (part == AnswerText::State::reasoning ? a.reasoning : a.content) += rest;
      if (job.sink) job.sink(index, {part, std::move(rest)});
    }
  }
  a.done = true;
  a.detail = detail;
  --running_;
}

bool Answering::done(int64_t id) const {
  const auto& answers = jobs_.at(id).answers;
  return std::all_of(answers.begin(), answers.end(), [](const Answer& a) { return a.done; });
}

void Answering::cancel_all() {
  for (const auto& [key, place] : places_) {
    engine_.cancel(key.first);
    finish(*place.job, place.answer, StopDetail::cancelled);
  }
  places_.clear();
  while (!engine_.idle()) engine_.step();
}

std::vector<Answer> Answering::take(int64_t id) {
  PONDER_CHECK(done(id), "request {} is not finished", id);
  std::vector<Answer> out = std::move(jobs_.at(id).answers);
  jobs_.erase(id);
  return out;
}

// --- Engines ---------------------------------------------------------------------------------------------------------

int default_max_tokens(const LoadedModel& loaded, size_t prompt_tokens) {
  const int64_t context = loaded.model->config().max_position_embeddings;
  // A miniature's texts have a known length; a model that reasons needs room for it (R1: 32,768).
  const int64_t longest =
      loaded.task ? loaded.task->max_text_tokens() - static_cast<int64_t>(prompt_tokens) : (loaded.chat ? 32768 : 512);
  return static_cast<int>(std::max<int64_t>(1, std::min(context - static_cast<int64_t>(prompt_tokens), longest)));
}

std::vector<int32_t> stop_tokens(const LoadedModel& loaded) {
  if (!loaded.text.eos_ids.empty()) return loaded.text.eos_ids;
  if (!loaded.tokenizer || !loaded.tokenizer->special().eos) return {};
  return {*loaded.tokenizer->special().eos};
}

std::unique_ptr<engine::Engine> make_answer_engine(const LoadedModel& loaded, const kernels::Backend& backend,
                                                   const EngineSize& size, kernels::Activations activations,
                                                   bool draft) {
  const model::Model& m = *loaded.model;
  const int64_t each = (size.tokens + 2 + kernels::kPageSize - 1) / kernels::kPageSize;
  engine::EngineConfig config;
  config.max_sequences = static_cast<int>(std::clamp<int64_t>(size.answers, 1, engine::default_sequences(m)));
  config.pages = std::max(each, std::min(config.max_sequences * each, affordable_pages(m)));
  config.remember_answers = true;
  config.activations = activations;
  config.draft = draft;
  return std::make_unique<engine::Engine>(m, backend, config);
}

int64_t affordable_context(const LoadedModel& loaded) {
  return std::clamp<int64_t>(affordable_pages(*loaded.model) * kernels::kPageSize - 2, 64,
                             loaded.model->config().max_position_embeddings);
}

}  // namespace ponder::app
