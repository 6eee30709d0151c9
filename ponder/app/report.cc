#include "ponder/app/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "ponder/app/commands.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/stage.h"
#include "ponder/app/svg.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/json_value.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

constexpr size_t kSamples = 10;  // problems shown before and after

// --- What the folder says --------------------------------------------------------------------------------------------

struct StageView {
  std::string name, type;
  int64_t index = 0, steps = 0, params = 0, active_params = 0;
  double seconds = 0, tokens = 0, flops = 0, planned_bytes = 0, peak_bytes = 0;
  std::vector<const MetricsRow*> rows;
  std::vector<const MetricsRow*> evaluations;  // the rows that hold one
};

struct Item {
  std::string problem, completion, reason;
  bool right = false;
};

struct Story {
  const RunDir& run;
  MetricsLog log;
  std::vector<StageView> stages;
  std::string task;                                                    // "eval/countdown/"
  std::map<std::pair<std::string, int64_t>, std::vector<Item>> items;  // by stage and step, one answer each at T = 1
  double peak_flops = 0, price_per_hour = 0;
  std::string cpu, threads;
  std::vector<std::string> warnings;
};

double value(const MetricsRow& row, const std::string& tag) { return get(row.values, tag); }

std::string text_of(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}
// Members of events are texts; what is no number, or one that cannot be counted with, is 0.
double number_of(const Json& object, const char* key) {
  const double x = std::strtod(text_of(object, key).c_str(), nullptr);
  return std::abs(x) < 1e18 || (std::isfinite(x) && std::string_view(key) == "flops") ? x : 0;
}
// The stage that a row belongs to; -1: none.
int64_t stage_index(double x) { return x >= 0 && x < 1e9 ? static_cast<int64_t>(x) : -1; }

void read_events(Story& story) {
  std::map<int64_t, StageView> stages;
  const auto by_name = [&](const std::string& name) {
    return std::find_if(stages.begin(), stages.end(), [&](const auto& s) { return s.second.name == name; });
  };
  for (const RunEvent& event : story.log.events) {
    const Json json = parse_json(event.json, story.run.metrics_path());
    if (event.kind == "machine") {
      story.cpu = text_of(json, "cpu"), story.threads = text_of(json, "threads");
      story.peak_flops = std::max(story.peak_flops, number_of(json, "peak_flops"));
      story.price_per_hour = number_of(json, "price_per_hour");
    } else if (event.kind == "stage") {
      StageView& s = stages[static_cast<int64_t>(number_of(json, "index"))];
      s.name = text_of(json, "name"), s.type = text_of(json, "type");
      s.index = static_cast<int64_t>(number_of(json, "index"));
      s.steps = static_cast<int64_t>(number_of(json, "steps"));
      s.params = static_cast<int64_t>(number_of(json, "params")),
      s.active_params = static_cast<int64_t>(number_of(json, "active_params"));
    } else if (event.kind == "stage_end") {
      if (const auto s = by_name(text_of(json, "name")); s != stages.end()) {
        s->second.seconds = number_of(json, "seconds"), s->second.tokens = number_of(json, "tokens");
        s->second.flops = number_of(json, "flops");
        s->second.planned_bytes = number_of(json, "planned_bytes"),
        s->second.peak_bytes = number_of(json, "peak_bytes");
      }
    }
  }
  for (const MetricsRow& row : story.log.rows) {
    const auto s = stages.find(stage_index(value(row, "stage")));
    if (s == stages.end()) continue;
    s->second.rows.push_back(&row);
    if (s->second.seconds == 0 && !std::isnan(value(row, "flops"))) s->second.flops += value(row, "flops");
    bool evaluated = !std::isnan(value(row, "val/loss"));
    for (const auto& [tag, x] : row.values)
      if (tag.starts_with("eval/") && tag.ends_with("/accuracy") && std::count(tag.begin(), tag.end(), '/') == 2) {
        story.task = tag.substr(0, tag.size() - std::string_view("accuracy").size());
        evaluated = true;
      }
    if (evaluated) s->second.evaluations.push_back(&row);
  }
  for (auto& [index, s] : stages) {
    if (s.seconds == 0 && !s.rows.empty()) {  // still running, or killed
      s.seconds = s.rows.back()->wall_s - s.rows.front()->wall_s;
      s.tokens = static_cast<double>(s.rows.back()->tokens);
    }
    story.stages.push_back(std::move(s));
  }
}

