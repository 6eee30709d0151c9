#include "ponder/train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/rng.h"
#include "tests/shared.h"

namespace ponder::train {
namespace {

using nlohmann::json;

struct Backends {
  ThreadPool pool{2};
  std::vector<std::unique_ptr<kernels::Backend>> list;
  Backends() {
    list.push_back(kernels::make_ref_backend(pool));
    if (auto cpu = kernels::make_cpu_backend(pool)) list.push_back(std::move(cpu));
  }
};

TEST(AdamW, Golden) {
  const std::string path = test::shared_folder() / "golden/rl/optim.jsonl";
  PONDER_NEED_SHARED(path);
  const Backends backends;
  std::istringstream in(read_file(path));
  int passed = 0;
  std::string uncovered;
  for (std::string text; std::getline(in, text);) {
    const json line = json::parse(text);
    const json& p = line["params"];
    const bool coupled = line["source"] == "torch:Adam" && p["weight_decay"] != 0.0;
    if ((line["source"] != "torch:AdamW" && line["source"] != "torch:Adam") || coupled) {
      uncovered += line["name"].get<std::string>() + " ";
      continue;
    }
    for (const auto& backend : backends.list) {
      SCOPED_TRACE(line["name"].get<std::string>() + " on " + backend->name());
      std::vector<float> value = line["param0"].get<std::vector<float>>(), grad(value.size());
      // Two slots, so that the norm is over both.
      const int64_t n = static_cast<int64_t>(value.size()), half = n / 2;
      AdamW adam({{"a", value.data(), grad.data(), half, true},
                  {"b", value.data() + half, grad.data() + half, n - half, true}},
                 {.weight_decay = p["weight_decay"],
                  .adam_beta1 = p["betas"][0],
                  .adam_beta2 = p["betas"][1],
                  .adam_epsilon = p["eps"],
                  .max_grad_norm = line["max_grad_norm"].is_null() ? 0 : line["max_grad_norm"].get<double>()},
                 *backend);
      for (size_t step = 0; step < line["grads"].size(); ++step) {
        const auto next = line["grads"][step].get<std::vector<float>>();
        std::copy(next.begin(), next.end(), grad.begin());
        const auto report = adam.step(p["lr"]);
        EXPECT_TRUE(report.applied);
        if (line.contains("grad_norms")) {
          EXPECT_NEAR(report.grad_norm, line["grad_norms"][step].get<double>(), 1e-6 * report.grad_norm);
        }
        for (int64_t i = 0; i < n; ++i) {
          const double expected = line["trajectory"][step][i];
          EXPECT_NEAR(value[i], expected, 1e-6 * std::max(std::abs(expected), 0.01)) << "step " << step << ", " << i;
        }
      }
    }
    ++passed;
  }
  fmt::print("{} golden AdamW runs; other optimizers, not covered: {}\n", passed, uncovered);
  EXPECT_GT(passed, 0);
}

struct Model {
  std::vector<float> value, grad;
  explicit Model(size_t n) : value(n), grad(n) {}
  std::vector<Slot> slots() {
    const int64_t n = static_cast<int64_t>(value.size());
    return {{"first", value.data(), grad.data(), 5, true}, {"second", value.data() + 5, grad.data() + 5, n - 5, false}};
  }
  void draw(int64_t step) {
    CounterRng rng(1, Stream::test, static_cast<uint64_t>(step));
    for (float& g : grad) g = static_cast<float>(rng.normal());
  }
};

TEST(AdamW, ResumesBitForBit) {
  const Backends backends;
  const AdamWConfig config = {.weight_decay = 0.1};
  const TempFolder folder;
  Model a(9000), b(9000);
  AdamW whole(a.slots(), config, *backends.list.back());
  for (int step = 0; step < 6; ++step) {
    a.draw(step);
    whole.step(1e-2);
    if (step != 2) continue;
    b.value = a.value;
    write_safetensors(folder.file("state.safetensors"), whole.state());
  }
  AdamW resumed(b.slots(), config, *backends.list.back());
  resumed.load_state(Checkpoint::open(folder.file("state.safetensors")));
  EXPECT_EQ(resumed.steps(), 3);
  for (int step = 3; step < 6; ++step) {
    b.draw(step);
    resumed.step(1e-2);
  }
  EXPECT_EQ(a.value, b.value);

  Model c(9001);
  AdamW other(c.slots(), config, *backends.list.back());
  EXPECT_THROW(other.load_state(Checkpoint::open(folder.file("state.safetensors"))), Error);
  EXPECT_EQ(other.steps(), 0);
}

TEST(AdamW, ABrokenGradientIsNamedAndSkipped) {
  const Backends backends;
  for (const auto& backend : backends.list) {
    Model m(9000);
    AdamW adam(m.slots(), {}, *backend);
    m.draw(0);
    adam.step(1e-2);
    const std::vector<float> before = m.value;
    for (float bad : {NAN, INFINITY, -INFINITY}) {
      m.draw(1);
      m.grad[7000] = bad;
      const auto report = adam.step(1e-2);
      EXPECT_FALSE(report.applied);
      EXPECT_EQ(report.first_broken, "second");
      EXPECT_EQ(m.value, before);
      EXPECT_EQ(adam.steps(), 1);
    }
    m.draw(1);
    const auto report = adam.step(1e-2, false);
    EXPECT_FALSE(report.applied);
    EXPECT_EQ(report.first_broken, "");
    EXPECT_EQ(m.value, before);
    EXPECT_TRUE(adam.step(1e-2).applied);
  }
}

TEST(AdamW, DecaysOnlyWhatIsMarked) {
  const Backends backends;
  Model m(20);
  std::fill(m.value.begin(), m.value.end(), 1.f);
  AdamW adam(m.slots(), {.weight_decay = 0.5}, *backends.list[0]);
  adam.step(0.1);
  EXPECT_FLOAT_EQ(m.value[0], 0.95f);
  EXPECT_EQ(m.value[19], 1.f);
  EXPECT_EQ(adam.bytes(), (2 * 16 + 2 * 16) * 4);
}

}  // namespace
}  // namespace ponder::train
