#include "ponder/tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <vector>

namespace ponder {

size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::f64:
    case DType::i64: return 8;
    case DType::u8: return 1;
  }
  return 0;
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "F32";
    case DType::i32: return "I32";
    case DType::bf16: return "BF16";
    case DType::f16: return "F16";
    case DType::f64: return "F64";
    case DType::i64: return "I64";
    case DType::u8: return "U8";
  }
  return "?";
}

Tensor make_tensor(void* data, std::initializer_list<int64_t> shape, DType dtype) {
  PONDER_CHECK(shape.size() <= kMaxRank, "rank {}", shape.size());
  Tensor t;
  t.data = data;
  t.dtype = dtype;
  for (int64_t d : shape) t.dim[t.rank++] = d;
  t.ld = t.cols();
  t.storage = data;
  t.storage_bytes = t.size() * static_cast<int64_t>(dtype_bytes(dtype));
  return t;
}

Tensor Tensor::reshape(std::initializer_list<int64_t> shape) const {
  Tensor t = make_tensor(data, shape, dtype);
  PONDER_CHECK(contiguous() && t.size() == size(), "cannot view {} as {}", shape_string(), t.shape_string());
  t.storage = storage;
  t.storage_bytes = storage_bytes;
  return t;
}

Tensor Tensor::columns(int64_t begin, int64_t n) const {
  PONDER_CHECK(begin >= 0 && begin + n <= cols(), "columns {}..{} of {}", begin, begin + n, shape_string());
  Tensor t = *this;
  t.data = static_cast<char*>(data) + begin * static_cast<int64_t>(dtype_bytes(dtype));
  t.dim[0] = rows();
  t.dim[1] = n;
  t.rank = 2;
  return t;
}

Tensor Tensor::row_range(int64_t begin, int64_t n) const {
  PONDER_CHECK(begin >= 0 && begin + n <= rows(), "rows {}..{} of {}", begin, begin + n, shape_string());
  Tensor t = *this;
  t.data = static_cast<char*>(data) + begin * ld * static_cast<int64_t>(dtype_bytes(dtype));
  t.dim[1] = cols();
  t.dim[0] = n;
  t.rank = 2;
  return t;
}

std::string Tensor::shape_string() const {
  std::string s = "[";
  for (int i = 0; i < rank; ++i) s += fmt::format("{}{}", i ? ", " : "", dim[i]);
  return s + "]";
}

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

void* map_pages(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw_error(Exit::resources, "cannot get {} MiB of memory", bytes >> 20);
  if (bytes >= kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

}  // namespace

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  const size_t mapped = std::max<size_t>((bytes + 4095) / 4096 * 4096, 4096);
  data_ = {map_pages(mapped), Free{mapped}};
}

void Buffer::Free::operator()(void* p) const { munmap(p, bytes); }

struct Arena::Chunks {
  std::vector<Buffer> list;
};
void Arena::Free::operator()(Chunks* c) const { delete c; }

Arena::Arena(size_t initial_bytes) : chunks_(new Chunks) {
  if (initial_bytes) chunks_->list.emplace_back(initial_bytes);
}

void* Arena::allocate(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  auto& list = chunks_->list;
  while (chunk_ < list.size() && offset_ + bytes > list[chunk_].bytes()) {
    ++chunk_;
    offset_ = 0;
  }
  if (chunk_ == list.size()) {
    list.emplace_back(std::max({bytes, reserved() / 2, size_t{1} << 20}));
    offset_ = 0;
  }
  void* p = static_cast<char*>(list[chunk_].data()) + offset_;
  offset_ += bytes;
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return p;
}

void Arena::reset() {
  auto& list = chunks_->list;
  if (list.size() > 1) {  // one chunk next time: no gaps, no walking
    const size_t total = reserved();
    list.clear();
    list.emplace_back(total);
  }
  chunk_ = offset_ = used_ = 0;
}

void Arena::release(const Mark& m) {
  chunk_ = m.chunk;
  offset_ = m.offset;
  used_ = m.used;
}

size_t Arena::reserved() const {
  size_t n = 0;
  for (const Buffer& b : chunks_->list) n += b.bytes();
  return n;
}

}  // namespace ponder