void read_items(Story& story) {
  for (const EvalItem& item : story.run.eval_items()) {
    Json json;
    try {
      json = parse_json(item.json, "eval");
    } catch (const Error&) {
      continue;  // a torn line
    }
    if (!json.is_object() || text_of(json, "kind") != "sampled" || !json.contains("doc") || !json["doc"].is_object())
      continue;
    const auto first = [&](const char* key) {
      return json.contains(key) && json[key].is_array() && !json[key].empty() ? json[key][0] : Json();
    };
    const Json completion = first("resps"), reason = first("reason");
    auto& list = story.items[{text_of(json, "stage"), json.value("step", int64_t{0})}];
    if (list.size() >= kSamples) continue;
    list.push_back({text_of(json["doc"], "text"), completion.is_string() ? completion.get<std::string>() : "",
                    reason.is_string() ? reason.get<std::string>() : "", first("right") == true});
  }
}

Story read_story(const RunDir& run) {
  Story story{.run = run,
              .log = read_metrics(run),
              .stages = {},
              .task = "",
              .items = {},
              .cpu = "",
              .threads = "",
              .warnings = {}};
  read_events(story);
  read_items(story);
  if (path_exists(run.file("log.jsonl")))
    for (const std::string& line : read_whole_lines(run.file("log.jsonl"))) {
      Json json;
      try {
        json = parse_json(line, "log.jsonl");
      } catch (const Error&) {  // as a power cut may leave it
        continue;
      }
      if (json.is_object() && text_of(json, "level") != "info") story.warnings.push_back(text_of(json, "text"));
    }
  return story;
}

// --- Charts ----------------------------------------------------------------------------------------------------------

class Charts {
 public:
  Charts(const Story& story, const StageView& stage) : story_(story), stage_(stage) {}

  Series line(const std::string& name, const std::string& tag) const { return series(name, stage_.rows, tag, false); }
  Series points(const std::string& name, const std::string& tag, bool with_error = false) const {
    Series s = series(name, stage_.evaluations, story_.task + tag, true);
    if (with_error)
      for (const MetricsRow* row : stage_.evaluations)
        if (!std::isnan(value(*row, story_.task + tag))) s.error.push_back(value(*row, story_.task + tag + "_stderr"));
    return s;
  }

  std::vector<Chart> rl() const {
    std::vector<Chart> charts;
    charts.push_back({.title = "Right answers",
                      .note = "bars: ± 1 s.e.",
                      .series = {line("training reward", "reward"), points("held out, T = 1", "accuracy", true),
                                 points("greedy", "greedy/accuracy")},
                      .y_min = 0,
                      .y_max = 1});
    charts.push_back({.title = "pass@k, held out", .series = pass_at_k(), .y_min = 0, .y_max = 1});
    charts.back().x_label = "k";
    charts.push_back(
        {.title = "Length of an answer (tokens)",
         .series = {line("training", "completions/mean_length"), points("held out", "completions/mean_length")},
         .y_min = 0});
    charts.push_back(
        {.title = "Search within an answer",
         .series = {line("rejected leaves (backtracks)", "search/rejected_leaves"), line("checks", "search/checks"),
                    points("rejected, held out", "search/rejected_leaves")},
         .y_min = 0});
    Chart modes{.title = "Modes: share and success", .series = {}, .y_min = 0, .y_max = 1};
    int color = 0;
    for (const std::string& mode : modes_of(stage_)) {
      modes.series.push_back(line(mode, fmt::format("mode/{}/share", mode)));
      modes.series.back().color = color;
      modes.series.push_back(line(mode + ", right", fmt::format("mode/{}/success", mode)));
      modes.series.back().color = color++, modes.series.back().dashed = true;
    }
    charts.push_back(std::move(modes));
    charts.push_back({.title = "Ends that are no answer",
                      .series = {line("gives up", "search/gives_up"), line("truncated", "completions/clipped_ratio"),
                                 line("malformed", "completions/malformed")},
                      .y_min = 0});
    charts.push_back({.title = "Errors by kind, training",
                      .note = "per equation, leaf, answer",
                      .series = {line("arithmetic", "errors/arithmetic"), line("numbers", "errors/numbers"),
                                 line("check", "errors/check"), line("false yes", "errors/false_yes"),
                                 line("missed yes", "errors/missed_yes")},
                      .y_min = 0});
    charts.push_back({.title = "Errors by kind, held out",
                      .note = "per equation, leaf, answer",
                      .series = {points("arithmetic", "errors/arithmetic"), points("numbers", "errors/numbers"),
                                 points("check", "errors/check"), points("false yes", "errors/false_yes"),
                                 points("missed yes", "errors/missed_yes")},
                      .y_min = 0});
    charts.push_back({.title = "Entropy of a token (nats)", .series = {line("entropy", "entropy")}, .y_min = 0});
    charts.push_back({.title = "Gradient norm", .series = {line("grad_norm", "grad_norm")}, .y_min = 0});
    charts.push_back({.title = "Groups with signal",
                      .series = {line("share", "rollout/share_informative_groups")},
                      .y_min = 0,
                      .y_max = 1});
    charts.push_back({.title = "KL to the reference", .series = {line("kl", "kl")}});
    common(charts);
    charts.push_back(
        {.title = "Time of a step (s)",
         .series = {line("sampling", "time/rollout"), line("grading", "time/reward"), line("update", "time/train")},
         .stacked = true});
    return charts;
  }

