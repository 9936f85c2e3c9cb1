// Products of codes with AVX-512 VNNI: `vpdpbusd` multiplies 16 rows' four codes by four inputs and adds them to 16 sums.
#pragma once
#include "block.h"

namespace penstock {

template <int FORMAT>
constexpr int CODE_TOKENS = 6;
constexpr int CODE_TILES = 2;  // of one call: 12 integer and 12 float sums, in registers
constexpr int FLOAT_TOKENS = 6, FLOAT_TILES = 2;

inline __m512i four_inputs(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}

// sums[T][R] += one register of each tile's codes times the inputs of its columns
template <int FORMAT, int T, int R>
inline __attribute__((always_inline)) void add_step(__m512i (&sums)[T][R], const uint8_t* codes, int64_t tile_bytes, const int8_t* x, int64_t input_bytes) {
  constexpr int HALVES = FORMAT == INT8 ? 1 : 2;
  const __m512i low = _mm512_set1_epi8(15);
  __m512i weights[HALVES][R];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    weights[0][r] = _mm512_load_si512(codes + r * tile_bytes);
    if constexpr (FORMAT == INT4) {
      weights[1][r] = _mm512_and_si512(_mm512_srli_epi16(weights[0][r], 4), low);
      weights[0][r] = _mm512_and_si512(weights[0][r], low);
    }
  }
#pragma GCC unroll 2
  for (int half = 0; half < HALVES; half++) {
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      __m512i inputs = four_inputs(x + t * input_bytes + half * 4);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], weights[half][r], inputs);
    }
  }
}

// COLUMNS columns of a group, while what the next calls need is fetched.
template <int FORMAT, int COLUMNS, int T, int R>
inline __attribute__((always_inline)) void add_columns(__m512i (&sums)[T][R], const uint8_t* codes, const int8_t* x, const Block& block, const uint8_t*& ahead) {
  constexpr int STEP = FORMAT == INT8 ? 4 : 8;  // columns in 64 bytes of codes
  fetch<R>(block, ahead);
#pragma GCC unroll 8
  for (int col = 0; col < COLUMNS; col += STEP) add_step<FORMAT, T, R>(sums, codes + col / STEP * 64, block.tile_bytes, x + col, block.input_bytes);
}

template <int FORMAT, bool MINIMA, int GROUP, int T, int R>
void multiply_codes(const Block& block) {
  constexpr int STEP = FORMAT == INT8 ? 4 : 8;
  const int64_t columns = GROUP ? GROUP : block.group, stride = block.input_bytes / 4;
  const uint8_t *codes = block.codes, *ahead = block.ahead;
  const int8_t* x = block.codes_of(0);
  const float* scales = block.scales_of(0);
  const float* starts = block.sums_of(0);
  __m512 totals[T][R];
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) totals[t][r] = _mm512_setzero_ps();
  }
  for (int64_t group = 0; group < block.groups; group++) {
    __m512i sums[T][R];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      int32_t start = 0;
      if (!MINIMA) std::memcpy(&start, starts + t * stride + group, 4);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) sums[t][r] = _mm512_set1_epi32(start);
    }
    int64_t col = 0;
    for (; col + STRETCH <= columns; col += STRETCH) add_columns<FORMAT, STRETCH, T, R>(sums, codes + col / STEP * 64, x + col, block, ahead);
    if (GROUP == 0 && col < columns) add_columns<FORMAT, STRETCH / 2, T, R>(sums, codes + col / STEP * 64, x + col, block, ahead);
    codes += columns / STEP * 64;
    x += columns;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      __m512 scale = Floats::float16(block.scales + r * block.tile_scales + group * TILE).v;
      __m512 minimum = MINIMA ? Floats::float16(block.minima + r * block.tile_scales + group * TILE).v : scale;
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) {
        __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[t * stride + group]));
        totals[t][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[t][r]), both, totals[t][r]);
        if (MINIMA) totals[t][r] = _mm512_fnmadd_ps(minimum, _mm512_set1_ps(starts[t * stride + group]), totals[t][r]);
      }
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) block.finish({totals[t][r]}, t, r);
  }
}

}  // namespace penstock
