#include "ponder/tensor/gguf.h"

#include <gtest/gtest.h>
#include <stdio.h>  // popen

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "ponder/base/file.h"
#include "tests/shared.h"

namespace ponder {
namespace {

std::string shared(const char* name) { return join_path(test::shared_folder().string(), name); }

// Unsynced: these files need not survive anything.
void write_plain(const std::string& path, const std::string& bytes) { FileWriter(path).write(bytes); }

std::vector<float> floats(const GgufTensor& t) {
  const Quantized m = t.matrix();
  std::vector<float> x(static_cast<size_t>(m.rows * m.cols));
  for (int64_t r = 0; r < m.rows; ++r) dequantize_row(m, r, x.data() + r * m.cols);
  return x;
}

// A file laid out by hand, with the places of its integers.
struct Hand {
  std::string bytes;
  struct Integer {
    size_t at, size;
  };
  std::vector<Integer> integers;

  template <class T>
  Hand& put(T x) {
    if (std::is_integral_v<T>) integers.push_back({bytes.size(), sizeof x});
    bytes.append(reinterpret_cast<const char*>(&x), sizeof x);
    return *this;
  }
  Hand& u32(uint32_t x) { return put(x); }
  Hand& u64(uint64_t x) { return put(x); }
  Hand& text(const std::string& s) {
    u64(s.size());
    bytes += s;
    return *this;
  }
  Hand& begin(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    bytes = "GGUF";
    return u32(version).u64(tensors).u64(keys);
  }
  Hand& tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(dims.size()));
    for (uint64_t d : dims) u64(d);
    return u32(type).u64(offset);
  }
  Hand& data(size_t n, size_t alignment = 32) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    bytes.append(n, '\x11');
    return *this;
  }
};

Hand small_file(size_t last = 64, uint32_t version = 3) {
  Hand h;
  h.begin(3, 9, version);
  h.text("a.u8").u32(0).put(uint8_t{200});
  h.text("a.i16").u32(3).put(int16_t{-5});
  h.text("a.u64").u32(10).u64(uint64_t{1} << 40);
  h.text("a.f32").u32(6).put(1.5f);
  h.text("a.bool").u32(7).put(uint8_t{1});
  h.text("a.text").u32(8).text("h\u00e9llo");
  h.text("a.texts").u32(9).u32(8).u64(2).text("one").text("");
  h.text("a.numbers").u32(9).u32(12).u64(2).put(0.5).put(-2.0);
  h.text("a.flags").u32(9).u32(7).u64(2).put(uint8_t{0}).put(uint8_t{1});
  h.tensor("x", {4, 2}, 0, 0);       // F32 [2, 4]
  h.tensor("q", {32, 1, 2}, 8, 32);  // Q8_0 [2, 1, 32]
  h.tensor("last", {last / 4}, 0, 128);
  h.data(128 + last);
  return h;
}

GgufFile parse(const std::string& bytes) { return GgufFile::parse(std::as_bytes(std::span(bytes)), "hand.gguf"); }

// Parses bytes in a heap block of exactly their size (so that a sanitizer sees any step beyond) and reads all tensors.
// The error, or "" where the file is good.
std::string outcome(const std::string& bytes) {
  const std::vector<char> exact(bytes.begin(), bytes.end());
  try {
    const auto f = GgufFile::parse(std::as_bytes(std::span(exact)), "hand.gguf");
    for (const GgufTensor& t : f.tensors()) {
      EXPECT_EQ(f.find(t.name), &t);
      floats(t);
    }
    return "";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    EXPECT_EQ(std::string(e.what()).rfind("hand.gguf: ", 0), 0u) << e.what();
    return e.what();
  }
}

