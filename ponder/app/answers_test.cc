#include "ponder/app/answers.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ponder/app/conversation.h"
#include "ponder/app/json_lines.h"
#include "ponder/app/machine.h"
#include "ponder/app/sampling.h"
#include "ponder/base/error.h"
#include "ponder/base/json_value.h"
#include "ponder/engine/generate.h"

namespace ponder::app {
namespace {

std::string through(StopStrings& stops, std::vector<std::string> pieces) {
  std::string out;
  for (const std::string& p : pieces) out += stops.push(p);
  return out + stops.flush();
}

TEST(StopStringsTest, EndsAtTheFirst) {
  StopStrings none, one({"END"}), two({"abc", "b"});
  EXPECT_EQ(through(none, {"a", "b"}), "ab");
  EXPECT_EQ(through(one, {"x E", "N", "E", "ND y"}), "x EN");
  EXPECT_TRUE(one.stopped());
  StopStrings cut({"END"});
  EXPECT_EQ(through(cut, {"x E", "ND y", "z"}), "x ");
  EXPECT_TRUE(cut.stopped());
  EXPECT_EQ(through(two, {"a", "b", "c"}), "a") << "b is complete before abc is";
  StopStrings held({"<end>"});
  EXPECT_EQ(held.push("go <en"), "go ") << "what may become one is held back";
  EXPECT_EQ(held.flush(), "<en");
}

TEST(LoopGuard, SeesRepetitionOnly) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < 400; ++i) tokens.push_back(i % 5);
  EXPECT_TRUE(repeats_itself(tokens));
  EXPECT_FALSE(repeats_itself(std::span(tokens).first(150))) << "too short to say";
  tokens.back() = 99;
  EXPECT_FALSE(repeats_itself(tokens));
  std::vector<int32_t> counting;
  for (int i = 0; i < 2000; ++i) counting.push_back(i % 7 ? i % 3 : i);
  EXPECT_FALSE(repeats_itself(counting));
}

TEST(ThinkingTest, Parses) {
  EXPECT_EQ(parse_thinking("on").mode, Thinking::Mode::on);
  EXPECT_EQ(parse_thinking("off").mode, Thinking::Mode::off);
  EXPECT_EQ(parse_thinking("0").mode, Thinking::Mode::off);
  EXPECT_EQ(parse_thinking("512").budget, 512);
  for (const char* bad : {"", "maybe", "-1", "12x"}) EXPECT_THROW(parse_thinking(bad), Error) << bad;
}

TEST(ThinkingTest, RequestsSayItInManyWays) {
  using Mode = Thinking::Mode;
  const auto said = [](const char* json) { return request_thinking(Json::parse(json), {Mode::automatic, 7}); };
  EXPECT_EQ(said("{}").budget, 7);
  EXPECT_EQ(said(R"({"reasoning_effort":"none"})").mode, Mode::off);
  EXPECT_EQ(said(R"({"reasoning_effort":"low"})").budget, 2048);
  EXPECT_EQ(said(R"({"reasoning_effort":"max"})").budget, -1);
  EXPECT_EQ(said(R"({"think":false})").mode, Mode::off);
  EXPECT_EQ(said(R"({"thinking":{"type":"enabled","budget_tokens":99}})").budget, 99);
  EXPECT_EQ(said(R"({"thinking":{"type":"disabled"}})").mode, Mode::off);
  EXPECT_EQ(said(R"({"chat_template_kwargs":{"enable_thinking":false}})").mode, Mode::off);
  EXPECT_EQ(said(R"({"thinking_token_budget":0})").mode, Mode::off);
  for (const char* bad : {R"({"reasoning_effort":"some"})", R"({"thinking":true})", R"({"thinking_token_budget":-1})"})
    EXPECT_THROW(said(bad), Error) << bad;
}

LoadedModel with_template(const std::string& source) {
  LoadedModel out;
  out.path = "model";
  out.chat = std::make_unique<text::ChatTemplate>(source, "template", text::ChatTemplate::SpecialTexts{});
  return out;
}
std::string rendered(const LoadedModel& loaded, Thinking::Mode mode) {
  return render_prompt(loaded, {.messages = message_list({{"user", "Hi", ""}})}, mode);
}

