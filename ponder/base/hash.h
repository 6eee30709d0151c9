// XXH3-128 as 32 hex digits: names contents (files, recipes, prompts). Fast and well mixed, but no protection against
// someone who builds collisions on purpose.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ponder {

std::string hash_bytes(std::string_view bytes);
std::string hash_file(const std::string& path);

// The same over pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void add(const void* data, size_t bytes);
  void add(std::string_view bytes) { add(bytes.data(), bytes.size()); }
  std::string hex() const;  // of everything so far

 private:
  void* state_;
};

}  // namespace ponder
