// convert, merge, quantize, model init, show, verify and fit as commands, on the reference models (found by listing).
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "ponder/app/machine.h"
#include "ponder/app/memory.h"
#include "ponder/app/model_source.h"
#include "ponder/app/options.h"
#include "ponder/base/file.h"
#include "ponder/engine/generate.h"
#include "ponder/model/convert.h"
#include "ponder/model/weights.h"
#include "ponder/tensor/gguf.h"
#include "tests/shared.h"

namespace ponder::app {
namespace {

struct Outcome {
  int code = 0;
  std::string error, out;
};

// A command line as the program would run it, but for the errors, which come back.
Outcome run(const std::vector<std::string>& words) {
  Outcome o;
  ::testing::internal::CaptureStdout();
  try {
    const Arguments args = parse_arguments(words);
    o.code = args.command->run(args);
  } catch (const Error& e) {
    o.code = static_cast<int>(e.code());
    o.error = e.what();
  }
  std::fflush(stdout);
  o.out = ::testing::internal::GetCapturedStdout();
  return o;
}

std::vector<std::string> reference_models() {
  std::vector<std::string> out;
  for (const auto& path : test::shared_entries("golden/models"))
    if (std::filesystem::exists(path / "config.json")) out.push_back(path);
  for (const auto& path : test::shared_entries("golden/gguf"))
    if (path.extension() == ".gguf") out.push_back(path);
  return out;
}

std::vector<float> numbers(const model::WeightSource& source, const std::string& name) {
  const model::StoredTensor t = source.find(name);
  std::vector<float> out(
      static_cast<size_t>(t.matrix.data ? t.matrix.cols * (t.shape.size() > 1 ? t.shape[0] : 1) : 0));
  if (!out.empty()) t.read_f32(out.data());
  return out;
}

void expect_same_numbers(const std::string& a, const std::string& b) {
  const auto x = model::WeightSource::open(a), y = model::WeightSource::open(b);
  const model::Model model(x->config(), model::ModelOptions{.declare_only = true});
  for (const ops::Param& p : model.params().list())
    for (const ops::Slice& s : p.slices) EXPECT_EQ(numbers(*x, s.name), numbers(*y, s.name)) << a << ": " << s.name;
}

class ReferenceModel : public ::testing::TestWithParam<std::string> {};

TEST_P(ReferenceModel, SurvivesEveryFormat) {
  TempFolder folder;
  const std::string gguf = folder.file("m.gguf"), split = folder.file("s.gguf"), again = folder.file("again"),
                    whole = folder.file("whole.gguf");
  ASSERT_EQ(run({"convert", GetParam(), gguf, "--type", "f32", "--quiet"}).error, "");
  expect_same_numbers(GetParam(), gguf);
  ASSERT_EQ(run({"convert", gguf, again, "--quiet"}).error, "");
  expect_same_numbers(gguf, again);
  // Split, and merged again: byte for byte the whole file but for the keys of splitting, which are gone.
  ASSERT_EQ(run({"convert", gguf, split, "--max-size", "100K"}).error, "");
  const auto parts = glob_files(folder.file("s-*-of-*.gguf"));
  ASSERT_GT(parts.size(), 1u);
  expect_same_numbers(gguf, parts[0]);
  EXPECT_EQ(GgufFile::open(parts.back()).tensors().size(), GgufFile::open(gguf).tensors().size());
  ASSERT_EQ(run({"merge", parts[0], whole}).error, "");
  expect_same_numbers(gguf, whole);
  EXPECT_FALSE(GgufFile::open(whole).has("split.count"));
  for (const std::string& path : {gguf, again, parts[0]}) {
    EXPECT_EQ(run({"model", "verify", path}).error, "");
    const Outcome shown = run({"model", "show", path, "--json"});
    EXPECT_NE(shown.out.find("\"types\":{\"F32\""), std::string::npos) << shown.out;
  }
}

INSTANTIATE_TEST_SUITE_P(, ReferenceModel, ::testing::ValuesIn(reference_models()), [](const auto& info) {
  std::string name = std::filesystem::path(info.param).filename();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ReferenceModel);

// A small model of our own, so that these run without reference data.
std::string tiny(const TempFolder& folder) {
  const std::string config = folder.file("tiny.toml"), out = folder.file("tiny");
  write_file_atomic(config,
                    "[model]\nmodel_type = \"llama\"\nvocab_size = 300\nhidden_size = 256\nintermediate_size = 512\n"
                    "num_hidden_layers = 2\nnum_attention_heads = 4\nnum_key_value_heads = 2\n"
                    "max_position_embeddings = 256\n");
  EXPECT_EQ(run({"model", "init", config, out, "--random", "--type", "bf16"}).error, "");
  return out;
}

TEST(ModelCommands, QuantisesAndSaysWhatItCosts) {
  TempFolder folder;
  const std::string model = tiny(folder), text = folder.file("text");
  write_file_atomic(text, std::string(40, 'x') + " the cat sat on the mat; two and two are four.\n");
  double last = -1;
  for (const char* type : {"bf16", "Q8_0", "Q6_K", "Q4_K_M"}) {
    const Outcome o =
        run({"quantize", model, folder.file(type) + std::string(".gguf"), "--type", type, "--text", text, "--json"});
    ASSERT_EQ(o.error, "") << type;
    const size_t at = o.out.find("\"kl\":");
    ASSERT_NE(at, std::string::npos) << o.out;
    const double kl = std::atof(o.out.c_str() + at + 5);
    EXPECT_GE(kl, last) << type << ": coarser types are further away";
    EXPECT_LT(kl, 1) << type;
    last = kl;
  }
  EXPECT_GT(last, 0);
  EXPECT_EQ(run({"quantize", model, folder.file("fp8"), "--type", "fp8", "--text", text}).error, "");
  EXPECT_EQ(run({"model", "verify", folder.file("fp8")}).error, "");
  EXPECT_EQ(run({"compare", model, "--text", text, "--activations", "f32,bf16"}).error, "");
}

// Up to three of them, wherever they were named; and the name that the model was given.
TEST(ModelCommands, EndsOfAnswersGoThroughEveryFormat) {
  TempFolder folder;
  const std::string model = tiny(folder), gguf = folder.file("m.gguf"), again = folder.file("n.gguf"),
                    back = folder.file("back"), copy = folder.file("copy");
  const auto ends = [](const std::string& path) { return load_model_text(path).text.eos_ids; };
  const std::vector<int32_t> one = ends(model), three = {one.at(0), one.at(0) + 1, one.at(0) + 2};
  ASSERT_EQ(one.size(), 1u);
  remove_file(join_path(model, "generation_config.json"));
  std::string config = read_file(join_path(model, "config.json"));
  config.insert(1, fmt::format("\"eos_token_id\": [{}],", fmt::join(three, ",")));
  write_file_atomic(join_path(model, "config.json"), config);
  EXPECT_EQ(ends(model), three);
  ASSERT_EQ(run({"convert", model, gguf}).error, "");
  ASSERT_EQ(run({"convert", gguf, again}).error, "");
  ASSERT_EQ(run({"convert", again, back}).error, "");
  ASSERT_EQ(run({"convert", model, copy}).error, "");
  for (const std::string& path : {gguf, again, back, copy}) EXPECT_EQ(ends(path), three) << path;
  EXPECT_EQ(GgufFile::open(gguf).text("general.name"), "m");
  EXPECT_EQ(GgufFile::open(again).text("general.name"), "m");
}

// Many releases announce MTP modules and leave them out.
TEST(ModelCommands, AbsentMtpModulesAreTakenOff) {
  TempFolder folder;
  const std::string config = folder.file("v3.toml"), model = folder.file("v3"), copy = folder.file("copy");
  write_file_atomic(config,
                    "[model]\nmodel_type = \"deepseek_v3\"\nvocab_size = 300\nhidden_size = 32\n"
                    "intermediate_size = 64\nnum_hidden_layers = 2\nnum_attention_heads = 2\nq_lora_rank = 16\n"
                    "kv_lora_rank = 16\nqk_nope_head_dim = 16\nqk_rope_head_dim = 8\nv_head_dim = 16\n"
                    "max_position_embeddings = 64\n");
  ASSERT_EQ(run({"model", "init", config, model, "--random"}).error, "");
  const std::string path = join_path(model, "config.json"), key = "\"num_nextn_predict_layers\": ";
  std::string json = read_file(path);
  const size_t at = json.find(key);
  ASSERT_NE(at, json.npos) << json;
  json[at + key.size()] = '1';
  write_file_atomic(path, json);
  EXPECT_EQ(run({"model", "verify", model}).error, "");
  ASSERT_EQ(run({"convert", model, copy}).error, "");
  EXPECT_NE(read_file(join_path(copy, "config.json")).find(key + "0"), std::string::npos);
  expect_same_numbers(model, copy);
}

TEST(ModelCommands, RefuseWhatWouldBeWrong) {
  TempFolder folder;
  const std::string model = tiny(folder), out = folder.file("out.gguf");
  const auto refused = [&](std::vector<std::string> words, const char* says) {
    const Outcome o = run(words);
    EXPECT_NE(o.code, 0);
    EXPECT_NE(o.error.find(says), std::string::npos) << o.error;
  };
  refused({"convert", model, out, "--type", "q4_k_n"}, "did you mean q4_k_m?");
  refused({"convert", model, out, "--type", "fp8"}, "GGUF has no FP8");
  refused({"convert", model, folder.file("x"), "--type", "q8_0"}, "safetensors have no Q8_0");
  refused({"convert", model, model}, "is the source itself");
  refused({"convert", folder.file("nothing"), out}, "no such model");
  refused({"convert", model, out, "--max-size", "five"}, "--max-size five");
  refused({"quantize", model, out}, "--type is missing");
  ASSERT_EQ(run({"convert", model, out}).error, "");
  refused({"convert", model, out}, "--force");
  EXPECT_EQ(run({"convert", model, out, "--force"}).error, "");
  make_folders(folder.file("mine"));
  write_file_atomic(folder.file("mine/diary.txt"), "dear diary");
  refused({"convert", model, folder.file("mine"), "--force"}, "is no model folder");
  EXPECT_TRUE(path_exists(folder.file("mine/diary.txt")));
  // A file that ends early.
  const std::string bytes = read_file(out);
  write_file_atomic(out, std::string_view(bytes).substr(0, bytes.size() / 2));
  refused({"model", "verify", out}, out.c_str());
}

// A conversion onto an older one, ended at some of its file calls: a model that opens is there, under its name or beside
// it, and the same command repairs what is left. (model_output_test.cc tries every call of the replacement itself.)
TEST(ModelCommands, ForceNeverLosesTheOldOne) {
  TempFolder folder;
  const std::string model = tiny(folder), out = folder.file("out"), work = out + ".ponder";
  const std::vector<std::string> words = {"convert", model,       out, "--type", "f32",
                                          "--force", "--threads", "1", "--quiet"};
  ASSERT_EQ(run({"convert", model, out, "--type", "bf16"}).error, "");
  set_file_fault({.kind = FileFault::Kind::none});
  ASSERT_EQ(run(words).error, "");
  const int64_t calls = file_calls();
  clear_file_fault();
  ASSERT_GT(calls, 60);
  // All of the last ones, in which the old model makes way, and a few before.
  for (int64_t at = 3; at <= calls; at += at + 60 < calls ? 31 : 1) {
    SCOPED_TRACE(at);
    remove_tree(out);
    ASSERT_EQ(run({"convert", model, out, "--type", "bf16"}).error, "");
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      set_file_fault({.kind = FileFault::Kind::exit_before, .at = at});
      _exit(run(words).code);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 137);
    const auto whole = [](const std::string& path) {
      return path_exists(join_path(path, "config.json")) && run({"model", "verify", path, "--json"}).error.empty();
    };
    EXPECT_TRUE(whole(out) || whole(work + "/old/out") || whole(work + "/new/out"));
    ASSERT_EQ(run(words).error, "");
    EXPECT_TRUE(whole(out));
    EXPECT_FALSE(path_exists(work));
  }
}

TEST(ModelCommands, SaysWhatBecameOfEveryTensor) {
  TempFolder folder;
  const std::string model = tiny(folder), config = folder.file("odd.toml"), odd = folder.file("odd");
  // 2 x (2 norms, 7 matrices), the last norm, the embedding, the head.
  EXPECT_NE(run({"convert", model, folder.file("a.gguf"), "--type", "q8_0"})
                .out.find("tensors: 5 BF16 to F32, 16 BF16 to Q8_0"),
            std::string::npos);
  const Outcome again = run({"convert", folder.file("a.gguf"), folder.file("b.gguf"), "--type", "q4_0"});
  EXPECT_NE(again.out.find("tensors: 5 F32 as they were, 16 Q8_0 to Q4_0"), std::string::npos) << again.out;
  // Rows that are no whole blocks: of 48 numbers down to 16 bits, of 32 to Q8_0; never said to be what they are not.
  write_file_atomic(config,
                    "[model]\nmodel_type = \"llama\"\nvocab_size = 300\nhidden_size = 32\nintermediate_size = 48\n"
                    "num_hidden_layers = 1\nnum_attention_heads = 2\nnum_key_value_heads = 1\n"
                    "max_position_embeddings = 256\n");
  ASSERT_EQ(run({"model", "init", config, odd, "--random"}).error, "");
  const Outcome o = run({"quantize", odd, folder.file("odd.gguf"), "--type", "q6_k", "--json"});
  EXPECT_NE(o.out.find(R"("tensors":[{"from":"F32","to":"F16","count":1},{"from":"F32","to":"F32","count":3},)"
                       R"({"from":"F32","to":"Q8_0","count":8}])"),
            std::string::npos)
      << o.out << o.error;
}

TEST(ModelCommands, InitSaysWhatItWrote) {
  TempFolder folder;
  tiny(folder);
  const std::string out = folder.file("again");
  EXPECT_EQ(run({"model", "init", folder.file("tiny.toml"), out, "--type", "bf16", "--seed", "7", "--json"}).out,
            R"({"path":")" + out + R"(","architecture":"llama","type":"bf16","params":1334528,"seed":7})" + "\n");
  EXPECT_EQ(list_folder(folder.path()), (std::vector<std::string>{"again", "tiny", "tiny.toml"}));
}

TEST(ModelCommands, ANumberThatIsNoneIsFound) {
  TempFolder folder;
  const std::string model = tiny(folder), out = folder.file("m.gguf");
  ASSERT_EQ(run({"convert", model, out, "--type", "f32"}).error, "");
  std::string bytes = read_file(out);
  for (size_t i = 0; i < 4; ++i) bytes[bytes.size() - 4096 + i] = static_cast<char>(0xff);
  write_file_atomic(out, bytes);
  EXPECT_NE(run({"model", "verify", out}).error.find("nan"), std::string::npos);
}

TEST(ModelCommands, FitSaysWhatSmolLm2Takes) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's memory is not the program's";
#endif
  std::string file;
  for (const auto& f : test::shared_entries("models"))
    if (f.extension() == ".gguf") file = f;
  if (file.empty()) GTEST_SKIP() << "no reference model (set PONDER_SHARED)";
  Machine machine(2);
  const int64_t before = anonymous_rss_bytes();
  const UseSize use{.context = 1024, .sequences = 8};
  const LoadedModel loaded = load_any_model(file, machine);
  const MemoryNeeds needs = memory_needs(*loaded.source, *machine.backend, {.stored = true, .mtp = false}, use);
  engine::Engine engine(*loaded.model, *machine.backend,
                        {.pages = use.sequences * ((use.context + kernels::kPageSize) / kernels::kPageSize),
                         .max_sequences = static_cast<int>(use.sequences),
                         .share_prefixes = false,
                         .activations = kernels::Activations::q8});
  std::vector<engine::Request> requests(static_cast<size_t>(use.sequences));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt.assign(static_cast<size_t>(use.context) - 24, static_cast<int32_t>(i + 100));
    requests[i].max_new_tokens = 24;  // so that all are there at once
  }
  engine::generate(engine, std::move(requests));
  // `program` is what a fresh process has; this one had it before.
  const double real = static_cast<double>(anonymous_rss_bytes() - before), said = static_cast<double>(needs.total());
  EXPECT_NEAR(said, real, 0.05 * real + 50e6);
}

TEST(ModelCommands, TooLargeIsSaidBeforeLoading) {
  model::ModelConfig c;
  c.model_type = "qwen2";
  c.vocab_size = 1 << 20;
  c.hidden_size = 65536, c.intermediate_size = 262144;
  c.num_hidden_layers = 64;
  c.num_attention_heads = c.num_key_value_heads = 512;
  const auto source = model::random_source(c, 1, 1);
  Machine machine(1);
  try {
    check_memory(*source, *machine.backend, {.stored = true}, false, available_memory_bytes());
    FAIL() << "terabytes fitted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Exit::resources);
    EXPECT_NE(std::string(e.what()).find("are missing"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace ponder::app
