// Files that are damaged or made to do harm: config.json, tokenizer.json, templates, and whole models of them. An error
// says what is wrong and where; nothing crashes, hangs or takes more memory than the file gives reason for. What concerns
// one format of tensors alone is in ponder/tensor/gguf_test.cc and tensor_file_test.cc.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "ponder/base/file.h"
#include "ponder/model/convert.h"
#include "ponder/model/gguf_names.h"
#include "ponder/model/weights.h"
#include "ponder/tensor/tensor_file.h"
#include "ponder/text/bpe_gguf.h"
#include "ponder/text/chat.h"
#include "ponder/text/model_text.h"
#include "tests/tiny_models.h"

namespace ponder {
namespace {

constexpr size_t kLarge = 64 << 10;

void write_plain(const std::string& path, std::string_view bytes) { FileWriter(path).write(bytes); }

std::string times(size_t n, std::string_view s) {
  std::string out;
  out.reserve(n * s.size());
  for (size_t i = 0; i < n; ++i) out += s;
  return out;
}

// The message of the Error that f throws; "" if it throws none.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::data) << e.what();
    EXPECT_LT(std::strlen(e.what()), 2000u);
    return e.what();
  }
  return "";
}

// f of every proper prefix of the text, on all processors.
void for_every_prefix(const std::string& text, const std::function<void(const std::string&)>& f) {
  std::atomic<size_t> next = 0;
  std::vector<std::thread> threads(std::max(2u, std::thread::hardware_concurrency()));
  for (std::thread& t : threads)
    t = std::thread([&] {
      std::string cut;
      for (size_t n; (n = next++) < text.size();) f(cut.assign(text, 0, n));
    });
  for (std::thread& t : threads) t.join();
}

const char* const kConfig = R"({
  "model_type": "deepseek_v3", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
  "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512, "q_lora_rank": 24,
  "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 16,
  "n_shared_experts": 1, "num_experts_per_tok": 4, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
  "n_group": 4, "topk_group": 2, "num_nextn_predict_layers": 1, "moe_layer_freq": 1
})";

std::string config_error(const std::string& json) {
  return error_of([&] { model::parse_config_json(json, "config.json"); });
}

// `text` with the number of `"name": number` replaced.
std::string with_number(std::string text, const std::string& name, const std::string& value) {
  const size_t at = text.find("\"" + name + "\": ") + name.size() + 4;
  size_t end = at;
  while (isdigit(text[end])) ++end;
  return text.replace(at, end - at, value);
}

// --- config.json -----------------------------------------------------------------------------------------------------

TEST(BadConfig, CutAtEveryByte) {
  std::string large = kConfig;
  large.insert(large.rfind('}'), ", \"note\": \"" + std::string(kLarge - large.size() - 14, 'n') + "\"");
  EXPECT_EQ(config_error(large), "");
  EXPECT_GE(large.size(), kLarge - 10);
  for_every_prefix(large, [](const std::string& cut) {
    const std::string error = config_error(cut);
    ASSERT_TRUE(error.starts_with("config.json:") && error.find(fmt::format(" byte {}: ", cut.size())) != error.npos)
        << cut.size() << ": " << error;
  });
}

TEST(BadConfig, EveryIntegerReplaced) {
  int refused = 0, integers = 0;
  for (std::string_view rest = kConfig; rest.find(": ") != rest.npos;) {
    rest.remove_prefix(rest.find('"') + 1);
    const std::string name(rest.substr(0, rest.find('"')));
    rest.remove_prefix(rest.find(": ") + 2);
    if (!isdigit(rest[0])) {
      rest.remove_prefix(rest.find(','));
      continue;
    }
    ++integers;
    for (const char* value : {"-1", "2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551615",
                              "18446744073709551616", "1e3", "1.0", "\"1\"", "[]", "{}", "true"}) {
      const std::string error = config_error(with_number(kConfig, name, value));
      EXPECT_TRUE(error.starts_with("config.json: ") && error.find(name) != error.npos) << name << value << error;
    }
    for (const char* value : {"0", "1", "1073741824", "null"})  // some of them are good for some
      refused += config_error(with_number(kConfig, name, value)) != "";
  }
  EXPECT_EQ(integers, 21);
  EXPECT_GT(refused, 30);
}