TEST(RenderPrompt, ThinkingOnAndOff) {
  using Mode = Thinking::Mode;
  const std::string turn = "{% for m in messages %}[{{ m.content }}]{% endfor %}>";
  const LoadedModel plain = with_template(turn);
  EXPECT_EQ(rendered(plain, Mode::on), "[Hi]>") << "it knows nothing of thinking";
  EXPECT_EQ(rendered(plain, Mode::off), "[Hi]>");
  // R1: its template opens the thinking; that of January 2025 leaves it to the model.
  const LoadedModel opens = with_template(turn + "<think>\n{# </think> #}"),
                    leaves = with_template(turn + "{# </think> #}");
  EXPECT_EQ(rendered(opens, Mode::automatic), "[Hi]><think>\n");
  for (const LoadedModel* m : {&opens, &leaves}) {
    EXPECT_EQ(rendered(*m, Mode::on), "[Hi]><think>\n");
    EXPECT_EQ(rendered(*m, Mode::off), "[Hi]><think>\n\n</think>\n\n");
  }
  EXPECT_EQ(rendered(leaves, Mode::automatic), "[Hi]>");
  // Qwen3 and V3.1: a switch of their own.
  const LoadedModel qwen = with_template(turn + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}");
  EXPECT_EQ(rendered(qwen, Mode::off), "[Hi]><think>\n\n</think>\n\n");
  EXPECT_EQ(rendered(qwen, Mode::on), "[Hi]><think>\n");
  const LoadedModel v31 = with_template(turn + "{% if thinking %}<think>{% else %}</think>{% endif %}");
  EXPECT_EQ(rendered(v31, Mode::automatic), "[Hi]></think>");
  EXPECT_EQ(rendered(v31, Mode::off), "[Hi]></think>");
  EXPECT_EQ(rendered(v31, Mode::on), "[Hi]><think>");
  const LoadedModel base;
  EXPECT_THROW(rendered(base, Mode::automatic), Error);
}

TEST(ConversationTest, SavedAndReadAgain) {
  const std::vector<Message> messages = {
      {"system", "Be \"brief\".", ""}, {"user", "Hä?\n", ""}, {"assistant", "4", "2+2"}};
  EXPECT_EQ(parse_conversation(conversation_json(messages), "x"), messages);
  for (const char* bad :
       {"[]", "{}", R"({"messages":[{"role":"user"}]})", R"({"messages":[{"role":"tool","content":""}]})"})
    EXPECT_THROW(parse_conversation(bad, "x"), Error) << bad;
}

TEST(SamplingFields, NamesAndRanges) {
  engine::Sampling s;
  const auto set = [&](const char* key, Json value) { return set_sampling_field(s, key, value, 10); };
  EXPECT_TRUE(set("temperature", 0.5) && set("top_p", 0.9) && set("top_k", -1) && set("min_p", 0.1) &&
              set("repetition_penalty", 1.1) && set("frequency_penalty", -1) && set("presence_penalty", 2) &&
              set("min_tokens", 3) && set("logit_bias", {{"7", -100}}));
  EXPECT_EQ(s.top_k, 0);
  EXPECT_EQ(s.logit_bias, (std::vector<std::pair<int32_t, float>>{{7, -100.f}}));
  EXPECT_FALSE(set("n", 1));
  EXPECT_THROW(set("temperature", -1), Error);
  EXPECT_THROW(set("temperature", "hot"), Error);
  EXPECT_THROW(set("presence_penalty", 3), Error);
  EXPECT_THROW(set("logit_bias", {{"10", 1}}), Error);
  EXPECT_THROW(set("logit_bias", {{"x", 1}}), Error);
}

// A random model with a puzzle's vocabulary, which has tokens for the tags.
class AnsweringTest : public testing::Test {
 protected:
  AnsweringTest() {
    loaded_.task = tasks::make_task({});
    loaded_.tokenizer = &loaded_.task->tokenizer();
    model::ModelConfig config;
    config.model_type = "llama";
    config.vocab_size = loaded_.tokenizer->vocab_size();
    config.hidden_size = 16, config.intermediate_size = 16, config.num_hidden_layers = 1;
    config.num_attention_heads = config.num_key_value_heads = 1;
    config.max_position_embeddings = 200;
    loaded_.model = std::make_unique<model::Model>(config, model::ModelOptions{});
    loaded_.model->params().initialize(1);
    engine_ =
        make_answer_engine(loaded_, *machine_.backend, {.answers = 4, .tokens = 200}, kernels::Activations::f32, false);
  }
  AnswerRequest request(const std::string& prompt) const {
    AnswerRequest r;
    r.prompt = loaded_.tokenizer->encode(prompt);
    r.end_phrase = loaded_.tokenizer->encode("</think>");
    r.max_tokens = 40;
    r.sampling.logit_bias = {{loaded_.tokenizer->id("</think>"), -100.f}};
    return r;
  }
  std::vector<Answer> run(const AnswerRequest& r) {
    Answering answering(loaded_, *engine_);
    std::string streamed;
    const int64_t id = answering.add(r, [&](size_t i, const AnswerText::Delta& d) {
      if (i == 0 && d.part == AnswerText::State::content) streamed += d.text;
    });
    while (!answering.idle()) answering.step();
    std::vector<Answer> out = answering.take(id);
    EXPECT_EQ(streamed, out[0].content) << "what was shown is what is kept";
    return out;
  }

