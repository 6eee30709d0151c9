// Numbers of the GGUF format that its reader and its writer share.
#pragma once

#include <bit>
#include <cstdint>

namespace ponder::gguf {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian and are read in place");

constexpr char kMagic[4] = {'G', 'G', 'U', 'F'};
constexpr uint32_t kVersion = 3;
constexpr const char* kAlignmentKey = "general.alignment";
constexpr int64_t kDefaultAlignment = 32;

enum class ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

// The next multiple; the caller has made sure that it exists.
constexpr uint64_t aligned(uint64_t at, uint64_t alignment) { return (at + alignment - 1) / alignment * alignment; }

}  // namespace ponder::gguf
