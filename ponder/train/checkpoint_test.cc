#include "ponder/train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/log.h"
#include "ponder/model/weights.h"

namespace ponder::train {
namespace {

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() {
    set_log_quiet(true);
    model_.params().initialize(1);
    reference_.params().initialize(2);
    moments_ = Buffer(64 * sizeof(float));
    for (int i = 0; i < 64; ++i) moments_.f32()[i] = static_cast<float>(i);
  }

  static model::ModelConfig shape() {
    model::ModelConfig c;
    c.vocab_size = 8, c.hidden_size = 16, c.intermediate_size = 16, c.num_hidden_layers = 1;
    c.num_attention_heads = c.num_key_value_heads = 1, c.model_type = "llama", c.max_position_embeddings = 64;
    return c;
  }

  CheckpointContents contents(int64_t step) {
    return {.model = model_,
            .optimizer = {{"adam.m.x", make_tensor(moments_.data(), {64}), DType::f32}},
            .reference = &reference_,
            .state = {.step = step,
                      .stage = "rl",
                      .stage_step = step - 1,
                      .recipe_hash = "h",
                      .version = "v",
                      .counters = {{"tokens", 0.1}}},
            .add_files = [](const std::string& folder) {
              write_file_atomic(join_path(folder, "task.toml"), "name = \"x\"\n");
            }};
  }

  // In memory where the system has such a folder: thousands of fsyncs would otherwise wait for a disk.
  static int in_memory() { return is_folder("/dev/shm") ? setenv("TMPDIR", "/dev/shm", 0) : 0; }

  int ready_ = in_memory();
  TempFolder run_;
  model::Model model_{shape(), {}}, reference_{shape(), {}};
  Buffer moments_;
};

TEST_F(CheckpointTest, HoldsEverything) {
  CheckpointStore store(run_.path(), 2);
  EXPECT_EQ(store.newest(), std::nullopt);
  const std::string folder = store.save(contents(7), {.stage_end = true});
  EXPECT_EQ(store.newest(), folder);
  EXPECT_EQ(read_pointer(run_.file("LATEST")), "checkpoints/step-000007");
  EXPECT_EQ(read_pointer(run_.file("stages/rl")), "checkpoints/step-000007");
  EXPECT_FALSE(path_exists(run_.file("BEST")));

  const CheckpointState state = read_state(folder);
  EXPECT_EQ(state.step, 7);
  EXPECT_EQ(state.stage, "rl");
  EXPECT_EQ(state.stage_step, 6);
  EXPECT_EQ(state.counters.at("tokens"), 0.1);  // to the bit

  const auto same = [](const model::Model& a, const model::Model& b) {
    auto other = b.params().list().begin();
    for (const ops::Param& p : a.params().list())
      if (std::memcmp(p.value.data, (other++)->value.data, static_cast<size_t>(p.value.size()) * sizeof(float)) != 0)
        return false;
    return true;
  };
  EXPECT_TRUE(same(*model::load_model(folder, {}), model_));
  EXPECT_TRUE(same(*model::load_model(join_path(folder, "reference"), {}), reference_));
  const auto optimizer = Checkpoint::open(join_path(folder, "optimizer.safetensors"));
  std::vector<float> read(64);
  read_f32(optimizer.at("adam.m.x"), read.data());
  EXPECT_EQ(std::memcmp(read.data(), moments_.data(), 64 * sizeof(float)), 0);
}

TEST_F(CheckpointTest, KeepsTheLastTheBestAndStageEnds) {
  CheckpointStore store(run_.path(), 2);
  store.save(contents(1), {.stage_end = true});
  store.save(contents(2), {.best = true});
  for (int64_t step = 3; step <= 6; ++step) store.save(contents(step), {});
  EXPECT_EQ(list_folder(run_.file("checkpoints")),
            (std::vector<std::string>{"step-000001", "step-000002", "step-000005", "step-000006"}));
}

// Any one byte of any file changed, or the file cut short: the checkpoint before is used; without one, an error.
TEST_F(CheckpointTest, DamageIsFoundAndPassedOver) {
  CheckpointStore store(run_.path(), 5);
  const std::string first = store.save(contents(1), {}), second = store.save(contents(2), {});
  std::vector<std::string> files = {"reference/model.safetensors", "reference/config.json"};
  for (const std::string& name : list_folder(second))
    if (!is_folder(join_path(second, name))) files.push_back(name);
  ASSERT_GE(files.size(), 8u);
  for (const std::string& name : files) {
    const std::string path = join_path(second, name), whole = read_file(path);
    for (const size_t at : {size_t{0}, whole.size() / 2, whole.size() - 2}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 4);
      write_file_atomic(path, damaged);
      EXPECT_EQ(store.newest(), first) << name << " at " << at;
    }
    write_file_atomic(path, whole.substr(0, whole.size() / 2));
    EXPECT_EQ(store.newest(), first) << name;
    remove_file(path);
    EXPECT_EQ(store.newest(), first) << name;
    write_file_atomic(path, whole);
    EXPECT_EQ(store.newest(), second) << name;
  }
  remove_file(join_path(first, "state.json"));
  remove_file(join_path(second, "manifest.json"));
  try {
    store.newest();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
  }
  // What an attempt writes where a damaged one stood is whole again.
  EXPECT_EQ(store.save(contents(2), {}), second);
  EXPECT_EQ(store.newest(), second);
}

