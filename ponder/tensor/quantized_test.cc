#include "ponder/tensor/quantized.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include "ponder/base/file.h"
#include "ponder/base/hash.h"
#include "ponder/tensor/tensor_file.h"
#include "tests/shared.h"

namespace ponder {
namespace {

std::string golden(const char* name) { return test::shared_folder() / "golden" / name; }

std::vector<float> floats(const TensorEntry& e) {
  std::vector<float> x(static_cast<size_t>(e.size()));
  read_f32(e, x.data());
  return x;
}

std::vector<float> noise(size_t n, uint32_t seed, float scale = 1.f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.f, scale);
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

TEST(Quantized, GoldenBlocksMeanTheGoldenValues) {
  const std::string path = golden("gguf/blocks.safetensors");
  if (!path_exists(path)) GTEST_SKIP() << path << " is absent";
  const auto file = SafetensorsFile::open(path);
  int types = 0;
  for (const TensorEntry& e : file.entries()) {
    const size_t dot = e.name.find(".bytes");
    if (dot == e.name.npos) continue;
    const std::string name = e.name.substr(0, dot);
    const auto type = find_block_type(name);
    ASSERT_TRUE(type) << name;
    const BlockSpec& spec = block_spec(*type);
    EXPECT_EQ(block_type_of_ggml(static_cast<uint32_t>(spec.ggml_type)), type);
    const std::vector<float> values = floats(file.at(name + ".values"));
    ASSERT_EQ(static_cast<size_t>(block_row_bytes(*type, static_cast<int64_t>(values.size()))), e.bytes.size()) << name;
    // From an odd address: blocks have no alignment.
    std::vector<std::byte> bytes(e.bytes.size() + 1);
    std::copy(e.bytes.begin(), e.bytes.end(), bytes.begin() + 1);
    std::vector<float> out(values.size());
    dequantize(*type, bytes.data() + 1, static_cast<int64_t>(out.size()), out.data());
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(values[i])) << name << " at " << i;
    ++types;
  }
  EXPECT_EQ(types, kBlockTypes - 1) << "all but FP8";
}

TEST(Quantized, GoldenInputsGiveTheGoldenBytes) {
  const std::string path = golden("gguf/blocks.safetensors");
  if (!path_exists(path)) GTEST_SKIP() << path << " is absent";
  const auto file = SafetensorsFile::open(path);
  const std::vector<float> input = floats(file.at("quantise.input"));
  int types = 0;
  for (const TensorEntry& e : file.entries()) {
    const std::string prefix = "quantise.";
    if (!e.name.starts_with(prefix) || e.name == "quantise.input") continue;
    const auto type = find_block_type(e.name.substr(prefix.size()));
    ASSERT_TRUE(type && can_quantize(*type)) << e.name;
    std::vector<std::byte> bytes(e.bytes.size());
    ASSERT_EQ(static_cast<size_t>(block_row_bytes(*type, static_cast<int64_t>(input.size()))), bytes.size());
    quantize(*type, input.data(), static_cast<int64_t>(input.size()), bytes.data());
    for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], e.bytes[i]) << e.name << " at byte " << i;
    ++types;
  }
  EXPECT_GE(types, 10);
}

// The types that gguf-py cannot quantise: hashes of what ggml's C code makes of the same input.
TEST(Quantized, GoldenInputsGiveTheBytesOfGgml) {
  const std::string path = golden("gguf/blocks.safetensors");
  if (!path_exists(path)) GTEST_SKIP() << path << " is absent";
  const std::vector<float> input = floats(SafetensorsFile::open(path).at("quantise.input"));
  const struct {
    BlockType type;
    const char* hash;
  } cases[] = {{BlockType::q4_k, "fa8b6f872c67e7b3a8a2a4e61d6a53cd"},
               {BlockType::q5_k, "7fe31ae9bd49ac39d5c7b5c010902192"},
               {BlockType::q6_k, "7f22e2b429cf9ffd1d674aaf3842b953"},
               {BlockType::iq4_nl, "d61d26700a88757d58f16b9fb060f98c"}};
  for (const auto& c : cases) {
    std::string bytes(static_cast<size_t>(block_row_bytes(c.type, static_cast<int64_t>(input.size()))), '\0');
    quantize(c.type, input.data(), static_cast<int64_t>(input.size()), reinterpret_cast<std::byte*>(bytes.data()));
    EXPECT_EQ(hash_bytes(bytes), c.hash) << block_spec(c.type).name;
  }
}

// Root mean square error over that of the numbers.
double relative_error(BlockType type, const std::vector<float>& x) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<std::byte> bytes(static_cast<size_t>(block_row_bytes(type, n)));
  std::vector<float> y(x.size());
  quantize(type, x.data(), n, bytes.data());
  dequantize(type, bytes.data(), n, y.data());
  double error = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += std::pow(double{x[i]} - y[i], 2);
    size += std::pow(double{x[i]}, 2);
  }
  return std::sqrt(error / size);
}

