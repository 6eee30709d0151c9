#include "ponder/tensor/tensor_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "ponder/base/file.h"
#include "ponder/tensor/float16.h"
#include "tests/shared.h"

namespace ponder {
namespace {

class TensorFile : public testing::Test {
 protected:
  std::string file(const std::string& name) const { return folder_.file(name); }
  TempFolder folder_;
};

// Unsynced: these files need not survive anything.
void write_plain(const std::string& path, const std::string& bytes) { FileWriter(path).write(bytes); }

std::string with_header(const std::string& header, const std::string& data) {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), sizeof n) + header + data;
}

// Parses bytes in a heap block of exactly their size (so that a sanitizer sees any step beyond) and reads whatever can
// be read. The error, or "" where the file is good.
std::string outcome(const std::string& bytes) {
  const std::vector<char> exact(bytes.begin(), bytes.end());
  try {
    const auto f = SafetensorsFile::parse(std::as_bytes(std::span(exact)), "test");
    for (const TensorEntry& e : f.entries()) {
      EXPECT_EQ(f.find(e.name), &e);
      std::vector<double> x(static_cast<size_t>(e.size()));
      try {
        read_f64(e, x.data());
      } catch (const Error&) {  // an integer or FP8 type
      }
    }
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    return e.what();
  }
}

TEST_F(TensorFile, RoundTripKeepsEveryTypeShapeAndMetadata) {
  float f[6] = {1.5f, -0.f, INFINITY, 3e-39f, -7.25f, NAN};
  double d[2] = {0.1, -1e300};
  int32_t i[3] = {-1, 0, std::numeric_limits<int32_t>::max()};
  int64_t l[1] = {std::numeric_limits<int64_t>::min()};
  uint8_t u[5] = {1, 2, 3, 4, 255};
  Tensor scalar = make_tensor(d, {}, DType::f64);
  const NamedTensor tensors[] = {{"u", make_tensor(u, {5}, DType::u8), DType::u8},
                                 {"f", make_tensor(f, {1, 2, 3, 1}), DType::f32},
                                 {"d", make_tensor(d, {2, 1}, DType::f64), DType::f64},
                                 {"scalar \"quoted\" \\ \u00e9", scalar, DType::f64},
                                 {"i", make_tensor(i, {3}, DType::i32), DType::i32},
                                 {"l", make_tensor(l, {1}, DType::i64), DType::i64},
                                 {"empty", make_tensor(nullptr, {0, 7}), DType::f32},
                                 {"right half", make_tensor(f, {2, 3}).columns(1, 2), DType::f32}};
  write_safetensors(file("a.safetensors"), tensors, {{"format", "pt"}, {"note", "line\nbreak"}});
  const auto in = SafetensorsFile::open(file("a.safetensors"));
  EXPECT_EQ(in.metadata(), (Metadata{{"format", "pt"}, {"note", "line\nbreak"}}));
  ASSERT_EQ(in.entries().size(), std::size(tensors));
  for (const NamedTensor& t : tensors) {
    const TensorEntry& e = in.at(t.name);
    EXPECT_STREQ(stored_type_name(e.dtype), dtype_name(t.stored));
    EXPECT_EQ(e.shape_string(), t.tensor.shape_string());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(e.bytes.data()) % stored_type_bytes(e.dtype), 0u) << t.name;
    if (t.tensor.contiguous() && !e.bytes.empty()) {
      EXPECT_EQ(std::memcmp(e.bytes.data(), t.tensor.data, e.bytes.size()), 0) << t.name;
    }
  }
  float right[4];
  read_f32(in.at("right half"), right);
  EXPECT_EQ(std::memcmp(right, f + 1, 8), 0);
  EXPECT_EQ(std::memcmp(right + 2, f + 4, 8), 0);
  EXPECT_EQ(in.find("nothing"), nullptr);
  EXPECT_THROW(in.at("nothing"), Error);
  EXPECT_EQ(list_folder(folder_.path()), std::vector<std::string>{"a.safetensors"});  // nothing is left aside
}

