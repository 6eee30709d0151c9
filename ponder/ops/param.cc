#include "ponder/ops/param.h"

namespace ponder::ops {

const float* Param::packed(const kernels::Backend& backend) const {
  const Matrices& m = matrices;
  const int64_t size = backend.packed_size(m.n, m.k);
  if (size == 0) return nullptr;
  if (packed_version_ != version) {
    if (!packed_.data()) packed_ = Buffer(static_cast<size_t>(m.batch * size) * sizeof(float));
    backend.pool().run(m.batch, [&](int64_t i, int) {
      backend.pack_nt(value.f32() + m.offset + i * m.stride, m.k, m.n, m.k, packed_.f32() + i * size);
    });
    packed_version_ = version;
  }
  return packed_.f32();
}

}  // namespace ponder::ops