  std::vector<Chart> pretrain() const {
    std::vector<Chart> charts;
    charts.push_back({.title = "Loss (nats per token)",
                      .series = {line("loss", "loss"), line("second token (MTP)", "mtp/loss"),
                                 series("held out", stage_.evaluations, "val/loss", true)}});
    charts.push_back(
        {.title = "Held out: bits per byte", .series = {series("bits", stage_.evaluations, "val/bpb", true)}});
    charts.push_back({.title = "Held-out accuracy",
                      .series = {points("T = 1", "accuracy", true), points("greedy", "greedy/accuracy")},
                      .y_min = 0,
                      .y_max = 1});
    charts.push_back({.title = "Gradient norm", .series = {line("grad_norm", "grad_norm")}, .y_min = 0});
    charts.push_back({.title = "Tokens per second", .series = {line("tok_per_s", "tok_per_s")}, .y_min = 0});
    common(charts);
    return charts;
  }

  static std::vector<std::string> modes_of(const StageView& stage) {
    std::vector<std::string> modes;
    if (!stage.rows.empty())
      for (const auto& [tag, x] : stage.rows.back()->values)
        if (tag.starts_with("mode/") && tag.ends_with("/share")) modes.push_back(tag.substr(5, tag.size() - 11));
    return modes;
  }

 private:
  static Series series(const std::string& name, const std::vector<const MetricsRow*>& rows, const std::string& tag,
                       bool dots) {
    Series s{.name = name, .x = {}, .y = {}, .dots = dots};
    for (const MetricsRow* row : rows)
      if (const double y = value(*row, tag); !std::isnan(y)) s.x.push_back(value(*row, "stage_step")), s.y.push_back(y);
    return s;
  }
  void common(std::vector<Chart>& charts) const {
    charts.push_back({.title = "Load of the busiest expert, over the mean, less 1",
                      .series = {line("max violation", "moe/max_violation")},
                      .y_min = 0});
    charts.push_back({.title = "Experts without a token", .series = {line("dead", "moe/dead_experts")}, .y_min = 0});
    charts.push_back({.title = "Learning rate", .series = {line("learning_rate", "learning_rate")}, .y_min = 0});
    charts.push_back({.title = "Share of the machine's peak", .series = {line("mfu", "mfu")}, .y_min = 0});
  }
  std::vector<Series> pass_at_k() const {
    std::vector<Series> out;
    for (const MetricsRow* row : stage_.evaluations) {
      Series s{.name = fmt::format("step {:g}", value(*row, "stage_step")), .x = {}, .y = {}, .dots = true};
      for (int k = 1; k <= 1024; k *= 2)
        if (const double y = value(*row, fmt::format("{}pass@{}", story_.task, k)); !std::isnan(y))
          s.x.push_back(k), s.y.push_back(y);
      if (s.x.size() > 1) out.push_back(std::move(s));
    }
    return out;
  }

