#include "ponder/app/options.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <new>
#include <set>

#include "ponder/app/commands.h"
#include "ponder/app/json_lines.h"
#include "ponder/app/machine.h"
#include "ponder/base/config.h"
#include "ponder/base/error.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

const OptionSpec kResume = {"resume", "auto|never|RUN",
                            "auto: go on in this recipe's unfinished run; never: start afresh", "auto"};
const OptionSpec kSeed = {"seed", "N", "of everything random"};
const OptionSpec kSet = {"set", "FIELD=VALUE", "change a field of the recipe", nullptr, true};
const OptionSpec kSamplingOptions[] = {
    {"temperature", "T", "0: the likeliest token each time; default: what the model is meant for, 0 for miniatures"},
    {"top-p", "P", "smallest set of tokens with this probability"},
    {"top-k", "K", "the K likeliest tokens"},
    {"min-p", "P", "tokens with this share of the best one's probability"},
    {"repetition-penalty", "X", "divides logits of tokens that were there (1: off)"},
    {"frequency-penalty", "X", "subtracted for each time that the answer has the token"},
    {"presence-penalty", "X", "subtracted if the answer has the token"},
    {"logit-bias", "ID:BIAS", "added to the logit of a token", nullptr, true},
    {"min-tokens", "N", "the answer does not end before"},
    {"max-tokens", "N", "longest answer, thinking included"},
    {"stop", "TEXT", "ends the answer; not part of it", nullptr, true},
    {"think", "on|off|N", "with thinking, without, or with at most N tokens of it (default: as the template has it)"},
};
const OptionSpec kRaw = {"raw", nullptr, "no template: the prompt as it stands"};
const OptionSpec kPaging = {
    "allow-paging", nullptr,
    "a mixture of experts larger than memory runs from its file, slowly: how slowly is said first"};
const std::vector<OptionSpec> kNumerics = {
    {"activations", "f32|bf16|q8",
     "of products with stored weights (score: f32; else q8 for quantised models, bf16 for BF16)"},
    {"mla", "absorbed|expanded|by-token", "form of latent attention (score: absorbed; else by-token)"},
    {"cache-type", "f32", "of keys and values"},
    kPaging,
};

std::vector<OptionSpec> with(std::vector<OptionSpec> options, std::initializer_list<std::vector<OptionSpec>> more) {
  for (const auto& list : more) options.insert(options.end(), list.begin(), list.end());
  return options;
}
const std::vector<OptionSpec> kSampling(std::begin(kSamplingOptions), std::end(kSamplingOptions));
const std::vector<OptionSpec> kTrain = {
    kResume,
    kSeed,
    kSet,
    {"max-steps", "N", "optimizer steps"},
    {"run-name", "NAME", "what the run's folder begins with"},
    {"output-dir", "DIR", "where runs go (runs)"},
    {"allow-recipe-change", nullptr, "go on with --resume RUN although the recipe has changed"},
};
const std::vector<OptionSpec> kRunsDir = {{"output-dir", "DIR", "where the runs are (runs)"}};

