// After warm-up a decode step and a training step take nothing from the heap.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "ponder/base/rng.h"
#include "ponder/engine/engine.h"
#include "ponder/train/trainer.h"
#include "tests/tiny_models.h"

namespace {
std::atomic<int64_t> g_allocations{0};
}
// g++ 12 takes the pair below for a mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
// The counted allocator: every new of the program, all libraries included.
void* operator new(size_t n) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(n ? n : 1)) return p;
  throw std::bad_alloc();
}
void* operator new(size_t n, std::align_val_t align) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  const size_t a = static_cast<size_t>(align);
  if (void* p = std::aligned_alloc(a, (n + a - 1) / a * a)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace ponder {
namespace {

class Allocation : public ::testing::TestWithParam<bool> {
 protected:
  model::ModelConfig config() const { return GetParam() ? test::tiny_v3() : test::tiny_dense(); }
  ThreadPool pool{2};
  std::unique_ptr<kernels::Backend> backend = kernels::make_best_backend(pool);
};
INSTANTIATE_TEST_SUITE_P(, Allocation, ::testing::Bool(), [](const auto& i) { return i.param ? "v3" : "dense"; });

TEST_P(Allocation, DecodeStep) {
  const auto model = test::make_model(config(), {});
  engine::Engine engine(*model, *backend, {.pages = 400, .draft = GetParam()});
  for (int i = 0; i < 40; ++i)
    engine.add({.prompt = {1, 2, static_cast<int32_t>(3 + i % 40)},
                .seeds = {1, 2, static_cast<uint64_t>(i)},
                .max_new_tokens = 200});
  for (int i = 0; i < 60; ++i) engine.step();
  const int64_t before = g_allocations;
  for (int i = 0; i < 30; ++i) ASSERT_FALSE(engine.step().empty());
  EXPECT_EQ(g_allocations - before, 0) << "in 30 steps, over the end of a page";
}

TEST_P(Allocation, TrainingStep) {
  const auto model = test::make_model(config(), {.gradients = true});
  train::TrainConfig c;
  c.router_bias_update_speed = 0.001;
  c.router_aux_loss_coef = 0.001;
  c.micro_batch_tokens = 400;
  train::Trainer trainer(*model, *backend, c, 100);
  CounterRng rng(1, Stream::test, 0);
  std::vector<std::vector<int32_t>> ids(12);
  std::vector<train::Example> examples;
  for (auto& text : ids) {
    text.resize(20 + rng.below(100));
    for (int32_t& t : text) t = static_cast<int32_t>(rng.below(53));
    examples.push_back({text, 1});
  }
  for (int64_t step = 0; step < 4; ++step) trainer.step(examples, step);
  const int64_t before = g_allocations;
  for (int64_t step = 4; step < 8; ++step) trainer.step(examples, step);
  EXPECT_EQ(g_allocations - before, 0) << "in 4 steps";
}

}  // namespace
}  // namespace ponder