  const Story& story_;
  const StageView& stage_;
};

// --- Tables ----------------------------------------------------------------------------------------------------------

using Table = std::vector<std::vector<std::string>>;  // the first row is the heading

std::string shown(double x, const char* format) { return std::isnan(x) ? "" : fmt::format(fmt::runtime(format), x); }

Table before_after(const Story& story, const StageView& stage) {
  const MetricsRow &a = *stage.evaluations.front(), &b = *stage.evaluations.back();
  const bool once = &a == &b;
  Table table = {{"held out", fmt::format("step {:g}", value(a, "stage_step"))}};
  if (!once) table[0].insert(table[0].end(), {fmt::format("step {:g}", value(b, "stage_step")), "change"});
  const auto add = [&](const std::string& label, const std::string& tag, const char* format, bool with_error = false) {
    const double x = value(a, story.task + tag), y = value(b, story.task + tag);
    if (std::isnan(x) && std::isnan(y)) return;
    const auto cell = [&](const MetricsRow& row, double v) {
      const double e = value(row, story.task + tag + "_stderr");
      return shown(v, format) + (with_error && !std::isnan(e) ? fmt::format(" ± {:.3f}", e) : "");
    };
    table.push_back({label, cell(a, x)});
    if (once) return;
    table.back().insert(
        table.back().end(),
        {cell(b, y), std::isnan(x) || std::isnan(y) ? "" : (y >= x ? "+" : "−") + shown(std::abs(y - x), format)});
  };
  add("accuracy, T = 1", "accuracy", "{:.3f}", true);
  add("accuracy, greedy", "greedy/accuracy", "{:.3f}", true);
  add("pass@8", "pass@8", "{:.3f}");
  add("pass@16", "pass@16", "{:.3f}");
  add("length (tokens)", "completions/mean_length", "{:.1f}");
  add("rejected leaves an answer", "search/rejected_leaves", "{:.2f}");
  add("checks an answer", "search/checks", "{:.2f}");
  for (const std::string& mode : Charts::modes_of(stage)) {
    add(fmt::format("share of {}", mode), fmt::format("mode/{}/share", mode), "{:.3f}");
    add(fmt::format("success of {}", mode), fmt::format("mode/{}/success", mode), "{:.3f}");
  }
  add("gives up", "search/gives_up", "{:.3f}");
  add("truncated", "completions/clipped_ratio", "{:.3f}");
  add("wrong arithmetic, of equations", "errors/arithmetic", "{:.4f}");
  add("wrong numbers, of leaves", "errors/numbers", "{:.4f}");
  add("wrong checks, of leaves", "errors/check", "{:.4f}");
  add("false yes an answer", "errors/false_yes", "{:.3f}");
  return table;
}

Table bill(const Story& story) {
  Table table = {{"stage", "steps", "tokens", "time", "FLOP", "tokens/s", "of peak", "peak memory (plan)", "price"}};
  double seconds = 0, flops = 0;
  const auto price = [&](double s) {
    return story.price_per_hour > 0 ? fmt::format("{:.4f}", s / 3600 * story.price_per_hour) : std::string("–");
  };
  const auto share = [&](double f, double s) {
    return story.peak_flops > 0 && s > 0 ? fmt::format("{:.1f} %", 100 * f / s / story.peak_flops) : std::string();
  };
  for (const StageView& s : story.stages) {
    seconds += s.seconds, flops += s.flops;
    table.push_back({s.name, s.steps > 0 ? format_grouped(s.steps) : "", s.tokens > 0 ? format_count(s.tokens) : "",
                     format_duration(s.seconds), s.flops > 0 ? fmt::format("{:.2e}", s.flops) : "",
                     s.seconds > 0 && s.tokens > 0 ? format_count(s.tokens / s.seconds) : "", share(s.flops, s.seconds),
                     s.peak_bytes > 0 ? fmt::format("{} ({})", format_bytes(static_cast<uint64_t>(s.peak_bytes)),
                                                    format_bytes(static_cast<uint64_t>(s.planned_bytes)))
                                      : "",
                     price(s.seconds)});
  }
  table.push_back({"in all", "", "", format_duration(seconds), fmt::format("{:.2e}", flops), "", share(flops, seconds),
                   "", price(seconds)});
  return table;
}

