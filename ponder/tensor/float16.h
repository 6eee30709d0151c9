// The short floats of checkpoints, bit by bit: exact to f32, round to nearest even from it. NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>

namespace ponder {

inline float bf16_to_f32(uint16_t b) { return std::bit_cast<float>(uint32_t{b} << 16); }

inline uint16_t f32_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(u >> 16 | 0x40);  // keep NaN from becoming infinity
  return static_cast<uint16_t>((u + 0x7FFFu + (u >> 16 & 1)) >> 16);
}

// No branches, so that loops over it become vectors. The product is exact and makes subnormals of f16 normal in f32.
inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16, magnitude = uint32_t{h & 0x7FFFu} << 13;
  const uint32_t special = magnitude >= 0x0F800000u ? 0x7F800000u : 0u;  // infinity and NaN
  return std::bit_cast<float>(sign | special | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f));
}

inline uint16_t f32_to_f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f), sign = u >> 16 & 0x8000u, a = u & 0x7FFFFFFFu;
  if (a > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (a >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 65520 and above round to infinity
  if (a < 0x38800000u) {                                               // below 2^-14: a multiple of 2^-24
    const float shifted = std::bit_cast<float>(a) + 0.5f;              // f32 addition rounds to that multiple
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  return static_cast<uint16_t>(sign | ((a - 0x38000000u + 0xFFFu + (a >> 13 & 1)) >> 13));
}

// F8_E4M3 of the Open Compute Project (OFP8, revision 1.0): 4 bits of exponent with bias 7, 3 of mantissa, subnormals,
// no infinities; magnitude 0x7F is NaN, the largest number is 448.
inline float fp8_to_f32(uint8_t code) {
  const uint32_t sign = uint32_t{code & 0x80u} << 24, magnitude = uint32_t{code & 0x7Fu} << 20;
  const uint32_t special = magnitude == 0x07F00000u ? 0x7F800000u : 0u;
  return std::bit_cast<float>(sign | special | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p120f));
}

inline uint8_t f32_to_fp8(float f) {  // saturates at 448, infinity too
  const uint32_t u = std::bit_cast<uint32_t>(f), sign = u >> 24 & 0x80u, a = u & 0x7FFFFFFFu;
  if (a > 0x7F800000u) return static_cast<uint8_t>(sign | 0x7Fu);
  if (a >= 0x43E00000u) return static_cast<uint8_t>(sign | 0x7Eu);
  if (a < 0x3C800000u) {  // below 2^-6: a multiple of 2^-9
    const float shifted = std::bit_cast<float>(a) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
  }
  return static_cast<uint8_t>(sign | ((a - 0x3C000000u + 0x7FFFFu + (a >> 20 & 1)) >> 20));
}

}  // namespace ponder
