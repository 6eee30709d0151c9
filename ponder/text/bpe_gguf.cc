#include "ponder/text/bpe_gguf.h"

#include <algorithm>

#include "ponder/base/error.h"
#include "ponder/base/utf8.h"
#include "ponder/text/bpe.h"

namespace ponder::text {
namespace {

using Kind = SplitStep::Kind;

// What a name in tokenizer.ggml.pre stands for. The first name is the one that is written.
struct Preset {
  std::vector<std::string_view> names;
  std::vector<SplitStep> steps;
  bool nfc = false, ignore_merges = false, add_bos = false;
};

SplitStep regex(std::string_view pattern) { return {.kind = Kind::regex, .pattern = std::string(pattern)}; }

// DeepSeek V2 and LLM: the letters are spelled out in its file (cased scripts).
constexpr std::string_view kDeepSeekLetters =
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373"
    "\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F"
    "\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77"
    "\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D"
    "\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4"
    "\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139"
    "\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D"
    "\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A"
    "\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2"
    "\U00010CC0-\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+";
constexpr std::string_view kDeepSeekSigns = "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+";
constexpr std::string_view kDeepSeekAsian = "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+";

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {.names = {"deepseek-v3", "deepseek-r1"},
       .steps = {regex(R"(\p{N}{1,3})"), regex(kDeepSeekV3CjkPattern), regex(kDeepSeekV3Pattern)}},
      {.names = {"qwen2", "deepseek-r1-qwen"}, .steps = {regex(kQwenPattern)}, .nfc = true},
      {.names = {"llama-bpe", "llama3", "llama-v3"},
       .steps = {regex(kLlama3Pattern)},
       .ignore_merges = true,
       .add_bos = true},
      {.names = {"smollm"}, .steps = {{.kind = Kind::digit}, {.kind = Kind::byte_level}}},
      {.names = {"gpt-2"}, .steps = {{.kind = Kind::byte_level}}},
      {.names = {"deepseek-llm"},
       .steps = {regex("[\r\n]"),
                 regex(kDeepSeekLetters),
                 regex(kDeepSeekSigns),
                 regex(R"(\s+$)"),
                 regex(kDeepSeekAsian),
                 {.kind = Kind::digit}}},
      {.names = {"deepseek-coder"},
       .steps = {regex("[\r\n]"),
                 regex(R"(\s?\p{L}+)"),
                 regex(R"(\s?\p{P}+)"),
                 regex(kDeepSeekAsian),
                 {.kind = Kind::digit}}},
      {.names = {"default"},
       .steps = {regex(R"([\p{P}\$\+<=>\^~\|]+)"),
                 {.kind = Kind::byte_level},
                 {.kind = Kind::digits},
                 regex("[0-9][0-9][0-9]")}},
  };
  return all;
}

// Steps that cut alike are equal: the names of the same expression, a line break spelled out or not.
std::vector<SplitStep> canonical(std::vector<SplitStep> steps) {
  for (SplitStep& s : steps) {
    if (s.kind == Kind::regex && s.pattern == kGpt2Pattern) s = {.kind = Kind::byte_level};
    if (s.kind == Kind::regex && s.pattern == R"(\p{N})") s = {.kind = Kind::digit};
    if (s.kind == Kind::regex && s.pattern == R"(\p{N}+)") s = {.kind = Kind::digits};
    std::string spelled;
    for (const char c : s.pattern) spelled += c == '\r' ? "\\r" : c == '\n' ? "\\n" : std::string(1, c);
    s.pattern = spelled;
  }
  return steps;
}

}  // namespace