TEST(BadConfig, SaysWhatIsWrong) {
  const auto with = [](std::string_view member) { return "{" + std::string(member) + ", " + std::string(kConfig + 1); };
  const std::pair<std::string, const char*> cases[] = {
      {"", "config.json:1: byte 0: "},
      {"[]", "not a JSON object"},
      {"{}", "\"model_type\" must be given"},
      {R"({"model_type": "mamba"})", "\"mamba\" is not supported (supported: deepseek_v3, deepseek_v2, llama, qwen2"},
      {with("\"hidden_act\": \"gelu\""), "\"gelu\" is not supported (supported: silu)"},
      {with("\"scoring_func\": \"tanh\""), "\"tanh\" is not supported (supported: sigmoid, softmax)"},
      {with("\"topk_method\": \"best\""), "\"best\" is not supported (supported: noaux_tc, greedy"},
      {with(R"("rope_scaling": {"type": "ntk"})"), "\"ntk\" is not supported (supported: yarn, llama3)"},
      {with("\"rope_scaling\": 2"), "\"rope_scaling\" must be an object"},
      {with(R"("quantization_config": {"quant_method": "awq"})"), "\"awq\" is not supported (supported: fp8"},
      {with("\"vocab_size\": 64"), "the key \"vocab_size\" stands twice"},
      {with("\"rope_theta\": 1e999"), "byte "},
      {with("\"rope_theta\": -1"), "rope_theta"},
      {with("\"note\": " + times(40, "[") + times(40, "]")), "more than 32 levels"},
      {with("\"note\": [" + times(70'000, "0,") + "0]"), "more than 65536 values"},
      {with("\"note\": \"" + std::string(2 << 20, 'n') + "\""), "bytes of JSON, more than"},
      {with("\"note\": \"\xff\""), "byte "},
      {R"({"model_type": ")" + std::string(100'000, 'x') + "\"}", "\"model_type\" must be a string of at most 80"},
      {with_number(kConfig, "num_attention_heads", "1048576"), "heads"},
  };
  for (const auto& [json, fault] : cases) {
    const std::string error = config_error(json);
    EXPECT_TRUE(error.starts_with("config.json:") && error.find(fault) != error.npos) << json.substr(0, 60) << "\n"
                                                                                      << fault << "\n"
                                                                                      << error;
  }
}

// The same config in GGUF's metadata: every number replaced gives an error that names it or the field it stands for, or a
// config that can be written and read again.
TEST(BadConfig, EveryNumberOfGgufReplaced) {
  const TempFolder folder;
  const std::string path = folder.file("m.gguf");
  const auto metadata = model::gguf_metadata(model::parse_config_json(kConfig, "config.json"), "m");
  int refused = 0;
  const auto check = [&](const std::vector<std::pair<std::string, GgufValue>>& changed) {
    write_gguf(path, {.metadata = changed, .tensors = {{"token_embd.weight", BlockType::f32, {64, 32}}}},
               [](size_t, std::span<std::byte>) {});
    const std::string error = error_of([&] {
      const auto config = model::config_from_gguf(GgufFile::open(path));
      model::parse_config_json(model::config_json(config), "again");
    });
    EXPECT_TRUE(error.empty() || error.starts_with(path + ": ")) << error;
    refused += !error.empty();
  };
  check(metadata);
  EXPECT_EQ(refused, 0);
  for (size_t i = 0; i < metadata.size(); ++i) {
    for (const int64_t value : {int64_t{0}, int64_t{1}, int64_t{-1}, int64_t{1} << 31, INT64_MAX, INT64_MIN}) {
      if (metadata[i].second.value.index() > 1) continue;  // no number
      auto changed = metadata;
      changed[i].second = std::holds_alternative<double>(metadata[i].second.value)
                              ? GgufValue{value < 0   ? -INFINITY
                                          : value > 1 ? NAN
                                                      : static_cast<double>(value)}
                              : GgufValue{value};
      check(changed);
    }
  }
  EXPECT_GT(refused, 60);
}

// --- tokenizer.json --------------------------------------------------------------------------------------------------

// A byte-level BPE with merges and marks; at least `bytes` long.
std::string tokenizer_json(size_t bytes) {
  text::GgufVocabulary v{.pre = "qwen2", .tokens = text::byte_alphabet()};
  for (size_t n = 0; n < bytes / 20; ++n) {
    v.merges.push_back(fmt::format("{}{} {}", n > 25 ? v.tokens[256 + n / 26 - 1] : "", n > 25 ? "" : "a",
                                   std::string(1, static_cast<char>('a' + n % 26))));
    std::string both = v.merges.back();
    both.erase(both.find(' '), 1);
    v.tokens.push_back(both);
  }
  v.tokens.emplace_back("<|end|>");
  v.token_types.assign(v.tokens.size(), text::GgufVocabulary::kNormal);
  v.token_types.back() = text::GgufVocabulary::kControl;
  return text::tokenizer_from_gguf(v, "made")->to_json();
}

std::string tokenizer_error(const std::string& json) {
  return error_of([&] { text::parse_tokenizer(json, "tokenizer.json"); });
}

TEST(BadTokenizer, CutAtEveryByte) {
  const std::string large = tokenizer_json(kLarge);
  EXPECT_GE(large.size(), kLarge);
  EXPECT_EQ(tokenizer_error(large), "");
  const std::string whole = large.substr(0, large.find_last_of('}') + 1);
  for_every_prefix(whole, [](const std::string& cut) {
    const std::string error = tokenizer_error(cut);
    ASSERT_TRUE(error.starts_with("tokenizer.json:") && error.find(fmt::format("byte {}: ", cut.size())) != error.npos)
        << cut.size() << ": " << error;
  });
}

TEST(BadTokenizer, EveryIntegerReplaced) {
  const std::string small = tokenizer_json(0);
  int integers = 0;
  for (size_t i = 0; (i = small.find(':', i)) != small.npos; ++i) {
    size_t end = i + 1;
    while (isdigit(small[end])) ++end;
    if (end == i + 1 || small[i - 1] != '"') continue;
    ++integers;
    const std::string old = small.substr(i + 1, end - i - 1);
    for (const char* value : {"0", "1", "-1", "2147483648", "9223372036854775808", "18446744073709551615", "1.5",
                              "\"1\"", "null", "[]", "1048576"}) {
      if (value == old) continue;
      const std::string error = tokenizer_error(std::string(small).replace(i + 1, end - i - 1, value));
      EXPECT_TRUE(error.starts_with("tokenizer.json: ")) << old << " " << value << " " << error;
    }
    // Far away is a hole in the ids, which a BPE may have; its memory is bounded by the limit on ids.
    if (integers % 40 == 0) {
      EXPECT_EQ(tokenizer_error(std::string(small).replace(i + 1, end - i - 1, "1048575")), "");
    }
  }
  EXPECT_EQ(integers, 258);  // the vocabulary, and the id of the mark
}

TEST(BadTokenizer, NamesTheFault) {
  const auto word = [](std::string_view vocab, std::string_view added = "") {
    return fmt::format(R"({{"added_tokens":[{}],"pre_tokenizer":{{"type":"WhitespaceSplit"}},"model":{{"type":)"
                       R"("WordLevel","vocab":{{{}}}}}}})",
                       added, vocab);
  };
  const std::pair<std::string, const char*> cases[] = {
      {word(R"("a":0,"a":1)"), "\"a\" has two ids"},
      {word(R"("a":0,"b":0)"), "id 0 belongs to \"a\" and to \"b\""},
      {word(R"("a":0)", R"({"id":0,"content":"b"})"), "id 0 belongs to"},
      {word(R"("a":0)", R"({"id":1,"content":"b","special":true},{"id":1,"content":"c"})"), "id 1 belongs to"},
      {word(R"("a":0,"":1)"), "token 1 is empty"},
      {word(R"("a":0)", fmt::format(R"({{"id":1,"content":"{}"}})", std::string(5000, 'x'))), "an added token of 5000"},
      {R"({"model":{"type":"Unigram"}})",
       "Unigram are not supported (SentencePiece); byte-level BPE and WordLevel are"},
      {"{\"model\":" + times(100, "[") + times(100, "]") + "}", "levels"},
      {"{\"model\":\"\xff\"}", "byte 11"},
      {"{\"model\":{}}\n{}", "byte 1"},
  };
  for (const auto& [json, fault] : cases) {
    const std::string error = tokenizer_error(json);
    EXPECT_TRUE(error.starts_with("tokenizer.json:") && error.find(fault) != error.npos) << fault << "\n" << error;
  }
}

// --- Templates -------------------------------------------------------------------------------------------------------

std::string template_error(const std::string& source) {
  return error_of([&] { text::jinja::Template::parse(source, "chat"); });
}

TEST(BadTemplate, CutAtEveryByte) {
  std::string whole = "{%- for m in messages %}";
  while (whole.size() < kLarge) {
    whole += std::string(1500, 't') + "\n{{- m['role'] | upper ~ \"\\n\" -}}{# note #}\n{% if m.content is string %}";
    whole += std::string(1500, 'u') + "{% raw %}{{ no }}{% endraw %}{% else %}\u00E9{{ m.content[0].text }}{% endif %}";
  }
  whole += "{% endfor %}";
  EXPECT_EQ(template_error(whole), "");
  for_every_prefix(whole, [](const std::string& cut) {
    const std::string error = template_error(cut);
    ASSERT_EQ(error.starts_with("chat:"), cut.size() > 1) << cut.size() << error;  // "{" is text
  });
}

TEST(BadTemplate, EveryByteReplaced) {
  const std::string whole =
      "{%- set ns = namespace(n=0) -%}{% macro f(a, b=[1, 2.5]) %}{{ a ~ b[::-1] }}{% endmacro %}"
      "{% for m in messages if m.role != 'tool' recursive %}{{ loop.index0 }}{{ f(m.content | trim, b=(1,)) }}"
      "{% set ns.n = ns.n + -2 ** 2 // 3 %}{% else %}{# none #}{% raw %}{{{% endraw %}{% endfor %}{{ {'a': ns.n}.a "
      "}}\n";
  const auto variables = text::jinja::Value::from_json(
      R"({"messages": [{"role": "user", "content": " a "}, {"role": "tool", "content": "b"}]})", "variables");
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char c : {'\0', ' ',  '\n', '{', '}', '%', '#', '-', '(', ')',    '[',
                         '"',  '\'', '\\', '.', '|', '0', 'x', '=', '*', '\x80', '\xff'}) {
      std::string s = whole;
      s[i] = c;
      const std::string error = error_of([&] {
        text::jinja::Template::parse(s, "chat").render(variables, {.max_steps = 10'000, .max_output_bytes = 10'000});
      });
      EXPECT_TRUE(error.empty() || error.starts_with("chat:")) << error;
    }
  }
}