// --- Pages -----------------------------------------------------------------------------------------------------------

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --text: #1b1e28; --dim: #667; --back: #fff; --card: #f5f6f9; --line: #dde; --good: #1d8a5f; --bad: #c0392b; --warm: #b26a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6ee; --dim: #99a; --back: #14161c; --card: #1d2028; --line: #333844; --good: #4fd0a0; --bad: #ff7a6b; --warm: #e3a94d; } }
* { box-sizing: border-box; } body { margin: 0 auto; max-width: 1460px; padding: 28px 24px 60px; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 26px; } h2 { margin: 38px 0 12px; font-size: 19px; } .dim { color: var(--dim); } code, .mono { font-family: ui-monospace, monospace; font-size: 13px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0; } .card { background: var(--card); border-radius: 10px; padding: 12px 18px; min-width: 150px; }
.card b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; } .card span { color: var(--dim); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 14px; } .charts svg { width: 100%; background: var(--card); border-radius: 10px; padding: 6px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--dim); font-weight: 500; }
.pair { background: var(--card); border-radius: 10px; padding: 10px 16px; margin: 10px 0; } .pair p { margin: 6px 0; overflow-wrap: anywhere; }
.right { color: var(--good); } .wrong { color: var(--bad); } .think { color: var(--dim); } .yes { color: var(--good); font-weight: 600; } .rej { color: var(--warm); } .back { font-weight: 600; }
pre { background: var(--card); border-radius: 10px; padding: 14px; overflow-x: auto; font-size: 12.5px; } summary { cursor: pointer; color: var(--dim); }
)";

std::string html_table(const Table& table) {
  std::string out = "<div class=\"wide\"><table>";
  for (size_t i = 0; i < table.size(); ++i) {
    out += "<tr>";
    for (const std::string& cell : table[i])
      out += fmt::format("<{0}>{1}</{0}>", i == 0 ? "th" : "td", escape_xml(cell));
    out += "</tr>";
  }
  return out + "</table></div>\n";
}

std::string markdown_table(const Table& table) {
  std::string out;
  for (size_t i = 0; i < table.size(); ++i) {
    out += fmt::format("| {} |\n", fmt::join(table[i], " | "));
    if (i == 0) {
      out += "|";
      for (size_t j = 0; j < table[0].size(); ++j) out += j == 0 ? "---|" : "---:|";
      out += "\n";
    }
  }
  return out + "\n";
}

// The words of a completion, its search marked.
std::string html_completion(const std::string& text) {
  std::string out;
  bool thinking = false;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    at = end + 1;
    if (word == "<think>") thinking = true, out += "<span class=\"think\">";
    const char* css = word == "yes"                      ? "yes"
                      : word == "low" || word == "high"  ? "rej"
                      : word == "back" || word == "stop" ? "back"
                                                         : nullptr;
    out += css ? fmt::format("<span class=\"{}\">{}</span> ", css, escape_xml(word)) : escape_xml(word) + " ";
    if (word == "</think>" && thinking) thinking = false, out += "</span>";
  }
  return out + (thinking ? "</span>" : "");
}

std::string html_answer(const char* when, const Item& item) {
  return fmt::format("<p><b class=\"{}\">{}</b> <span class=\"dim\">{}</span><br><span class=\"mono\">{}</span></p>",
                     item.right ? "right" : "wrong", when, escape_xml(item.right ? "right" : item.reason),
                     html_completion(item.completion));
}

struct Pair {
  const Item *before, *after;
};
std::vector<Pair> samples_of(const Story& story, const StageView& stage) {
  std::vector<Pair> out;
  if (stage.evaluations.empty()) return out;
  const auto a = story.items.find({stage.name, stage.evaluations.front()->step}),
             b = story.items.find({stage.name, stage.evaluations.back()->step});
  if (a == story.items.end() || b == story.items.end() || a == b) return out;
  for (size_t i = 0; i < std::min(a->second.size(), b->second.size()); ++i)
    if (a->second[i].problem == b->second[i].problem) out.push_back({&a->second[i], &b->second[i]});
  return out;
}

