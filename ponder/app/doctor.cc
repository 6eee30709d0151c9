// doctor: what this machine has, and what is missing.
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

std::string first_line(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

}  // namespace

int doctor_command(const Arguments& args) {
  Machine machine(args.threads());
  const auto isas = kernels::cpu_isas();
  const double peak = measure_fma_peak(machine.pool);
  const uint64_t disk = free_space(".");
  const std::string pages = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  const bool writable = access(".", W_OK) == 0;
  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object().member("version", PONDER_VERSION).member("backend", machine.backend->name()).key("isas").begin_array();
    for (const std::string& isa : isas) w.value(isa);
    w.end_array().member("threads", machine.pool.size()).member("peak_flops", peak).member("memory_bytes", memory_bytes()).member("disk_free_bytes", disk);
    w.member("huge_pages", pages).member("writable", writable).member("network_disk", on_network_disk(".")).end_object();
    fmt::print("{}\n", json);
    return 0;
  }
  const auto line = [](const char* what, const std::string& value) { fmt::print("{:<12} {}\n", what, value); };
  line("ponder", PONDER_VERSION);
  line("CPU", isas.empty() ? "no AVX2 with FMA: the plain kernels are used, which are slow" : fmt::format("{} (has {})", machine.backend->name(), fmt::join(isas, ", ")));
  line("threads", fmt::format("{}", machine.pool.size()));
  line("speed", fmt::format("{:.0f} GFLOP/s of fused multiply-adds on all threads", peak * 1e-9));
  line("memory", format_bytes(static_cast<uint64_t>(memory_bytes())));
  line("huge pages", pages.empty() ? "unknown" : pages);
  line("disk", fmt::format("{} free here{}{}", format_bytes(disk), on_network_disk(".") ? ", a network disk" : "", writable ? "" : "; this folder cannot be written to"));
#ifdef PONDER_HAVE_LIBEDIT
  line("chat", "with line editing");
#else
  line("chat", "without line editing (built without libedit)");
#endif
  return 0;
}

}  // namespace ponder::app