TEST(BadTemplate, CyclesEnd) {
  const auto error = [](const std::string& source) {
    return error_of([&] {
      text::jinja::Template::parse(source, "chat").render(text::jinja::Value::dict({}), {.max_steps = 1'000'000});
    });
  };
  EXPECT_EQ(error("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.list = [ns, [ns]] %}ok"), "");
  EXPECT_NE(error("{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}"), "");
  EXPECT_NE(error("{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}"), "");
  EXPECT_NE(error("{% for i in [[]] recursive %}{{ loop([i]) }}{% endfor %}"), "");
  EXPECT_NE(error("{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}"
                  "{% endmacro %}{{ g() }}"),
            "");
}

// --- Models ----------------------------------------------------------------------------------------------------------

class BadModel : public ::testing::Test {
 protected:
  BadModel() { model::save_model(*test::make_model(test::tiny_dense(), {}), folder_.path(), DType::f32); }
  std::string error() {
    return error_of([&] { model::load_model(folder_.path(), {}); });
  }
  // Writes config.json with one number changed.
  void change(const std::string& name, const std::string& value) {
    write_plain(folder_.file("config.json"), with_number(config_, name, value));
  }
  TempFolder folder_;
  const std::string config_ = model::config_json(test::tiny_dense());
};

TEST_F(BadModel, WrongShapesNameFileTensorAndBothShapes) {
  EXPECT_EQ(error(), "");
  const struct {
    const char *name, *value, *tensor, *shapes;
  } cases[] = {
      {"vocab_size", "54", "model.embed_tokens.weight", "[53, 36], but the model's config asks for [54, 36]"},
      {"hidden_size", "48", "model.embed_tokens.weight", "[53, 36], but the model's config asks for [53, 48]"},
      {"intermediate_size", "44", "model.layers.0.mlp.gate_proj.weight", "[40, 36], but"},
      {"num_key_value_heads", "3", "model.layers.0.self_attn.k_proj.weight", "[24, 36], but"},
  };
  for (const auto& c : cases) {
    change(c.name, c.value);
    const std::string e = error();
    EXPECT_TRUE(e.starts_with(folder_.path()) && e.find(c.tensor) != e.npos && e.find(c.shapes) != e.npos) << e;
  }
  change("num_hidden_layers", "3");
  EXPECT_NE(error().find("tensor model.layers.2.input_layernorm.weight is missing"), std::string::npos) << error();
  change("num_hidden_layers", "1");  // what is beyond would be left unread
  EXPECT_NE(error().find("tensor model.layers.1."), std::string::npos) << error();
  EXPECT_NE(error().find("does not belong to this"), std::string::npos) << error();
}