TEST_F(TensorFile, SixteenBitFloatsAreExactAndRoundToNearestEven) {
  for (uint32_t u = 0; u < 65536; ++u) {
    const uint16_t h = static_cast<uint16_t>(u);
    if (!std::isnan(bf16_to_f32(h))) {
      EXPECT_EQ(f32_to_bf16(bf16_to_f32(h)), h);
    }
    if (std::isnan(f16_to_f32(h))) continue;
    EXPECT_EQ(f32_to_f16(f16_to_f32(h)), h);
    if ((h & 0x7FFF) >= 0x7BFF) continue;
    // Half way to the next value away from zero: to the even one of the two; a little more: up.
    const float next = f16_to_f32(static_cast<uint16_t>(h + 1)), middle = (f16_to_f32(h) + next) / 2;
    EXPECT_EQ(f32_to_f16(middle), h & 1 ? h + 1 : h);
    EXPECT_EQ(f32_to_f16(std::nextafter(middle, next)), h + 1);
  }
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7BFF);
  EXPECT_EQ(f32_to_f16(65520.f), 0x7C00);
  EXPECT_EQ(f32_to_f16(-1e9f), 0xFC00);
  EXPECT_EQ(f32_to_bf16(1.00390625f), 0x3F80);  // 1 + 2^-8: a tie, to even
  EXPECT_EQ(f32_to_bf16(1.01171875f), 0x3F82);
  EXPECT_EQ(f32_to_bf16(3.4e38f), 0x7F80);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7F800001u)))));
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(-NAN))));

  float x[3] = {1.01171875f, -2.f, 0.333333343f}, y[3];
  const NamedTensor tensors[] = {{"b", make_tensor(x, {3}), DType::bf16}, {"h", make_tensor(x, {3}), DType::f16}};
  write_safetensors(file("a.safetensors"), tensors);
  const auto in = SafetensorsFile::open(file("a.safetensors"));
  for (const char* name : {"b", "h"}) {
    read_f32(in.at(name), y);
    EXPECT_EQ(y[1], -2.f);
    EXPECT_NEAR(y[2], x[2], name[0] == 'b' ? 1e-3 : 1e-4);
  }
}

TEST_F(TensorFile, ReadsRefuseWhatTheyCannotHold) {
  int64_t big[2] = {7, int64_t{1} << 40};
  const NamedTensor tensors[] = {{"big", make_tensor(big, {2}, DType::i64), DType::i64}};
  write_safetensors(file("a.safetensors"), tensors);
  const auto in = SafetensorsFile::open(file("a.safetensors"));
  int64_t back[2];
  int32_t narrow[2];
  float real[2];
  read_i64(in.at("big"), back);
  EXPECT_EQ(back[1], big[1]);
  EXPECT_THROW(read_i32(in.at("big"), narrow), Error);
  EXPECT_THROW(read_f32(in.at("big"), real), Error);
}

