#include "ponder/app/texts.h"

#include <algorithm>

#include "ponder/base/error.h"
#include "ponder/base/file.h"
#include "ponder/base/json_value.h"
#include "ponder/base/rng.h"
#include "ponder/text/tokenizer.h"

namespace ponder::app {
namespace {

template <class F>
void each_text(const std::string& path, const std::vector<std::string>& fields, F&& f) {
  if (!path.ends_with(".jsonl")) {
    f(read_file(path));
    return;
  }
  read_json_lines(path, [&](Json& record, int line) {
    std::string text;
    for (const std::string& field : fields) {
      const auto at = record.is_object() ? record.find(field) : record.end();
      if (!record.is_object() || at == record.end() || !at->is_string()) {
        std::vector<std::string> there;
        if (record.is_object())
          for (const auto& [name, value] : record.items())
            if (value.is_string()) there.push_back(name);
        throw_error(Exit::data, "{}:{}: no text in the field \"{}\"{}", path, line, field,
                    there.empty() ? "" : fmt::format("; dataset_text_field could be {}", fmt::join(there, ", ")));
      }
      if (!text.empty()) text += '\n';
      text += at->get<std::string>();
    }
    f(text);
  });
}

}  // namespace

Texts read_texts(const DataSection& data, uint64_t seed) {
  if (data.files.empty()) throw_error(Exit::data, "data.files names no texts; name yours with --set files=YOUR.jsonl");
  std::vector<std::string> files;
  for (const std::string& pattern : data.files) {
    std::vector<std::string> found;
    if (is_folder(pattern))
      found = glob_files(join_path(pattern, "*.jsonl"));
    else if (path_exists(pattern))
      found = {pattern};
    else
      found = glob_files(pattern);
    if (found.empty())
      throw_error(Exit::data, "data.files: {}: no such file; name yours with --set files=PATH", pattern);
    files.insert(files.end(), found.begin(), found.end());
  }
  const text::ByteLevel tokenizer;
  const int32_t begin = *tokenizer.special().bos, end = *tokenizer.special().eos;
  Texts out;
  const auto length = static_cast<size_t>(data.max_length);
  const uint64_t key = stream_key(seed, Stream::split);
  std::vector<int32_t> train_stream;
  std::vector<int64_t> train_offsets = {0};
  for (const std::string& file : files)
    each_text(file, data.dataset_text_field, [&](const std::string& text) {
      std::vector<int32_t> ids = {begin};
      const auto bytes = tokenizer.encode(text, text::Specials::ignore);
      ids.insert(ids.end(), bytes.begin(), bytes.end());
      const bool held_out = CounterRng(key, static_cast<uint64_t>(out.texts++)).uniform() < data.held_out_texts;
      out.held_out_texts += held_out;
      if (data.packing && !held_out) {  // pack_wrapped adds the end tokens
        train_stream.insert(train_stream.end(), ids.begin(), ids.end());
        train_offsets.push_back(static_cast<int64_t>(train_stream.size()));
        return;
      }
      ids.push_back(end);
      train::PackedTexts& set = held_out ? out.held_out : out.train;
      for (size_t i = 0; i < ids.size(); i += length) {
        const size_t stop = std::min(ids.size(), i + length);
        if (stop - i < 2) continue;  // one token predicts nothing
        set.ids.insert(set.ids.end(), ids.begin() + static_cast<int64_t>(i), ids.begin() + static_cast<int64_t>(stop));
        set.offsets.push_back(static_cast<int64_t>(set.ids.size()));
      }
    });
  if (data.packing) out.train = train::pack_wrapped({train_stream, train_offsets}, data.max_length, end);
  return out;
}

}  // namespace ponder::app
