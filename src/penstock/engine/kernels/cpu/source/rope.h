// Norm and turn of queries and keys, and the store of keys and values: all that lies between the QKV product and attention.
#pragma once
#include "kv.h"
#include "worker.h"

namespace penstock {

inline void norm_head(float* x, const float* weight, int size, float eps) {
  Floats squares = Floats::zero();
  for (int i = 0; i < size; i += LANES) {
    Floats v = size - i < LANES ? Floats::first(x + i, size - i) : Floats::load(x + i);
    squares = fma(v, v, squares);
  }
  Floats inverse = Floats::all(1.f / std::sqrt(squares.sum() / size + eps));
  for (int i = 0; i < size; i += LANES) {
    if (size - i < LANES) {
      (Floats::first(x + i, size - i) * inverse * Floats::first(weight + i, size - i)).store_first(x + i, size - i);
    } else {
      (Floats::load(x + i) * inverse * Floats::load(weight + i)).store(x + i);
    }
  }
}

// Entries i and i + half turn together.
inline void turn_head(float* x, const float* cos, const float* sin, int half) {
  int i = 0;
  for (; i + LANES <= half; i += LANES) {
    Floats first = Floats::load(x + i), second = Floats::load(x + half + i), c = Floats::load(cos + i), s = Floats::load(sin + i);
    (first * c - second * s).store(x + i);
    fma(first, s, second * c).store(x + half + i);
  }
  for (; i < half; i++) {
    float first = x[i], second = x[half + i];
    x[i] = first * cos[i] - second * sin[i];
    x[half + i] = first * sin[i] + second * cos[i];
  }
}

inline void turn_token(const Rope& op, float* qkv, const float* cos, const float* sin) {
  for (int head = 0; head < op.heads + op.kv.kv_heads; head++) {
    float* x = qkv + head * op.kv.head_dim;
    if (op.norm) norm_head(x, op.norm + head * op.kv.head_dim, op.kv.head_dim, op.eps);
    turn_head(x, cos, sin, op.dim / 2);
  }
}

template <class F>
void store_token(const KV& kv, int64_t slot, const float* keys) {
  Shape<F> shape(kv.head_dim);
  int64_t block = slot / kv.block_size;
  int offset = static_cast<int>(slot % kv.block_size);
  for (int head = 0; head < kv.kv_heads; head++) {
    size_t at = group_at(kv, shape.group_bytes(), block, head, offset);
    store_key(F(), shape, kv.keys + at, offset % GROUP, keys + head * kv.head_dim);
    store_value(F(), shape, kv.values + at, offset % GROUP, keys + (kv.kv_heads + head) * kv.head_dim);
  }
}

inline void rope(const Rope& op, const Step& step, const Worker& worker) {
  int64_t width = int64_t{op.heads + 2 * op.kv.kv_heads} * op.kv.head_dim, half = op.dim / 2;
  int64_t piece = step.tokens / (4 * worker.count) < GROUP ? 1 : GROUP;  // neighbours share the lines that they are stored in
  with_format(op.kv.format, [&](auto format) {
    for (int64_t begin; (begin = worker.take(piece)) < step.tokens;) {
      for (int64_t token = begin; token < begin + piece && token < step.tokens; token++) {
        float* qkv = op.qkv + token * width;
        turn_token(op, qkv, op.cos + token * half, op.sin + token * half);
        store_token<decltype(format)>(op.kv, step.slots[token], qkv + op.heads * op.kv.head_dim);
      }
    }
  });
}

}  // namespace penstock
