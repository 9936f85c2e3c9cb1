// Products of float matrices, in float32 arithmetic: each column of a tile times each token's input.
#pragma once
#include "block.h"

namespace penstock {

template <int FORMAT>
inline Floats load_column(const uint8_t* tile, int64_t col) {
  if constexpr (FORMAT == FLOAT32) return Floats::load(reinterpret_cast<const float*>(tile) + col * TILE);
  if constexpr (FORMAT == FLOAT16) return Floats::float16(reinterpret_cast<const uint16_t*>(tile) + col * TILE);
  return Floats::bfloat16(reinterpret_cast<const uint16_t*>(tile) + col * TILE);
}

template <int FORMAT, int T, int R>
void multiply_floats(const Block& block) {
  Floats totals[T][R];
  for (auto& row : totals) {
    for (Floats& total : row) total = Floats::zero();
  }
  const float* inputs[T];
  for (int t = 0; t < T; t++) inputs[t] = block.floats_of(t);
  const int64_t cols = block.groups;
  for (int64_t col = 0; col < cols; col++) {
    Floats weights[R];
    for (int r = 0; r < R; r++) weights[r] = load_column<FORMAT>(block.codes + r * block.tile_bytes, col);
    for (int t = 0; t < T; t++) {
      Floats x = Floats::all(inputs[t][col]);
      for (int r = 0; r < R; r++) totals[t][r] = fma(weights[r], x, totals[t][r]);
    }
  }
  for (int t = 0; t < T; t++) {
    for (int r = 0; r < R; r++) block.finish(totals[t][r], t, r);
  }
}

}  // namespace penstock