TEST_F(TensorFile, ShardsWithIndex) {
  float x[24];
  for (int i = 0; i < 24; ++i) x[i] = float(i);
  std::vector<NamedTensor> tensors;
  for (int i = 0; i < 6; ++i) tensors.push_back({fmt::format("t{}", i), make_tensor(x + 4 * i, {4}), DType::f32});
  write_checkpoint(folder_.path(), tensors, {}, 32);
  EXPECT_TRUE(path_exists(file("model-00003-of-00003.safetensors")));
  {
    const Checkpoint c = Checkpoint::open(folder_.path());
    ASSERT_EQ(c.entries().size(), 6u);
    for (int i = 0; i < 6; ++i) {
      float y[4];
      read_f32(c.at(fmt::format("t{}", i)), y);
      EXPECT_EQ(y[3], x[4 * i + 3]);
    }
    EXPECT_EQ(c.find("t6"), nullptr);
  }
  const std::string index = read_file(file("model.safetensors.index.json"));
  const auto error = [&] {
    try {
      Checkpoint::open(folder_.path());
      return std::string();
    } catch (const Error& e) {
      return std::string(e.what());
    }
  };
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string s = index;
    s.replace(s.find(from), from.size(), to);
    write_plain(file("model.safetensors.index.json"), s);
    return error();
  };
  EXPECT_NE(replaced("model-00002-of-00003.safetensors", "absent.safetensors").find("absent.safetensors"),
            std::string::npos);
  EXPECT_NE(replaced("model-00002-of-00003.safetensors", "../x/a.safetensors").find("not the name"), std::string::npos);
  EXPECT_NE(replaced("\"t3\"", "\"t9\"").find("t9"), std::string::npos);
  EXPECT_NE(replaced("\"t3\"", "\"t2\"").find("twice"), std::string::npos);
  EXPECT_NE(replaced("weight_map", "weight_mop"), "");
  EXPECT_NE(replaced("{", "["), "");
  EXPECT_NE(replaced("\"t3\": \"", "\"t3\": [\""), "");
  for (size_t n = 0; n < index.size() - 2; ++n) {
    write_plain(file("model.safetensors.index.json"), index.substr(0, n));
    EXPECT_NE(error(), "") << n;
  }
  remove_file(file("model.safetensors.index.json"));
  EXPECT_NE(error().find("found 3"), std::string::npos) << error();
  EXPECT_EQ(Checkpoint::open(file("model-00001-of-00003.safetensors")).entries().size(), 2u);
}

TEST_F(TensorFile, GoldenModelsOpen) {
  const std::string models = join_path(test::shared_folder().string(), "golden/models");
  if (!path_exists(models)) GTEST_SKIP() << models << " is absent";
  int opened = 0;
  for (const std::string& name : list_folder(models)) {
    const std::string folder = join_path(models, name);
    if (!is_folder(folder)) continue;
    const Checkpoint model = Checkpoint::open(folder);
    const Checkpoint expected = Checkpoint::open(join_path(folder, "expected.safetensors"));
    for (const Checkpoint* c : {&model, &expected}) {
      for (const TensorEntry* e : c->entries()) {
        std::vector<float> x(size_t(e->size()));
        std::vector<int32_t> ids(size_t(e->size()));
        switch (e->dtype) {
          case StoredType::i32: read_i32(*e, ids.data()); break;
          case StoredType::f8_e4m3: EXPECT_THROW(read_f32(*e, x.data()), Error); break;
          default:
            read_f32(*e, x.data());
            for (float v : x) ASSERT_TRUE(std::isfinite(v)) << e->name;
        }
      }
    }
    EXPECT_EQ(expected.at("loss").rank, 1);
    ++opened;
  }
  EXPECT_GT(opened, 0);
}

TEST_F(TensorFile, GoldenFp8MeansTheGoldenValues) {
  const std::string models = join_path(test::shared_folder().string(), "golden/models");
  if (!path_exists(models)) GTEST_SKIP() << models << " is absent";
  int checked = 0;
  for (const std::string& name : list_folder(models)) {
    const std::string folder = join_path(models, name);
    if (!is_folder(folder)) continue;
    const Checkpoint model = Checkpoint::open(folder);
    const auto expected = SafetensorsFile::open(join_path(folder, "expected.safetensors"));
    for (const TensorEntry& e : expected.entries()) {
      const std::string prefix = "dequant.";
      if (!e.name.starts_with(prefix)) continue;
      const Quantized w = model.matrix(e.name.substr(prefix.size()));
      EXPECT_EQ(w.type, BlockType::fp8);
      ASSERT_EQ(w.rows * w.cols, e.size()) << e.name;
      std::vector<float> wanted(static_cast<size_t>(e.size())), row(static_cast<size_t>(w.cols));
      read_f32(e, wanted.data());
      for (int64_t r = 0; r < w.rows; ++r) {
        dequantize_row(w, r, row.data());
        ASSERT_EQ(std::memcmp(row.data(), wanted.data() + r * w.cols, row.size() * sizeof(float)), 0) << e.name;
      }
      ++checked;
    }
    for (const TensorEntry* e : model.entries())
      if (e->dtype == StoredType::f8_e4m3) model.matrix(e->name);
  }
  EXPECT_GT(checked, 0);
}

