// A run that is killed goes on to the same bits: every tensor of the last checkpoint (weights, router biases, moments,
// reference model) equals that of an undisturbed run. Uses the program itself, as a user would.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "ponder/base/file.h"
#include "ponder/base/rng.h"
#include "ponder/tensor/tensor_file.h"

namespace ponder {
namespace {

// MoE, MTP, balance loss, a refreshed reference, dynamic sampling, several steps per rollout, a task of a stage's own: all that
// a checkpoint holds.
constexpr const char* kRecipe = R"(
[run]
run_name = "resume"
seed = 7
save_total_limit = 2
[model]
model_type = "deepseek_v3"
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 2
num_attention_heads = 2
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 16
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
moe_intermediate_size = 16
first_k_dense_replace = 1
num_nextn_predict_layers = 1
tie_word_embeddings = true
max_position_embeddings = 512
[task]
name = "countdown"
[eval]
problems = 0
eval_on_start = false

[[stage]]
name = "base"
type = "pretrain"
tokens = 8000
batch_tokens = 400
learning_rate = 4e-3
router_bias_update_speed = 0.002
router_aux_loss_coef = 0.001
mtp_loss_weight = 0.3
save_steps = 3

[[stage]]
name = "reason"
type = "rl"
max_steps = 8
num_prompts_per_step = 3
num_generations = 4
steps_per_generation = 2
max_completion_length = 40
dynamic_sampling = true
max_num_gen_batches = 2
beta = 0.01
sync_ref_model = true
ref_model_sync_steps = 3
ref_model_mixup_alpha = 0.5
learning_rate = 1e-3
router_bias_update_speed = 0.001
save_steps = 2
[stage.task]
numbers_to = 9
[[stage.reward]]
name = "random"
)";

struct Child {
  pid_t pid;
  // >= 0: exit status, < 0: minus the signal
  int wait() const {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  bool running() const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
  }
};

Child start(const std::string& folder, const std::map<std::string, std::string>& environment = {},
            const std::vector<std::string>& more = {}) {
  const pid_t pid = fork();
  if (pid == 0) {
    for (const auto& [key, value] : environment) setenv(key.c_str(), value.c_str(), 1);
    if (chdir(folder.c_str()) != 0) _exit(99);
    if (!freopen("output.txt", "a", stdout) || !freopen("output.txt", "a", stderr)) _exit(98);
    std::vector<const char*> args = {PONDER_BINARY, "pipeline", "recipe.toml"};
    for (const std::string& m : more) args.push_back(m.c_str());
    args.push_back(nullptr);
    execv(PONDER_BINARY, const_cast<char* const*>(args.data()));
    _exit(97);
  }
  return {pid};
}

struct Workplace {
  TempFolder folder;
  Workplace() { write_file_atomic(folder.file("recipe.toml"), kRecipe); }
  std::string output() const { return read_file(folder.file("output.txt")); }
  // The newest run folder with a checkpoint: an attempt that died before its first one may leave a folder without, and one
  // that was killed between its last checkpoint and its end is finished.
  std::string run() const {
    std::string newest;
    std::filesystem::file_time_type time{};
    for (const auto& e : std::filesystem::directory_iterator(folder.file("runs"))) {
      std::error_code absent;
      const auto written = std::filesystem::last_write_time(e.path() / "LATEST", absent);
      if (!absent && (newest.empty() || written > time)) newest = e.path(), time = written;
    }
    EXPECT_FALSE(newest.empty()) << output();
    return newest;
  }
  // Grows with every step.
  uintmax_t metrics_bytes() const {
    uintmax_t bytes = 0;
    std::error_code absent;
    for (const auto& e : std::filesystem::directory_iterator(folder.file("runs"), absent)) {
      const uintmax_t size = std::filesystem::file_size(e.path() / "metrics.jsonl", absent);
      if (!absent) bytes += size;
    }
    return bytes;
  }
  // Every tensor file of the newest checkpoint, byte for byte.
  std::map<std::string, std::string> tensors() const {
    std::map<std::string, std::string> files;
    const auto latest = read_pointer(run() + "/LATEST");
    EXPECT_TRUE(latest.has_value());
    if (!latest) return files;
    for (const auto& e : std::filesystem::recursive_directory_iterator(run() + "/" + *latest))
      if (e.path().extension() == ".safetensors")
        files[std::filesystem::relative(e.path(), run())] = read_file(e.path());
    return files;
  }
};

const std::map<std::string, std::string>& undisturbed() {
  static const auto tensors = [] {
    Workplace run;
    EXPECT_EQ(start(run.folder.path()).wait(), 0) << run.output();
    return run.tensors();
  }();
  return tensors;
}

void expect_undisturbed(const Workplace& run) {
  const auto got = run.tensors();
  ASSERT_FALSE(got.empty());
  ASSERT_GE(undisturbed().size(), 3u) << "weights, moments and the reference";
  EXPECT_EQ(got.size(), undisturbed().size());
  for (const auto& [name, bytes] : undisturbed()) {
    ASSERT_TRUE(got.count(name)) << name << " is not in " << run.run() << "\n" << run.output();
    EXPECT_TRUE(got.at(name) == bytes) << name << " differs";
  }
}

// kill -9 at random moments, again and again until the run gets through.
TEST(Resume, KilledAtRandom) {
  CounterRng rng(1, Stream::test, 0);
  undisturbed();
  int kills = 0;
  for (int round = 0; round < 4; ++round) {
    Workplace run;
    for (int attempt = 0;; ++attempt) {
      ASSERT_LT(attempt, 300) << run.output();
      const Child child = start(run.folder.path());
      usleep(static_cast<useconds_t>(20'000 + rng.below(400'000)));
      kill(child.pid, SIGKILL);
      const int status = child.wait();
      if (status == 0) break;
      ASSERT_EQ(status, -SIGKILL) << run.output();
      ++kills;
    }
    expect_undisturbed(run);
  }
  std::printf("%d kills\n", kills);
}

