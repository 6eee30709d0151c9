// Packing stored weights into the panels of weight_format.h, once when a model is loaded.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ponder/tensor/quantized.h"

namespace ponder::kernels::cpu {

int64_t panel_bytes(BlockType type, int64_t k);  // of 32 outputs
int64_t depth_bytes(BlockType type, int64_t k);  // from the start of a panel to what is k (whole blocks) further
size_t packed_weight_bytes(BlockType type, int64_t n, int64_t k);
void pack_weights(const Quantized& w, const int32_t* order, std::byte* packed) noexcept;

}  // namespace ponder::kernels::cpu
