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
  constexpr int CHAINS = T == 1 ? 4 : 1;  // sums that do not wait for each other
  Floats totals[CHAINS][T][R];
  for (auto& chain : totals) {
    for (auto& token : chain) {
      for (Floats& total : token) total = Floats::zero();
    }
  }
  auto add = [&](int chain, int64_t col) __attribute__((always_inline)) {
    Floats weights[R];
    for (int r = 0; r < R; r++) weights[r] = load_column<FORMAT>(block.codes + r * block.tile_bytes, col);
    for (int t = 0; t < T; t++) {
      Floats x = Floats::all(block.floats_of(t)[col]);
      for (int r = 0; r < R; r++) totals[chain][t][r] = fma(weights[r], x, totals[chain][t][r]);
    }
  };
  const uint8_t* ahead = block.ahead;
  int64_t col = 0;
  for (; col + STRETCH <= block.groups; col += STRETCH) {
    fetch<R>(block, ahead);
    for (int64_t i = 0; i < STRETCH; i += CHAINS) {
      for (int chain = 0; chain < CHAINS; chain++) add(chain, col + i + chain);
    }
  }
  for (; col < block.groups; col++) add(0, col);
  for (int t = 0; t < T; t++) {
    for (int r = 0; r < R; r++) {
      for (int chain = 1; chain < CHAINS; chain++) totals[0][t][r] = totals[0][t][r] + totals[chain][t][r];
      block.finish(totals[0][t][r], t, r);
    }
  }
}

}  // namespace penstock