// 130 x 200 codes of FP8 and what goes with them, the scales as given; all bytes of code 0x38, which is 1.
std::vector<TensorSpec> fp8_specs(std::vector<int64_t> scales, StoredType type = StoredType::f32) {
  return {{"w", StoredType::f8_e4m3, {130, 200}}, {"w_scale_inv", type, std::move(scales)}, {"v", StoredType::i8, {3}}};
}
void fill_fp8(size_t i, std::span<std::byte> out) {
  const float scales[4] = {1, 2, 3, 4};
  if (i == 1)
    std::memcpy(out.data(), scales, std::min(out.size(), sizeof scales));
  else
    std::fill(out.begin(), out.end(), std::byte{0x38});
}

TEST_F(TensorFile, MatricesOfFp8HaveTheirScales) {
  const auto check = [&] {
    const Checkpoint c = Checkpoint::open(file("model.safetensors"));
    const Quantized w = c.matrix("w");
    std::vector<float> row(200);
    dequantize_row(w.row_range(128, 2), 1, row.data());
    EXPECT_EQ(row[127], 3.f);
    EXPECT_EQ(row[128], 4.f);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(w.scales) % alignof(float), 0u);
  };
  write_checkpoint(folder_.path(), fp8_specs({2, 2}), fill_fp8);
  check();
  // The same at an odd address: the header is one byte longer.
  std::string bytes = read_file(file("model.safetensors"));
  ++bytes[0];
  bytes.insert(bytes.find('{') + 1, " ");
  write_plain(file("model.safetensors"), bytes);
  check();
}

TEST_F(TensorFile, MatricesSayWhatIsWrong) {
  const auto error = [&](const std::string& name) {
    try {
      Checkpoint::open(folder_.path()).matrix(name);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  write_checkpoint(folder_.path(), fp8_specs({1, 2}), fill_fp8);
  EXPECT_NE(error("w").find("'w_scale_inv': expected F32 [2, 2] (one for every 128 x 128 numbers), found F32 [1, 2]"),
            std::string::npos)
      << error("w");
  EXPECT_NE(error("v").find("'v': I8 [3] is not a matrix"), std::string::npos) << error("v");
  write_checkpoint(folder_.path(), fp8_specs({2, 2}, StoredType::bf16), fill_fp8);
  EXPECT_NE(error("w").find("found BF16 [2, 2]"), std::string::npos) << error("w");
  const std::vector<TensorSpec> alone = {fp8_specs({})[0]};
  write_checkpoint(folder_.path(), alone, fill_fp8);
  EXPECT_NE(error("w").find("needs the scales 'w_scale_inv' F32 [2, 2]"), std::string::npos) << error("w");
}

TEST_F(TensorFile, StoredBytesAreWrittenAsTheyAreInShards) {
  const std::vector<TensorSpec> specs = {{"h", StoredType::f16, {2, 3}},
                                         {"f8", StoredType::f8_e5m2, {5}},
                                         {"b", StoredType::boolean, {}},
                                         {"d", StoredType::f64, {1}}};
  std::vector<size_t> filled;
  write_checkpoint(
      folder_.path(), specs,
      [&](size_t i, std::span<std::byte> out) {
        filled.push_back(i);
        std::fill(out.begin(), out.end(), static_cast<std::byte>(i));
      },
      {{"format", "pt"}}, 17);
  EXPECT_EQ(filled, (std::vector<size_t>{0, 1, 3, 2})) << "each once, shard by shard, wide ones first";
  const Checkpoint c = Checkpoint::open(folder_.path());
  EXPECT_EQ(c.files().size(), 2u);
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorEntry& e = c.at(specs[i].name);
    EXPECT_EQ(e.dtype, specs[i].dtype);
    EXPECT_EQ(std::vector<int64_t>(e.dim, e.dim + e.rank), specs[i].shape);
    for (std::byte b : e.bytes) EXPECT_EQ(b, static_cast<std::byte>(i));
  }
}

std::string small_file() {
  return with_header(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                     R"("b.\u00e9":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},)"
                     R"("c":{"dtype":"F64","shape":[],"data_offsets":[34,42]},)"
                     R"("d":{"dtype":"F8_E4M3","shape":[0,9],"data_offsets":[42,42]}}  )",
                     std::string(42, '\x3c'));
}

TEST_F(TensorFile, CutAtEveryByte) {
  const std::string whole = small_file();
  EXPECT_EQ(outcome(whole), "");
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_NE(outcome(whole.substr(0, n)), "") << n;
  EXPECT_NE(outcome(whole + "x"), "");

  const std::string large =
      with_header(R"({"w":{"dtype":"U8","shape":[65000],"data_offsets":[0,65000]}})", std::string(65000, 'w'));
  EXPECT_EQ(outcome(large), "");
  for (size_t n = 0; n < large.size(); ++n)
    EXPECT_THROW(SafetensorsFile::parse(std::as_bytes(std::span(large.data(), n)), "cut"), Error);
}

TEST_F(TensorFile, EveryBitOfTheHeaderFlipped) {
  const std::string whole = small_file();
  for (size_t i = 0; i < whole.size() - 42; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string s = whole;
      s[i] = static_cast<char>(s[i] ^ 1 << bit);
      outcome(s);  // an error, or another valid file: never a crash
    }
  }
}