const std::vector<CommandSpec> kCommands = {
    {"chat", "use", "MODEL", "talk to a model; /help there lists what else can be typed",
     with({kSeed,
           {"system", "TEXT", "system prompt"},
           {"load", "FILE", "go on with a conversation that /save wrote"},
           {"hide-thinking", nullptr, "show answers only (key t in a running answer)"},
           {"no-loop-guard", nullptr, "do not end answers that only repeat themselves"},
           kRaw},
          {kSampling, kNumerics}),
     chat_command, false},
    {"generate", "use", "MODEL [PROMPT]", "answer one prompt (-: all of stdin), or JSON Lines from --in or stdin",
     with({{"in", "FILE", "requests, one object a line (default: stdin)"},
           {"out", "FILE", "answers; those already in it are not made again"},
           {"prompt-file", "FILE", "one prompt: the whole file"},
           {"n", "N", "answers to each prompt"},
           kSeed,
           kRaw,
           {"stop-in-reasoning", nullptr, "--stop ends the thinking, too"},
           {"draft", nullptr, "propose tokens by the MTP module: the same answers, sooner"},
           {"logprobs", nullptr, "with the log-probability of each token"}},
          {kSampling, kNumerics}),
     generate_command},
    {"score", "use", "MODEL", "log-probabilities of given texts, JSON Lines in and out",
     with({{"in", "FILE", "texts, one object a line (default: stdin)"},
           {"top", "N", "likeliest tokens named at each position (5)"},
           {"logits", "FILE", "also all logits, as safetensors"},
           {"mtp", nullptr, "with --logits: those of the MTP module, too"}},
          {kNumerics}),
     score_command},
    {"pipeline", "train", "RECIPE", "run the stages of a recipe, one after the other", kTrain, pipeline_command},
    {"pretrain", "train", "RECIPE", "train a model on texts", kTrain, pretrain_command},
    {"rl", "train", "RECIPE", "teach a model by rewards (GRPO)", kTrain, rl_command},
    {"eval", "measure", "MODEL|RECIPE", "answer a task's problems and count what is right",
     with({{"problems", "N", "of a model: how many (300)"},
           {"samples", "N", "of a model: answers to each (1)"},
           {"temperature", "T", "of a model: of sampling (1)"},
           {"split", "NAME", "of a model: held_out or train"},
           {"puzzles", "FILE", "of a model: JSONL of problems in place of the task's own"}},
          {kTrain}),
     eval_command},
    {"bench",
     "measure",
     "[RECIPE|MODEL]",
     "speed of a model's prompts and decoding, or of a recipe's training, beside the machine's peak",
     {kSet,
      {"seconds", "S", "of a recipe: for each measurement (3)"},
      {"prompts", "N,...", "of a model: lengths of prompts (128,512,2048; 0: none)"},
      {"batches", "N,...", "of a model: sequences decoded side by side (1,8,32,64; 0: none)"},
      {"depth", "N,...", "of a model: tokens in the context of each sequence that is decoded (64)"},
      {"picture", "FILE.svg", "of a model: decoding against depth and batch, as charts"},
      {"repetitions", "N", "of a model: runs, of which the median counts (3)"},
      {"activations", "f32|bf16|q8",
       "of a model: what products round their input to (the default: q8 with block types, bf16 with BF16)"},
      {"mla", "absorbed|expanded|by-token", "of a model: form of latent attention (by-token)"},
      kPaging},
     bench_command},
    {"report", "measure", "RUN", "write report.html and report.md of a run", kRunsDir, report_command},
    {"compare",
     "measure",
     "MODEL [MODEL]",
     "how far two models, or two ways to compute one, are apart on a text",
     {{"text", "FILE", "what to read"},
      {"tokens", "N", "of it at most (8192)"},
      {"context", "N", "pieces of so many tokens (512)"},
      {"activations", "A,B", "f32, bf16 or q8, of each side (f32,f32)"},
      {"mla", "A,B", "absorbed or expanded, of each side"},
      kPaging},
     compare_command},
    {"fit",
     "measure",
     "MODEL",
     "memory and speed of a model on this machine, before anything is loaded",
     {{"context", "N", "tokens of a sequence, prompt and answer (4096, or what the model has)"},
      {"sequences", "S", "side by side (1)"},
      {"mla", "absorbed|expanded|by-token", "form of latent attention (by-token)"},
      kPaging},
     fit_command},
    {"convert",
     "models",
     "SOURCE OUT",
     "a model in another format: OUT.gguf, or a folder of safetensors",
     {{"type", "TYPE", "of its matrices: keep (default), f32, f16, bf16, fp8 (folders), q8_0, q4_k_m, ... (GGUF)"},
      {"max-size", "N", "largest file, such as 5G: more are written where that is not enough"},
      {"force", nullptr, "replace OUT"}},
     convert_command},
    {"merge",
     "models",
     "SOURCE OUT",
     "a split model as one file, its types as they are",
     {{"force", nullptr, "replace OUT"}},
     merge_command},
    {"quantize",
     "models",
     "SOURCE OUT",
     "a model in a smaller type, and what that costs",
     {{"type", "TYPE", "q8_0, q6_k, q4_k_m, ... (OUT.gguf), fp8 (a folder)"},
      {"text", "FILE", "a text on which the result is compared with the source: KL, likeliest tokens"},
      {"tokens", "N", "of it at most (8192)"},
      {"force", nullptr, "replace OUT"}},
     quantize_command},
    {"model init",
     "models",
     "CONFIG OUT",
     "write a model of any shape with random weights: a folder, or a .gguf file",
     {kSet,
      {"random", nullptr, "random numbers, spread as initial values are (the only kind there is)"},
      {"type", "TYPE", "of the stored numbers: f32 (default), bf16, fp8, or for OUT.gguf q8_0, q4_k_m, ..."},
      {"distinct-rows", "N", "rows of a matrix from N on repeat the first N: large models for benchmarks, soon"},
      kSeed},
     model_init_command},
    {"model show",
     "models",
     "MODEL",
     "shape, tensors and sizes",
     {{"tensors", nullptr, "also every tensor with type and shape"}},
     model_show_command},
    {"model verify",
     "models",
     "MODEL",
     "read everything; check sizes and hashes where there is a manifest",
     {},
     model_verify_command},
    {"runs list", "runs", "", "all runs", kRunsDir, runs_list_command},
    {"runs show", "runs", "RUN", "what a run did, with its last metrics", kRunsDir, runs_show_command},
    {"runs compare", "runs", "RUN RUN...", "recipes and results side by side", kRunsDir, runs_compare_command},
    {"runs tail", "runs", "RUN", "the last rows of its metrics",
     with({{"n", "N", "how many (10)"}, {"follow", nullptr, "and those to come"}}, {kRunsDir}), runs_tail_command},
    {"runs export", "runs", "RUN", "all metrics, to stdout", with({{"format", "csv|jsonl", "(csv)"}}, {kRunsDir}),
     runs_export_command},
    {"runs reindex", "runs", "", "make the ledger again from the runs' folders", kRunsDir, runs_reindex_command},
    {"runs rm", "runs", "RUN", "delete a run's folder", with({{"yes", nullptr, "without asking"}}, {kRunsDir}),
     runs_rm_command},
    {"recipe show",
     "machine",
     "RECIPE",
     "every value of a recipe, with its origin",
     {kSet, {"fields", nullptr, "all fields with their meaning"}},
     recipe_show_command},
    {"recipe check",
     "machine",
     "RECIPE...",
     "read recipes and say what is wrong with them",
     {kSet},
     recipe_check_command},
    {"tokenize",
     "machine",
     "MODEL",
     "text to ids and back, JSON Lines in and out",
     {{"in", "FILE", "one object a line (default: stdin)"},
      {"bos", nullptr, "with the token that raw texts begin with, where the model has one"},
      {"plain", nullptr, "special tokens spelled in a text are plain text"},
      {"skip-special", nullptr, "leave special tokens out of texts"}},
     tokenize_command},
    {"template render",
     "machine",
     "MODEL|FILE.jinja",
     "conversations as the chat template writes them, JSON Lines in and out",
     {{"in", "FILE", "one object a line (default: stdin)"}, {"think", "on|off", "as chat would render it"}},
     template_render_command},
    {"doctor", "machine", "", "what this machine has: CPU, memory, disk, speed", kRunsDir, doctor_command},
    {"completion", "machine", "SHELL", "completion for bash, zsh or fish", {}, completion_command},
    {"man", "machine", "", "the man page, as roff", {}, man_command},
    {"help", "machine", "[COMMAND]...", "what a command does", {}, help_command},
};