TEST_F(BadModel, UnknownArchitecturesAndTypesAreNamed) {
  std::string other = config_;
  other.replace(other.find("\"llama\""), 7, "\"mamba\"");
  write_plain(folder_.file("config.json"), other);
  EXPECT_NE(error().find("\"mamba\" is not supported (supported: deepseek_v3"), std::string::npos) << error();

  const std::string gguf = folder_.file("m.gguf");
  const std::vector<std::pair<std::string, GgufValue>> metadata = {{"general.architecture", {std::string("mamba")}}};
  write_gguf(gguf, {.metadata = metadata, .tensors = {}}, {});
  const std::string e = error_of([&] { model::WeightSource::open(gguf); });
  EXPECT_TRUE(e.starts_with(gguf) && e.find("\"mamba\" is not supported (supported: llama, qwen2, qwen3") != e.npos)
      << e;

  write_plain(folder_.file("config.json"), config_);
  std::string weights = read_file(folder_.file("model.safetensors"));
  weights.replace(weights.find("\"F32\""), 5, "\"F6X\"");
  write_plain(folder_.file("model.safetensors"), weights);
  EXPECT_NE(error().find("dtype 'F6X' is not known (F64, F32, F16, BF16"), std::string::npos) << error();
}

// --- Tensors that are not known --------------------------------------------------------------------------------------

