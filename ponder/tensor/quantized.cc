#include "ponder/tensor/quantized.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "ponder/tensor/blocks.h"

namespace ponder {

namespace {

template <class Stored, float (*kToF32)(Stored)>
void decode_numbers(const std::byte* bytes, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    Stored x;
    std::memcpy(&x, bytes + i * int64_t{sizeof x}, sizeof x);  // any alignment
    out[i] = kToF32(x);
  }
}
template <class Stored, Stored (*kFromF32)(float)>
void encode_numbers(const float* in, int64_t n, std::byte* bytes) {
  for (int64_t i = 0; i < n; ++i) {
    const Stored x = kFromF32(in[i]);
    std::memcpy(bytes + i * int64_t{sizeof x}, &x, sizeof x);
  }
}
template <class Stored, float (*kToF32)(Stored), Stored (*kFromF32)(float)>
constexpr blocks::Codec numbers() {
  return {1, sizeof(Stored), decode_numbers<Stored, kToF32>, encode_numbers<Stored, kFromF32>};
}
float same(float x) { return x; }

constexpr blocks::Codec kF32 = numbers<float, same, same>();
constexpr blocks::Codec kF16 = numbers<uint16_t, f16_to_f32, f32_to_f16>();
constexpr blocks::Codec kBf16 = numbers<uint16_t, bf16_to_f32, f32_to_bf16>();
constexpr blocks::Codec kFp8 = numbers<uint8_t, fp8_to_f32, f32_to_fp8>();

struct Type {
  const char* name;
  int ggml_type;
  const blocks::Codec* codec;
};
// In the order of BlockType.
constexpr Type kTypes[kBlockTypes] = {
    {"F32", 0, &kF32},
    {"F16", 1, &kF16},
    {"BF16", 30, &kBf16},
    {"FP8", -1, &kFp8},
    {"Q4_0", 2, &blocks::kQ4_0},
    {"Q4_1", 3, &blocks::kQ4_1},
    {"Q5_0", 6, &blocks::kQ5_0},
    {"Q5_1", 7, &blocks::kQ5_1},
    {"Q8_0", 8, &blocks::kQ8_0},
    {"Q2_K", 10, &blocks::kQ2K},
    {"Q3_K", 11, &blocks::kQ3K},
    {"Q4_K", 12, &blocks::kQ4K},
    {"Q5_K", 13, &blocks::kQ5K},
    {"Q6_K", 14, &blocks::kQ6K},
    {"IQ1_S", 19, &blocks::kIq1S},
    {"IQ1_M", 29, &blocks::kIq1M},
    {"IQ2_XXS", 16, &blocks::kIq2Xxs},
    {"IQ2_XS", 17, &blocks::kIq2Xs},
    {"IQ2_S", 22, &blocks::kIq2S},
    {"IQ3_XXS", 18, &blocks::kIq3Xxs},
    {"IQ3_S", 21, &blocks::kIq3S},
    {"IQ4_NL", 20, &blocks::kIq4Nl},
    {"IQ4_XS", 23, &blocks::kIq4Xs},
    {"TQ1_0", 34, &blocks::kTq1_0},
    {"TQ2_0", 35, &blocks::kTq2_0},
    {"MXFP4", 39, &blocks::kMxfp4},
    {"NVFP4", 40, &blocks::kNvfp4},
};

const blocks::Codec& codec_of(BlockType type) { return *kTypes[static_cast<size_t>(type)].codec; }

int64_t blocks_in(BlockType type, int64_t n) {
  const int elements = codec_of(type).elements;
  PONDER_CHECK(n >= 0 && n % elements == 0, "{} numbers are not whole blocks of {} in {}", n, elements,
               block_spec(type).name);
  return n / elements;
}

}  // namespace

const BlockSpec& block_spec(BlockType type) {
  static const auto specs = [] {
    std::array<BlockSpec, kBlockTypes> out{};
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = {kTypes[i].name, kTypes[i].ggml_type, kTypes[i].codec->elements, kTypes[i].codec->bytes};
    return out;
  }();
  return specs[static_cast<size_t>(type)];
}

std::optional<BlockType> block_type_of_ggml(uint32_t ggml_type) {
  for (size_t i = 0; i < kBlockTypes; ++i)
    if (kTypes[i].ggml_type == static_cast<int64_t>(ggml_type)) return static_cast<BlockType>(i);
  return std::nullopt;
}

std::optional<BlockType> find_block_type(std::string_view name) {
  const auto same_letter = [](char a, char b) { return std::toupper(static_cast<unsigned char>(a)) == b; };
  for (size_t i = 0; i < kBlockTypes; ++i) {
    const std::string_view candidate = kTypes[i].name;
    if (std::equal(name.begin(), name.end(), candidate.begin(), candidate.end(), same_letter))
      return static_cast<BlockType>(i);
  }
  return std::nullopt;
}

Quantized Quantized::row_range(int64_t begin, int64_t n) const {
  PONDER_CHECK(begin >= 0 && n >= 0 && begin <= rows && n <= rows - begin, "rows {} + {} of {}", begin, n, rows);
  Quantized out = *this;
  out.rows = n;
  out.data = data + begin * row_bytes;
  out.first_row = first_row + begin;
  return out;
}

int64_t block_row_bytes(BlockType type, int64_t cols) { return blocks_in(type, cols) * codec_of(type).bytes; }

void dequantize(BlockType type, const std::byte* blocks, int64_t n, float* out) {
  codec_of(type).decode(blocks, blocks_in(type, n), out);
}

void dequantize_row(const Quantized& w, int64_t r, float* out) {
  dequantize(w.type, w.row(r), w.cols, out);
  if (!w.scales) return;
  const float* scales = w.scales + (w.first_row + r) / kScaleBlock * w.scales_ld;
  for (int64_t begin = 0; begin < w.cols; begin += kScaleBlock) {
    const float scale = scales[begin / kScaleBlock];
    const int64_t end = std::min(begin + kScaleBlock, w.cols);
    for (int64_t j = begin; j < end; ++j) out[j] *= scale;
  }
}

bool can_quantize(BlockType type) { return codec_of(type).encode != nullptr; }

void quantize(BlockType type, const float* in, int64_t n, std::byte* out) {
  PONDER_CHECK(can_quantize(type), "cannot quantize to {}", block_spec(type).name);
  codec_of(type).encode(in, blocks_in(type, n), out);
}

void quantize_fp8(const float* in, int64_t rows, int64_t cols, std::byte* codes, float* scales) {
  const int64_t scales_ld = (cols + kScaleBlock - 1) / kScaleBlock;
  for (int64_t r0 = 0; r0 < rows; r0 += kScaleBlock) {
    const int64_t r1 = std::min(r0 + kScaleBlock, rows);
    for (int64_t c0 = 0; c0 < cols; c0 += kScaleBlock) {
      const int64_t c1 = std::min(c0 + kScaleBlock, cols);
      float most = 0.f;
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t c = c0; c < c1; ++c) most = std::max(most, std::fabs(in[r * cols + c]));
      // A block of zeros, or one so small that its scale would vanish, keeps the scale 1.
      const float scale = most / 448.f > 0.f ? most / 448.f : 1.f;
      scales[r0 / kScaleBlock * scales_ld + c0 / kScaleBlock] = scale;
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t c = c0; c < c1; ++c) codes[r * cols + c] = std::byte{f32_to_fp8(in[r * cols + c] / scale)};
    }
  }
}

}  // namespace ponder
