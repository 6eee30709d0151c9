// The commands that use a model, as a user runs them: tokenize, template render, score, generate and chat, against
// reference data where it is there.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/model/weights.h"
#include "ponder/tensor/tensor_file.h"
#include "ponder/text/tokenizer.h"
#include "tests/shared.h"
#include "tests/terminal.h"

namespace ponder {
namespace {

std::vector<Json> json_lines(const std::string& path) {
  std::vector<Json> out;
  read_json_lines(path, [&](Json& value, int) { out.push_back(std::move(value)); });
  return out;
}

std::string shell_word(const std::string& word) {
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

// What the program writes to stdout for one object a line on stdin; it must end with `code`.
std::vector<Json> answers(const TempFolder& folder, const std::vector<std::string>& words,
                          const std::vector<Json>& input, int code = 0) {
  std::string text;
  for (const Json& line : input) text += line.dump() + "\n";
  write_file_atomic(folder.file("in"), text);
  std::string command = shell_word(PONDER_BINARY);
  for (const std::string& w : words) command += " " + shell_word(w);
  command += " < " + shell_word(folder.file("in")) + " > " + shell_word(folder.file("out")) + " 2> " +
             shell_word(folder.file("err"));
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), code) << command << "\n" << read_file(folder.file("err"));
  return json_lines(folder.file("out"));
}

std::string smollm2() {
  for (const auto& file : test::shared_entries("models"))
    if (file.extension() == ".gguf" && file.filename().string().starts_with("SmolLM2")) return file;
  return "";
}

class RealModel : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = smollm2();
    if (model_.empty()) GTEST_SKIP() << "no SmolLM2 in the reference models";
    PONDER_NEED_SHARED(test::shared_folder() / "golden" / "smollm2" / "logits.jsonl");
    golden_ = json_lines(test::shared_folder() / "golden" / "smollm2" / "logits.jsonl");
  }
  TempFolder folder_;
  std::string model_;
  std::vector<Json> golden_;
};

TEST_F(RealModel, RendersAndTokenizes) {
  std::vector<Json> conversations, texts;
  for (const Json& line : golden_) {
    texts.push_back({{"id", line["id"]}, {"text", line["prompt"]}});
    if (line.contains("messages")) conversations.push_back(line);
  }
  const auto rendered = answers(folder_, {"template", "render", model_}, conversations);
  ASSERT_EQ(rendered.size(), conversations.size());
  for (size_t i = 0; i < rendered.size(); ++i) EXPECT_EQ(rendered[i]["rendered"], conversations[i]["prompt"]);
  const auto tokenized = answers(folder_, {"tokenize", model_}, texts);
  ASSERT_EQ(tokenized.size(), golden_.size());
  std::vector<Json> ids;
  for (size_t i = 0; i < tokenized.size(); ++i) {
    EXPECT_EQ(tokenized[i]["ids"], golden_[i]["ids"]);
    EXPECT_EQ(tokenized[i]["id"], golden_[i]["id"]);
    ids.push_back({{"ids", golden_[i]["ids"]}});
  }
  const auto back = answers(folder_, {"tokenize", model_}, ids);
  for (size_t i = 0; i < back.size(); ++i) EXPECT_EQ(back[i]["text"], golden_[i]["prompt"]);
}

