// Bytes that begin with '{' as a tokenizer.json, with '"' as text for tokenizers that are there, all others as GGUF's
// metadata of a vocabulary: a tokenizer that encodes and decodes any text, or an Error.
#include <algorithm>
#include <array>
#include <string_view>

#include "ponder/base/error.h"
#include "ponder/base/utf8.h"
#include "ponder/text/bpe_gguf.h"
#include "ponder/text/tokenizer.h"

namespace {

using namespace ponder::text;

constexpr size_t kMaxText = 200;  // enough for every way of merging; the rest would only make the target slow

// No text may crash a tokenizer; what it decodes is UTF-8; ids outside mean nothing.
void use(const Tokenizer& t, std::string_view text) {
  const std::array<int32_t, 6> odd = {0, 1, -1, 2, t.vocab_size(), INT32_MAX};
  if (!ponder::is_utf8(t.decode(odd, true))) __builtin_trap();
  for (const auto specials : {Specials::recognise, Specials::ignore}) {
    try {
      const auto ids = t.encode(text, specials);
      if (!ponder::is_utf8(t.decode(ids))) __builtin_trap();
      for (const int32_t id : ids) {
        if (id < 0 || id >= t.vocab_size()) __builtin_trap();
      }
    } catch (const ponder::Error&) {  // a word that WordLevel does not know
    }
  }
}

// Lines: pre, a line of token types (digits), tokens (each "\t" begins one), merges (likewise), then the text.
void use_gguf(std::string_view data) {
  const auto line = [&] {
    const size_t end = std::min(data.find('\n'), data.size());
    const std::string_view out = data.substr(0, end);
    data.remove_prefix(std::min(end + 1, data.size()));
    return out;
  };
  GgufVocabulary v{.pre = std::string(line())};
  for (const char c : line()) v.token_types.push_back(c - '0');
  v.tokens = byte_alphabet();
  const auto list = [&](std::string_view items, std::vector<std::string>& to) {
    while (!items.empty()) {
      const size_t end = std::min(items.find('\t'), items.size());
      to.emplace_back(items.substr(0, end));
      items.remove_prefix(std::min(end + 1, items.size()));
    }
  };
  list(line(), v.tokens);
  list(line(), v.merges);
  if (!v.token_types.empty()) v.token_types.resize(v.tokens.size(), GgufVocabulary::kNormal);
  std::rotate(v.token_types.begin(), v.token_types.begin() + static_cast<std::ptrdiff_t>(v.token_types.size() / 2),
              v.token_types.end());
  v.bos = data.size() % 300;
  const auto t = tokenizer_from_gguf(v, "fuzz");
  data = data.substr(0, kMaxText);
  use(*t, data);
  // What is written reads back as the same tokenizer.
  const auto again = parse_tokenizer(t->to_json(), "again");
  const auto rows = gguf_vocabulary(*t, t->vocab_size() + 2);
  const auto back = tokenizer_from_gguf(rows, "back");
  if (again->encode(data) != t->encode(data) || back->encode(data) != t->encode(data)) __builtin_trap();
}

// Any text, behind a byte that picks one, through tokenizers of every kind of splitting; they are made once.
void use_made(std::string_view text) {
  static const auto made = [] {
    std::vector<std::unique_ptr<Tokenizer>> out;
    for (const char* pre : {"deepseek-v3", "qwen2", "llama-bpe", "smollm", "gpt-2", "deepseek-coder", "default"}) {
      GgufVocabulary v{.pre = pre, .tokens = byte_alphabet()};
      for (const auto& [a, b] : {std::pair{"a", "a"}, {"aa", "aa"}, {"1", "2"}, {"\u0120", "\u0120"}}) {
        v.merges.push_back(std::string(a) + " " + b);
        v.tokens.push_back(std::string(a) + b);
      }
      v.token_types.assign(v.tokens.size(), GgufVocabulary::kNormal);
      for (const char* mark : {"<s>", "<think>"}) {
        v.tokens.emplace_back(mark);
        v.token_types.push_back(GgufVocabulary::kControl);
      }
      out.push_back(tokenizer_from_gguf(v, pre));
    }
    out.push_back(std::make_unique<ByteLevel>());
    return out;
  }();
  if (text.empty()) return;
  const Tokenizer& t = *made[static_cast<unsigned char>(text[0]) % made.size()];
  text = text.substr(1, kMaxText);
  use(t, text);
  const std::string once = t.decode(t.encode(text));  // UTF-8, in normal form where that is asked for
  if (t.decode(t.encode(once)) != once) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    if (text.starts_with('{')) {
      const auto tokenizer = parse_tokenizer(text, "fuzz");
      use(*tokenizer, text.substr(0, kMaxText));
      if (parse_tokenizer(tokenizer->to_json(), "again")->to_json() != tokenizer->to_json()) __builtin_trap();
    } else if (text.starts_with('"')) {
      use_made(text.substr(1));
    } else {
      use_gguf(text);
    }
  } catch (const ponder::Error&) {
  }
  return 0;
}
