// doctor: what this machine has, and what to do where it lacks something. A line each; warnings do not fail.
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/options.h"
#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder::app {
namespace {

struct Finding {
  std::string name, text;
  std::string advice;  // empty: ok
};

// "model name : Xeon", "MemAvailable: 123 kB": what stands after the colon of the first line that begins with `key`.
std::string field_of(const std::string& text, const std::string& key) {
  const size_t line = text.starts_with(key) ? 0 : text.find("\n" + key);
  if (line == text.npos) return "";
  const size_t end = std::min(text.find('\n', line + 1), text.size()), colon = text.find(':', line);
  if (colon >= end) return "";
  const size_t begin = text.find_first_not_of(" \t", colon + 1);
  return begin < end ? text.substr(begin, end - begin) : "";
}

// Cores' worth of time that a container may use ("200000 100000" is two); 0: no limit is known.
double container_cores() {
  const std::string quota = system_file("/sys/fs/cgroup/cpu.max");
  const size_t space = quota.find(' ');
  const double period = space == quota.npos ? 0 : std::strtod(quota.c_str() + space, nullptr);
  return period > 0 ? std::strtod(quota.c_str(), nullptr) / period : 0;
}

Finding cpu() {
  const std::string name = field_of(system_file("/proc/cpuinfo"), "model name");
  const int usable = ThreadPool::available_cores(), online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  Finding f{"cpu", fmt::format("{}, {} of {} cores usable", name.empty() ? "unknown" : name, usable, online), ""};
  if (const double cores = container_cores(); cores > 0 && cores < usable - 0.01)
    f.advice =
        fmt::format("the container may use {:.1f} cores' time only; say --threads {:.0f}", cores, std::max(1.0, cores));
  else if (usable < online)
    f.advice = "the process is bound to some of the cores (taskset, cpuset); unbind it to use all";
  return f;
}

Finding kernels_in_use(const Machine& machine) {
  const std::vector<std::string> isas = kernels::cpu_isas();
  Finding f{"kernels",
            fmt::format("{} in use; this CPU runs {}ref", machine.backend->name(),
                        isas.empty() ? "" : fmt::format("{}, ", fmt::join(isas, ", "))),
            ""};
  if (isas.empty())
    f.advice = "without fused multiply-add everything runs on the reference kernels: the same results, much slower";
  return f;
}

Finding speed(Machine& machine) {
  const double first = measure_fma_peak(machine.pool), second = measure_fma_peak(machine.pool),
               best = std::max(first, second);
  double load = 0;
  if (getloadavg(&load, 1) != 1) load = 0;
  Finding f{"arithmetic", "not measured on this CPU", ""};
  if (best > 0)
    f.text = fmt::format("{:.0f} GFLOP/s of fused multiply-adds, f32, on {} threads", best * 1e-9, machine.pool.size());
  if (load > 0.5 * machine.pool.size())
    f.advice = fmt::format("other programs are busy (load {:.1f}); speeds will vary until they are done", load);
  else if (std::min(first, second) < 0.85 * best)
    f.advice = "two measurements differ by more than 15 %: something shares or throttles the cores";
  return f;
}

Finding memory() {
  const int64_t available = available_memory_bytes();
  Finding f{"memory",
            fmt::format("{}, {} of it available", format_bytes(static_cast<uint64_t>(memory_bytes())),
                        format_bytes(static_cast<uint64_t>(available))),
            ""};
  if (const auto limit = memory_limit_in_force())
    f.text += fmt::format("; the control group {} is limited to {}", limit->group,
                          format_bytes(static_cast<uint64_t>(limit->bytes)));
  if (available < int64_t{2} << 30)
    f.advice = "the quickstart wants 2 GiB; end other programs, or take smaller batches";
  return f;
}

Finding bus(Machine& machine) {
  return {
      "memory bus",
      fmt::format("{:.1f} GB/s read by {} threads", measure_read_bandwidth(machine.pool) * 1e-9, machine.pool.size()),
      ""};
}

Finding huge_pages() {
  const std::string mode = system_file("/sys/kernel/mm/transparent_hugepage/enabled");  // "always [madvise] never"
  const size_t open = mode.find('['), close = mode.find(']');
  const std::string chosen = open < close && close != mode.npos ? mode.substr(open + 1, close - open - 1) : "unknown";
  Finding f{"huge pages", chosen, ""};
  if (chosen != "always" && chosen != "madvise")
    f.advice =
        "large matrices would gain up to 15 %: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
  return f;
}

Finding disk(const std::string& runs) {
  const std::string folder = is_folder(runs) ? runs : ".";
  const uint64_t room = free_space(folder);
  Finding f{"disk", fmt::format("{} free in {}", format_bytes(room), folder == "." ? "the working folder" : folder),
            ""};
  const std::string probe = join_path(folder, fmt::format(".ponder-doctor-{}", getpid()));
  std::vector<double> seconds;
  try {
    for (int i = 0; i < 5; ++i) {
      const double start = seconds_now();
      FileWriter file(probe);
      file.write(std::string(4096, 'x'));
      file.finish();
      seconds.push_back(seconds_now() - start);
      remove_file(probe);
    }
  } catch (const Error& e) {
    f.advice = fmt::format("runs cannot be written here: {}; choose another folder by --output-dir", e.what());
    return f;
  }
  std::sort(seconds.begin(), seconds.end());
  f.text += fmt::format(", {:.1f} ms to sync a small file", 1000 * seconds[2]);
  if (room < (uint64_t{1} << 30))
    f.advice = "checkpoints of the quickstart need some 100 MiB, those of larger models far more; make room";
  else if (on_network_disk(folder))
    f.advice = "a network disk: checkpoints wait for it, and its locks may be weak; a local --output-dir is safer";
  else if (seconds[2] > 0.2)
    f.advice = "slow: checkpoints will hold up training; choose another disk by --output-dir, or a larger save_steps";
  return f;
}

Finding line_editing() {
#ifdef PONDER_HAVE_LIBEDIT
  return {"line editing", "libedit", ""};
#else
  return {"line editing", "none",
          "`ponder chat` works, without history and arrow keys; install libedit-dev and build again"};
#endif
}

Finding versions() {
  utsname system{};
  uname(&system);
#if defined(__clang__)
  const char* compiler = "clang " __clang_version__;
#else
  const char* compiler = "g++ " __VERSION__;
#endif
  return {"versions",
          fmt::format("ponder {}, built by {}, on {} {} {}", PONDER_VERSION, compiler, system.sysname, system.release,
                      system.machine),
          ""};
}

}  // namespace

int doctor_command(const Arguments& args) {
  Machine machine(args.threads());
  std::string json;
  JsonWriter w(json);
  w.begin_array();
  int warnings = 0;
  const auto tell = [&](const Finding& f) {
    warnings += !f.advice.empty();
    w.begin_object()
        .member("name", f.name)
        .member("ok", f.advice.empty())
        .member("text", f.text)
        .member("advice", f.advice)
        .end_object();
    if (args.json()) return;
    fmt::print("{:<5} {:<13} {}\n", f.advice.empty() ? "ok" : "warn", f.name, f.text);
    if (!f.advice.empty()) fmt::print("{:<19} {}\n", "", f.advice);
    std::fflush(stdout);
  };
  tell(versions());
  tell(cpu());
  tell(kernels_in_use(machine));
  tell(speed(machine));
  tell(memory());
  tell(bus(machine));
  tell(huge_pages());
  tell(disk(args.text("output-dir", "runs")));
  tell(line_editing());
  w.end_array();
  if (args.json())
    fmt::print("{}\n", json);
  else
    fmt::print("{}\n", warnings == 0 ? "all is well" : fmt::format("{} to look at", warnings));
  return 0;
}

}  // namespace ponder::app