std::unique_ptr<Tokenizer> tokenizer_from_gguf(const GgufVocabulary& v, std::string_view name) {
  if (v.model != "gpt2") {
    throw_error(Exit::data, "{}: tokenizer.ggml.model is \"{}\"{}, which is not supported; byte-level BPE (gpt2) is",
                name, v.model.substr(0, 40), v.model == "llama" ? " (SentencePiece)" : "");
  }
  const auto preset = std::find_if(presets().begin(), presets().end(), [&](const Preset& p) {
    return std::find(p.names.begin(), p.names.end(), v.pre) != p.names.end();
  });
  if (preset == presets().end()) {
    std::string known;
    for (const Preset& p : presets()) {
      for (const auto n : p.names) known += (known.empty() ? "" : ", ") + std::string(n);
    }
    throw_error(Exit::data, "{}: tokenizer.ggml.pre is \"{}\", which is not supported; {} are", name,
                v.pre.substr(0, 40), known);
  }
  if (v.tokens.empty()) throw_error(Exit::data, "{}: tokenizer.ggml.tokens is empty", name);
  if (!v.token_types.empty() && v.token_types.size() != v.tokens.size())
    throw_error(Exit::data, "{}: {} tokens, but {} token types", name, v.tokens.size(), v.token_types.size());
  if (v.tokens.size() > Vocabulary::kMaxTokens)
    throw_error(Exit::data, "{}: {} tokens; at most {} are read", name, v.tokens.size(), Vocabulary::kMaxTokens);
  BpeParts parts;
  parts.steps = preset->steps;
  parts.nfc = preset->nfc;
  parts.ignore_merges = preset->ignore_merges;
  parts.skip_impossible_merges = true;
  size_t bytes = 0;
  for (size_t i = 0; i < v.tokens.size(); ++i) {
    const std::string& token = v.tokens[i];
    if (!is_utf8(token)) throw_error(Exit::data, "{}: token {} is not UTF-8", name, i);
    if ((bytes += token.size()) > Vocabulary::kMaxBytes)
      throw_error(Exit::data, "{}: tokens of more than {} bytes", name, Vocabulary::kMaxBytes);
    const int64_t type = v.token_types.empty() ? GgufVocabulary::kNormal : v.token_types[i];
    if (type == GgufVocabulary::kUnused || token.empty()) continue;  // the last of them only pad
    const auto id = static_cast<int32_t>(i);
    parts.vocabulary.set(id, token);
    if (type == GgufVocabulary::kControl || type == GgufVocabulary::kUserDefined)
      parts.added.push_back({.id = id, .special = type == GgufVocabulary::kControl});
  }
  parts.index_vocabulary(name);
  parts.merges.reserve(std::min(v.merges.size(), MergeTable::kMaxMerges));
  for (size_t i = 0; i < v.merges.size(); ++i) {
    const std::string_view merge = v.merges[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos)
      throw_error(Exit::data, "{}: merge {} (\"{}\") is not two tokens with a space between", name, i,
                  merge.substr(0, 40));
    parts.add_merge(merge.substr(0, space), merge.substr(space + 1), name);
  }
  auto out = std::make_unique<Bpe>(std::move(parts), name);
  SpecialIds special{.add_bos = v.add_bos.value_or(preset->add_bos)};
  const auto mark = [&](std::optional<int64_t> from, std::optional<int32_t>& to, const char* key) {
    if (from && (*from < 0 || *from >= static_cast<int64_t>(v.tokens.size())))
      throw_error(Exit::data, "{}: tokenizer.ggml.{} is {}, but there are {} tokens", name, key, *from,
                  v.tokens.size());
    if (from) to = static_cast<int32_t>(*from);
  };
  std::optional<int32_t> eot, eom;
  mark(v.bos, special.bos, "bos_token_id");
  mark(v.eos, special.eos, "eos_token_id");
  mark(v.pad, special.pad, "padding_token_id");
  mark(v.eot, eot, "eot_token_id");
  mark(v.eom, eom, "eom_token_id");
  special.add_bos = special.add_bos && special.bos;
  out->set_special(special);
  return out;
}

GgufVocabulary gguf_vocabulary(const Tokenizer& tokenizer, int64_t rows) {
  const auto* bpe = dynamic_cast<const Bpe*>(&tokenizer);
  if (!bpe) throw_error(Exit::data, "GGUF files of ours hold byte-level BPE tokenizers only; this is of another kind");
  const auto steps = canonical(bpe->pretokenizer().steps());
  const auto preset =
      std::find_if(presets().begin(), presets().end(), [&](const Preset& p) { return canonical(p.steps) == steps; });
  if (preset == presets().end()) {
    throw_error(Exit::data, "GGUF has no name for the pre-tokenizer of this tokenizer ({} steps, the first \"{}\")",
                steps.size(), steps.empty() ? "" : steps[0].pattern.substr(0, 60));
  }
  PONDER_CHECK(rows >= tokenizer.vocab_size(), "{} rows for {} tokens", rows, tokenizer.vocab_size());
  GgufVocabulary v;
  v.pre = preset->names[0];
  v.tokens.resize(static_cast<size_t>(rows));
  v.token_types.assign(static_cast<size_t>(rows), GgufVocabulary::kNormal);
  for (int32_t i = 0; i < static_cast<int32_t>(rows); ++i) {
    const auto at = static_cast<size_t>(i);
    v.tokens[at] = tokenizer.token(i);
    if (!v.tokens[at].empty()) continue;
    v.tokens[at] = fmt::format("[PAD{}]", i);
    v.token_types[at] = GgufVocabulary::kUnused;
  }
  for (const AddedToken& a : tokenizer.added())
    v.token_types[static_cast<size_t>(a.id)] = a.special ? GgufVocabulary::kControl : GgufVocabulary::kUserDefined;
  for (const Merge& m : bpe->merges()) v.merges.push_back(tokenizer.token(m.left) + " " + tokenizer.token(m.right));
  const SpecialIds& special = tokenizer.special();
  v.bos = special.bos;
  v.eos = special.eos;
  v.pad = special.pad;
  v.add_bos = special.add_bos;
  return v;
}

}  // namespace ponder::text
