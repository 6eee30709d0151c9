#include <algorithm>

#include "ponder/kernels/math.h"
#include "ponder/kernels/ref/choose.h"
#include "ponder/kernels/ref/ref_backend.h"
#include "ponder/kernels/ref/sums.h"

namespace ponder::kernels {
namespace {

constexpr float kGateEps = 1e-20f;

// Choosing for one row, whose scores stand in `s`.
class Chooser {
 public:
  Chooser(const Route& a, const float* s) : a_(a), s_(s), per_group_(a.experts / a.n_group), kept_(keep_groups()) {}

  // `index` serves as its own memory of what is taken: top_k is small.
  void choose(int32_t* index) const {
    for (int j = 0; j < a_.top_k; ++j) {
      int best = -1;
      for (int e = 0; e < a_.experts; ++e) {
        if (!(kept_ >> e / per_group_ & 1) || std::find(index, index + j, e) != index + j) continue;
        if (best < 0 || choice(e) > choice(best)) best = e;
      }
      index[j] = best;
    }
  }

 private:
  float choice(int e) const { return a_.bias ? s_[e] + a_.bias[e] : s_[e]; }

  float group_score(int g) const {
    float first = -constants::kInf, second = -constants::kInf;
    for (int e = g * per_group_; e < (g + 1) * per_group_; ++e) {
      const float x = choice(e);
      if (x > first) {
        second = first;
        first = x;
      } else if (x > second) {
        second = x;
      }
    }
    return a_.group_score == GroupScore::top2_sum && per_group_ > 1 ? first + second : first;
  }

  // Bit g: group g stays.
  uint64_t keep_groups() const {
    if (a_.topk_group >= a_.n_group) return ~uint64_t{0};
    float score[64];
    for (int g = 0; g < a_.n_group; ++g) score[g] = group_score(g);
    uint64_t kept = 0;
    for (int j = 0; j < a_.topk_group; ++j) {
      int best = -1;
      for (int g = 0; g < a_.n_group; ++g)
        if (!(kept >> g & 1) && (best < 0 || score[g] > score[best])) best = g;
      kept |= uint64_t{1} << best;
    }
    return kept;
  }

  const Route& a_;
  const float* s_;
  int per_group_;
  uint64_t kept_;
};

}  // namespace

void choose_experts(const Route& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* s = a.scores + r * a.experts;
    int32_t* index = a.index + r * a.top_k;
    float* gates = a.gates + r * a.top_k;
    Chooser(a, s).choose(index);
    float sum = 0.f;
    for (int j = 0; j < a.top_k; ++j) sum += s[index[j]];
    for (int j = 0; j < a.top_k; ++j)
      gates[j] = (a.normalize ? s[index[j]] / (sum + kGateEps) : s[index[j]]) * a.scaling;
  }
}

void RefBackend::route(const Route& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.logits + r * a.experts;
    float* s = a.scores + r * a.experts;
    if (a.scoring == Scoring::sigmoid) {
      for (int e = 0; e < a.experts; ++e) s[e] = sigmoid(x[e]);
      continue;
    }
    float max = -constants::kInf;
    for (int e = 0; e < a.experts; ++e) max = x[e] > max ? x[e] : max;
    LaneSums<float> sum;
    for (int e = 0; e < a.experts; ++e) sum.add(e, s[e] = exp(x[e] - max));
    const float total = sum.fold();
    for (int e = 0; e < a.experts; ++e) s[e] /= total;
  }
  choose_experts(a, 0, a.rows);
}

// normalize: w = s / S, S = sum + eps:  ds_i = scaling * (dgate_i - sum_j dgate_j w_j) / S, else ds_i = scaling *
// dgate_i. sigmoid: dx = ds * s * (1 - s);  softmax: dx_e = s_e * (ds_e - sum_i ds_i s_i).
void RefBackend::route_grad(const RouteGrad& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* s = a.scores + r * a.experts;
    const int32_t* index = a.index + r * a.top_k;
    const float* dgates = a.dgates + r * a.top_k;
    float* dx = a.dlogits + r * a.experts;
    float sum = 0.f, along = 0.f;
    for (int j = 0; j < a.top_k; ++j) sum += s[index[j]];
    sum += kGateEps;
    for (int j = 0; j < a.top_k; ++j) along = std::fma(dgates[j], s[index[j]] / sum, along);
    std::fill_n(dx, a.experts, 0.f);
    for (int j = 0; j < a.top_k; ++j)
      dx[index[j]] = a.normalize ? a.scaling * (dgates[j] - along) / sum : a.scaling * dgates[j];
    if (a.scoring == Scoring::sigmoid) {
      for (int e = 0; e < a.experts; ++e) dx[e] = dx[e] * s[e] * (1.f - s[e]);
    } else {
      float mean = 0.f;
      for (int j = 0; j < a.top_k; ++j) mean = std::fma(dx[index[j]], s[index[j]], mean);
      for (int e = 0; e < a.experts; ++e) dx[e] = s[e] * (dx[e] - mean);
    }
  }
}

void RefBackend::dispatch(const Dispatch& a) const noexcept {
  const int64_t slots = a.rows * a.top_k;
  std::fill_n(a.offsets, a.experts + 1, 0);
  for (int64_t i = 0; i < slots; ++i) ++a.offsets[a.index[i] + 1];
  for (int e = 0; e < a.experts; ++e) a.offsets[e + 1] += a.offsets[e];
  // The start of each expert doubles as its cursor; afterwards every entry stands where the next one began.
  for (int64_t i = 0; i < slots; ++i) {
    const int32_t place = a.offsets[a.index[i]]++;
    a.slot_of[place] = static_cast<int32_t>(i);
    a.place_of[i] = place;
  }
  for (int e = a.experts; e > 0; --e) a.offsets[e] = a.offsets[e - 1];
  a.offsets[0] = 0;
}

void RefBackend::combine(const Combine& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t i = 0; i < a.d; ++i) {
      float y = a.base ? a.base[r * a.ldb + i] : 0.f;
      for (int64_t j = r * a.top_k; j < (r + 1) * a.top_k; ++j)
        y = std::fma(a.gates[j], a.x[a.place_of[j] * a.d + i], y);
      a.y[r * a.ldy + i] = y;
    }
}

void RefBackend::combine_grad(const CombineGrad& a) const noexcept {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* dy = a.dy + r * a.lddy;
    for (int64_t j = r * a.top_k; j < (r + 1) * a.top_k; ++j) {
      const float* x = a.x + a.place_of[j] * a.d;
      float* dx = a.dx + a.place_of[j] * a.d;
      LaneSums<float> sum;
      for (int64_t i = 0; i < a.d; ++i) {
        sum.add_product(i, dy[i], x[i]);
        dx[i] = a.gates[j] * dy[i];
      }
      a.dgates[j] = sum.fold();
    }
  }
}

}  // namespace ponder::kernels
