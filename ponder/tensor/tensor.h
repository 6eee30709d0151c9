// A tensor is a value: where the numbers are, their type and their shape. It owns nothing, has no name, no graph and no
// device logic, and is trivially copyable: a view, as std::span is. Memory belongs to an Arena (activations, gone at
// the end of a step) or to a Buffer (weights, pages, optimizer state).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>

#include "ponder/base/error.h"

namespace ponder {

enum class DType : uint8_t { f32, bf16, f16, i32, f64, i64, u8 };
size_t dtype_bytes(DType dtype);
const char* dtype_name(DType dtype);  // the names of safetensors: F32, BF16, ...

constexpr int kMaxRank = 4;

struct Tensor {
  void* data = nullptr;
  void* storage = nullptr;    // the allocation that `data` points into; views of one tensor share it
  int64_t storage_bytes = 0;  // and its size
  DType dtype = DType::f32;
  int rank = 0;
  int64_t dim[kMaxRank] = {};
  int64_t ld = 0;  // elements between rows of the matrix view (rows() x cols()); cols() where contiguous

  explicit operator bool() const { return data != nullptr; }
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  // Every tensor can be read as a matrix: the last dimension is the row, all others count rows.
  int64_t cols() const { return rank ? dim[rank - 1] : 1; }
  int64_t rows() const { return cols() ? size() / cols() : 0; }
  bool contiguous() const { return ld == cols() || rows() <= 1; }

  float* f32() const { return static_cast<float*>(data); }
  int32_t* i32() const { return static_cast<int32_t*>(data); }
  float* row(int64_t r) const { return f32() + r * ld; }

  // The same numbers under another shape of the same size (contiguous tensors only).
  Tensor reshape(std::initializer_list<int64_t> shape) const;
  // Columns [begin, begin + n) of the matrix view.
  Tensor columns(int64_t begin, int64_t n) const;
  // Rows [begin, begin + n) of the matrix view.
  Tensor row_range(int64_t begin, int64_t n) const;
  bool whole() const {
    return data == storage && contiguous() && size() * static_cast<int64_t>(dtype_bytes(dtype)) == storage_bytes;
  }
  std::string shape_string() const;  // "[128, 64]"
};

Tensor make_tensor(void* data, std::initializer_list<int64_t> shape, DType dtype = DType::f32);

// 64-byte aligned, zeroed memory, on huge pages where it is large and the system allows.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  void* data() const { return data_.get(); }
  float* f32() const { return static_cast<float*>(data_.get()); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    size_t bytes;
    void operator()(void* p) const;
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
};

// A bump allocator for one step: `allocate` until `reset`. It grows while the program warms up and then asks the system
// for nothing more; `peak()` is what a memory plan is checked against.
class Arena {
 public:
  void* allocate(size_t bytes);  // 64-byte aligned, not zeroed
  void reset() { offset_ = 0; }  // everything is free again
  size_t used() const { return offset_; }
  size_t peak() const { return peak_; }
  size_t reserved() const { return usable_; }

  using Mark = size_t;
  Mark mark() const { return offset_; }
  void release(Mark m) { offset_ = m; }  // frees what was allocated since

 private:
  void grow(size_t needed);
  struct Free {
    size_t bytes;
    void operator()(char* p) const;
  };
  std::unique_ptr<char, Free> memory_;  // reserved addresses; from base_ on `usable_` bytes can be used
  char* base_ = nullptr;
  size_t room_ = 0, usable_ = 0, offset_ = 0, peak_ = 0;
};

}  // namespace ponder