// A small model as GGUF, with one more tensor; what opening, loading or converting it says.
class ForeignTensor : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto config = test::tiny_dense();
    const auto source = model::random_source(config, 1);
    ThreadPool pool(1);
    model::write_gguf_model(*source, plain_, model::TypeScheme("f32"), {}, pool);
  }
  void add(const std::string& name) {
    const GgufFile f = GgufFile::open(plain_);
    GgufWrite out;
    for (const auto& [key, value] : f.metadata()) out.metadata.emplace_back(key, value);
    for (const GgufTensor& t : f.tensors()) out.tensors.push_back({t.name, t.type, {t.dim, t.dim + t.rank}});
    out.tensors.push_back({name, BlockType::f32, {36}});
    write_gguf(path_, out, [&](size_t i, std::span<std::byte> to) {
      if (i < f.tensors().size()) std::memcpy(to.data(), f.tensors()[i].data, to.size());
    });
  }
  std::string load_error() {
    return error_of([&] { model::load_model(path_, {}); });
  }
  std::string convert_error() {
    ThreadPool pool(1);
    return error_of([&] {
      const auto source = model::WeightSource::open(path_);
      model::write_gguf_model(*source, folder_.file("out.gguf"), model::TypeScheme("keep"), {}, pool);
    });
  }
  const TempFolder folder_;
  const std::string plain_ = folder_.file("plain.gguf"), path_ = folder_.file("more.gguf");
};