TEST_F(RealModel, Scores) {
  std::vector<Json> input;
  for (const Json& line : golden_) {
    Json request = {{"id", line["id"]}};
    if (line.contains("messages"))
      request["messages"] = line["messages"];
    else
      request["text"] = line["prompt"];
    input.push_back(request);
  }
  const Json bad = {{"id", "bad"}, {"ids", {-1}}};
  input.insert(input.begin() + 1, bad);
  const auto all = answers(folder_, {"score", model_}, input);
  ASSERT_EQ(all.size(), input.size());
  EXPECT_TRUE(all[1].contains("error"));
  double error = 0;
  for (size_t i = 0, g = 0; i < all.size(); ++i) {
    if (i == 1) continue;
    const Json& expected = golden_[g++];
    EXPECT_EQ(all[i]["ids"], expected["ids"]);
    EXPECT_EQ(all[i]["activations"], "f32");
    ASSERT_EQ(all[i]["logprobs"].size(), expected["next_logprobs"].size() + 1);
    EXPECT_TRUE(all[i]["logprobs"][0].is_null() && all[i]["top"][0].is_null());
    for (size_t t = 0; t < expected["next_logprobs"].size(); ++t) {
      error = std::max(error,
                       std::abs(all[i]["logprobs"][t + 1].get<double>() - expected["next_logprobs"][t].get<double>()));
      EXPECT_EQ(all[i]["top"][t + 1].size(), 5u);
    }
  }
  EXPECT_LE(error, 2e-4);
  // A text alone: the same line.
  const auto alone = answers(folder_, {"score", model_}, {input.back()});
  EXPECT_EQ(alone[0], all.back());
}

TEST_F(RealModel, GeneratesAndGoesOn) {
  std::vector<Json> input;
  std::vector<Json> expected;
  for (const Json& line : golden_) {
    if (!line.contains("greedy_ids")) continue;
    input.push_back({{"id", line["id"]}, {"temperature", 0}, {"max_tokens", line["greedy_ids"].size()}});
    if (line.contains("messages"))
      input.back()["messages"] = line["messages"];
    else
      input.back()["prompt"] = line["prompt"];
    expected.push_back(line);
  }
  input.push_back({{"id", "wrong"}, {"prompt", 7}});
  input.push_back({{"id", "twice"}, {"prompt", "One, two,"}, {"n", 2}, {"max_tokens", 8}, {"seed", 3}});
  const std::string out = folder_.file("answers.jsonl");
  const std::vector<std::string> words = {"generate", model_, "--raw", "--activations", "f32", "--out", out};
  answers(folder_, words, input);
  const std::string whole = read_file(out);
  const auto lines = json_lines(out);
  ASSERT_EQ(lines.size(), expected.size() + 3);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(lines[i]["ids"], expected[i]["greedy_ids"]) << lines[i].dump();
    EXPECT_EQ(lines[i]["finish_reason"], expected[i]["greedy_ids"].back() == 2 ? "stop" : "length");
  }
  EXPECT_TRUE(lines[expected.size()].contains("error"));
  EXPECT_EQ(lines.back()["index"], 1);
  EXPECT_NE(lines.back()["ids"], lines[lines.size() - 2]["ids"]);
  // Half of it, torn in the middle of a line: the same command makes the rest, to the byte.
  write_file_atomic(out, whole.substr(0, whole.size() / 2));
  answers(folder_, words, input);
  EXPECT_EQ(read_file(out), whole);
}

TEST_F(RealModel, StopStringsAndTemplates) {
  const Json question = {{"prompt", "What is the capital of France?"}, {"temperature", 0}, {"max_tokens", 12}};
  Json stopped = question, biased = question;
  stopped["stop"] = "Paris";
  biased["logit_bias"] = {{"7042", -100}};
  const auto all = answers(folder_, {"generate", model_, "--activations", "f32"}, {question, stopped, biased});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0]["text"], "The capital of France is Paris.");
  EXPECT_EQ(all[0]["stop_detail"], "eos");
  EXPECT_EQ(all[1]["text"], "The capital of France is ");
  EXPECT_EQ(all[1]["stop_detail"], "stop_string");
  for (const Json& id : all[2]["ids"]) EXPECT_NE(id, 7042);
  // Stored in blocks, so 8-bit activations are the default here.
  EXPECT_EQ(answers(folder_, {"generate", model_}, {question})[0]["activations"], "q8");
}

