#include "ponder/base/hash.h"

#include <xxhash.h>

#include <new>
#include <vector>

#include "ponder/base/error.h"
#include "ponder/base/file.h"

namespace ponder {
namespace {

std::string hex_of(XXH128_hash_t h) { return fmt::format("{:016x}{:016x}", h.high64, h.low64); }

}  // namespace

std::string hash_bytes(std::string_view bytes) { return hex_of(XXH3_128bits(bytes.data(), bytes.size())); }

std::string hash_file(const std::string& path) {
  FileReader reader(path);
  Hasher hasher;
  std::vector<char> buffer(size_t{1} << 20);
  while (const size_t n = reader.read(buffer.data(), buffer.size())) hasher.add(buffer.data(), n);
  return hasher.hex();
}

Hasher::Hasher() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_));
}

Hasher::~Hasher() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void Hasher::add(const void* data, size_t bytes) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), data, bytes);
}

std::string Hasher::hex() const { return hex_of(XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_))); }

}  // namespace ponder
