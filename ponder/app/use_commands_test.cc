// generate, score, compare, bench and template render, as they are called wrongly: each mistake is said before the work.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <csignal>

#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/app/result_file.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/model/weights.h"
#include "ponder/text/tokenizer.h"

namespace ponder::app {
namespace {

class UseCommands : public testing::Test {
 protected:
  struct Result {
    int code;
    std::string out, err;
  };

  void SetUp() override {
    model::ModelConfig config;
    config.model_type = "llama";
    config.hidden_size = config.intermediate_size = 16, config.num_hidden_layers = 1;
    config.num_attention_heads = config.num_key_value_heads = 1;
    config.max_position_embeddings = 256;
    const text::ByteLevel tokenizer;
    config.vocab_size = vocab_ = tokenizer.vocab_size();
    model::Model model(config, {});
    model.params().initialize(1);
    make_folders(model_);
    model::save_model(model, model_);
    tokenizer.save(join_path(model_, "tokenizer.json"));
    write_file_atomic(lines_, "{\"id\":\"a\",\"text\":\"ab\",\"prompt\":\"ab\"}\n");
  }

  Result run(std::vector<std::string> words) {
    words.insert(words.begin(), "ponder");
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = run_program(static_cast<int>(argv.size()), argv.data());
    return {code, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
  }
  // It ends with `code`, says `what`, and nothing was computed.
  void expect_refused(const std::vector<std::string>& words, int code, const std::string& what) {
    const Result r = run(words);
    EXPECT_EQ(r.code, code) << r.err;
    EXPECT_NE(r.err.find(what), std::string::npos) << what << " is not in: " << r.err;
    EXPECT_EQ(r.out, "");
  }

  TempFolder folder_;
  int vocab_ = 0;
  std::string model_ = folder_.file("model"), lines_ = folder_.file("in.jsonl");
};

TEST_F(UseCommands, GenerateTakesOneKindOfPrompt) {
  expect_refused({"generate", model_, "hi", "--in", lines_}, 2, "give one of them");
  expect_refused({"generate", model_, "hi", "--prompt-file", lines_}, 2, "give one of them");
  expect_refused({"generate", model_, "--in", lines_, "--prompt-file", lines_}, 2, "give one of them");
  const std::string out = folder_.file("out.jsonl");
  expect_refused({"generate", model_, "hi", "--out", out}, 2, "JSON Lines");
  expect_refused({"generate", model_, "--prompt-file", lines_, "--out", out}, 2, "JSON Lines");
  EXPECT_FALSE(path_exists(out));
  EXPECT_EQ(run({"generate", model_, "--in", lines_, "--out", out, "--max-tokens", "2"}).code, 0);
  EXPECT_EQ(read_whole_lines(out).size(), 1u);
}

TEST_F(UseCommands, OptionsOfGenerate) {
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", model_, "hi", "--max-tokens", "3"});
    return more;
  };
  expect_refused(with({"--stop", ""}), 2, "--stop");
  expect_refused(with({"--logit-bias", fmt::format("{}:1", vocab_)}), 2, fmt::format("{} tokens", vocab_));
  EXPECT_EQ(run(with({"--logit-bias", fmt::format("{}:1", vocab_ - 1)})).code, 0);
  expect_refused(with({"--logprobs"}), 2, "--json");
  EXPECT_NE(run(with({"--logprobs", "--json"})).out.find("\"logprobs\":["), std::string::npos);
  expect_refused(with({"--raw", "--think", "off"}), 2, "--raw");
  EXPECT_EQ(run(with({"--raw", "--think", "9"})).code, 0);
  EXPECT_NE(run(with({"--think", "on"})).err.find("about thinking"), std::string::npos);
  const Result plain = run(with({})), draft = run(with({"--draft"}));
  EXPECT_EQ(draft.code, 0);
  EXPECT_EQ(draft.out, plain.out);
  EXPECT_NE(draft.err.find("no MTP module"), std::string::npos) << draft.err;
}

TEST_F(UseCommands, RefuseWhatHasNoMeaning) {
  expect_refused({"fit", model_, "--activations", "q8"}, 2, "--activations");
  write_file_atomic(folder_.file("t.jinja"), "{{ messages[0].content }}");
  expect_refused({"template", "render", folder_.file("t.jinja"), "--think", "5", "--in", lines_}, 2, "on or off");
  expect_refused({"bench", model_, "--seconds", "1"}, 2, "for recipes");
  expect_refused({"bench", model_, "--set", "a=1"}, 2, "for recipes");
  expect_refused({"bench", "x.toml", "--picture", folder_.file("p.svg")}, 2, "for models");
  expect_refused({"eval", "x.toml", "--samples", "2"}, 2, "for models");
  expect_refused({"eval", folder_.file("m"), "--max-steps", "2"}, 2, "for recipes");
  expect_refused({"compare", model_, "--text", lines_, "--activations", "f32,q9"}, 2, "q9");
}

TEST_F(UseCommands, CompareNamesTheModelWhoseLogitsAreNoNumbers) {
  const std::string broken = folder_.file("broken"), text = folder_.file("text");
  {
    const auto model = model::load_model(model_, {});
    Tensor embed = model->params().list().front().value;
    for (int64_t i = 0; i < embed.cols(); ++i) embed.row('!')[i] = std::nanf("");
    make_folders(broken);
    model::save_model(*model, broken);
  }
  write_file_atomic(join_path(broken, "tokenizer.json"), read_file(join_path(model_, "tokenizer.json")));
  write_file_atomic(text, "all is well!\n");
  EXPECT_EQ(run({"compare", model_, "--text", text}).code, 0);
  // What follows the 12th token.
  for (const auto& words : {std::vector<std::string>{"compare", model_, broken, "--text", text},
                            {"compare", broken, model_, "--text", text, "--json"},
                            {"compare", broken, "--text", text}})
    expect_refused(words, 3, broken + ": the logits for token 12 of the text are not finite");
}

// What nobody can read is not done in silence.
TEST_F(UseCommands, AFullOutputIsAnError) {
  const auto into_full = [](std::vector<std::string> words) {
    words.insert(words.begin(), "ponder");
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    testing::internal::CaptureStderr();
    std::fflush(stdout);
    const int kept = ::dup(STDOUT_FILENO), full = ::open("/dev/full", O_WRONLY);
    ::dup2(full, STDOUT_FILENO);
    const int code = run_program(static_cast<int>(argv.size()), argv.data());
    std::fflush(stdout);
    std::clearerr(stdout);
    ::dup2(kept, STDOUT_FILENO);
    ::close(kept), ::close(full);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("No space left"), std::string::npos);
    return code;
  };
  EXPECT_EQ(into_full({"generate", model_, "--in", lines_, "--max-tokens", "2"}), 4);
  EXPECT_EQ(into_full({"score", model_, "--in", lines_}), 4);
  EXPECT_EQ(into_full({"tokenize", model_, "--in", lines_}), 4);
  EXPECT_EQ(into_full({"--help"}), 4);
  EXPECT_EQ(into_full({"man"}), 4);
}

TEST_F(UseCommands, IdsThatWouldMeetAreRefused) {
  const std::string twice = folder_.file("twice.jsonl"), out = folder_.file("out.jsonl"), st = folder_.file("l.st");
  write_file_atomic(twice, R"({"id":"a","prompt":"ab","text":"ab"}
{"id":"a","prompt":"cd","text":"cd"}
)");
  EXPECT_EQ(run({"generate", model_, "--in", twice, "--max-tokens", "2"}).code, 0);
  expect_refused({"generate", model_, "--in", twice, "--out", out, "--max-tokens", "2"}, 3, "the id \"a\"");
  const auto scored = [&] { return run({"score", model_, "--in", twice, "--logits", st}).out; };
  EXPECT_NE(scored().find("a second text with the id a"), std::string::npos);
  write_file_atomic(twice, "{\"id\":\"__metadata__\",\"text\":\"ab\"}\n");
  EXPECT_NE(scored().find("take another id"), std::string::npos);
  const Result none = run({"score", model_, "--in", lines_, "--top", "0"});
  EXPECT_NE(none.out.find("\"top\":[null,[],[]]"), std::string::npos) << none.out;
}

// The environment is the same for all commands; what is typed is meant for this one.
TEST_F(UseCommands, OptionsOfTheOtherKind) {
  expect_refused({"eval", model_, "--output-dir", "runs"}, 2, "--output-dir is for recipes");
  ::setenv("PONDER_OUTPUT_DIR", "runs", 1);
  expect_refused({"eval", model_}, 3, "no task.toml");
  ::unsetenv("PONDER_OUTPUT_DIR");
  for (const char* set : {"task.name=game24", "max_steps=3", "path=x", "hidden_size=8"})
    expect_refused({"eval", model_, "--set", set}, 2, set);
  expect_refused({"eval", model_, "--set", "problems=3"}, 3, "no task.toml");
}

TEST_F(UseCommands, ResultFilesAreTriedBeforeTheWork) {
  const std::string nowhere = folder_.file("no/where");
  expect_refused({"score", model_, "--in", lines_, "--logits", nowhere}, 4, "cannot create " + nowhere + ":");
  expect_refused({"score", model_, "--in", lines_, "--logits", model_}, 2, model_);
  expect_refused({"bench", model_, "--prompts", "0", "--batches", "1", "--picture", nowhere}, 4,
                 "cannot create " + nowhere + ":");
  expect_refused({"generate", model_, "--in", lines_, "--out", nowhere}, 4, nowhere);
  EXPECT_THROW(check_result_file("/dev/null"), Error);
  // Nothing is left behind, and what was there stays.
  write_file_atomic(folder_.file("old"), "old");
  const auto before = list_folder(folder_.path());
  check_result_file(folder_.file("old"));
  check_result_file(folder_.file("new"));
  EXPECT_EQ(list_folder(folder_.path()), before);
  EXPECT_EQ(read_file(folder_.file("old")), "old");
}

TEST_F(UseCommands, LinesThatAreNoObjects) {
  write_file_atomic(lines_, "{\"id\":\"a\",\"text\":\"ab\"}\n\nnot json\n[1]\n{\"id\":\"b\",\"text\":\"ab\"}\n");
  for (const char* command : {"score", "tokenize"}) {
    const Result r = run({command, model_, "--in", lines_});
    EXPECT_EQ(r.code, 3) << command;
    EXPECT_TRUE(r.out.starts_with("{\"id\":\"a\",\"ids\"")) << r.out;
    EXPECT_NE(r.out.find("{\"id\":3,\"error\":\"" + lines_ + ":3:"), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("{\"id\":4,\"error\":\"" + lines_ + ":4: an object"), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("{\"id\":\"b\",\"ids\""), std::string::npos) << r.out;
    EXPECT_NE(r.err.find("the first is line 3"), std::string::npos) << r.err;
  }
  // A request that cannot be served is answered, by its error.
  write_file_atomic(lines_, "{\"id\":\"a\",\"text\":7}\n");
  EXPECT_EQ(run({"score", model_, "--in", lines_}).code, 0);
}

TEST_F(UseCommands, OneSignalEndsThemInGoodOrder) {
  install_stop_signals();
  std::raise(SIGINT);
  const std::string logits = folder_.file("logits.safetensors");
  for (const std::vector<std::string>& words : {std::vector<std::string>{"compare", model_, "--text", lines_},
                                                {"bench", model_, "--prompts", "0", "--batches", "1"},
                                                {"score", model_, "--in", lines_, "--logits", logits}}) {
    const Result r = run(words);
    EXPECT_EQ(r.code, 75) << words[0] << r.err;
    EXPECT_EQ(r.out, "");
  }
  clear_stop_request();
  EXPECT_FALSE(path_exists(logits));
  EXPECT_EQ(run({"score", model_, "--in", lines_, "--logits", logits}).code, 0);
}

// Tensors of MTP modules are known, and not needed where there is nothing to draft.
TEST_F(UseCommands, ModelsWithMtpModulesAreScoredAndCompared) {
  model::ModelConfig config;
  config.vocab_size = vocab_;
  config.hidden_size = config.intermediate_size = config.kv_lora_rank = 16;
  config.num_hidden_layers = config.num_attention_heads = 1;
  config.qk_nope_head_dim = config.qk_rope_head_dim = config.v_head_dim = 8;
  config.num_nextn_predict_layers = 1;
  config.max_position_embeddings = 256;
  model::Model model(config, {});
  model.params().initialize(1);
  model::save_model(model, model_);
  const Result scored = run({"score", model_, "--in", lines_, "--quiet"});
  EXPECT_EQ(scored.code, 0) << scored.err;
  EXPECT_NE(scored.out.find("\"logprobs\""), std::string::npos) << scored.out;
  EXPECT_EQ(run({"compare", model_, model_, "--text", lines_, "--quiet"}).code, 0);
}

}  // namespace
}  // namespace ponder::app