const std::vector<OptionSpec> kGlobal = {
    {"threads", "N", "threads of computation (default: all cores); results do not depend on it"},
    {"json", nullptr, "JSON in place of text"},
    {"quiet", nullptr, "warnings and errors only"},
    {"help", nullptr, "this text"},
    {"version", nullptr, "version, and the CPU path in use"},
};

constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"grpo", "rl"},     {"eval run", "eval"}, {"train pretrain", "pretrain"},
    {"train rl", "rl"}, {"train grpo", "rl"}, {"train pipeline", "pipeline"},
};

const CommandSpec* find_command(std::string_view name) {
  for (const auto& [other, real] : kAliases)
    if (other == name) name = real;
  for (const CommandSpec& c : kCommands)
    if (name == c.name) return &c;
  return nullptr;
}

std::string upper_name(std::string_view option) {
  std::string out = "PONDER_";
  for (const char c : option) out += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return out;
}

// "MODEL [PROMPT]" -> at least 1, at most 2; "RECIPE..." has no most.
struct Count {
  int min = 0, max = 0;
};
Count positional_count(const CommandSpec& c) {
  Count count;
  std::string_view text = c.positional;
  while (!text.empty()) {
    const size_t space = text.find(' ');
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(space == text.npos ? text.size() : space + 1);
    count.min += word[0] != '[';
    count.max = word.ends_with("...") ? 1 << 20 : count.max + 1;
  }
  return count;
}

