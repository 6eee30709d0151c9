#include "ponder/tensor/tensor.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

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

namespace {

// Addresses for as much as the machine could hold, or for what a limit (ulimit -v) leaves.
size_t address_room() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)) / kHugePage *
         kHugePage;
}
char* reserve_addresses(size_t& bytes) {
  constexpr size_t kLeast = size_t{64} << 20;
  for (; bytes >= kLeast; bytes /= 2) {
    void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) return static_cast<char*>(p);
  }
  throw_error(Exit::resources, "cannot get {} MiB of address space (see `ulimit -v`)", kLeast >> 20);
}

}  // namespace

// Addresses are reserved once, so that a step never has to move to larger memory, which would have to be cleared by the
// system anew (12 % of a prompt of SmolLM2's size).
void* Arena::allocate(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (offset_ + bytes > usable_) grow(offset_ + bytes);
  void* p = base_ + offset_;
  offset_ += bytes;
  peak_ = std::max(peak_, offset_);
  return p;
}

void Arena::grow(size_t needed) {
  if (!memory_) {
    size_t room = address_room();
    char* p = reserve_addresses(room);
    memory_ = {p, Free{room}};
    const auto skipped = -reinterpret_cast<uintptr_t>(p) % kHugePage;
    base_ = p + skipped;
    room_ = room - skipped;
  }
  const size_t wanted = (std::max(needed, usable_ + usable_ / 2) + kHugePage - 1) / kHugePage * kHugePage;
  const size_t usable = std::min(wanted, room_);
  if (needed > usable || mprotect(base_ + usable_, usable - usable_, PROT_READ | PROT_WRITE) != 0)
    throw_error(Exit::resources,
                "a step needs {} MiB of memory, of which the system gives {}; fewer rows at a time need less",
                needed >> 20, usable_ >> 20);
  madvise(base_ + usable_, usable - usable_, MADV_HUGEPAGE);
  usable_ = usable;
}

void Arena::Free::operator()(char* p) const { munmap(p, bytes); }

}  // namespace ponder
