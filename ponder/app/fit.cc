// fit: what a model needs of this machine, and what it can be at best, before anything is loaded.
#include <algorithm>

#include "ponder/app/answers.h"
#include "ponder/app/commands.h"
#include "ponder/app/machine.h"
#include "ponder/app/memory.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/app/paging.h"
#include "ponder/app/table.h"
#include "ponder/base/error.h"
#include "ponder/base/json.h"
#include "ponder/base/log.h"

namespace ponder::app {

int fit_command(const Arguments& args) {
  Machine machine(args.threads());
  const auto source = model::WeightSource::open(resolve_model(args.positional[0]));
  const model::ModelConfig& c = source->config();
  const int64_t longest = c.max_position_embeddings;
  UseSize use;
  use.context = args.integer("context", std::min<int64_t>(use.context, longest), 1, longest);
  use.sequences = args.integer("sequences", 1, 1, 1 << 20);
  model::ModelOptions options = model_options(args, false);
  options.mtp = false;
  const MemoryNeeds needs = memory_needs(*source, *machine.backend, options, use);
  const WeightNeeds weights = weight_needs(*source, *machine.backend, options);
  const int64_t available = available_memory_bytes();
  const std::optional<MemoryLimit> limit = memory_limit_in_force();
  const bool fits = needs.total() <= available;
  const std::optional<int64_t> room = fits ? std::nullopt : room_for_experts(needs, available);
  const PagedSpeed paged = room ? measure_paged_speed(*source, *machine.backend, *room) : PagedSpeed{};
  const bool runs = fits || (room && args.has("allow-paging"));
  const double peak = measure_fma_peak(machine.pool), bus = measure_read_bandwidth(machine.pool);
  // Decoding reads the weights once a step and the pages of all sequences; half of the context is there on average.
  const double step_bytes = weights.read(use.sequences) + static_cast<double>(needs.pages) / 2;
  const double decode = static_cast<double>(use.sequences) * bus / step_bytes, prompt = peak / (2 * weights.macs());
  const auto bytes = [](auto n) { return format_bytes(static_cast<uint64_t>(n)); };
  if (args.json()) {
    std::string json;
    JsonWriter w(json);
    w.begin_object()
        .member("model", source->path())
        .member("context", use.context)
        .member("sequences", use.sequences)
        .member("weights_bytes", needs.weights)
        .member("pages_bytes", needs.pages)
        .member("scratch_bytes", needs.scratch)
        .member("program_bytes", needs.program)
        .member("total_bytes", needs.total())
        .member("file_bytes", source->bytes())
        .member("available_bytes", available)
        .key("memory_limit_bytes");
    limit ? w.value(limit->bytes) : w.null();
    w.member("fits", fits)
        .member("runs_paged", room.has_value())
        .member("bytes_per_token", weights.read(1))
        .member("macs_per_token", weights.macs())
        .member("read_bytes_per_s", bus)
        .member("peak_flops", peak)
        .member("decode_tok_per_s_at_best", decode)
        .member("prompt_tok_per_s_at_f32_peak", prompt);
    if (room)
      w.member("paged_experts_in_memory", paged.packed_share)
          .member("paged_bytes_per_token", paged.token_bytes)
          .member("paged_disk_bytes_per_s", paged.disk)
          .member("paged_tok_per_s_slowest", paged.slowest)
          .member("paged_tok_per_s_fastest", paged.fastest);
    w.end_object();
    fmt::print("{}\n", json);
    return runs ? 0 : static_cast<int>(Exit::resources);
  }
  Table table({"", ">", ""});
  table.row({"weights, repacked", bytes(needs.weights), fmt::format("(the file: {})", bytes(source->bytes()))});
  table.row({"pages", bytes(needs.pages), fmt::format("({} x {} tokens)", use.sequences, format_grouped(use.context))});
  table.row({"scratch of a step", bytes(needs.scratch), ""});
  table.row({"program and tokenizer", bytes(needs.program), ""});
  table.row({"in all", bytes(needs.total()), fmt::format("(available: {})", bytes(available))});
  if (limit)
    table.row({"limit of control group", bytes(limit->bytes),
               fmt::format("({}: {} left)", limit->group, bytes(limit->left))});
  fmt::print("{}\n", table.text());
  fmt::print("a token reads {} and takes {:.2f} GFLOP; memory {:.1f} GB/s, peak {:.0f} GFLOP/s (f32)\n",
             bytes(weights.read(1)), 2e-9 * weights.macs(), bus * 1e-9, peak * 1e-9);
  fmt::print("at best: decoding {:.1f} tokens/s ({}), prompts {:.0f} tokens/s at the f32 peak\n", decode,
             use.sequences == 1 ? "one sequence" : fmt::format("{} sequences, summed", use.sequences), prompt);
  if (fits) {
    fmt::print("it fits\n");
    return 0;
  }
  fmt::print("it does not fit: {} are missing; {}\n", bytes(needs.total() - available),
             what_would_fit(*source, needs, use, available));
  if (room) fmt::print("from its file, with --allow-paging: {}\n", paged_speed_text(paged));
  return runs ? 0 : static_cast<int>(Exit::resources);
}

}  // namespace ponder::app