// What this command knows of the options of every command.
std::vector<OptionSpec> global_options(const CommandSpec& c) {
  std::vector<OptionSpec> out = kGlobal;
  if (!c.json) std::erase_if(out, [](const OptionSpec& o) { return std::string_view(o.name) == "json"; });
  return out;
}

// Before the command is known.
bool takes_value(std::string_view word) {
  const auto is = [&](const OptionSpec& o) { return o.value && !o.fallback && word == fmt::format("--{}", o.name); };
  return std::any_of(kGlobal.begin(), kGlobal.end(), is) ||
         std::any_of(kCommands.begin(), kCommands.end(),
                     [&](const CommandSpec& c) { return std::any_of(c.options.begin(), c.options.end(), is); });
}

[[noreturn]] void unknown_command(const std::string& word, const std::string& next) {
  std::vector<std::string> names;
  for (const CommandSpec& c : kCommands) names.emplace_back(c.name);
  for (const auto& [other, real] : kAliases) names.emplace_back(other);
  const std::string both = word + " " + next;
  std::string near = nearest_name(both, names);
  if (near.empty()) near = nearest_name(word, names);
  std::vector<std::string> below;
  for (const CommandSpec& c : kCommands)
    if (std::string_view(c.name).starts_with(word + " ")) below.emplace_back(c.name);
  if (!below.empty() && near.empty())
    throw_error(Exit::usage, "`ponder {}` needs one more word: {}", word, fmt::join(below, ", "));
  throw_error(Exit::usage, "unknown command `{}`; {}", word,
              near.empty() ? "`ponder help` lists all" : fmt::format("did you mean `ponder {}`?", near));
}

[[noreturn]] void unknown_option(const CommandSpec& command, const std::string& word) {
  std::vector<std::string> names;
  for (const OptionSpec& o : with(command.options, {global_options(command)}))
    names.push_back(fmt::format("--{}", o.name));
  const std::string near = nearest_name(word.substr(0, word.find('=')), names);
  const std::string name = *command.name ? std::string(" ") + command.name : "";
  throw_error(Exit::usage, "ponder{}: unknown option {}; {}", name, word,
              near.empty() ? fmt::format("`ponder help{}` lists all", name) : fmt::format("did you mean {}?", near));
}

std::string option_left(const OptionSpec& o) {
  if (!o.value) return fmt::format("--{}", o.name);
  return o.fallback ? fmt::format("--{} [{}]", o.name, o.value) : fmt::format("--{} {}", o.name, o.value);
}

std::string option_lines(std::span<const OptionSpec> options) {
  std::string out;
  for (const OptionSpec& o : options) {
    const std::string left = option_left(o);
    out += left.size() > 26 ? fmt::format("  {}\n  {:<26} {}\n", left, "", o.help)
                            : fmt::format("  {:<26} {}\n", left, o.help);
  }
  return out;
}

}  // namespace

std::span<const CommandSpec> commands() { return kCommands; }
std::span<const OptionSpec> global_options() { return kGlobal; }
std::span<const std::pair<std::string_view, std::string_view>> aliases() { return kAliases; }

std::string Arguments::text(std::string_view option, std::string_view otherwise) const {
  const auto at = values_.find(option);
  return at == values_.end() ? std::string(otherwise) : at->second.back();
}

const std::vector<std::string>& Arguments::all(std::string_view option) const {
  static const std::vector<std::string> none;
  const auto at = values_.find(option);
  return at == values_.end() ? none : at->second;
}

double Arguments::number(std::string_view option, double otherwise, double min, double max) const {
  if (!has(option)) return otherwise;
  const std::string value = text(option);
  char* end = nullptr;
  const double x = std::strtod(value.c_str(), &end);
  if (value.empty() || *end || std::isnan(x)) throw_error(Exit::usage, "--{} {}: not a number", option, value);
  if (x < min || x > max) throw_error(Exit::usage, "--{} {}: allowed is {:g} to {:g}", option, value, min, max);
  return x;
}