TEST_F(ForeignTensor, IsRefusedByName) {
  for (const char* name : {"blk.0.attn_output.bias", "blk.0.ffn_down.bias", "blk.0.ffn_up.scale", "cls.weight",
                           "blk.0.ffn_up_exps.weight", "blk.2.attn_norm.weight", "blk.1.attn_kv_a_norm.weight"}) {
    add(name);
    const std::string gguf = name, loaded = load_error(), converted = convert_error();
    const std::string released = model::released_name(gguf, 0).value_or(gguf);
    for (const std::string& e : {loaded, converted})
      EXPECT_TRUE(e.starts_with(path_ + ": tensor ") && (e.find(gguf) != e.npos || e.find(released) != e.npos))
          << name << ": " << e;
    EXPECT_FALSE(path_exists(folder_.file("out.gguf")));
  }
}

// --- Memory ----------------------------------------------------------------------------------------------------------

int64_t status_bytes(const char* name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name)) return std::atoll(line.c_str() + std::strlen(name)) << 10;
  return -1;
}

// By how much f lifts the memory of a process at most; of a child, whose peak begins with what it has.
int64_t peak_of(const std::function<void()>& f) {
  malloc_trim(0);
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    const int64_t before = status_bytes("VmRSS:");
    try {
      f();
    } catch (const Error&) {
    }
    const int64_t peak = status_bytes("VmHWM:") - before;
    _exit(write(ends[1], &peak, sizeof peak) == sizeof peak ? 0 : 1);
  }
  close(ends[1]);
  int64_t peak = -1;
  if (read(ends[0], &peak, sizeof peak) != sizeof peak) peak = -1;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return peak;
}

// The peak of `open(path)` for a file of these bytes, cut short or not, is at most `factor` times the file and 16 MB.
void expect_bounded(const char* what, const std::string& bytes, double factor,
                    const std::function<void(const std::string&)>& open) {
  const TempFolder folder;
  const std::string path = folder.file("file");
  for (const size_t cut : {size_t{0}, size_t{1}, bytes.size() / 2}) {
    write_plain(path, std::string_view(bytes).substr(0, bytes.size() - cut));
    const int64_t peak = peak_of([&] { open(path); });
    const double file = static_cast<double>(bytes.size() - cut) / 1e6, allowed = factor * file + 16;
    EXPECT_TRUE(peak >= 0 && static_cast<double>(peak) / 1e6 <= allowed)
        << what << ", " << file << " MB less " << cut << " bytes: " << static_cast<double>(peak) / 1e6;
    if (std::getenv("PONDER_TIMES")) fmt::print("{:24} {:6.2f} MB: {:7.2f}\n", what, file, double(peak) / 1e6);
  }
}

std::string with_length(const std::string& header) {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), sizeof n) + header;
}

std::string numbered(size_t n, std::string_view format) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += (i ? "," : "") + fmt::format(fmt::runtime(format), i);
  return out;
}

class Memory : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers keep memory of their own";
#endif
  }
};

TEST_F(Memory, Gguf) {
  const auto u32 = [](uint32_t x) { return std::string(reinterpret_cast<const char*>(&x), sizeof x); };
  const auto u64 = [](uint64_t x) { return std::string(reinterpret_cast<const char*>(&x), sizeof x); };
  const auto check = [&](const char* what, uint64_t tensors, uint64_t keys, const std::string& rest) {
    expect_bounded(what, "GGUF" + u32(3) + u64(tensors) + u64(keys) + rest, 2,
                   [](const std::string& p) { GgufFile::open(p); });
  };
  constexpr uint64_t n = 1'000'000;
  const auto list = [&](uint32_t type) { return u64(1) + "k" + u32(9) + u32(type) + u64(n); };
  check("empty strings", 0, 1, list(8) + std::string(8 * n, '\0'));
  check("short strings", 0, 1, list(8) + times(n, u64(16) + std::string(16, 's')));
  check("bytes", 0, 1, list(0) + std::string(n, '\1'));
  check("flags", 0, 1, list(7) + std::string(n, '\1'));
  check("numbers", 0, 1, list(6) + std::string(4 * n, '\0'));
  check("one string", 0, 1, u64(1) + "k" + u32(8) + u64(20 * n) + std::string(20 * n, 's'));
  check("one key", 0, 1, u64(20 * n) + std::string(20 * n, 'k') + u32(0) + "\1");
  std::string keys, tensors;
  for (uint32_t i = 0; i < n; ++i) {
    keys += u64(4) + u32(i) + u32(0) + "\1";
    tensors += u64(4) + u32(i) + u32(1) + u64(1) + u32(24) + u64(32 * i);
  }
  check("keys", 0, n, keys);
  check("tensors", n, 0, tensors + std::string(32 * n, '\0'));
}