TEST(TokenizeCommand, GgufTokenizers) {
  const auto folder = test::shared_folder() / "golden" / "gguf";
  PONDER_NEED_SHARED(folder / "tokenize.json");
  const Json golden = read_json(folder / "tokenize.json");
  const TempFolder temp;
  for (const auto& [name, cases] : golden.items()) {
    const std::string file = folder / (name + ".gguf");
    std::vector<Json> texts;
    for (const Json& c : cases) texts.push_back({{"text", c["text"]}});
    const auto special = answers(temp, {"tokenize", file}, texts),
               plain = answers(temp, {"tokenize", file, "--plain"}, texts);
    ASSERT_EQ(special.size(), cases.size());
    for (size_t i = 0; i < cases.size(); ++i) {
      EXPECT_EQ(special[i]["ids"], cases[i]["ids"]) << name << ": " << cases[i]["text"];
      EXPECT_EQ(plain[i]["ids"], cases[i]["ids_no_special"]) << name << ": " << cases[i]["text"];
    }
  }
}

// Every checkpoint of the folder through `score --logits`, MTP modules too.
TEST(ScoreCommand, GoldenModels) {
  const TempFolder temp;
  const auto folders = test::shared_entries("golden/models");
  if (folders.empty()) GTEST_SKIP() << "no reference models (set PONDER_SHARED)";
  for (const auto& folder : folders) {
    if (!std::filesystem::exists(folder / "expected.safetensors")) continue;
    SCOPED_TRACE(folder.filename());
    const auto expected = SafetensorsFile::open(folder / "expected.safetensors");
    const TensorEntry& ids_entry = expected.at("input_ids");
    std::vector<int32_t> ids(static_cast<size_t>(ids_entry.size()));
    read_i32(ids_entry, ids.data());
    const int64_t texts = ids_entry.dim[0], length = ids_entry.dim[1];
    std::vector<Json> input;
    for (int64_t b = 0; b < texts; ++b)
      input.push_back({{"id", std::to_string(b)},
                       {"ids", std::vector<int32_t>(ids.begin() + b * length, ids.begin() + (b + 1) * length)}});
    const bool mtp = expected.find("mtp_logits") != nullptr;
    std::vector<std::string> words = {"score", folder, "--logits", temp.file("logits.safetensors")};
    if (mtp) words.push_back("--mtp");
    ASSERT_EQ(answers(temp, words, input).size(), input.size());
    const auto got = SafetensorsFile::open(temp.file("logits.safetensors"));
    const auto compare = [&](const char* reference, const std::string& suffix, int64_t rows) {
      const TensorEntry& e = expected.at(reference);
      const auto vocab = static_cast<size_t>(e.dim[2]);
      std::vector<float> all(static_cast<size_t>(e.size()));
      read_f32(e, all.data());
      double error = 0;
      for (int64_t b = 0; b < texts; ++b) {
        const TensorEntry& mine = got.at(std::to_string(b) + suffix);
        ASSERT_EQ(mine.dim[0], rows);
        std::vector<float> values(static_cast<size_t>(mine.size()));
        read_f32(mine, values.data());
        const float* other = all.data() + static_cast<size_t>(b * e.dim[1]) * vocab;
        for (size_t i = 0; i < values.size(); ++i) error = std::max(error, double{std::abs(values[i] - other[i])});
      }
      EXPECT_LE(error, 2e-4) << reference;
    };
    compare("logits", "", length);
    if (mtp) compare("mtp_logits", ".mtp", length - 1);
  }
}

// --- chat ------------------------------------------------------------------------------------------------------------

