#include "ponder/base/config.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "ponder/base/error.h"
#include "ponder/base/file.h"

namespace ponder {
namespace {

struct Optim {
  double learning_rate = 3e-4;
  std::string lr_scheduler_type = "cosine";
  int warmup_steps = 0;
  float max_grad_norm = 1.0f;
  std::vector<double> betas = {0.9, 0.999};
  template <class V>
  void fields(V& v) {
    v.field("learning_rate", learning_rate,
            {.help = "peak rate of AdamW", .synonyms = {"lr", "optim.lr", "actor.adam.lr"}, .min = 0, .max = 1});
    v.field("lr_scheduler_type", lr_scheduler_type, {.choices = {"constant", "linear", "cosine", "wsd"}});
    v.field("warmup_steps", warmup_steps, {.min = 0});
    v.field("max_grad_norm", max_grad_norm);
    v.field("betas", betas, {.min = 0, .max = 1});
  }
};

struct Mixture {
  std::vector<std::string> files;
  int64_t tokens = 1000;
  template <class V>
  void fields(V& v) {
    v.field("files", files);
    v.field("tokens", tokens);
  }
};

struct Data {
  Mixture mixture;
  bool packing = false;
  std::string path;
  template <class V>
  void fields(V& v) {
    v.field("packing", packing);
    v.field("path", path);
    v.section("mixture", mixture);
  }
};

struct Rl {
  double beta = 0;
  double epsilon = 0.2;
  std::optional<double> epsilon_high, delta = 3.0;
  std::optional<int64_t> max_kl_steps;
  std::optional<std::string> chat_template_path;
  int num_generations = 8;
  std::string loss_type = "dapo", scale_rewards = "group";
  uint64_t seed = 42;
  template <class V>
  void fields(V& v) {
    v.field("beta", beta, {.synonyms = {"kl_loss_coef"}});
    v.field("epsilon", epsilon, {.synonyms = {"clip_ratio"}});
    v.field("epsilon_high", epsilon_high, {.synonyms = {"clip_ratio_high", "clip_higher"}});
    v.field("delta", delta);
    v.field("max_kl_steps", max_kl_steps);
    v.field("chat_template_path", chat_template_path);
    v.field("num_generations", num_generations, {.synonyms = {"rollout.n", "group_size"}});
    v.field("loss_type", loss_type,
            {.synonyms = {"loss_agg_mode"}, .choices = {"dapo", "grpo"}, .value_synonyms = {{"token-mean", "dapo"}}});
    v.field("scale_rewards", scale_rewards,
            {.synonyms = {"norm_adv_by_std_in_grpo"},
             .choices = {"group", "batch", "none"},
             .value_synonyms = {{"false", "none"}, {"true", "group"}}});
    v.field("seed", seed);
    v.ignored({"use_vllm", "vllm_*"}, "rollout and trainer are one engine");
  }
};

struct Reward {
  std::string name = "accuracy";
  double weight = 1;
  template <class V>
  void fields(V& v) {
    v.field("name", name);
    v.field("weight", weight);
  }
};

struct RunConfig {
  std::string type = "rl", output_dir = "runs";
  Optim optim;
  Data data;
  Rl rl;
  std::vector<Reward> rewards = {{"accuracy", 1.0}};
  template <class V>
  void fields(V& v) {
    v.field("type", type);
    v.field("output_dir", output_dir, {.identity = false});
    v.section("optim", optim);
    v.section("data", data);
    v.section("rl", rl);
    v.list("reward", rewards);
  }
};

struct Pretrain {
  std::string type;
  Optim optim;
  template <class V>
  void fields(V& v) {
    v.field("type", type);
    v.section("optim", optim);
  }
};

RunConfig bound(std::string_view text, const std::vector<std::string>& sets = {}, Origins* origins = nullptr,
                std::vector<std::string>* notes = nullptr) {
  Recipe recipe = Recipe::parse(text, "a.toml");
  for (const std::string& set : sets) recipe.set(set);
  RunConfig run;
  Origins found = recipe.bind(run);
  if (origins) *origins = found;
  if (notes) *notes = recipe.notes();
  return run;
}

std::string error_of(std::string_view text, const std::vector<std::string>& sets = {}, Exit code = Exit::data) {
  try {
    bound(text, sets);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  return "no error";
}

TEST(Config, ValuesOfEveryType) {
  const RunConfig run = bound(R"(
type = "rl"
[optim]
learning_rate = 1e-3
warmup_steps = 1e2
max_grad_norm = 2
betas = [0.9, 0.95]
[data]
packing = true
path = "x\"\u00e9\ty"
mixture = { files = ["a", "b"], tokens = 1_000_000_000_000 }
[rl]
delta = "none"
epsilon_high = 0.28
max_kl_steps = 7
chat_template_path = "t.jinja"
seed = "18446744073709551615"
[[reward]]
name = "format"
[[reward]]
weight = 0.5
)");
  EXPECT_EQ(run.optim.learning_rate, 1e-3);
  EXPECT_EQ(run.optim.warmup_steps, 100);
  EXPECT_EQ(run.optim.max_grad_norm, 2.0f);
  EXPECT_EQ(run.optim.betas, (std::vector<double>{0.9, 0.95}));
  EXPECT_TRUE(run.data.packing);
  EXPECT_EQ(run.data.path, "x\"\u00e9\ty");
  EXPECT_EQ(run.data.mixture.files, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(run.data.mixture.tokens, 1000000000000);
  EXPECT_FALSE(run.rl.delta);
  EXPECT_EQ(run.rl.epsilon_high, 0.28);
  EXPECT_EQ(run.rl.max_kl_steps, 7);
  EXPECT_EQ(run.rl.chat_template_path, "t.jinja");
  EXPECT_EQ(run.rl.seed, 18446744073709551615u);
  ASSERT_EQ(run.rewards.size(), 2u);
  EXPECT_EQ(run.rewards[0].name, "format");
  EXPECT_EQ(run.rewards[1].weight, 0.5);
}

TEST(Config, FlatListAtTheTopAndSynonyms) {
  std::vector<std::string> notes;
  const RunConfig run = bound(
      "beta = 0.04\nclip_ratio_high = 0.3\nactor_rollout_ref.rollout.n = 16\nuse_vllm = true\n"
      "vllm_mode = 'server'\nloss_agg_mode = 'token-mean'\n[rl]\nnorm_adv_by_std_in_grpo = false\n",
      {}, nullptr, &notes);
  EXPECT_EQ(run.rl.beta, 0.04);
  EXPECT_EQ(run.rl.epsilon_high, 0.3);
  EXPECT_EQ(run.rl.num_generations, 16);
  EXPECT_EQ(run.rl.scale_rewards, "none");
  std::sort(notes.begin(), notes.end());
  EXPECT_EQ(notes, (std::vector<std::string>{"actor_rollout_ref.rollout.n -> num_generations",
                                             "clip_ratio_high -> epsilon_high",
                                             "loss_agg_mode = token-mean -> loss_type = dapo",
                                             "rl.norm_adv_by_std_in_grpo = false -> scale_rewards = none",
                                             "use_vllm does nothing here: rollout and trainer are one engine",
                                             "vllm_mode does nothing here: rollout and trainer are one engine"}));
}

TEST(Config, Overrides) {
  const RunConfig run =
      bound("[optim]\nlearning_rate = 1e-3\n",
            {"lr=1e-4", "rl.beta=0.001", "data.packing=True", "delta=None", "data.path=5", "files=a,b", "betas=0.8,0.9",
             "loss_type=grpo", "reward.0.weight=2", "reward.accuracy.name=\"format\"", "scale_rewards=none",
             "output_dir=/tmp/x y", "epsilon=.3", "epsilon=0.25"});
  EXPECT_EQ(run.optim.learning_rate, 1e-4);
  EXPECT_EQ(run.rl.beta, 0.001);
  EXPECT_TRUE(run.data.packing);
  EXPECT_FALSE(run.rl.delta);
  EXPECT_EQ(run.data.path, "5");
  EXPECT_EQ(run.data.mixture.files, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(run.optim.betas, (std::vector<double>{0.8, 0.9}));
  EXPECT_EQ(run.rl.loss_type, "grpo");
  EXPECT_EQ(run.rewards[0].weight, 2);
  EXPECT_EQ(run.rewards[0].name, "format");
  EXPECT_EQ(run.rl.scale_rewards, "none");
  EXPECT_EQ(run.output_dir, "/tmp/x y");
  EXPECT_EQ(run.rl.epsilon, 0.25);
  EXPECT_EQ(bound("", {"reward=[]"}).rewards.size(), 0u);
  EXPECT_EQ(bound("", {"reward=[{name='x'},{weight=3}]"}).rewards[1].weight, 3);
}

TEST(Config, ErrorsNameThePlaceAndTheRemedy) {
  EXPECT_EQ(error_of("[optim]\nlearnin_rate = 1\n"),
            "a.toml:2: unknown key `optim.learnin_rate`; did you mean `optim.learning_rate`?");
  EXPECT_EQ(error_of("[optm]\nlearning_rate = 1\n"),
            "a.toml:2: unknown key `optm.learning_rate`; did you mean `optim.learning_rate`?");
  EXPECT_EQ(error_of("[rl]\nlearning_rate = 1\n"),
            "a.toml:2: unknown key `rl.learning_rate`; did you mean `optim.learning_rate`?");
  EXPECT_EQ(error_of("[rl]\nzzz = 1\n"), "a.toml:2: unknown key `rl.zzz`; `ponder recipe show` lists all fields");
  EXPECT_EQ(error_of("\n[optin]\n"), "a.toml:2: unknown key `optin`; did you mean `optim`?");
  EXPECT_EQ(error_of("", {"betta=1"}, Exit::usage), "--set betta=1: unknown key `betta`; did you mean `beta`?");
  EXPECT_EQ(error_of("lr = 'fast'\n"), "a.toml:1: optim.learning_rate: expected a number, got \"fast\"");
  EXPECT_EQ(error_of("lr = 2\n"), "a.toml:1: optim.learning_rate: 2.0 is out of range (0 .. 1)");
  EXPECT_EQ(error_of("betas = [2.0]\n"), "a.toml:1: optim.betas: 2.0 is out of range (0 .. 1)");
  EXPECT_EQ(error_of("warmup_steps = 1.5\n"), "a.toml:1: optim.warmup_steps: expected a whole number, got 1.5");
  EXPECT_EQ(error_of("warmup_steps = 3000000000\n"),
            "a.toml:1: optim.warmup_steps: 3000000000 is too large for this field");
  EXPECT_EQ(
      error_of("lr_scheduler_type = 'cosin'\n"),
      "a.toml:1: optim.lr_scheduler_type: \"cosin\" is not one of constant, linear, cosine, wsd; did you mean cosine?");
  EXPECT_EQ(error_of("lr = 0.1\n[optim]\nlearning_rate = 0.2\n"),
            "a.toml:3: `optim.learning_rate` is set a second time (the first is `lr` at a.toml:1)");
  EXPECT_EQ(error_of("seed = -1\n"), "a.toml:1: rl.seed: expected a whole number >= 0, got -1");
  EXPECT_EQ(error_of("lr = nan\n"), "a.toml:1: optim.learning_rate: nan is not a value");
  EXPECT_EQ(error_of("[reward]\nname = 'x'\n"), "a.toml:2: `reward` is a list of tables: write [[reward]]");
  EXPECT_EQ(error_of("reward = 3\n"), "a.toml:1: `reward` is a list of tables: write [[reward]]");
  EXPECT_EQ(error_of("optim = 3\n"), "a.toml:1: `optim` is a section, not a value");
  EXPECT_EQ(error_of("[[reward]]\nwieght = 3\n"), "a.toml:2: unknown key `wieght`; did you mean `weight`?");
  EXPECT_EQ(error_of("", {"reward.7.weight=3"}, Exit::usage),
            "--set reward.7.weight=3: `reward` has 1 elements; write reward.NUMBER.field, or their name instead of the "
            "number");
  EXPECT_EQ(error_of("", {"beta"}, Exit::usage),
            "--set beta: expected field=value, for example --set learning_rate=1e-4");
  EXPECT_TRUE(error_of("a = \n").starts_with("a.toml:1:5: not valid TOML: ")) << error_of("a = \n");
  EXPECT_TRUE(error_of("lr = 1\nlr = 2\n").starts_with("a.toml:2:6: not valid TOML: ")) << error_of("lr = 1\nlr = 2\n");
  EXPECT_EQ(error_of("extends = 'nowhere.toml'\n"), "a.toml:1: `extends` names ./nowhere.toml, which does not exist");
}

TEST(Config, DeepKeysAreRefusedNotRecursedInto) {
  std::string deep = "a";
  for (int i = 0; i < 50000; ++i) deep += ".a";
  EXPECT_TRUE(error_of(deep + " = 1\n").ends_with("a key with more than 32 parts"));
  EXPECT_TRUE(error_of("[" + deep + "]\n").ends_with("a key with more than 32 parts"));
  EXPECT_TRUE(error_of("x = { " + deep + " = 1 }\n").ends_with("a key with more than 32 parts"));
  EXPECT_TRUE(error_of("x = " + std::string(5000, '[') + "\n").find("not valid TOML") != std::string::npos);
  EXPECT_EQ(bound("[data]\npath = '''" + std::string(200, '.') + "''''\n").data.path, std::string(200, '.') + "'");
  EXPECT_EQ(bound("", {"data.path=" + deep}).data.path, deep);
}

TEST(Config, ExtendsInheritsAndCyclesAreErrors) {
  TempFolder folder;
  make_folders(folder.file("sub"));
  write_file_atomic(folder.file("base.toml"),
                    "[optim]\nlr = 0.5\nwarmup_steps = 3\n[[reward]]\nname='p'\n[[reward]]\n");
  write_file_atomic(folder.file("sub/child.toml"),
                    "extends = '../base.toml'\n[optim]\nlearning_rate = 0.25\n[[reward]]\nname = 'c'\n");
  Recipe recipe = Recipe::load(folder.file("sub/child.toml"));
  RunConfig run;
  const Origins origins = recipe.bind(run);
  EXPECT_EQ(run.optim.learning_rate, 0.25);
  EXPECT_EQ(run.optim.warmup_steps, 3);
  ASSERT_EQ(run.rewards.size(), 1u);
  EXPECT_EQ(run.rewards[0].name, "c");
  EXPECT_EQ(origins.at("optim.learning_rate").source, "recipe child.toml:3");
  EXPECT_EQ(origins.at("optim.warmup_steps").source, "recipe base.toml:3");
  EXPECT_EQ(origins.at("rl.beta").source, "default");
  EXPECT_EQ(recipe.files().size(), 2u);

  write_file_atomic(folder.file("x.toml"), "extends = 'y.toml'\n");
  write_file_atomic(folder.file("y.toml"), "extends = 'x.toml'\n");
  try {
    Recipe::load(folder.file("x.toml"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("`extends` goes round in a circle"), std::string::npos) << e.what();
  }
  EXPECT_THROW(Recipe::load(folder.file("missing.toml")), Error);
}

TEST(Config, EnvironmentStandsBetweenRecipeAndCommandLine) {
  setenv("PONDER_LEARNING_RATE", "0.125", 1);
  setenv("PONDER_RL_BETA", "0.5", 1);
  setenv("PONDER_EPSILON", "0.1", 1);
  setenv("PONDER_WARMUP_STEP", "1", 1);
  Recipe recipe = Recipe::parse("lr = 0.5\n");
  recipe.read_environment();
  recipe.set("epsilon=0.3");
  RunConfig run;
  const Origins origins = recipe.bind(run);
  for (const char* name : {"PONDER_LEARNING_RATE", "PONDER_RL_BETA", "PONDER_EPSILON", "PONDER_WARMUP_STEP"})
    unsetenv(name);
  EXPECT_EQ(run.optim.learning_rate, 0.125);
  EXPECT_EQ(run.rl.beta, 0.5);
  EXPECT_EQ(run.rl.epsilon, 0.3);
  EXPECT_EQ(origins.at("optim.learning_rate").source, "env PONDER_LEARNING_RATE");
  EXPECT_EQ(origins.at("rl.epsilon").source, "--set");
  const auto& notes = recipe.notes();
  EXPECT_EQ(
      std::count(notes.begin(), notes.end(), "PONDER_WARMUP_STEP matches no field; did you mean PONDER_WARMUP_STEPS?"),
      1);
}

TEST(Config, StagesInheritAndOverrideTheTop) {
  const char* text =
      "name = 'whole'\nwarmup_steps = 9\n[optim]\nlr = 0.5\n[rl]\nbeta = 0.25\n"
      "[[stage]]\nname = 'warm'\ntype = 'pretrain'\n"
      "[[stage]]\nname = 'hot'\ntype = 'rl'\nlearning_rate = 0.125\n[stage.rl]\nepsilon = 0.5\n";
  Recipe recipe = Recipe::parse(text, "p.toml");
  recipe.set("max_grad_norm=3");
  recipe.set("stage.warm.warmup_steps=1");
  recipe.set("num_generations=4");
  EXPECT_EQ(recipe.peek("name"), "whole");
  std::vector<Recipe> stages = recipe.stages();
  ASSERT_EQ(stages.size(), 2u);
  EXPECT_EQ(stages[0].peek("type"), "pretrain");
  EXPECT_EQ(stages[1].peek("name"), "hot");
  Pretrain first;
  stages[0].bind(first);
  RunConfig second;
  stages[1].bind(second);
  EXPECT_EQ(first.optim.learning_rate, 0.5);
  EXPECT_EQ(first.optim.warmup_steps, 1);
  EXPECT_EQ(first.optim.max_grad_norm, 3);
  EXPECT_EQ(second.optim.learning_rate, 0.125);
  EXPECT_EQ(second.optim.warmup_steps, 9);
  EXPECT_EQ(second.optim.max_grad_norm, 3);
  EXPECT_EQ(second.rl.beta, 0.25);
  EXPECT_EQ(second.rl.epsilon, 0.5);
  EXPECT_EQ(second.rl.num_generations, 4);
  EXPECT_EQ(second.type, "rl");

  const auto bind_all = [](Recipe& r) {
    for (Recipe& stage : r.stages()) {
      Pretrain p;
      RunConfig q;
      if (stage.peek("type") == "rl")
        stage.bind(q);
      else
        stage.bind(p);
    }
  };
  const auto message = [&](Recipe r, const char* set) {
    if (set) r.set(set);
    try {
      bind_all(r);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const std::string stage_list = "[[stage]]\ntype='pretrain'\n[[stage]]\ntype='rl'\n";
  EXPECT_EQ(message(Recipe::parse(stage_list), "bata=1"), "--set bata=1: unknown key `bata`; did you mean `beta`?");
  EXPECT_EQ(message(Recipe::parse("[rl]\nbata=1\n" + stage_list), nullptr),
            "<text>:2: unknown key `rl.bata`; did you mean `rl.beta`?");
  EXPECT_EQ(message(Recipe::parse("[rl]\nbeta=1\n" + stage_list), nullptr), "no error");
  EXPECT_EQ(message(Recipe::parse(stage_list), "stage.7.beta=1"),
            "--set stage.7.beta=1: no such stage; there are 0, 1");
  EXPECT_NE(message(Recipe::parse("[[stage]]\ntype='pretrain'\nbeta=1\n"), nullptr).find("<text>:3: unknown key"),
            std::string::npos);
}

TEST(Config, ResolvedTextBindsToTheSameValuesAndHash) {
  Origins origins;
  RunConfig run = bound(
      "lr = 1.1e-6\nmax_grad_norm = 0.1\n[rl]\nseed = '18446744073709551615'\ndelta = 'none'\n"
      "[data]\npath = \"quote\\\" slash\\\\ \\u0001 é\"\n[[reward]]\nname = 'a'\n[[reward]]\nname = 'b'\nweight = "
      "1e300\n",
      {"beta=0.1"}, &origins);
  run.rl.epsilon_high = run.rl.epsilon;
  const std::string text = resolved_toml(run, &origins);
  RunConfig again = bound(text);
  EXPECT_EQ(resolved_toml(again), resolved_toml(run));
  EXPECT_EQ(config_hash(flat_values(again)), config_hash(flat_values(run)));
  EXPECT_EQ(config_diff(flat_values_of_toml(text, "x"), flat_values(run)), std::vector<std::string>{});
  EXPECT_EQ(again.optim.max_grad_norm, 0.1f);
  EXPECT_EQ(again.data.path, run.data.path);
  EXPECT_NE(text.find("learning_rate = 1.1e-06       # recipe a.toml:1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  # --set\n"), std::string::npos) << text;
  EXPECT_NE(text.find("epsilon_high = 0.2"), std::string::npos) << text;
  EXPECT_NE(text.find("  # derived\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n[data.mixture]\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\n[[reward]]\n"), std::string::npos) << text;

  again.output_dir = "elsewhere";
  EXPECT_EQ(config_hash(flat_values(again)), config_hash(flat_values(run)));
  again.rewards.clear();
  EXPECT_EQ(bound(resolved_toml(again)).rewards.size(), 0u);
  again.rl.beta = 0.2;
  EXPECT_NE(config_hash(flat_values(again)), config_hash(flat_values(run)));
  EXPECT_EQ(config_diff(flat_values(run), flat_values(again)),
            (std::vector<std::string>{"reward.0.name: \"a\" -> (absent)", "reward.0.weight: 1.0 -> (absent)",
                                      "reward.1.name: \"b\" -> (absent)", "reward.1.weight: 1e+300 -> (absent)",
                                      "rl.beta: 0.1 -> 0.2"}));
}

TEST(Config, HelpListsEveryField) {
  RunConfig run;
  const std::vector<FieldHelp> rows = field_help(run);
  const auto at =
      std::find_if(rows.begin(), rows.end(), [](const FieldHelp& r) { return r.path == "optim.learning_rate"; });
  ASSERT_NE(at, rows.end());
  EXPECT_EQ(at->value, "0.0003");
  EXPECT_EQ(at->type, "number");
  EXPECT_EQ(at->range, "0 .. 1");
  EXPECT_EQ(at->help, "peak rate of AdamW");
  EXPECT_EQ(at->synonyms.size(), 3u);
  EXPECT_EQ(rows.back().path, "reward[].weight");
  EXPECT_NE(format_help(rows).find("rl.loss_type = \"dapo\"\n    [dapo, grpo]  also: loss_agg_mode\n"),
            std::string::npos)
      << format_help(rows);
}

TEST(Config, NearestName) {
  const std::vector<std::string> names = {"learning_rate", "beta", "temperature"};
  EXPECT_EQ(nearest_name("temprature", names), "temperature");
  EXPECT_EQ(nearest_name("learning-rate", names), "learning_rate");
  EXPECT_EQ(nearest_name("bta", names), "beta");
  EXPECT_EQ(nearest_name("ebta", names), "beta");
  EXPECT_EQ(nearest_name("quux", names), "");
  EXPECT_EQ(nearest_name("", names), "");
}

}  // namespace
}  // namespace ponder