int64_t Arguments::integer(std::string_view option, int64_t otherwise, int64_t min, int64_t max) const {
  if (!has(option)) return otherwise;
  const std::string value = text(option);
  char* end = nullptr;
  errno = 0;
  const long long x = std::strtoll(value.c_str(), &end, 10);
  if (value.empty() || *end || errno == ERANGE) throw_error(Exit::usage, "--{} {}: not a whole number", option, value);
  if (x < min || x > max) throw_error(Exit::usage, "--{} {}: allowed is {} to {}", option, value, min, max);
  return x;
}

Arguments parse_arguments(const std::vector<std::string>& words) {
  Arguments out;
  // The command: the first word, or two, that are no options.
  size_t at = 0;
  while (at < words.size() && words[at].starts_with("-")) at += takes_value(words[at]) ? 2 : 1;
  std::vector<std::string> rest(words.begin(), words.begin() + static_cast<int64_t>(std::min(at, words.size())));
  if (at < words.size()) {
    const std::string next = at + 1 < words.size() ? words[at + 1] : "";
    size_t used = 2;
    out.command = find_command(words[at] + " " + next);
    if (!out.command) out.command = find_command(words[at]), used = 1;
    if (!out.command) unknown_command(words[at], next);
    rest.insert(rest.end(), words.begin() + static_cast<int64_t>(at + used), words.end());
  }

  static const CommandSpec kNone = {"", "", "", "", {}, nullptr};
  const CommandSpec& command = out.command ? *out.command : kNone;
  CLI::App app;
  app.set_help_flag();  // help is an option of the table
  app.allow_extras();
  std::map<std::string, std::vector<std::string>> given;
  std::map<std::string, int> flags;
  const std::vector<OptionSpec> options = with(command.options, {global_options(command)});
  for (const OptionSpec& o : options) {
    const std::string dashed = fmt::format("--{}", o.name);
    if (app.get_option_no_throw(dashed)) continue;
    CLI::Option* option = o.value ? app.add_option(dashed, given[o.name]) : app.add_flag(dashed, flags[o.name]);
    if (std::string_view(o.name) == "help" || std::string_view(o.name) == "version") continue;
    if (o.value) option->expected(o.fallback ? 0 : 1, 1)->allow_extra_args(false);  // each time that it is given
    if (std::string_view(o.name) != "set") option->envname(upper_name(o.name));
    if (o.value)
      option->multi_option_policy(o.repeat ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
  }
  for (const std::string& word : rest) {
    if (word == "--") break;
    if (word.starts_with("--")) out.add_typed(word.substr(2, word.find('=') - 2));
  }
  try {
    std::vector<std::string> reversed(rest.rbegin(), rest.rend());  // as CLI11 wants it
    app.parse(reversed);
  } catch (const CLI::ParseError& e) {
    throw_error(Exit::usage, "ponder {}: {}", command.name, e.what());
  }
  bool only_words = false;  // after --
  for (const std::string& word : app.remaining()) {
    if (word == "--" && !only_words)
      only_words = true;
    else if (!only_words && word.size() > 1 && word[0] == '-' && !(word[1] >= '0' && word[1] <= '9'))
      unknown_option(command, word);
    else
      out.positional.push_back(word);
  }
  for (const auto& [name, values] : given) {
    const CLI::Option* option = app.get_option(fmt::format("--{}", name));
    if (option->count() == 0) continue;
    const auto o =
        std::find_if(options.begin(), options.end(), [n = &name](const OptionSpec& spec) { return *n == spec.name; });
    for (const std::string& value : values) out.add(name, value.empty() && o->fallback ? o->fallback : value);
    if (values.empty() && o->fallback) out.add(name, o->fallback);
  }
  for (const auto& [name, count] : flags)
    if (count > 0) out.add(name, "true");
  if (!out.command || out.has("help") || out.has("version")) return out;

  const Count count = positional_count(command);
  const int n = static_cast<int>(out.positional.size());
  if (n < count.min || n > count.max)
    throw_error(Exit::usage, "usage: ponder {} {}{}", command.name, command.positional,
                n > count.max ? fmt::format("   (what is \"{}\" for?)", out.positional.back()) : "");
  return out;
}

std::string shell_line(const std::vector<std::string>& words) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,%@";
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == word.npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

void check_subject(const Arguments& args, const std::string& subject, bool recipe,
                   std::initializer_list<const char*> of_models, std::initializer_list<const char*> of_recipes) {
  for (const char* option : recipe ? of_models : of_recipes)
    if (args.typed(option))
      throw_error(Exit::usage, "--{} is for {}, and {} is a {}", option, recipe ? "models" : "recipes", subject,
                  recipe ? "recipe" : "model");
}

std::string help_text() {
  std::string out =
      "ponder trains small DeepSeek-V3 models, teaches them to reason, and talks to them.\n\nusage: ponder COMMAND "
      "...\n";
  std::string group;
  for (const CommandSpec& c : kCommands) {
    if (group != c.group) out += fmt::format("\n{}\n", group = c.group);
    out += fmt::format("  {:<26} {}\n", fmt::format("{} {}", c.name, c.positional), c.summary);
  }
  out += "\nwith every command\n" + option_lines(kGlobal);
  out +=
      "\nEvery option has an environment variable: --max-tokens is PONDER_MAX_TOKENS.\n"
      "`ponder help COMMAND` says more; `bash tools/quickstart` is where to begin.\n";
  return out;
}

std::string help_text(const CommandSpec& c) {
  std::string out = fmt::format("usage: ponder {} {}{}\n\n{}\n", c.name, c.positional,
                                c.options.empty() ? "" : " [options]", c.summary);
  for (const auto& [other, real] : kAliases)
    if (real == c.name) out += fmt::format("also: ponder {}\n", other);
  if (!c.options.empty()) out += "\noptions\n" + option_lines(c.options);
  return out + "\nwith every command\n" + option_lines(global_options(c));
}

std::string man_page() {
  const auto escaped = [](std::string_view text) {
    std::string out;
    for (const char c : text) out += c == '-' ? "\\-" : c == '\\' ? "\\e" : std::string(1, c);
    return out;
  };
  const auto option = [&](const OptionSpec& o) {
    return fmt::format(".TP\n.B {}\n{} (environment: {})\n", escaped(option_left(o)), escaped(o.help),
                       upper_name(o.name));
  };
  std::string out = fmt::format(
      ".TH PONDER 1 \"\" \"ponder {}\"\n.SH NAME\nponder \\- train small DeepSeek\\-V3 models to reason, and talk to "
      "them\n"
      ".SH SYNOPSIS\n.B ponder\n.I COMMAND\n[\\fIARGUMENTS\\fR]\n.SH COMMANDS\n",
      PONDER_VERSION);
  for (const CommandSpec& c : kCommands) {
    out += fmt::format(".SS ponder {} {}\n{}\n", escaped(c.name), escaped(c.positional), escaped(c.summary));
    for (const OptionSpec& o : c.options) out += option(o);
  }
  out += ".SH OPTIONS OF EVERY COMMAND\n";
  for (const OptionSpec& o : kGlobal) out += option(o);
  out +=
      ".SH EXIT STATUS\n0 done, 1 failure, 2 usage, 3 data, 4 resources, 5 peer lost, 75 stopped early in good order "
      "(the same command goes on), "
      "130 stopped at once.\n";
  return out;
}

std::string completion_script(std::string_view shell) {
  // Words to offer after each command: its options, and the second words of two-word commands.
  std::map<std::string, std::set<std::string>> second;
  std::vector<std::string> first, cases;
  std::string globals;
  for (const OptionSpec& o : kGlobal) globals += fmt::format(" --{}", o.name);
  for (const CommandSpec& c : kCommands) {
    const std::string name = c.name;
    const size_t space = name.find(' ');
    if (std::find(first.begin(), first.end(), name.substr(0, space)) == first.end())
      first.push_back(name.substr(0, space));
    if (space != name.npos) second[name.substr(0, space)].insert(name.substr(space + 1));
  }
  const auto options_of = [&](const std::string& verb) {
    std::set<std::string> words;
    for (const CommandSpec& c : kCommands)
      if (const std::string name = c.name; name == verb || name.starts_with(verb + " "))
        for (const OptionSpec& o : c.options) words.insert(fmt::format("--{}", o.name));
    return fmt::format("{}", fmt::join(words, " "));
  };
  if (shell == "bash" || shell == "zsh") {
    std::string out;
    if (shell == "zsh") out += "#compdef ponder\nautoload -U +X bashcompinit && bashcompinit\n";
    out += "_ponder() {\n  local word=${COMP_WORDS[COMP_CWORD]} words=\n  if [ \"$COMP_CWORD\" = 1 ]; then\n";
    out += fmt::format("    words=\"{}\"\n  else\n    case ${{COMP_WORDS[1]}} in\n", fmt::join(first, " "));
    for (const std::string& verb : first)
      out += fmt::format("      {}) words=\"{} {}\" ;;\n", verb, fmt::join(second[verb], " "), options_of(verb));
    out += fmt::format("    esac\n    words=\"$words{}\"\n  fi\n", globals);
    out += "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\ncomplete -o default -F _ponder ponder\n";
    return out;
  }
  if (shell == "fish") {
    const auto quoted = [](std::string_view text) {
      std::string safe = "'";
      for (const char c : text) safe += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
      return safe + "'";
    };
    std::string out;
    for (const CommandSpec& c : kCommands) {
      const std::string name = c.name;
      const size_t space = name.find(' ');
      const std::string verb = name.substr(0, space);
      if (space == name.npos)
        out += fmt::format("complete -c ponder -n __fish_use_subcommand -a {} -d {}\n", verb, quoted(c.summary));
      else
        out += fmt::format(
            "complete -c ponder -n __fish_use_subcommand -a {0}\ncomplete -c ponder -n '__fish_seen_subcommand_from "
            "{0}' -a {1} -d {2}\n",
            verb, name.substr(space + 1), quoted(c.summary));
      for (const OptionSpec& o : c.options)
        out += fmt::format("complete -c ponder -n '__fish_seen_subcommand_from {}' -l {}{} -d {}\n", verb, o.name,
                           o.value ? " -r" : "", quoted(o.help));
    }
    for (const OptionSpec& o : kGlobal)
      out += fmt::format("complete -c ponder -l {}{} -d {}\n", o.name, o.value ? " -r" : "", quoted(o.help));
    return out;
  }
  throw_error(Exit::usage, "completion for {}: bash, zsh and fish exist", shell);
}

namespace {
// 0 to 2 are the terminal's whatever was closed (`2>&-`): a file that got such a number would be given the messages, too.
void open_standard_files() {
  for (int fd; (fd = ::open("/dev/null", O_RDWR)) >= 0;)
    if (fd > STDERR_FILENO) {
      ::close(fd);
      return;
    }
}
}  // namespace

int run_program(int argc, char** argv) {
  open_standard_files();
  try {
    Arguments args = parse_arguments({argv + 1, argv + argc});
    args.command_line = {argv, argv + argc};
    if (args.has("version")) {
      Machine machine(1);
      fmt::print("ponder {} ({})\n", PONDER_VERSION, machine.backend->name());
      flush_output();
      return 0;
    }
    if (args.has("help")) {
      fmt::print("{}", args.command ? help_text(*args.command) : help_text());
      flush_output();
      return 0;
    }
    if (!args.command) {
      fmt::print(stderr, "{}", help_text());
      return static_cast<int>(Exit::usage);
    }
    set_log_quiet(args.has("quiet"));
    const int code = args.command->run(args);
    if (code == 0) flush_output();  // otherwise what ended it has been said: a closed terminal, say
    return code;
  } catch (const Error& e) {
    log_error("{}", e.what());
    return static_cast<int>(e.code());
  } catch (const std::bad_alloc&) {
    log_error("out of memory; try a smaller model, batch or number of answers at once");
    return static_cast<int>(Exit::resources);
  } catch (const std::system_error& e) {  // stdout that takes no more, a thread that cannot be begun
    log_error("{}", e.what());
    return static_cast<int>(Exit::resources);
  } catch (const std::exception& e) {
    log_error("{} (a mistake in ponder; please report it with the command line)", e.what());
    return static_cast<int>(Exit::failure);
  }
}

}  // namespace ponder::app
