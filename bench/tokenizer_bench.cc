// Encoding speed of real tokenizers on one core, and how long their files take to load, in processor time (the best of five).
//   tokenizer_bench FOLDER TEXT...   FOLDER: *.tokenizer.json[.zst]; TEXT: files of prose, read as one text each
#include <cstdio>
#include <ctime>
#include <functional>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/text/bpe_gguf.h"
#include "ponder/text/tokenizer.h"

namespace {

// Of the processor, not of the clock: other programs may run beside.
double seconds(const std::function<void()>& f) {
  const std::clock_t begin = std::clock();
  f();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

double best(const std::function<void()>& f) {
  double out = 1e9;
  for (int i = 0; i < 5; ++i) out = std::min(out, seconds(f));
  return out;
}

}  // namespace

int main(int argc, char** argv) try {
  using namespace ponder;
  if (argc < 3) throw_error(Exit::usage, "usage: tokenizer_bench FOLDER TEXT...");
  std::vector<std::string> texts;
  for (int i = 2; i < argc; ++i) texts.push_back(read_file(argv[i]));
  fmt::print("{:<16} {:>8} {:>8}  {}\n", "tokenizer", "load ms", "GGUF ms",
             "MB/s of each text: first time, warm, decode");
  for (const auto& path : glob_files(join_path(argv[1], "*.tokenizer.json*"))) {
    const std::string file = base_name(path);
    std::unique_ptr<text::Tokenizer> t;
    const double load = best([&] { t = text::load_tokenizer(path); });
    const auto vocabulary = text::gguf_vocabulary(*t, t->vocab_size());
    const double gguf = best([&] { text::tokenizer_from_gguf(vocabulary, file); });
    fmt::print("{:<16} {:8.1f} {:8.1f} ", file.substr(0, file.find('.')), load * 1e3, gguf * 1e3);
    for (const auto& s : texts) {
      std::vector<int32_t> ids;
      const double mb = static_cast<double>(s.size()) * 1e-6;
      const double first = seconds([&] { ids = t->encode(s); });
      const double warm = best([&] { ids = t->encode(s); });
      const double decode = best([&] { t->decode(ids); });
      fmt::print(" {:6.1f} {:6.1f} {:6.1f} ;", mb / first, mb / warm, mb / decode);
    }
    fmt::print("\n");
  }
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