TEST_F(TensorFile, EveryIntegerOfTheHeaderReplaced) {
  const std::string whole = small_file(), header = whole.substr(8, whole.size() - 8 - 42),
                    data = whole.substr(whole.size() - 42);
  int integers = 0;
  for (size_t i = header.find("shape"); i < header.size(); ++i) {
    if (!isdigit(header[i]) || (header[i - 1] != '[' && header[i - 1] != ',')) continue;
    size_t n = 1;
    while (isdigit(header[i + n])) ++n;
    const std::string old = header.substr(i, n);
    ++integers;
    for (const char* value :
         {"0", "1", "18446744073709551615", "18446744073709551616", "9223372036854775807", "-1", "2147483648",
          "9223372036854775808", "4611686018427387904", "1e3", "1.0", "\"1\"", "null", "[]", "{}", "true"}) {
      if (old == value || (header.substr(i, 3) == "9],")) continue;  // [0, 9] may be [0, n]
      EXPECT_NE(outcome(with_header(header.substr(0, i) + value + header.substr(i + n), data)), "")
          << value << " at " << i;
    }
  }
  EXPECT_EQ(integers, 13);
  for (uint64_t length :
       {uint64_t{0}, uint64_t{1}, uint64_t{1} << 31, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::string s = whole;
    std::memcpy(s.data(), &length, sizeof length);
    EXPECT_NE(outcome(s), "");
  }
}

TEST_F(TensorFile, MessagesNameTheFault) {
  const auto tensor = [](const char* name, const char* dtype, const char* shape, const char* offsets) {
    return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
  };
  const std::string a = tensor("a", "F32", "[2]", "[0,8]");
  const struct {
    std::string header, fault;
  } cases[] = {
      {"{" + a + "," + tensor("a", "F32", "[2]", "[8,16]") + "}", "'a' occurs twice"},
      {"{" + a + "," + tensor("b", "F32", "[3]", "[4,16]") + "}", "overlap"},
      {"{" + a + "," + tensor("b", "F32", "[1]", "[12,16]") + "}", "hole"},
      {"{" + a + "}", "8 bytes of data belong to no tensor"},
      {"{" + tensor("a", "F32", "[4]", "[0,17]") + "}", "outside"},
      {"{" + tensor("a", "F32", "[4]", "[16,0]") + "}", "outside"},
      {"{" + tensor("a", "F32", "[3]", "[0,16]") + "}", "needs 12 bytes"},
      {"{" + tensor("a", "F31", "[4]", "[0,16]") + "}", "'F31' is not known"},
      {"{" + tensor("a", "F32", "[1,1,1,1,4]", "[0,16]") + "}", "more than 4 dimensions"},
      {"{" + tensor("a", "F32", "[4294967296,4294967296]", "[0,16]") + "}", "too large"},
      {"{" + tensor("a", "F32", "[4]", "[0,16,0]") + "}", "more than two numbers"},
      {R"({"a":{"dtype":"F32","shape":[4]}})", "needs dtype, shape and data_offsets"},
      {R"({"a":{"dtype":"F32","dtype":"F32"}})", "dtype occurs twice"},
      {R"({"a":{"other":1}})", "unknown field 'other'"},
      {R"({"__metadata__":{"a":1}})", "not expected"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", "occurs twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", "occurs twice"},
      {R"([{}])", "does not begin"},
      {"{}{}", "not valid JSON"},
      {"{" + std::string(100000, '['), "not valid JSON"},
      {R"({"a":{"shape":)" + std::string(100000, '['), "an array was not expected"},
      {"{\"\xff\":1}", "not valid JSON"},
  };
  for (const auto& c : cases) {
    const std::string error = outcome(with_header(c.header, std::string(16, 0)));
    EXPECT_NE(error.find(c.fault), std::string::npos) << c.header.substr(0, 200) << "\n" << error;
    EXPECT_TRUE(error.find("(byte ") != error.npos || error.find("at bytes ") != error.npos) << error;
  }
  const std::string header = "{" + a + "," + tensor("b", "F32", "[3]", "[4,16]") + "}";
  EXPECT_TRUE(
      outcome(with_header(header, std::string(16, 0)))
          .ends_with(fmt::format("'b' begins at 4 of the data, but the one before ends at 8: they overlap (byte "
                                 "{})",
                                 8 + header.size() + 4)));
}

TEST_F(TensorFile, AFaultAtAnyCallLeavesTheOldFileOrTheNewOne) {
  float old_value = 1, new_value = 2, x = 0;
  const auto write = [&](float* value) {
    const NamedTensor tensors[] = {{"x", make_tensor(value, {1}), DType::f32}};
    write_safetensors(file("a.safetensors"), tensors);
  };
  write(&old_value);
  set_file_fault({});
  write(&old_value);
  const int64_t calls = file_calls();
  EXPECT_GE(calls, 5);
  for (int64_t k = 1; k <= calls; ++k) {
    for (const auto kind : {FileFault::Kind::enospc, FileFault::Kind::eio, FileFault::Kind::short_write}) {
      set_file_fault({.kind = kind, .at = k});
      bool failed = false;
      try {
        write(&new_value);
      } catch (const Error& e) {
        failed = true;
      }
      clear_file_fault();
      read_f32(SafetensorsFile::open(file("a.safetensors")).at("x"), &x);
      EXPECT_TRUE(x == new_value || (failed && x == old_value)) << k;
      EXPECT_EQ(list_folder(folder_.path()).size(), 1u) << "nothing is left aside";
      write(&old_value);
    }
  }
}

TEST_F(TensorFile, WhatIsNoFileIsAnError) {
  EXPECT_THROW(SafetensorsFile::open(file("absent.safetensors")), Error);
  EXPECT_THROW(SafetensorsFile::open(folder_.path()), Error);
  EXPECT_THROW(Checkpoint::open(folder_.path()), Error);
  write_plain(file("empty.safetensors"), "");
  EXPECT_THROW(Checkpoint::open(folder_.path()), Error);
  EXPECT_THROW(write_safetensors(file("no/such/folder.safetensors"), {}), Error);
}

}  // namespace
}  // namespace ponder