std::string card(const std::string& label, double before, double after, const char* format) {
  if (std::isnan(after)) return "";
  const std::string number =
      std::isnan(before) ? shown(after, format) : fmt::format("{} → {}", shown(before, format), shown(after, format));
  return fmt::format("<div class=\"card\"><b>{}</b><span>{}</span></div>", number, escape_xml(label));
}

std::string state_of(const RunDir& run) {
  const std::string& end = run.info().end;
  return end.empty() ? "unfinished" : end;
}

std::vector<Chart> charts_of(const Story& story, const StageView& stage) {
  if (stage.type == "rl") return Charts(story, stage).rl();
  if (stage.type == "pretrain") return Charts(story, stage).pretrain();
  return {};
}

std::string html_report(const Story& story) {
  const RunInfo& info = story.run.info();
  std::string out = fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">"
      "<title>{0}</title><style>{1}{2}</style></head><body>\n<h1>{0}</h1>\n",
      escape_xml(info.name), kStyle, chart_style());
  out += fmt::format("<p class=\"dim\">{} · {} · seed {} · {} threads, {}{} · ponder {}<br><code>{}</code></p>\n",
                     escape_xml(story.run.id()), escape_xml(state_of(story.run)), info.seed, escape_xml(story.threads),
                     escape_xml(story.cpu),
                     story.peak_flops > 0 ? fmt::format(", {:.0f} GFLOP/s at best", story.peak_flops * 1e-9) : "",
                     escape_xml(info.version), escape_xml(fmt::format("{}", fmt::join(info.command, " "))));
  for (auto stage = story.stages.rbegin(); stage != story.stages.rend(); ++stage) {
    if (stage->evaluations.empty()) continue;
    const MetricsRow &a = *stage->evaluations.front(), &b = *stage->evaluations.back();
    const auto of = [&](const char* label, const std::string& tag, const char* format) {
      return card(label, &a == &b ? std::nan("") : value(a, tag), value(b, tag), format);
    };
    out += "<div class=\"cards\">";
    out += of("held out, T = 1", story.task + "accuracy", "{:.2f}") +
           of("held out, greedy", story.task + "greedy/accuracy", "{:.2f}");
    out += of("pass@8", story.task + "pass@8", "{:.2f}") +
           of("tokens an answer", story.task + "completions/mean_length", "{:.0f}");
    out += of("rejected leaves an answer", story.task + "search/rejected_leaves", "{:.1f}") +
           of("answers that search", story.task + "mode/search/share", "{:.2f}");
    out += of("bits per byte, held out", "val/bpb", "{:.3f}") + "</div>\n";
    break;  // the last stage that was evaluated
  }
  for (auto stage = story.stages.rbegin(); stage != story.stages.rend(); ++stage) {
    out += fmt::format("<h2>{} <span class=\"dim\">{} steps{}</span></h2>\n", escape_xml(stage->name),
                       format_grouped(stage->steps),
                       stage->params > 0 ? fmt::format(", {} parameters, {} active", format_grouped(stage->params),
                                                       format_grouped(stage->active_params))
                                         : "");
    if (stage->type != "pretrain" && !story.task.empty() && !stage->evaluations.empty())
      out += html_table(before_after(story, *stage));
    out += "<div class=\"charts\">\n";
    for (const Chart& chart : charts_of(story, *stage)) out += chart_svg(chart);
    out += "</div>\n";
    if (const auto pairs = samples_of(story, *stage); !pairs.empty()) {
      out +=
          "<h2>The same held-out problems, before and after</h2><p class=\"dim\">The first ones of the evaluation, not "
          "chosen; one answer each at temperature 1.</p>\n";
      for (const Pair& p : pairs)
        out += fmt::format("<div class=\"pair\"><span class=\"mono\"><b>{}</b></span>{}{}</div>\n",
                           escape_xml(p.before->problem), html_answer("before", *p.before),
                           html_answer("after", *p.after));
    }
  }
  out += "<h2>The bill</h2>\n" + html_table(bill(story));
  out +=
      "<p class=\"dim\">FLOP: two for each multiply-add that the mathematics needs; backward twice forward. Share of "
      "peak: over the whole time of the stage, evaluations and "
      "checkpoints included, and over the speed of fused multiply-adds alone, measured at the start. Price: time times "
      "price_per_hour of the recipe.</p>\n";
  if (!story.warnings.empty()) {
    out += fmt::format("<details><summary>{} warnings</summary><pre>", story.warnings.size());
    for (const std::string& w : story.warnings) out += escape_xml(w) + "\n";
    out += "</pre></details>\n";
  }
  return out + fmt::format("<details><summary>The recipe, resolved</summary><pre>{}</pre></details>\n</body></html>\n",
                           escape_xml(story.run.recipe()));
}