// What is typed between two prompts goes through the terminal's own line editing, so each line waits for its prompt.
TEST_F(RealModel, ChatOnATerminal) {
  test::Terminal t({"chat", model_, "--temperature", "0", "--max-tokens", "60", "--activations", "f32"});
  t.until("> ");
  t.type("What is the capital of France?\r");
  EXPECT_NE(t.until("tokens/s").find("Paris"), std::string::npos);
  t.until("> ");
  t.type("And of Germany?\r");
  EXPECT_NE(t.until("% of the prompt cached").find("Berlin"), std::string::npos);
  t.until("> ");
  const std::string file = folder_.file("chat.json");
  t.type("/save " + file + "\r");
  t.until("4 messages in");
  t.until("> ");
  const Json saved = read_json(file);
  EXPECT_EQ(saved["messages"][0]["content"], "What is the capital of France?");
  EXPECT_EQ(saved["messages"][3]["role"], "assistant");
  t.type("/retry\r");
  t.until("tokens/s");
  t.until("> ");
  t.type("/clear\r");
  t.until("> ");
  t.type("/nonsense\r");
  t.until("no such command");
  t.until("> ");
  t.type("/load " + file + "\r");
  t.until("4 messages from");
  t.until("> ");
  t.type("\"\"\"Say\r");
  t.until("... ");
  t.type("hello.\"\"\"\r");
  t.until("tokens/s");
  t.until("> ");
  t.type("/stats\r");
  t.until("4 answers");
  t.until("> ");
  t.type("/exit\r");
  EXPECT_EQ(t.wait(), 0);
}

TEST_F(RealModel, ChatEndsTheAnswerOnly) {
  test::Terminal t({"chat", model_, "--no-loop-guard", "--min-tokens", "4000"});
  t.until("> ");
  t.type("Tell me a very long story.\r");
  t.until(" the ");
  t.type("/sta");  // typed ahead
  t.until(" the ");
  t.type("\x03");
  t.until("tokens/s");
  t.until("> ");
  usleep(500'000);         // libedit takes the terminal over just after it has written the prompt
  t.type("\x03/stats\r");  // there Ctrl+C clears the line
  t.until("1 answers");
  t.until("> ");
  t.type("/exit\r");
  EXPECT_EQ(t.wait(), 0);
}

TEST_F(RealModel, ChatNeedsRoom) {
  // A prompt that does not fit is not cut.
  std::string words;
  for (int i = 0; i < 9000; ++i) words += "word ";
  write_file_atomic(folder_.file("long"), words + "\n/stats\n");
  const std::string command = shell_word(PONDER_BINARY) + " chat " + shell_word(model_) + " < " +
                              shell_word(folder_.file("long")) + " 2> " + shell_word(folder_.file("err"));
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 0);
  const std::string said = read_file(folder_.file("err"));
  EXPECT_NE(said.find("nothing was cut"), std::string::npos) << said;
  EXPECT_NE(said.find("0 answers"), std::string::npos) << said;
}

// A base model: --raw continues texts, generate too; chat says that it cannot guess.
TEST(BaseModel, OnlyContinues) {
  const TempFolder folder;
  model::ModelConfig config;
  config.model_type = "llama";
  config.hidden_size = config.intermediate_size = 16, config.num_hidden_layers = 1;
  config.num_attention_heads = config.num_key_value_heads = 1;
  const text::ByteLevel tokenizer;
  config.vocab_size = tokenizer.vocab_size();
  model::Model model(config, {});
  model.params().initialize(1);
  make_folders(folder.file("base"));
  model::save_model(model, folder.file("base"));
  tokenizer.save(folder.file("base/tokenizer.json"));
  answers(folder, {"chat", folder.file("base")}, {}, 3);
  EXPECT_NE(read_file(folder.file("err")).find("--raw"), std::string::npos);
  answers(folder, {"chat", folder.file("base"), "--raw", "--max-tokens", "3"}, {});
  const auto lines = answers(folder, {"generate", folder.file("base"), "--max-tokens", "3"},
                             {{{"prompt", "ab"}}, {{"messages", {{{"role", "user"}, {"content", "ab"}}}}}});
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["ids"].size(), 3u);
  EXPECT_NE(lines[1]["error"].get<std::string>().find("no chat template"), std::string::npos);
}

}  // namespace
}  // namespace ponder