  Machine machine_{1};
  LoadedModel loaded_;
  std::unique_ptr<engine::Engine> engine_;
};

TEST_F(AnsweringTest, BudgetPutsTheEndPhraseIn) {
  AnswerRequest r = request("3 7 <think>");
  r.seeds = {1, 2, 3};
  r.sampling.frequency_penalty = 0.5f;  // counts through the phrase
  const auto free = run(r);
  r.think_budget = 10;
  const auto bounded = run(r);
  ASSERT_EQ(bounded.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const Answer& a = bounded[i];
    EXPECT_EQ(a.ids.size(), 40u);
    EXPECT_EQ(a.inserted_at, 10);
    EXPECT_EQ(a.inserted, 1);
    EXPECT_EQ(a.reasoning_tokens, 11);
    EXPECT_TRUE(std::isnan(a.logp[10]));
    EXPECT_TRUE(std::equal(a.ids.begin(), a.ids.begin() + 10, free[i].ids.begin()))
        << "the budget changes nothing before";
    EXPECT_TRUE(a.thought);
    EXPECT_FALSE(a.content.empty());
    EXPECT_EQ(free[i].content, "");
    // What follows is what the engine says to all that there is, with the same seed.
    engine::Request rest{
        .prompt = r.prompt, .seeds = {r.seeds[i]}, .sampling = r.sampling, .max_new_tokens = 29, .answered = 11};
    rest.prompt.insert(rest.prompt.end(), a.ids.begin(), a.ids.begin() + 11);
    const auto expected = engine::generate(*engine_, {rest})[0][0].tokens;
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), a.ids.begin() + 11));
  }
}

TEST_F(AnsweringTest, ContextFullAndCancelled) {
  AnswerRequest r = request("3 7");
  r.max_tokens = 198;
  EXPECT_EQ(run(r)[0].detail, StopDetail::context_full);
  r.max_tokens = 20;
  const auto whole = run(r);
  EXPECT_EQ(whole[0].detail, StopDetail::max_tokens);
  EXPECT_STREQ(whole[0].finish_reason(), "length");
  Answering answering(loaded_, *engine_);
  const int64_t id = answering.add(r);
  answering.step();
  answering.cancel_all();
  EXPECT_TRUE(answering.idle() && engine_->idle());
  EXPECT_EQ(answering.take(id)[0].detail, StopDetail::cancelled);
}

// generation_config.json may name an end token that the model does not have.
TEST_F(AnsweringTest, StopTokensBeyondTheVocabulary) {
  AnswerRequest r = request("3 7");
  r.stop_tokens = {2'000'000'000, -1};
  r.sampling.min_tokens = 5;
  EXPECT_EQ(run(r)[0].ids.size(), 40u);
}

TEST_F(AnsweringTest, OneAnswerStopsTheOthersGoOn) {
  AnswerRequest r = request("3 7");
  r.seeds = {1, 2, 3, 4};
  const auto whole = run(r);
  // The last word of the first answer: it ends there, or where the word came before.
  r.stop = {whole[0].content.substr(whole[0].content.rfind(' ') + 1)};
  const auto stopped = run(r);
  EXPECT_EQ(stopped[0].detail, StopDetail::stop_string);
  EXPECT_STREQ(stopped[0].finish_reason(), "stop");
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(whole[i].content.starts_with(stopped[i].content));
    EXPECT_EQ(stopped[i].content.find(r.stop[0]), std::string::npos);
  }
}

}  // namespace
}  // namespace ponder::app