// A crash before or after the k-th file call, 60 values of k over the whole run (most of its calls write checkpoints).
TEST(Resume, CrashedAtFileCalls) {
  CounterRng rng(2, Stream::test, 0);
  undisturbed();
  int crashes = 0;
  for (int round = 0; round < (std::getenv("PONDER_FULL") ? 500 : 60); ++round) {
    Workplace run;
    const std::string fault = fmt::format("{}@{}", round % 2 ? "exit" : "exit_after", 5 + rng.below(700));
    const int first = start(run.folder.path(), {{"PONDER_FAULT", fault}}).wait();
    crashes += first != 0;
    if (first != 0) {
      ASSERT_EQ(start(run.folder.path()).wait(), 0) << fault << "\n" << run.output();
    }
    expect_undisturbed(run);
    if (HasFailure()) {
      ADD_FAILURE() << fault << "\n" << run.output();
      return;
    }
  }
  EXPECT_GE(crashes, 40) << "the range of calls has moved";
  std::printf("%d crashes\n", crashes);
}

// SIGTERM after each step: write a checkpoint, exit 75; the same command goes on.
TEST(Resume, Terminated) {
  undisturbed();
  Workplace run;
  int stops = 0;
  for (;; ++stops) {
    ASSERT_LT(stops, 300) << run.output();
    const uintmax_t before = run.metrics_bytes();
    const Child child = start(run.folder.path());
    while (child.running() && run.metrics_bytes() == before) usleep(2'000);
    kill(child.pid, SIGTERM);
    const int status = child.wait();
    if (status == 0) break;
    ASSERT_EQ(status, 75) << run.output();
  }
  EXPECT_GE(stops, 1);
  expect_undisturbed(run);
}

// Whoever reads the messages may end first: `2>&1 | tee log` gets Ctrl+C, too.
TEST(Resume, TerminatedWithoutAReader) {
  undisturbed();
  Workplace run;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const Child child{fork()};
  if (child.pid == 0) {
    if (chdir(run.folder.path().c_str()) != 0) _exit(99);
    dup2(ends[1], STDOUT_FILENO), dup2(ends[1], STDERR_FILENO);
    close(ends[0]), close(ends[1]);
    execl(PONDER_BINARY, PONDER_BINARY, "pipeline", "recipe.toml", nullptr);
    _exit(97);
  }
  close(ends[0]), close(ends[1]);
  while (child.running() && run.metrics_bytes() == 0) usleep(2'000);
  kill(child.pid, SIGTERM);
  EXPECT_EQ(child.wait(), 75);
  EXPECT_EQ(start(run.folder.path()).wait(), 0) << run.output();
  expect_undisturbed(run);
}

// A disk that is really full while a checkpoint is written: exit 4, the old checkpoint stands, and the run goes on when there
// is room again.
TEST(Resume, DiskFull) {
  undisturbed();
  for (int kilobytes : {300, 800, 1400}) {
    Workplace run;
    const std::string disk = run.folder.file("runs");
    make_folder(disk);
    if (mount("tmpfs", disk.c_str(), "tmpfs", 0, fmt::format("size={}k", kilobytes).c_str()) != 0)
      GTEST_SKIP() << "a small disk needs the right to mount one";
    const int status = start(run.folder.path()).wait();
    const int grown = mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=64m");
    const int again = grown == 0 ? start(run.folder.path()).wait() : -1;
    EXPECT_EQ(status, 4) << kilobytes << " KiB\n" << run.output();
    EXPECT_EQ(again, 0) << kilobytes << " KiB\n" << run.output();
    expect_undisturbed(run);
    umount2(disk.c_str(), MNT_DETACH);
  }
}

}  // namespace
}  // namespace ponder
