// Operations that treat each token by itself: embedding, norms, gates, angles.
#pragma once
#include <cmath>

#include "matrix.h"
#include "quantize.h"
#include "simd.h"
#include "types.h"
#include "worker.h"

namespace penstock {

// f(i, n): n of the floats from i on, 16 but at the end.
template <class F>
inline void in_lanes(int size, F f) {
  int i = 0;
  for (; i + LANES <= size; i += LANES) f(i, LANES);
  if (i < size) f(i, size - i);
}

inline Floats some(const float* p, int n) { return n == LANES ? Floats::load(p) : Floats::first(p, n); }

inline void put(Floats x, float* p, int n) {
  if (n == LANES) {
    x.store(p);
  } else {
    x.store_first(p, n);
  }
}

inline float inverse_rms(const float* x, int size, float eps) {
  Floats squares = Floats::zero();
  in_lanes(size, [&](int i, int n) {
    Floats v = some(x + i, n);
    squares = fma(v, v, squares);
  });
  return 1.f / std::sqrt(squares.sum() / static_cast<float>(size) + eps);
}

inline void embed(const Embed& op, const Step& step, const Worker& worker) {
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    float* x = op.x + t * op.matrix.cols;
    unpack_row(op.matrix, step.token_ids[t], x);
    if (op.multiplier == 1.f) continue;
    in_lanes(op.matrix.cols, [&](int i, int n) { put(some(x + i, n) * Floats::all(op.multiplier), x + i, n); });
  }
}

inline void angles(const Angles& op, const Step& step, const Worker& worker) {
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    float position = static_cast<float>(step.positions[t]);
    for (int i = 0; i < op.count; i++) {
      float angle = position * op.frequencies[i];
      op.cos[t * op.count + i] = std::cos(angle) * op.factor;
      op.sin[t * op.count + i] = std::sin(angle) * op.factor;
    }
  }
}

inline void add_update(const Norm& op, int64_t t) {
  float* x = op.x + t * op.size;
  const float* update = op.update + t * op.size;
  if (op.update_weight == nullptr) {
    in_lanes(op.size, [&](int i, int n) { put(fma(some(update + i, n), Floats::all(op.alpha), some(x + i, n)), x + i, n); });
    return;
  }
  Floats factor = Floats::all(inverse_rms(update, op.size, op.eps));
  in_lanes(op.size, [&](int i, int n) {
    Floats normed = some(update + i, n) * factor * some(op.update_weight + i, n);
    put(fma(normed, Floats::all(op.alpha), some(x + i, n)), x + i, n);
  });
}

inline void norm(const Norm& op, const Step& step, const Worker& worker) {
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    if (op.update != nullptr) add_update(op, t);
    const float* x = op.x + t * op.size;
    float* out = op.hidden != nullptr ? op.hidden + t * op.size : reinterpret_cast<float*>(worker.scratch);
    Floats factor = Floats::all(inverse_rms(x, op.size, op.eps));
    in_lanes(op.size, [&](int i, int n) { put(some(x + i, n) * factor * some(op.weight + i, n), out + i, n); });
    if (op.activations != nullptr) quantize_row(op.target, out, op.activations, t);
  }
}

inline Floats silu(Floats x) { return x / (Floats::all(1.f) + exp(Floats::zero() - x)); }

inline Floats gelu_tanh(Floats x) {  // Hendrycks and Gimpel, arXiv:1606.08415
  Floats inner = Floats::all(0.7978845608f) * fma(Floats::all(0.044715f) * x * x, x, x);
  return Floats::all(0.5f) * x * (Floats::all(1.f) + tanh(inner));
}

inline Floats gelu(Floats x) {
  float v[LANES];
  x.store(v);
  for (float& y : v) y = 0.5f * y * (1.f + std::erf(y * 0.70710678f));
  return Floats::load(v);
}

inline void gate_row(int activation, const float* gate_up, int size, float* out) {
  auto apply = [&](auto f) {
    in_lanes(size, [&](int i, int n) { put(f(some(gate_up + i, n)) * some(gate_up + size + i, n), out + i, n); });
  };
  if (activation == SILU) apply(silu);
  if (activation == GELU) apply(gelu);
  if (activation == GELU_TANH) apply(gelu_tanh);
}

inline void gate(const Gate& op, const Step& step, const Worker& worker) {
  const int size = op.target.cols;
  float* out = reinterpret_cast<float*>(worker.scratch);
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    gate_row(op.activation, op.gate_up + t * 2 * size, size, out);
    quantize_row(op.target, out, op.activations, t);
  }
}

inline void quantize(const Quantize& op, const Step& step, const Worker& worker) {
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    quantize_row(op.target, op.x + t * op.target.cols, op.activations, t);
  }
}

inline void finish(const Finish& op, const Step& step, const Worker& worker) {
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    float* x = op.x + t * op.size;
    in_lanes(op.size, [&](int i, int n) {
      Floats y = some(x + i, n) / Floats::all(op.divisor);
      if (op.softcap != 0.f) y = tanh(y / Floats::all(op.softcap)) * Floats::all(op.softcap);
      put(y, x + i, n);
    });
  }
}

}  // namespace penstock
