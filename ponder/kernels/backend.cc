#include "ponder/kernels/backend.h"

#include "ponder/kernels/cpu/cpu_backend.h"
#include "ponder/kernels/cpu/isa.h"
#include "ponder/kernels/ref/ref_backend.h"

namespace ponder::kernels {

std::unique_ptr<Backend> make_ref_backend(ThreadPool& pool) { return std::make_unique<RefBackend>(pool); }

std::unique_ptr<Backend> make_cpu_backend(ThreadPool& pool, const std::string& isa) {
  for (const cpu::Isa i : cpu::supported_isas())
    if (isa.empty() || isa == cpu::isa_name(i)) return std::make_unique<cpu::CpuBackend>(pool, i);
  return nullptr;
}

std::vector<std::string> cpu_isas() {
  std::vector<std::string> names;
  for (const cpu::Isa isa : cpu::supported_isas()) names.emplace_back(cpu::isa_name(isa));
  return names;
}

std::unique_ptr<Backend> make_best_backend(ThreadPool& pool) {
  std::unique_ptr<Backend> cpu = make_cpu_backend(pool);
  return cpu ? std::move(cpu) : make_ref_backend(pool);
}

}  // namespace ponder::kernels