TEST(Gguf, ReadsWhatTheFormatSays) {
  for (uint32_t version : {2u, 3u}) {
    const std::string bytes = small_file(64, version).bytes;
    const GgufFile f = parse(bytes);
    EXPECT_EQ(f.integer("a.u8"), 200);
    EXPECT_EQ(f.integer("a.i16"), -5);
    EXPECT_EQ(f.integer("a.u64"), int64_t{1} << 40);
    EXPECT_EQ(f.integer("absent", 7), 7);
    EXPECT_EQ(f.number("a.f32"), 1.5);
    EXPECT_EQ(f.number("a.u8"), 200.0);
    EXPECT_EQ(f.number("absent", 0.25), 0.25);
    EXPECT_TRUE(f.boolean("a.bool"));
    EXPECT_FALSE(f.boolean("absent", false));
    EXPECT_EQ(f.text("a.text"), "h\u00e9llo");
    EXPECT_EQ(f.strings("a.texts"), (std::vector<std::string>{"one", ""}));
    EXPECT_EQ(f.numbers("a.numbers"), (std::vector<double>{0.5, -2.0}));
    EXPECT_EQ(std::get<std::vector<bool>>(f.metadata().at("a.flags").value), (std::vector<bool>{false, true}));
    EXPECT_TRUE(f.has("a.flags") && !f.has("a"));
    ASSERT_EQ(f.tensors().size(), 3u);
    EXPECT_EQ(f.at("x").shape_string(), "[2, 4]");
    EXPECT_EQ(f.at("q").shape_string(), "[2, 1, 32]");
    EXPECT_EQ(f.at("q").type, BlockType::q8_0);
    EXPECT_EQ(f.at("q").bytes, 68);
    EXPECT_EQ(f.at("q").matrix().rows, 2);
    EXPECT_EQ(f.find("y"), nullptr);
  }
}