TEST_F(Memory, Safetensors) {
  const auto check = [](const char* what, const std::string& header) {
    expect_bounded(what, with_length(header), 2, [](const std::string& p) { SafetensorsFile::open(p); });
  };
  check("tensors", "{" + numbered(131'000, R"("{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})") + "}");
  check("long names",
        "{" + numbered(131'000, R"("0123456789abcdef{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})") + "}");
  check("metadata", R"({"__metadata__":{)" + numbered(800'000, R"("{}":"")") + "}}");
  check("one text", R"({"__metadata__":{"a":")" + std::string(20 << 20, 'a') + "\"}}");
  check("one name", "{\"" + std::string(20 << 20, 'a') + "\":0}");
  check("spaces", "{" + std::string(20 << 20, ' ') + "}");
  check("arrays", "{\"a\":{\"shape\":[" + times(4 << 20, "[") + "}");
}

TEST_F(Memory, SafetensorsIndex) {
  const auto check = [](const char* what, const std::string& index) {
    expect_bounded(what, index, 2, [](const std::string& p) {
      const TempFolder folder;
      std::filesystem::rename(p, folder.file("model.safetensors.index.json"));
      Checkpoint::open(folder.path());
    });
  };
  check("tensors", "{\"weight_map\":{" + numbered(600'000, R"("{}":"a.safetensors")") + "}}");
  check("arrays", "{\"a\":" + times(8 << 20, "["));
  check("one text", "{\"a\":\"" + std::string(8 << 20, 'a') + "\"}");
  check("empty arrays", "{\"a\":[" + times(30 << 20, "[],") + "[]]}");
  check("nulls", "{\"a\":[" + times(18 << 20, "null,") + "null]}");
}

TEST_F(Memory, Config) {
  const auto check = [](const char* what, const std::string& json) {
    expect_bounded(what, json, 2, [](const std::string& p) { model::parse_config_json(read_file(p), p); });
  };
  const size_t n = (size_t{1} << 20) - 20;
  check("numbers", "{\"a\":[" + times(n / 2, "0,") + "0]}");
  check("objects", "{\"a\":[" + times(n / 3, "{},") + "{}]}");
  check("arrays", "{\"a\":[" + times(n / 5, "[[]],") + "[]]}");
  check("one text", "{\"a\":\"" + std::string(n, 'a') + "\"}");
  check("too large", "{\"a\":\"" + std::string(8 * n, 'a') + "\"}");
}

// The tokenizer counts, too.
TEST_F(Memory, Tokenizer) {
  const auto check = [](const char* what, const std::string& json) {
    expect_bounded(what, json, 2, [](const std::string& p) { text::load_tokenizer(p); });
  };
  const auto bpe = [&](const char* what, const std::string& vocab, const std::string& merges,
                       std::string_view added = "", std::string_view rest = "") {
    check(what, fmt::format(R"({{"added_tokens":[{}],"pre_tokenizer":{{"type":"ByteLevel"}},"model":{{"type":"BPE",)"
                            R"("merges":[{}],"vocab":{{{}}}}}{}}})",
                            added, merges, vocab, rest));
  };
  const size_t n = 20 << 20;
  const std::string good = tokenizer_json(4 << 20);
  check("good", good);
  check("damaged", good.substr(0, good.rfind('}')));
  bpe("tokens", numbered(1'000'000, R"("{0}":{0})"), "");
  bpe("long tokens", numbered(1'000'000, R"("0123456789abcdef{0}":{0})"), "");
  bpe("huge tokens", numbered(20, "\"" + std::string(1'000'000, 'a') + R"({0}":{0})"), "");
  bpe("a hole", R"("a":1048575)", "");
  bpe("a token again", R"("a":0)" + times(n / 6, R"(,"a":0)"), "");
  bpe("a merge again", R"("a":0,"b":1,"ab":2)", R"("a b")" + times(1'000'000, R"(,"a b")"));
  bpe("too many merges", R"("a":0,"b":1,"ab":2)", R"("a b")" + times(n / 6, R"(,"a b")"));
  // Three merges of each token of four letters, of which there are 456,976: a byte of the file gives no more.
  std::string vocab, texts, pairs;
  const auto token = [](size_t number, size_t letters) {
    std::string out;
    for (; letters-- > 0; number /= 26) out += static_cast<char>('a' + number % 26);
    return out;
  };
  for (size_t letters = 1, id = 0, all = 26; letters <= 4; ++letters, all *= 26) {
    for (size_t i = 0; i < all; ++i, ++id) {
      const std::string t = token(i, letters);
      vocab += fmt::format("{}\"{}\":{}", id ? "," : "", t, id);
      for (size_t k = 1; k < letters && (letters < 4 || i < 300'000); ++k) {
        texts += fmt::format("{}\"{} {}\"", texts.empty() ? "" : ",", t.substr(0, k), t.substr(k));
        pairs += fmt::format("{}[\"{}\",\"{}\"]", pairs.empty() ? "" : ",", t.substr(0, k), t.substr(k));
      }
    }
  }
  bpe("merges", vocab, texts);
  bpe("merges as pairs", vocab, pairs);
  bpe("added tokens", R"("a":0)", "", numbered(65'000, R"({{"content":"<{0}>","normalized":true,"id":1{0:05}}})"));
  bpe("too many added tokens", R"("a":0)", "", numbered(700'000, R"({{"content":"<{0}>","id":1{0:05}}})"));
  bpe("objects as added tokens", R"("a":0)", "", times(n / 3, "{},") + "{}");
  bpe("pre-tokenizers", R"("a":0)", "", "", R"(,"post_processor":{"processors":[)" + times(n / 3, "{},") + "{}]}");
  bpe("members", R"("a":0)", "", "", "," + numbered(1'500'000, R"("{}":0)"));
  bpe("numbers", R"("a":0)", "", "", ",\"x\":[" + times(n / 2, "0,") + "0]");
  bpe("arrays", R"("a":0)", "", "", ",\"x\":[" + times(n / 3, "[],") + "[]]");
  bpe("texts", R"("a":0)", "", "", ",\"x\":[" + times(n / 3, "\"\",") + "\"\"]");
  bpe("escapes", R"("a":0)", "", "", ",\"x\":\"" + times(n / 6, R"(\u00e9)") + "\"");
  bpe("one text", R"("a":0)", "", "", ",\"x\":\"" + std::string(n, 'a') + "\"");
  bpe("one token", "\"" + std::string(n, 'a') + "\":0", "");
  bpe("one merge", R"("a":0)", "\"" + std::string(n, 'a') + " b\"");
  bpe("one added token", R"("a":0)", "", "{\"content\":\"" + std::string(n, 'a') + "\",\"id\":1}");
  check("open arrays", times(n, "["));
  check("open objects", times(n / 5, "{\"a\":"));
}

TEST_F(Memory, Template) {
  const auto check = [](const char* what, const std::string& source) {
    expect_bounded(what, source, 2,
                   [](const std::string& p) { text::jinja::Template::parse(read_file(p, size_t{8} << 20), "chat"); });
  };
  const size_t n = (size_t{1} << 20) - 20;
  check("outputs", times(n / 5, "{{a}}"));
  check("numbers", "{{[" + times(n / 2, "1,") + "]}}");
  check("sums", "{{[" + times(n / 4, "a+a,") + "]}}");
  check("conditions", times(n / 20, "{%if a%}b{%endif%}c"));
  check("sets", times(n / 11, "{%set a=1%}"));
  check("calls", times(n / 7, "{{a()}}"));
  check("filters", times(n / 9, "{{a|b|c}}"));
  check("one text", std::string(n, 'a'));
  check("one string", "{{'" + std::string(n, 'a') + "'}}");
  check("too large", times(n, "{{a}}"));
}

}  // namespace
}  // namespace ponder