TEST(Quantized, ErrorsOfNormalNumbers) {
  const std::vector<float> x = noise(1 << 14, 1, 0.02f);
  const struct {
    BlockType type;
    double most;
  } cases[] = {
      {BlockType::f32, 0},        {BlockType::f16, 2.5e-4},  {BlockType::bf16, 2e-3},  {BlockType::fp8, 0.034},
      {BlockType::q4_0, 0.092},   {BlockType::q4_1, 0.082},  {BlockType::q5_0, 0.046}, {BlockType::q5_1, 0.040},
      {BlockType::q8_0, 0.0060},  {BlockType::q4_k, 0.074},  {BlockType::q5_k, 0.037}, {BlockType::q6_k, 0.019},
      {BlockType::iq4_nl, 0.083}, {BlockType::mxfp4, 0.125}, {BlockType::tq1_0, 0.9},  {BlockType::tq2_0, 0.9}};
  for (const auto& c : cases) {
    const double error = relative_error(c.type, x);
    EXPECT_LE(error, c.most) << block_spec(c.type).name;
    EXPECT_GE(error, 0.8 * c.most) << block_spec(c.type).name << ": the bound is too wide";
  }
}

TEST(Quantized, ZerosAndExtremesSurviveEveryType) {
  const std::vector<float> rows[] = {std::vector<float>(256, 0.f), std::vector<float>(256, 1e-42f),
                                     std::vector<float>(256, -3.4e38f), std::vector<float>(256, 1.f)};
  for (int t = 0; t < kBlockTypes; ++t) {
    const auto type = static_cast<BlockType>(t);
    if (!can_quantize(type)) continue;
    std::vector<std::byte> bytes(static_cast<size_t>(block_row_bytes(type, 256)));
    std::vector<float> y(256);
    for (const auto& x : rows) {
      quantize(type, x.data(), 256, bytes.data());
      dequantize(type, bytes.data(), 256, y.data());
      if (x[0] == 0.f) {
        for (float v : y) ASSERT_EQ(v, 0.f) << block_spec(type).name;
      }
      if (x[0] == 1.f) {
        for (float v : y) ASSERT_NEAR(v, 1.f, 0.15f) << block_spec(type).name;
      }
    }
  }
}

TEST(Quantized, Fp8IsExactAndRoundsToNearestEven) {
  for (int c = 0; c < 256; ++c) {
    const auto code = static_cast<uint8_t>(c);
    const int magnitude = code & 127, exponent = magnitude >> 3, mantissa = magnitude & 7;
    const float x = fp8_to_f32(code);
    if (magnitude == 127) {
      EXPECT_TRUE(std::isnan(x));
      continue;
    }
    const float meaning = exponent ? std::ldexp(1.f + static_cast<float>(mantissa) / 8, exponent - 7)
                                   : std::ldexp(static_cast<float>(mantissa), -9);
    EXPECT_EQ(x, code & 128 ? -meaning : meaning);
    EXPECT_EQ(f32_to_fp8(x), code);
    if (magnitude >= 126) continue;
    const float next = fp8_to_f32(static_cast<uint8_t>(code + 1)), middle = (x + next) / 2;
    EXPECT_EQ(f32_to_fp8(middle), code & 1 ? code + 1 : code);
    EXPECT_EQ(f32_to_fp8(std::nextafter(middle, next)), code + 1);
  }
  EXPECT_EQ(fp8_to_f32(f32_to_fp8(449.f)), 448.f);
  EXPECT_EQ(fp8_to_f32(f32_to_fp8(-INFINITY)), -448.f);
  EXPECT_TRUE(std::isnan(fp8_to_f32(f32_to_fp8(NAN))));
}

TEST(Quantized, Fp8MatricesHaveScalesOfBlocks) {
  const int64_t rows = 200, cols = 300;
  std::vector<float> x = noise(static_cast<size_t>(rows * cols), 7), back(static_cast<size_t>(cols));
  for (int64_t r = 0; r < 128; ++r)
    for (int64_t c = 128; c < 256; ++c) x[static_cast<size_t>(r * cols + c)] = 0.f;
  std::vector<std::byte> codes(x.size());
  std::vector<float> scales(2 * 3);
  quantize_fp8(x.data(), rows, cols, codes.data(), scales.data());
  EXPECT_EQ(scales[1], 1.f) << "zeros";
  Quantized w{.type = BlockType::fp8, .rows = rows, .cols = cols, .data = codes.data(), .row_bytes = cols};
  w.scales = scales.data();
  w.scales_ld = 3;
  const Quantized part = w.row_range(100, 60).row_range(20, 40);
  for (int64_t r = 0; r < part.rows; ++r) {
    dequantize_row(part, r, back.data());
    for (int64_t c = 0; c < cols; ++c) {
      const float wanted = x[static_cast<size_t>((r + 120) * cols + c)];
      ASSERT_NEAR(back[static_cast<size_t>(c)], wanted, std::fabs(wanted) / 16 + 1e-4f);
    }
  }
}

TEST(Quantized, NamesInAnyCase) {
  EXPECT_EQ(find_block_type("q4_k"), BlockType::q4_k);
  EXPECT_EQ(find_block_type("IQ2_XXS"), BlockType::iq2_xxs);
  EXPECT_FALSE(find_block_type("q4"));
  EXPECT_FALSE(find_block_type(""));
  EXPECT_FALSE(block_type_of_ggml(4));
  EXPECT_FALSE(block_type_of_ggml(0xFFFFFFFFu));
}

}  // namespace
}  // namespace ponder