// What a look-up says; "": nothing is wrong.
template <class F>
std::string error(F&& look_up) {
  try {
    look_up();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Gguf, LookUpsSayWhatIsWrong) {
  const std::string bytes = small_file().bytes;
  const GgufFile f = parse(bytes);
  EXPECT_EQ(error([&] { f.integer("a.text"); }), "hand.gguf: metadata 'a.text': expected an integer, found a text");
  EXPECT_EQ(error([&] { f.integer("a.f32", 1); }), "hand.gguf: metadata 'a.f32': expected an integer, found a number");
  EXPECT_EQ(error([&] { f.text("absent"); }), "hand.gguf: metadata 'absent' is missing");
  EXPECT_EQ(error([&] { f.numbers("a.texts"); }),
            "hand.gguf: metadata 'a.texts': expected a list of numbers, found texts");
  EXPECT_EQ(error([&] { f.at("absent"); }), "hand.gguf: tensor 'absent' is missing");
}

// A number that nobody asks for must not make a file unreadable; who asks for it is told.
TEST(Gguf, IntegersAboveTheSignedRange) {
  constexpr uint64_t kLarge = (uint64_t{1} << 63) + 5;
  const std::string bytes = Hand()
                                .begin(0, 3)
                                .text("one")
                                .u32(10)
                                .u64(kLarge)
                                .text("list")
                                .u32(9)
                                .u32(10)
                                .u64(2)
                                .u64(1)
                                .u64(kLarge)
                                .text("small")
                                .u32(9)
                                .u32(10)
                                .u64(1)
                                .u64(7)
                                .data(0)
                                .bytes;
  const GgufFile f = parse(bytes);
  EXPECT_EQ(std::get<uint64_t>(f.metadata().at("one").value), kLarge);
  EXPECT_EQ(std::get<GgufValue::Unsigned>(f.metadata().at("list").value), (GgufValue::Unsigned{1, kLarge}));
  EXPECT_EQ(f.integers("small"), std::vector<int64_t>{7});
  EXPECT_EQ(error([&] { f.integer("one"); }),
            "hand.gguf: metadata 'one': expected an integer, found an integer above 2^63 - 1");
  EXPECT_EQ(error([&] { f.number("one"); }),
            "hand.gguf: metadata 'one': expected a number, found an integer above 2^63 - 1");
  EXPECT_EQ(error([&] { f.integers("list"); }),
            "hand.gguf: metadata 'list': expected a list of integers, found a list with an integer above 2^63 - 1");
}

TEST(Gguf, MessagesNameTheFaultAndItsPlace) {
  const auto with_tensors = [](std::initializer_list<std::pair<std::string, std::vector<uint64_t>>> tensors,
                               std::initializer_list<uint64_t> offsets, uint32_t type = 0) {
    Hand h;
    h.begin(tensors.size(), 0);
    auto offset = offsets.begin();
    for (const auto& [name, dims] : tensors) h.tensor(name, dims, type, *offset++);
    return h.data(64).bytes;
  };
  const auto with_key = [](auto&& value) {
    Hand h;
    h.begin(0, 1).text("k");
    value(h);
    return h.data(64).bytes;
  };
  const struct {
    std::string bytes, fault;
  } cases[] = {
      {"", "does not begin with 'GGUF'"},
      {"GGML\3", "does not begin with 'GGUF'"},
      {Hand().begin(0, 0, 1).bytes, "version 1 is not supported"},
      {Hand().begin(0, 0, 4).bytes, "version 4 is not supported"},
      {Hand().begin(0, 0, 0x03000000).bytes, "big-endian file (version 3)"},
      {Hand().begin(1, 0).bytes, "1 tensors, but only 0 bytes are left"},
      {Hand().begin(0, 1u << 30).bytes, "keys of metadata, but only 0 bytes"},
      {with_tensors({{"a", {4}}, {"a", {4}}}, {0, 32}), "tensor 'a' occurs twice (byte 57)"},
      {with_tensors({{"a", {16}}, {"b", {4}}}, {0, 32}), "tensors 'a' and 'b' overlap (byte 57)"},
      {with_tensors({{"a", {16}}}, {32}), "tensor 'a': 64 bytes at 64 + 32 lie outside the file of 128 bytes"},
      {with_tensors({{"a", {4}}}, {4}), "tensor 'a': offset 4 is no multiple of 32"},
      {with_tensors({{"a", {4}}}, {uint64_t{1} << 63}), "outside"},
      {with_tensors({{"a", {33}}}, {0}, 8), "rows of 33 numbers are not whole blocks of 32 (Q8_0)"},
      {with_tensors({{"a", {32}}}, {0}, 5), "type 5 of ggml cannot be read (supported: 0 F32, 1 F16, "},
      {with_tensors({{"a", {1, 1, 1, 1, 1}}}, {0}), "tensor 'a': 5 dimensions"},
      {with_tensors({{"a", {4, 0}}}, {0}), "a dimension of 0"},
      {with_tensors({{"a", {uint64_t{1} << 32, uint64_t{1} << 32}}}, {0}),
       "shape [4294967296, 4294967296] is too large"},
      {with_tensors({{"a\nb\xff", {4}}}, {4}), "'a?b\uFFFD'"},
      {with_key([](Hand& h) { h.u32(9).u32(9).u64(1); }), "metadata 'k': an array of arrays cannot be read (byte 33)"},
      {with_key([](Hand& h) { h.u32(13).u64(1); }), "metadata 'k': value type 13 is not known"},
      {with_key([](Hand& h) { h.u32(7).put(uint8_t{2}); }), "a boolean is 0 or 1, not 2"},
      {with_key([](Hand& h) { h.u32(8).u64(10'000'000'000); }), "a string of 10000000000 bytes, but only"},
      {with_key([](Hand& h) { h.u32(9).u32(8).u64(10'000'000'000); }), "10000000000 elements of an array, but only"},
      {Hand().begin(0, 2).text("k").u32(7).put(uint8_t{1}).text("k").u32(7).put(uint8_t{1}).data(64).bytes,
       "metadata 'k': occurs twice"},
      {Hand().begin(0, 1).text("").u32(7).put(uint8_t{1}).data(64).bytes, "key 0 is empty"},
      {Hand().begin(0, 1).text("general.alignment").u32(4).u32(24).data(64).bytes, "not a power of two"},
      {Hand().begin(0, 1).text("general.alignment").u32(4).u32(0).data(64).bytes, "not a power of two"},
      {Hand().begin(0, 1).text("general.alignment").u32(8).text("32").data(64).bytes, "expected an integer"},
  };
  for (const auto& c : cases) {
    const std::string error = outcome(c.bytes);
    EXPECT_NE(error.find(c.fault), std::string::npos) << c.fault << "\n" << error;
    EXPECT_TRUE(error.find(" (byte ") != error.npos || error.find("not a GGUF file") != error.npos ||
                error.find("'general.alignment': expected an integer") != error.npos)
        << "without a place: " << error;
  }
}

TEST(Gguf, CutAtEveryByte) {
  for (const size_t last : {size_t{64}, size_t{64 << 10}}) {
    const std::string whole = small_file(last).bytes;
    EXPECT_EQ(outcome(whole), "");
    EXPECT_EQ(outcome(whole + std::string(32, '\0')), "") << "padding at the end";
    for (size_t n = 0; n < whole.size(); ++n)
      EXPECT_THROW(GgufFile::parse(std::as_bytes(std::span(whole.data(), n)), "cut"), Error) << n;
  }
}

TEST(Gguf, EveryIntegerReplacedAndEveryBitFlipped) {
  const Hand h = small_file();
  for (const auto& integer : h.integers) {
    for (uint64_t value : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, uint64_t{1} << 31, uint64_t{1} << 63,
                           (uint64_t{1} << 63) - 1, uint64_t{10'000'000'000}}) {
      std::string s = h.bytes;
      std::memcpy(s.data() + integer.at, &value, integer.size);
      outcome(s);  // an error, or another valid file: never a crash
    }
  }
  const size_t header = h.bytes.size() - 192;
  for (size_t i = 0; i < header; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string s = h.bytes;
      s[i] = static_cast<char>(s[i] ^ 1 << bit);
      outcome(s);
    }
  }
}

TEST(Gguf, MetadataOutOfProportionIsRefused) {
  const auto strings = [](size_t n) {
    Hand h;
    h.begin(0, 1).text("k").u32(9).u32(8).u64(n);
    h.bytes.append(8 * n, '\0');
    return h.data(64).bytes;
  };
  EXPECT_EQ(outcome(strings(300'000)), "") << "a vocabulary may stand alone in a file";
  EXPECT_NE(outcome(strings(4'000'000)).find("out of proportion"), std::string::npos);
}

TEST(Gguf, AlignmentIsHonoured) {
  const std::string bytes =
      Hand().begin(1, 1).text("general.alignment").u32(4).u32(256).tensor("x", {4}, 0, 256).data(256 + 16, 256).bytes;
  const GgufFile f = parse(bytes);
  EXPECT_EQ(reinterpret_cast<const char*>(f.at("x").data) - bytes.data(), 512);
}

// --- Writing ---------------------------------------------------------------------------------------------------------

void expect_same(const GgufFile& a, const GgufFile& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const GgufTensor &x = a.tensors()[i], &y = b.tensors()[i];
    EXPECT_EQ(x.name, y.name);
    EXPECT_EQ(x.type, y.type) << x.name;
    EXPECT_EQ(x.shape_string(), y.shape_string()) << x.name;
    ASSERT_EQ(x.bytes, y.bytes) << x.name;
    EXPECT_EQ(std::memcmp(x.data, y.data, static_cast<size_t>(x.bytes)), 0) << x.name;
  }
  ASSERT_EQ(a.metadata().size(), b.metadata().size());
  for (const auto& [key, value] : a.metadata()) EXPECT_EQ(value.value, b.metadata().at(key).value) << key;
}

void write_again(const GgufFile& f, const std::string& path) {
  GgufWrite out;
  for (const auto& [key, value] : f.metadata()) out.metadata.emplace_back(key, value);
  for (const GgufTensor& t : f.tensors()) out.tensors.push_back({t.name, t.type, {t.dim, t.dim + t.rank}});
  write_gguf(path, out, [&](size_t i, std::span<std::byte> to) {
    const GgufTensor& t = f.tensors()[i];
    ASSERT_EQ(to.size(), static_cast<size_t>(t.bytes));
    std::memcpy(to.data(), t.data, to.size());
  });
}

TEST(Gguf, WritingAndReadingGivesTheSame) {
  const TempFolder folder;
  GgufWrite out;
  out.metadata = {{"general.architecture", {std::string("test")}},
                  {"general.alignment", {int64_t{64}}},
                  {"i.u32", {int64_t{4294967295}}},
                  {"i.u64", {int64_t{4294967296}}},
                  {"i.i32", {int64_t{-1}}},
                  {"i.i64", {int64_t{-1} << 40}},
                  {"i.above", {~uint64_t{0}}},
                  {"l.above", {GgufValue::Unsigned{1, ~uint64_t{0}}}},
                  {"f", {0.5}},
                  {"b", {true}},
                  {"l.texts", {GgufValue::Strings{"a", "", "longer than fifteen bytes"}}},
                  {"l.narrow", {GgufValue::Integers{1, -1}}},
                  {"l.wide", {GgufValue::Integers{int64_t{1} << 33}}},
                  {"l.floats", {GgufValue::Floats{0.25, -3}}},
                  {"l.flags", {std::vector<bool>{true, false}}},
                  {"l.empty", {GgufValue::Integers{}}}};
  out.tensors = {{"one", BlockType::f32, {}}, {"m", BlockType::q4_k, {3, 256}}, {"t", BlockType::bf16, {2, 3, 5}}};
  const std::string path = folder.file("a.gguf");
  write_gguf(path, out, [](size_t i, std::span<std::byte> to) {
    for (size_t j = 0; j < to.size(); ++j) to[j] = static_cast<std::byte>(i + j);
  });
  const GgufFile f = GgufFile::open(path);
  ASSERT_EQ(f.metadata().size(), out.metadata.size());
  for (const auto& [key, value] : out.metadata) EXPECT_EQ(f.metadata().at(key).value, value.value) << key;
  EXPECT_EQ(f.at("one").rank, 0);
  EXPECT_EQ(f.at("m").shape_string(), "[3, 256]");
  EXPECT_EQ(f.at("t").bytes, 60);
  for (const GgufTensor& t : f.tensors()) EXPECT_EQ(reinterpret_cast<uintptr_t>(t.data) % 64, 0u);
  EXPECT_EQ(f.at("t").data[3], std::byte{5});
  write_again(f, folder.file("b.gguf"));
  expect_same(f, GgufFile::open(folder.file("b.gguf")));
  EXPECT_EQ(list_folder(folder.path()).size(), 2u) << "nothing is left aside";
}

TEST(Gguf, SplitFiles) {
  const TempFolder folder;
  const auto write_part = [&](int number, int count, int says_count, int total) {
    GgufWrite out;
    out.metadata = {{"split.no", {int64_t{number}}}, {"split.count", {int64_t{says_count}}}};
    out.metadata.push_back({"split.tensors.count", {int64_t{total}}});
    if (number == 0) out.metadata.push_back({"general.architecture", {std::string("llama")}});
    out.tensors = {{fmt::format("t{}", number), BlockType::f32, {2}}};
    const std::string path = folder.file(fmt::format("m-{:05}-of-{:05}.gguf", number + 1, count));
    write_gguf(path, out, [&](size_t, std::span<std::byte> to) { to[0] = static_cast<std::byte>(number); });
    return path;
  };
  const auto error = [](const std::string& path) {
    try {
      GgufFile::open(path);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  std::vector<std::string> paths;
  for (int i = 0; i < 3; ++i) paths.push_back(write_part(i, 3, 3, 3));
  for (const std::string& path : paths) {
    const GgufFile f = GgufFile::open(path);
    EXPECT_EQ(f.path(), paths[0]);
    EXPECT_EQ(f.text("general.architecture"), "llama");
    ASSERT_EQ(f.tensors().size(), 3u);
    EXPECT_EQ(f.at("t2").data[0], std::byte{2});
  }
  rename_path(paths[1], folder.file("other.gguf"));
  EXPECT_NE(error(paths[0]).find("parts are missing: m-00002-of-00003.gguf"), std::string::npos) << error(paths[0]);
  EXPECT_NE(error(folder.file("other.gguf")).find("must have a name that ends in -00002-of-00003.gguf"),
            std::string::npos);
  write_part(1, 3, 4, 3);
  EXPECT_NE(error(paths[0]).find("says that it is part 2 of 4"), std::string::npos);
  write_part(1, 3, 3, 3);
  write_part(0, 3, 3, 5);
  EXPECT_NE(error(paths[0]).find("split.tensors.count is 5, but the parts have 3"), std::string::npos);
  write_part(0, 3, 3, 3);
  std::string twice = read_file(paths[2]);
  twice[twice.find("t2") + 1] = '0';
  write_plain(paths[2], twice);
  EXPECT_NE(error(paths[0]).find("tensor 't0' occurs in two parts"), std::string::npos) << error(paths[0]);
  write_plain(paths[2], read_file(paths[1]));
  EXPECT_NE(error(paths[0]).find("says that it is part 2 of 3"), std::string::npos);
}

// --- Golden files ----------------------------------------------------------------------------------------------------

TEST(Gguf, GoldenModelsAreReadAndWrittenAgain) {
  const std::string path = shared("golden/gguf/measured.json");
  if (!path_exists(path)) GTEST_SKIP() << path << " is absent";
  const TempFolder folder;
  const auto models = nlohmann::json::parse(read_file(path));
  ASSERT_FALSE(models.empty());
  for (const auto& [name, measured] : models.items()) {
    const GgufFile f = GgufFile::open(shared("golden/gguf/") + name + ".gguf");
    std::map<std::string, int> types;
    for (const GgufTensor& t : f.tensors()) {
      ++types[block_spec(t.type).name];
      for (float x : floats(t)) ASSERT_TRUE(std::isfinite(x)) << t.name;
    }
    EXPECT_EQ(nlohmann::json(types), measured.at("tensors")) << name;
    EXPECT_EQ(f.at("token_embd.weight").rows(), static_cast<int64_t>(f.strings("tokenizer.ggml.tokens").size()));
    write_again(f, folder.file("again.gguf"));
    expect_same(f, GgufFile::open(folder.file("again.gguf")));
  }
}

// SHA-256 by the system's program, as the project has none of its own.
std::string sha256(const std::vector<float>& x, const std::string& scratch) {
  FILE* pipe = popen(("sha256sum > '" + scratch + "'").c_str(), "w");
  if (!pipe) return "no pipe";
  fwrite(x.data(), sizeof(float), x.size(), pipe);
  pclose(pipe);
  return read_file(scratch).substr(0, 64);
}

TEST(Gguf, SmolLm2HasTheGoldenTensors) {
  const std::string list = shared("golden/smollm2/tensors.jsonl"), models = shared("models");
  if (!path_exists(list) || !path_exists(models)) GTEST_SKIP() << list << " or " << models << " is absent";
  const auto paths = glob_files(join_path(models, "SmolLM2*.gguf"));
  if (paths.empty()) GTEST_SKIP() << "no SmolLM2 in " << models;
  const auto start = std::chrono::steady_clock::now();
  const GgufFile f = GgufFile::open(paths[0]);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 0.1);
  RecordProperty("open_ms", fmt::format("{:.1f}", 1e3 * seconds.count()));

  const TempFolder folder;
  const auto lines = read_whole_lines(list);
  ASSERT_EQ(lines.size(), f.tensors().size());
  for (size_t i = 0; i < lines.size(); ++i) {
    const auto expected = nlohmann::json::parse(lines[i]);
    const GgufTensor& t = f.tensors()[i];
    ASSERT_EQ(t.name, expected.at("name"));
    EXPECT_EQ(std::vector<int64_t>(t.dim, t.dim + t.rank), expected.at("shape")) << t.name;
    EXPECT_EQ(block_spec(t.type).name, expected.at("type")) << t.name;
    EXPECT_EQ(t.bytes, expected.at("bytes")) << t.name;
    EXPECT_EQ(t.data - f.tensors()[0].data,
              expected.at("offset").get<int64_t>() - nlohmann::json::parse(lines[0]).at("offset").get<int64_t>());
    const std::vector<float> x = floats(t);
    double sum = 0;
    for (float v : x) sum += v;
    EXPECT_NEAR(sum, expected.at("f64_sum").get<double>(), 1e-6) << t.name;
    EXPECT_EQ(std::vector<float>(x.begin(), x.begin() + 4), expected.at("first")) << t.name;
    if (i % 8 == 0) {  // layers have 9 tensors, so every kind comes up; all would take seconds
      EXPECT_EQ(sha256(x, folder.file("hash")), expected.at("f32_sha256")) << t.name;
    }
  }
}

}  // namespace
}  // namespace ponder
