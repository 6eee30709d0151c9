// Every case of golden/text: encode.X.jsonl and decode.X.jsonl with tokenizers/X.tokenizer.json[.zst].
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/text/bpe.h"
#include "ponder/text/bpe_gguf.h"
#include "ponder/text/stream.h"
#include "tests/shared.h"

namespace ponder::text {
namespace {

std::string golden() { return test::shared_folder() / "golden/text"; }

// X -> path of encode.X.jsonl and the like.
std::map<std::string, std::string> cases_of(const std::string& what) {
  std::map<std::string, std::string> out;
  for (const auto& path : glob_files(join_path(golden(), what + ".*.jsonl"))) {
    const std::string file = base_name(path);
    out[file.substr(what.size() + 1, file.size() - what.size() - 7)] = path;
  }
  return out;
}

// DeepSeek-R1's file is V3's with two added tokens renamed.
std::unique_ptr<Tokenizer> r1(const Tokenizer& v3) {
  Json j = Json::parse(v3.to_json());
  for (Json& a : j["added_tokens"]) {
    const int id = a["id"];
    if (id != 128798 && id != 128799) continue;
    j["model"]["vocab"].erase(a["content"].get<std::string>());  // as it is written, all tokens are there
    a["content"] = id == 128798 ? "<think>" : "</think>";
    a["special"] = false;
  }
  return parse_tokenizer(j.dump(), "deepseek_r1");
}

// nullptr: its file is not stored.
const Tokenizer* stored(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Tokenizer>> loaded;
  auto& t = loaded[name];
  if (t) return t.get();
  if (name == "deepseek_r1") {
    if (const Tokenizer* v3 = stored("deepseek_v3")) t = r1(*v3);
    return t.get();
  }
  for (const char* end : {"", ".zst"}) {
    const std::string path = join_path(golden(), "tokenizers/" + name + ".tokenizer.json" + end);
    if (path_exists(path)) t = load_tokenizer(path);
  }
  return t.get();
}

std::vector<int32_t> ids_of(const Json& j) { return j.get<std::vector<int32_t>>(); }

TEST(BpeGolden, Encode) {
  if (cases_of("encode").empty()) GTEST_SKIP() << golden() << " is absent";
  int known = 0;
  for (const auto& [name, path] : cases_of("encode")) {
    const Tokenizer* t = stored(name);
    if (!t) {
      std::cout << "[  SKIPPED ] encode." << name << ": its tokenizer file is not stored\n";
      continue;
    }
    ++known;
    int cases = 0;
    read_json_lines(path, [&, &name = name](Json& c, int line) {
      ++cases;
      const std::string text = c.at("text");
      const auto ids = t->encode(text);
      EXPECT_EQ(ids, ids_of(c.at("ids"))) << name << " line " << line << ": " << text.substr(0, 200);
      EXPECT_EQ(t->decode(ids), c.value("decoded", text)) << name << " line " << line;
    });
    EXPECT_GT(cases, 0);
  }
  EXPECT_GT(known, 0);
}

TEST(BpeGolden, Decode) {
  if (cases_of("decode").empty()) GTEST_SKIP() << golden() << " is absent";
  for (const auto& [name, path] : cases_of("decode")) {
    const Tokenizer* t = stored(name);
    if (!t) {
      std::cout << "[  SKIPPED ] decode." << name << ": its tokenizer file is not stored\n";
      continue;
    }
    read_json_lines(path, [&, &name = name](Json& c, int line) {
      const auto ids = ids_of(c.at("ids"));
      StreamDecoder stream(*t);
      for (size_t i = 0; i < ids.size(); ++i)
        EXPECT_EQ(stream.push(ids[i]), c.at("pieces")[i].get<std::string>()) << name << " line " << line;
      EXPECT_EQ(stream.flush(), c.at("flush").get<std::string>()) << name << " line " << line;
      EXPECT_EQ(t->decode(ids), c.at("text").get<std::string>()) << name << " line " << line;
      EXPECT_EQ(t->decode(ids, true), c.value("text_skip_special", c.at("text").get<std::string>()))
          << name << " line " << line;
    });
  }
}

// Both engines cut alike, wherever their Unicode versions agree (PCRE2 has 14, utf8proc 15: the texts use assigned
// characters of 14 only).
TEST(BpeGolden, ExpressionsCutLikeTheSplitters) {
  const auto files = cases_of("encode");
  if (files.empty()) GTEST_SKIP() << golden() << " is absent";
  for (const char* pre : {"deepseek-v3", "qwen2", "llama-bpe", "smollm", "gpt-2", "default"}) {
    const auto t = tokenizer_from_gguf({.pre = pre, .tokens = byte_alphabet()}, pre);
    const Pretokenizer& fast = dynamic_cast<const Bpe&>(*t).pretokenizer();
    const Pretokenizer slow(fast.steps(), Pretokenizer::Engine::regex);
    read_json_lines(files.begin()->second, [&](Json& c, int) {
      const std::string text = c.at("text");
      const auto pieces = [&](const Pretokenizer& p) {
        std::vector<std::string> out;
        for (const auto at : p.split(text)) out.push_back(text.substr(at.begin, at.end - at.begin));
        return out;
      };
      EXPECT_EQ(pieces(fast), pieces(slow)) << pre;
    });
  }
}

}  // namespace
}  // namespace ponder::text
