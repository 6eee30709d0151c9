#include "ponder/model/gguf_names.h"

#include <gtest/gtest.h>

#include <cstring>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/model/rope.h"
#include "tests/tiny_models.h"

namespace ponder::model {
namespace {

// A small model whose context is extended; `mla`: of DeepSeek's shape.
ModelConfig extended(const char* scaling, bool mla) {
  ModelConfig c = mla ? test::tiny_v3() : test::tiny_dense();
  c.head_dim = mla ? 0 : 64;  // frequencies far enough apart for llama3
  c.partial_rotary_factor = 1;
  c.rope_scaling = scaling;
  c.rope_factor = 8;
  c.original_max_position_embeddings = 8192;
  return c;
}

std::string error_of(const ModelConfig& c) {
  try {
    gguf_metadata(c, "m");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data);
    return e.what();
  }
  return "";
}

using Metadata = std::vector<std::pair<std::string, GgufValue>>;

// What a file of this metadata says.
ModelConfig read_back(const ModelConfig& c, const Metadata& more = {}) {
  const TempFolder folder;
  GgufWrite out{.metadata = gguf_metadata(c, "m"), .tensors = {}};
  out.metadata.insert(out.metadata.end(), more.begin(), more.end());
  out.tensors.push_back({"token_embd.weight", BlockType::f32, {c.vocab_size, c.hidden_size}});
  const std::vector<float> divisors = gguf_rope_divisors(c);
  if (!divisors.empty())
    out.tensors.push_back({"rope_freqs.weight", BlockType::f32, {static_cast<int64_t>(divisors.size())}});
  write_gguf(folder.file("m.gguf"), out, [&](size_t i, std::span<std::byte> to) {
    if (i == 1) std::memcpy(to.data(), divisors.data(), to.size());
  });
  return config_from_gguf(GgufFile::open(folder.file("m.gguf")));
}

TEST(GgufNames, YarnIsWrittenOnlyIfItIsReadBack) {
  for (const bool mla : {false, true}) {
    ModelConfig c = extended("yarn", mla);
    if (mla) c.mscale = c.mscale_all_dim = 0.707;
    EXPECT_NEAR(rope_magnitude(read_back(c)), rope_magnitude(c), 1e-6);
    EXPECT_NEAR(read_back(c).softmax_scale(), c.softmax_scale(), 1e-6);
    c.attention_factor = rope_magnitude(c);  // what would be computed anyway
    EXPECT_EQ(error_of(c), "");
    c.attention_factor = 1.5;
    EXPECT_NE(error_of(c).find("m: YaRN's factor of cosines and sines is 1.5 (attention_factor 1.5"), std::string::npos)
        << error_of(c);
    c.attention_factor = 0;
    c.mscale = 0.9;
    EXPECT_NE(error_of(c).find("mscale 0.9"), std::string::npos) << error_of(c);
    c.rope_factor = 1;  // then it is 1, whatever the mscales are
    EXPECT_EQ(error_of(c), "");
  }
}

TEST(GgufNames, Llama3ScalingIsWrittenOnlyIfItIsReadBack) {
  ModelConfig c = extended("llama3", false);
  const std::vector<double> wanted = rope_frequencies(c), found = rope_frequencies(read_back(c));
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-4 * wanted[i]);
  c.high_freq_factor = 8;
  EXPECT_NE(error_of(c).find("m: the llama3 scaling (factor 8, low_freq_factor 1, high_freq_factor 8"),
            std::string::npos)
      << error_of(c);
  c.high_freq_factor = 4;
  c.original_max_position_embeddings = 5000;
  EXPECT_NE(error_of(c), "");
}

TEST(GgufNames, NumbersThatWeDoNotComputeWithMustBeNeutral) {
  ModelConfig c = test::tiny_dense();
  const std::pair<const char*, std::vector<double>> neutral[] = {{"rope.scaling.attn_factor", {1}},
                                                                 {"attention.scale", {0, c.softmax_scale()}},
                                                                 {"logit_scale", {0, 1}},
                                                                 {"attention.sliding_window", {0, 4096, 1 << 20}}};
  for (const auto& [key, values] : neutral) {
    const std::string name = std::string("llama.") + key;
    for (const double x : values) EXPECT_NO_THROW(read_back(c, {{name, GgufValue{x}}})) << name << " " << x;
    try {
      read_back(c, {{name, GgufValue{3.0}}});
      ADD_FAILURE() << name << " was ignored";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Exit::data);
      EXPECT_NE(std::string(e.what()).find("m.gguf: " + name + " is 3: "), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace ponder::model