// Every system call of a save fails once, or from then on, or ends the process: a whole checkpoint is left, the one
// before or the new one, and the next save works.
TEST_F(CheckpointTest, EveryFaultLeavesAWholeCheckpoint) {
  using Kind = FileFault::Kind;
  {
    CheckpointStore store(run_.path(), 2);
    store.save(contents(1), {});
    set_file_fault({.kind = Kind::none});
    store.save(contents(2), {});
  }
  const int64_t calls = file_calls();
  clear_file_fault();
  ASSERT_GT(calls, 30);
  int64_t step = 2;
  for (const Kind kind : {Kind::enospc, Kind::eio, Kind::short_write, Kind::exit_before, Kind::exit_after}) {
    for (const bool sticky : {false, true}) {
      const bool dies = kind == Kind::exit_before || kind == Kind::exit_after;
      if (sticky && (dies || kind == Kind::short_write)) continue;
      for (int64_t at = 1; at <= calls; at += kind == Kind::enospc ? 1 : 3) {
        const CheckpointStore before(run_.path(), 2);
        const auto save = [&] {
          set_file_fault({.kind = kind, .at = at, .sticky = sticky});
          try {
            CheckpointStore(run_.path(), 2).save(contents(step + 1), {.best = true, .stage_end = true});
          } catch (const Error& e) {
            EXPECT_TRUE(e.code() == Exit::resources || e.code() == Exit::data || e.code() == Exit::failure) << e.what();
            if (kind == Kind::enospc) {
              EXPECT_NE(e.code(), Exit::failure) << e.what();
            }
          }
          clear_file_fault();
        };
        if (dies) {
          const pid_t child = fork();
          if (child == 0) {
            save();
            _exit(0);
          }
          waitpid(child, nullptr, 0);
        } else {
          save();
        }
        const auto newest = before.newest();
        ASSERT_TRUE(newest) << "call " << at;
        const int64_t found = read_state(*newest).step;
        ASSERT_TRUE(found == step || found == step + 1) << "call " << at;
        const std::string latest = read_pointer(run_.file("LATEST")).value_or("");
        EXPECT_TRUE(path_exists(run_.file(latest))) << "call " << at << ": " << latest;
        if (const auto best = read_pointer(run_.file("BEST"))) {
          EXPECT_TRUE(path_exists(run_.file(*best))) << *best;
        }
        step = found;
      }
    }
  }
  CheckpointStore store(run_.path(), 2);
  store.save(contents(step + 1), {});
  EXPECT_EQ(read_state(*store.newest()).step, step + 1);
}

// A crash while a pointer is written leaves its torn copy; JSON has no infinity.
TEST_F(CheckpointTest, LeftoversAndInfinitiesDoNotMatter) {
  CheckpointStore store(run_.path(), std::numeric_limits<int64_t>::max());
  CheckpointContents c = contents(1);
  c.state.counters["best"] = -INFINITY;
  c.state.counters["seconds"] = 2;
  store.save(c, {.stage_end = true});
  write_file_atomic(run_.file("stages/base.tmp123"), "");
  store.save(contents(2), {});
  const auto counters = read_state(join_path(run_.path(), "checkpoints/step-000001")).counters;
  EXPECT_EQ(counters.count("best"), 0u);
  EXPECT_EQ(counters.at("seconds"), 2);
  const auto ends = stage_ends(run_.path());
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(ends[0].second, "checkpoints/step-000001");
}

}  // namespace
}  // namespace ponder::train
