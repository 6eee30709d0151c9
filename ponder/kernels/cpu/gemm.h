// Matrix products in f32 with fixed bits (rule R1 of backend.h), for all layouts, batches and groups.
//
// gemm.cc cuts a product into tasks, each a rectangle of C; a thread walks the k of its tasks in chunks of kDepth, with B
// packed where that pays, and hands strips of A, in place or copied, to the micro-kernels of gemm_micro.h, which keep a
// tile of C in registers for one block of 128 along k, and meanwhile copy the next strip of A and, towards the end of a
// chunk, the next chunk's B. Tiles, chunks and threads only ever divide m and n, or k at multiples of 128, so that no
// choice made here can be seen in a result.
//
// Packed B is the same for all instruction sets: for each chunk of kDepth, as a task walks them, its panels of 32 columns
// one behind the other, each [k][32], zeros beyond column n. So what a task needs next lies together (panels that hold
// all of k would be k * 128 bytes apart, and meet in the same cache sets).
#pragma once

#include <cstdint>

#include "ponder/base/threads.h"
#include "ponder/kernels/backend.h"
#include "ponder/kernels/cpu/isa.h"

namespace ponder::kernels::cpu {

// Floats that pack_nt writes for B [n, k].
int64_t packed_size(int64_t n, int64_t k);
void pack_nt(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed) noexcept;

// `isa` must be one of supported_isas(). Called by one thread at a time for each pool; scratch belongs to the threads
// and is allocated once.
void gemm(const Gemm& g, ThreadPool& pool, Isa isa) noexcept;

}  // namespace ponder::kernels::cpu
