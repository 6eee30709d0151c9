// How a chat ends, with a terminal and without, and what can be typed into it. A small model with random weights will do.
#include <fcntl.h>
#include <gtest/gtest.h>

#include "ponder/base/file.h"
#include "ponder/model/weights.h"
#include "ponder/text/tokenizer.h"
#include "tests/terminal.h"

namespace ponder {
namespace {

constexpr int kStoppedInGoodOrder = 75;

class Chat : public ::testing::Test {
 protected:
  void SetUp() override {
    model::ModelConfig config;
    config.model_type = "llama";
    config.hidden_size = config.intermediate_size = 64, config.num_hidden_layers = 2;
    config.num_attention_heads = config.num_key_value_heads = 2;
    config.max_position_embeddings = 1 << 15;
    const text::ByteLevel tokenizer;
    config.vocab_size = tokenizer.vocab_size();
    model::Model model(config, {});
    model.params().initialize(1);
    make_folders(model_);
    model::save_model(model, model_);
    tokenizer.save(join_path(model_, "tokenizer.json"));
  }
  std::vector<std::string> words(const std::string& tokens) const {
    return {"chat",         model_, "--raw",        "--temperature", "1", "--no-loop-guard",
            "--min-tokens", tokens, "--max-tokens", tokens};
  }
  // At its prompt, which libedit writes just before it takes the terminal over.
  static void wait_for_prompt(test::Terminal& t) {
    t.until("> ");
    usleep(300'000);
  }
  TempFolder folder_;
  std::string model_ = folder_.file("model");
};

TEST_F(Chat, EndsAtOneSignalWhileItWaits) {
  for (const int signal : {SIGTERM, SIGHUP, SIGUSR1})
    for (const char* typed : {"", "half a line"}) {
      SCOPED_TRACE(signal);
      test::Terminal t(words("3"));
      wait_for_prompt(t);
      t.type(typed);
      t.until(typed);
      t.signal(signal);
      EXPECT_EQ(t.wait(), kStoppedInGoodOrder);
    }
}

TEST_F(Chat, EndsAtOneSignalWhileItAnswers) {
  for (const int signal : {SIGTERM, SIGHUP}) {
    SCOPED_TRACE(signal);
    test::Terminal t(words("30000"));
    wait_for_prompt(t);
    t.type("abc\r");
    t.until("\n");
    usleep(300'000);
    t.signal(signal);
    t.until("answer tokens");  // what there is of the answer is finished in good order
    EXPECT_EQ(t.wait(), kStoppedInGoodOrder);
  }
}

TEST_F(Chat, EndsWhenTheTerminalIsClosed) {
  for (const bool answers : {false, true}) {
    SCOPED_TRACE(answers);
    test::Terminal t(words("30000"));
    wait_for_prompt(t);
    if (answers) {
      t.type("abc\r");
      t.until("\n");
      usleep(300'000);
    }
    t.hang_up();
    EXPECT_EQ(t.wait(), kStoppedInGoodOrder);
  }
}

// Ctrl+C ends an answer or clears a line, never the chat; Ctrl+D does.
TEST_F(Chat, OutlivesControlC) {
  test::Terminal t(words("30000"));
  wait_for_prompt(t);
  t.type("abc\r");
  t.until("\n");
  usleep(300'000);
  t.type("\x03");
  t.until("answer tokens");
  wait_for_prompt(t);
  t.type("nonsense\x03/stats\r");
  t.until("1 answers");
  wait_for_prompt(t);
  t.signal(SIGINT);  // as a signal, too
  wait_for_prompt(t);
  t.signal(SIGWINCH);
  t.type("/stats\r");
  t.until("1 answers");
  wait_for_prompt(t);
  t.type("\x04");
  EXPECT_EQ(t.wait(), 0);
}

TEST_F(Chat, EndsWithoutATerminal) {
  for (const int signal : {SIGTERM, SIGHUP, SIGINT, 0}) {
    SCOPED_TRACE(signal);
    int in[2], out[2];
    ASSERT_EQ(pipe2(in, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      dup2(in[0], 0), dup2(out[1], 1);
      if (!freopen("/dev/null", "w", stderr)) _exit(98);
      std::vector<std::string> all = words("3");
      std::vector<char*> argv = {const_cast<char*>(PONDER_BINARY)};
      for (std::string& w : all) argv.push_back(w.data());
      argv.push_back(nullptr);
      execv(PONDER_BINARY, argv.data());
      _exit(97);
    }
    close(in[0]), close(out[1]);
    // The second line has no end yet.
    ASSERT_EQ(write(in[1], "abc\nde", 6), 6);
    std::string answer;
    char byte;
    while (answer.find('\n') == answer.npos && read(out[0], &byte, 1) == 1) answer += byte;
    EXPECT_FALSE(answer.empty());
    usleep(200'000);
    if (signal) ::kill(pid, signal);
    if (!signal) close(in[1]);
    int status = 0;
    pid_t ended = 0;
    for (int i = 0; i < 100 && ended == 0; ++i, usleep(100'000)) ended = waitpid(pid, &status, WNOHANG);
    if (ended == 0) {
      ADD_FAILURE() << "it does not end";
      ::kill(pid, SIGKILL), waitpid(pid, &status, 0);
    } else {
      EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), signal ? kStoppedInGoodOrder : 0);
    }
    // At the end of the input that line counts, too.
    std::string rest;
    while (read(out[0], &byte, 1) == 1) rest += byte;
    EXPECT_EQ(rest.empty(), signal != 0) << rest;
    if (signal) close(in[1]);
    close(out[0]);
  }
}

TEST_F(Chat, SaysAtOnceThatAnOptionIsWrong) {
  for (const char* tokens : {"0", "-1", "x"}) {
    test::Terminal t({"chat", model_, "--raw", "--max-tokens", tokens});
    EXPECT_EQ(t.wait(), 2) << tokens;
  }
}

// --raw with all other options: what needs a template or a conversation says so, the rest works.
TEST_F(Chat, RawTakesWhatMakesSense) {
  write_file_atomic(folder_.file("talk"), R"({"messages": [{"role": "user", "content": "hi"}]})");
  const auto start = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"chat", model_, "--raw"});
    return std::make_unique<test::Terminal>(more);
  };
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--system", "be brief"},
                                                {"--load", folder_.file("talk")},
                                                {"--think", "on"},
                                                {"--think", "off"},
                                                {"--json"},
                                                {"--set", "seed=1"},
                                                {"--stop", ""},
                                                {"--logit-bias", "1000000:1"},
                                                {"--top-p", "2"},
                                                {"--top-k", "x"},
                                                {"--min-p", "-1"},
                                                {"--temperature", "nan"},
                                                {"--repetition-penalty", "0"},
                                                {"--seed", "-1"}}) {
    const auto t = start(wrong);
    t->until(wrong[0] == "--load" || wrong[0] == "--system" ? "stands alone" : wrong[0]);
    EXPECT_EQ(t->wait(), 2) << wrong[0];
  }
  const auto t = start({"--temperature",
                        "1",
                        "--top-p",
                        "0.9",
                        "--top-k",
                        "20",
                        "--min-p",
                        "0.01",
                        "--repetition-penalty",
                        "1.1",
                        "--frequency-penalty",
                        "0.1",
                        "--presence-penalty",
                        "0.1",
                        "--logit-bias",
                        "70:-100",
                        "--min-tokens",
                        "3",
                        "--max-tokens",
                        "3",
                        "--stop",
                        "zzz",
                        "--think",
                        "8",
                        "--seed",
                        "5",
                        "--hide-thinking",
                        "--no-loop-guard",
                        "--activations",
                        "f32"});
  wait_for_prompt(*t);
  t->type("abc\r");
  t->until("answer tokens");
  for (const char* command : {"/save x", "/load x", "/system x"}) {
    wait_for_prompt(*t);
    t->type(command + std::string("\r"));
    t->until("stands alone");
  }
  wait_for_prompt(*t);
  t->type("/think on\r");
  t->until("chat template");
  wait_for_prompt(*t);
  t->type("/retry\r");
  t->until("answer tokens");
  wait_for_prompt(*t);
  t->type("\x04");
  EXPECT_EQ(t->wait(), 0);
}

// Whatever LANG says: a terminal writes UTF-8.
TEST_F(Chat, TakesLettersThatAreNotAscii) {
  test::Terminal t(words("3"));
  wait_for_prompt(t);
  t.type("gr\xc3\xbcn \xe6\x97\xa5\xe6\x9c\xac?");
  t.until("gr\xc3\xbcn \xe6\x97\xa5\xe6\x9c\xac?");
  t.type("\r");
  t.until("answer tokens");
  wait_for_prompt(t);
  t.type("\x04");
  EXPECT_EQ(t.wait(), 0);
}

// Lines are answered together as long as there are more; whoever waits for an answer gets it.
TEST_F(Chat, WhoeverWaitsForAnAnswerGetsIt) {
  const auto ask = [&](std::vector<std::string> command, const std::string& answer) {
    test::Terminal t(std::move(command));
    for (const char* id : {"a", "b"}) {
      t.type(std::string(R"({"ids": [5, 6, 7], "id": ")") + id + "\"}\n");
      t.until(std::string(R"({"id":")") + id + answer);
    }
    t.type("\x04");
    EXPECT_EQ(t.wait(), 0);
  };
  ask({"score", model_}, R"(","ids":[5,6,7],"logprobs":[null,)");
  ask({"generate", model_, "--max-tokens", "3"}, R"(","index":0,"text":)");
}

}  // namespace
}  // namespace ponder
