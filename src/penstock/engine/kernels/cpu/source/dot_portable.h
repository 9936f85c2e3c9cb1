// Products of codes without any particular instructions: loops that a compiler turns into whatever vectors there are.
#pragma once
#include "block.h"

namespace penstock {

template <int FORMAT>
constexpr int CODE_TOKENS = 4;
constexpr int CODE_TILES = 1;  // of one call
constexpr int FLOAT_TOKENS = 4, FLOAT_TILES = 1;

// sums[16] += four columns of codes times four inputs
inline void add_columns(int32_t* sums, const uint8_t* codes, const int8_t* x, int shift, int mask) {
  for (int row = 0; row < TILE; row++) {
    const uint8_t* four = codes + row * 4;
    sums[row] += (four[0] >> shift & mask) * x[0] + (four[1] >> shift & mask) * x[1] + (four[2] >> shift & mask) * x[2] +
                 (four[3] >> shift & mask) * x[3];
  }
}

template <int FORMAT, bool MINIMA, int GROUP, int T, int R>
void multiply_codes(const Block& block) {
  static_assert(R == 1, "one tile at a time");
  Floats totals[T];
  for (Floats& total : totals) total = Floats::zero();
  const uint8_t* codes = block.codes;
  constexpr int STEP = FORMAT == INT8 ? 4 : 8;
  for (int64_t group = 0; group < block.groups; group++) {
    Floats scale = Floats::float16(block.scales + group * TILE);
    for (int t = 0; t < T; t++) {
      const int8_t* x = block.codes_of(t) + group * block.group;
      int32_t sums[TILE];
      for (int32_t& sum : sums) sum = MINIMA ? 0 : block.starts_of(t)[group];
      for (int64_t col = 0; col < block.group; col += STEP) {
        const uint8_t* four = codes + col / STEP * 64;
        add_columns(sums, four, x + col, 0, FORMAT == INT8 ? 255 : 15);
        if (FORMAT == INT4) add_columns(sums, four, x + col + 4, 4, 15);
      }
      float products[TILE];
      for (int i = 0; i < TILE; i++) products[i] = static_cast<float>(sums[i]);
      totals[t] = fma(Floats::load(products), scale * Floats::all(block.scales_of(t)[group]), totals[t]);
      if (MINIMA) {
        Floats minimum = Floats::float16(block.minima + group * TILE);
        totals[t] = totals[t] - minimum * Floats::all(block.sums_of(t)[group]);
      }
    }
    codes += block.group / STEP * 64;
  }
  for (int t = 0; t < T; t++) block.finish(totals[t], t, 0);
}

}  // namespace penstock
