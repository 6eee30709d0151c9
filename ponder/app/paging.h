// A mixture of experts that is larger than memory: how fast it will run from its file (`--allow-paging`).
//
// Experts are packed in memory as far as there is room (room_for_experts in memory.h); the others stay in the mapped file,
// and each time that a token needs one, it is read, from the disk or from what the system still has of the file, and
// packed (kernels::WeightPart::mapped).
#pragma once

#include <cstdint>
#include <string>

#include "ponder/app/memory.h"

namespace ponder::app {

struct PagedSpeed {
  double packed_share = 0;          // of the experts
  double token_bytes = 0;           // that a token needs of those in the file, routing taken as even
  double disk = 0;                  // bytes/s; 0: unknown, all that was tried was in memory already
  double packing = 0;               // bytes/s
  double slowest = 0, fastest = 0;  // tokens/s of one sequence: if all these bytes come from the disk, and if none does
};
// Measures by reading and packing a few experts drawn at random. Takes less than a second with most disks.
PagedSpeed measure_paged_speed(const model::WeightSource& source, const kernels::Backend& backend, int64_t room);
std::string paged_speed_text(const PagedSpeed& speed);  // one sentence

}  // namespace ponder::app
