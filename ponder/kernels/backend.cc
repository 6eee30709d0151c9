#include "ponder/kernels/backend.h"

#include "ponder/kernels/ref/ref_backend.h"

namespace ponder::kernels {

std::unique_ptr<Backend> make_ref_backend(ThreadPool& pool) { return std::make_unique<RefBackend>(pool); }

std::vector<std::string> cpu_isas() { return {}; }
std::unique_ptr<Backend> make_cpu_backend(ThreadPool& pool, const std::string&) { return nullptr; }

std::unique_ptr<Backend> make_best_backend(ThreadPool& pool) {
  std::unique_ptr<Backend> cpu = make_cpu_backend(pool);
  return cpu ? std::move(cpu) : make_ref_backend(pool);
}

}  // namespace ponder::kernels