std::string markdown_report(const Story& story) {
  const RunInfo& info = story.run.info();
  std::string out =
      fmt::format("# {}\n\n{} · {} · seed {} · {} threads, {} · ponder {}\n\n    {}\n\n", info.name, story.run.id(),
                  state_of(story.run), info.seed, story.threads, story.cpu, info.version, fmt::join(info.command, " "));
  for (auto stage = story.stages.rbegin(); stage != story.stages.rend(); ++stage) {
    out += fmt::format("## {}\n\n", stage->name);
    if (stage->type != "pretrain" && !story.task.empty() && !stage->evaluations.empty())
      out += markdown_table(before_after(story, *stage));
    if (stage->type == "rl") out += "![curves](curves.svg)\n\n";
    Table trend = {{"", "first", "last", "course"}};
    for (const auto& [label, tag] :
         std::vector<std::pair<std::string, std::string>>{{"loss", "loss"},
                                                          {"reward", "reward"},
                                                          {"length", "completions/mean_length"},
                                                          {"rejected leaves", "search/rejected_leaves"},
                                                          {"entropy", "entropy"},
                                                          {"kl", "kl"},
                                                          {"grad_norm", "grad_norm"}}) {
      const Series s = Charts(story, *stage).line(label, tag);
      if (!s.y.empty())
        trend.push_back(
            {label, fmt::format("{:.4g}", s.y.front()), fmt::format("{:.4g}", s.y.back()), sparkline(s.y, 30)});
    }
    if (trend.size() > 1) out += markdown_table(trend);
    if (const auto pairs = samples_of(story, *stage); !pairs.empty()) {
      out += "### The same held-out problems, before and after\n\nThe first ones of the evaluation, not chosen.\n\n";
      for (const Pair& p : pairs)
        out += fmt::format("**{}**\n\n- before ({}): `{}`\n- after ({}): `{}`\n\n", p.before->problem,
                           p.before->right ? "right" : p.before->reason, p.before->completion,
                           p.after->right ? "right" : p.after->reason, p.after->completion);
    }
  }
  out += "## The bill\n\n" + markdown_table(bill(story));
  if (!story.warnings.empty()) out += fmt::format("{} warnings; see log.jsonl.\n\n", story.warnings.size());
  return out;
}

}  // namespace

std::string write_report(const RunDir& run) {
  const Story story = read_story(run);
  for (auto stage = story.stages.rbegin(); stage != story.stages.rend(); ++stage)
    if (stage->type == "rl" || (stage->type == "pretrain" && story.stages.size() == 1)) {
      std::vector<Chart> charts = charts_of(story, *stage);
      charts.resize(std::min<size_t>(charts.size(), 6));
      write_file_atomic(run.file("curves.svg"), chart_sheet(charts, 3));
      break;
    }
  write_file_atomic(run.file("report.md"), markdown_report(story));
  write_file_atomic(run.file("report.html"), html_report(story));
  return run.file("report.html");
}

int report_command(const Arguments& args) {
  const RunDir run = RunDir::open(resolve_run(args.positional[0], args.text("output-dir", "runs")));
  const std::string html = write_report(run);
  if (args.json()) {
    std::string json;
    JsonWriter(json).begin_object().member("html", html).member("markdown", run.file("report.md")).end_object();
    fmt::print("{}\n", json);
  } else {
    fmt::print("{}\n", html);
  }
  return 0;
}

}  // namespace ponder::app
