#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "ponder/base/file.h"
#include "ponder/tensor/gguf.h"
#include "ponder/tensor/gguf_format.h"

namespace ponder {

namespace {

using gguf::ValueType;

class Out {
 public:
  template <class T>
  void number(T x) {
    bytes.append(reinterpret_cast<const char*>(&x), sizeof x);
  }
  void type(ValueType t) { number(static_cast<uint32_t>(t)); }
  void text(std::string_view s) {
    number<uint64_t>(s.size());
    bytes += s;
  }
  void array(ValueType t, size_t n) {
    type(ValueType::array);
    type(t);
    number<uint64_t>(n);
  }
  std::string bytes;
};

template <class T>
bool fits(int64_t x) {
  return x >= std::numeric_limits<T>::min() && x <= int64_t{std::numeric_limits<T>::max()};
}

struct WriteValue {
  Out& out;

  void operator()(int64_t x) const {
    if (fits<uint32_t>(x)) return typed(ValueType::u32, static_cast<uint32_t>(x));
    if (x > 0) return typed(ValueType::u64, static_cast<uint64_t>(x));
    if (fits<int32_t>(x)) return typed(ValueType::i32, static_cast<int32_t>(x));
    typed(ValueType::i64, x);
  }
  // The keys of split files, of which llama.cpp wants these types.
  bool split_key(std::string_view key, const GgufValue& value) const {
    const auto* x = std::get_if<int64_t>(&value.value);
    if (x && (key == "split.no" || key == "split.count")) return typed(ValueType::u16, static_cast<uint16_t>(*x)), true;
    if (x && key == "split.tensors.count") return typed(ValueType::i32, static_cast<int32_t>(*x)), true;
    return false;
  }
  void operator()(uint64_t x) const { typed(ValueType::u64, x); }
  void operator()(const GgufValue::Unsigned& list) const {
    out.array(ValueType::u64, list.size());
    for (uint64_t x : list) out.number(x);
  }
  void operator()(double x) const { typed(ValueType::f32, static_cast<float>(x)); }
  void operator()(bool x) const { typed(ValueType::boolean, static_cast<uint8_t>(x)); }
  void operator()(const std::string& x) const {
    out.type(ValueType::string);
    out.text(x);
  }
  void operator()(const GgufValue::Strings& list) const {
    out.array(ValueType::string, list.size());
    for (const std::string& x : list) out.text(x);
  }
  void operator()(const GgufValue::Integers& list) const {
    const bool narrow = std::all_of(list.begin(), list.end(), fits<int32_t>);
    out.array(narrow ? ValueType::i32 : ValueType::i64, list.size());
    for (int64_t x : list) narrow ? out.number(static_cast<int32_t>(x)) : out.number(x);
  }
  void operator()(const GgufValue::Floats& list) const {
    out.array(ValueType::f32, list.size());
    for (double x : list) out.number(static_cast<float>(x));
  }
  void operator()(const std::vector<bool>& list) const {
    out.array(ValueType::boolean, list.size());
    for (bool x : list) out.number(static_cast<uint8_t>(x));
  }

 private:
  template <class T>
  void typed(ValueType type, T x) const {
    out.type(type);
    out.number(x);
  }
};

uint64_t bytes_of(const GgufWrite::Item& item) {
  int64_t rows = 1;
  const int64_t cols = item.shape.empty() ? 1 : item.shape.back();
  for (size_t i = 0; i + 1 < item.shape.size(); ++i) rows *= item.shape[i];
  return static_cast<uint64_t>(rows * block_row_bytes(item.type, cols));
}

uint64_t alignment_of(const GgufWrite& content) {
  for (const auto& [key, value] : content.metadata)
    if (key == gguf::kAlignmentKey) return static_cast<uint64_t>(std::get<int64_t>(value.value));
  return gguf::kDefaultAlignment;
}

}  // namespace

void write_gguf(const std::string& path, const GgufWrite& content,
                const std::function<void(size_t i, std::span<std::byte> out)>& fill) {
  const uint64_t alignment = alignment_of(content);
  Out header;
  header.bytes.assign(gguf::kMagic, sizeof gguf::kMagic);
  header.number(gguf::kVersion);
  header.number<uint64_t>(content.tensors.size());
  header.number<uint64_t>(content.metadata.size());
  std::set<std::string_view> names;
  for (const auto& [key, value] : content.metadata) {
    PONDER_CHECK(!key.empty() && names.insert(key).second, "two keys {}", key);
    header.text(key);
    const WriteValue write{header};
    if (!write.split_key(key, value)) std::visit(write, value.value);
  }
  names.clear();
  uint64_t offset = 0;
  for (const GgufWrite::Item& item : content.tensors) {
    PONDER_CHECK(names.insert(item.name).second, "two tensors {}", item.name);
    PONDER_CHECK(item.shape.size() <= kMaxRank, "{}: {} dimensions", item.name, item.shape.size());
    PONDER_CHECK(block_spec(item.type).ggml_type >= 0, "{}: GGUF has no {}", item.name, block_spec(item.type).name);
    header.text(item.name);
    header.number(static_cast<uint32_t>(item.shape.size()));
    for (size_t i = item.shape.size(); i-- > 0;) header.number(item.shape[i]);
    header.number(static_cast<uint32_t>(block_spec(item.type).ggml_type));
    header.number(offset);
    offset = gguf::aligned(offset + bytes_of(item), alignment);
  }
  header.bytes.resize(gguf::aligned(header.bytes.size(), alignment));

  write_file_atomic(path, [&](FileWriter& file) {
    file.write(header.bytes);
    std::vector<std::byte> data;
    for (size_t i = 0; i < content.tensors.size(); ++i) {
      const uint64_t bytes = bytes_of(content.tensors[i]);
      data.assign(gguf::aligned(bytes, alignment), std::byte{0});
      fill(i, std::span(data).first(bytes));
      file.write(data.data(), data.size());
    }
  });
}

}  // namespace ponder
