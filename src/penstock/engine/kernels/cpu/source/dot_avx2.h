// Products of codes with AVX2: `vpmaddubsw` multiplies 8 rows' four codes of 4 bits by four inputs, into 16-bit pair sums.
//
// A pair is at most 2 * 15 * 127, so 16-bit sums hold 32 columns (8 * 3810 = 30480 < 32767) before they must widen. Codes of
// 8 bits are taken as two of 4 bits, whose sums meet when they widen: low + 16 * high. Nothing can saturate.
#pragma once
#include "block.h"

namespace penstock {

constexpr int COLUMNS_IN_16_BITS = 32;

// Tokens and half tiles (8 rows) that one pass takes: their 16-bit sums fill most of the 16 registers.
template <int FORMAT>
constexpr int CODE_TOKENS = FORMAT == INT4 ? 4 : 6;
template <int FORMAT>
constexpr int HALVES = FORMAT == INT4 ? 2 : 1;
constexpr int CODE_TILES = 1;
constexpr int FLOAT_TOKENS = 6, FLOAT_TILES = 1;

inline __m256i four_inputs(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}

inline __m256i add_product(__m256i sum, __m256i codes, __m256i inputs, bool first) {
  __m256i product = _mm256_maddubs_epi16(codes, inputs);
  sum = first ? product : _mm256_add_epi16(sum, product);
  __asm__("" : "+x"(sum));  // g++ would rather add all products at the end, and has no registers for them
  return sum;
}

// Eight rows of 64 bytes of INT4: eight columns.
template <int T, int H>
inline __attribute__((always_inline)) void add_step4(__m256i (&sums)[T][H], const uint8_t* codes, const int8_t* x, int64_t input_bytes, bool first) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i weights[2][H];
#pragma GCC unroll 2
  for (int h = 0; h < H; h++) {
    __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + h * 32));
    weights[0][h] = _mm256_and_si256(both, low);
    weights[1][h] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++) {
      __m256i inputs = four_inputs(x + t * input_bytes + part * 4);
#pragma GCC unroll 2
      for (int h = 0; h < H; h++) sums[t][h] = add_product(sums[t][h], weights[part][h], inputs, first && part == 0);
    }
  }
}

// Eight rows of 64 bytes of INT8: four columns. sums[t][0] of the low halves of the bytes, [1] of the high ones
template <int T>
inline __attribute__((always_inline)) void add_step8(__m256i (&sums)[T][2], const uint8_t* codes, const int8_t* x, int64_t input_bytes, bool first) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
  __m256i lows = _mm256_and_si256(both, low), highs = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
    __m256i inputs = four_inputs(x + t * input_bytes);
    sums[t][0] = add_product(sums[t][0], lows, inputs, first);
    sums[t][1] = add_product(sums[t][1], highs, inputs, first);
  }
}

// Products of COLUMNS columns, widened: out[t][h] of 8 rows each
template <int FORMAT, int COLUMNS, int T, int H>
inline __attribute__((always_inline)) void products_of(__m256i (&out)[T][H], const uint8_t* codes, const int8_t* x, int64_t input_bytes) {
  const __m256i one = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16);
  constexpr int STEP = FORMAT == INT8 ? 4 : 8;
  __m256i sums[T][2];
  static_assert(COLUMNS <= COLUMNS_IN_16_BITS, "16-bit sums hold no more");
#pragma GCC unroll 8
  for (int col = 0; col < COLUMNS; col += STEP) {
    if constexpr (FORMAT == INT8) {
      add_step8<T>(sums, codes + col / STEP * 64, x + col, input_bytes, col == 0);
    } else {
      add_step4<T, H>(sums, codes + col / STEP * 64, x + col, input_bytes, col == 0);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
#pragma GCC unroll 2
    for (int h = 0; h < H; h++) {
      out[t][h] = _mm256_madd_epi16(sums[t][h], one);
      if (FORMAT == INT8) out[t][h] = _mm256_add_epi32(out[t][h], _mm256_madd_epi16(sums[t][1], sixteen));
    }
  }
}

// H halves of one tile, from half `half` on.
template <int FORMAT, bool MINIMA, int GROUP, int T, int H>
inline __attribute__((always_inline)) void multiply_halves(const Block& block, int half, float (&totals)[T][TILE]) {
  constexpr int STEP = FORMAT == INT8 ? 4 : 8;
  const int64_t input_bytes = block.input_bytes, columns = GROUP ? GROUP : block.group, stride = input_bytes / 4;
  const uint8_t* codes = block.codes + half * 32;
  const int8_t* x = block.codes_of(0);
  const float* scales = block.scales_of(0);
  const float* starts = block.sums_of(0);
  for (int64_t group = 0; group < block.groups; group++) {
    __m256i sums[T][H];
    if constexpr (GROUP != 0) {
      products_of<FORMAT, GROUP, T, H>(sums, codes, x, input_bytes);
    } else {
      for (int t = 0; t < T; t++) {
        for (int h = 0; h < H; h++) sums[t][h] = _mm256_setzero_si256();
      }
      for (int64_t col = 0; col < columns;) {
        __m256i part[T][H];
        int wide = columns - col >= 32 ? 32 : 16;
        if (wide == 32) {
          products_of<FORMAT, 32, T, H>(part, codes + col / STEP * 64, x + col, input_bytes);
        } else {
          products_of<FORMAT, 16, T, H>(part, codes + col / STEP * 64, x + col, input_bytes);
        }
        for (int t = 0; t < T; t++) {
          for (int h = 0; h < H; h++) sums[t][h] = _mm256_add_epi32(sums[t][h], part[t][h]);
        }
        col += wide;
      }
    }
    codes += columns / STEP * 64;
    x += columns;
#pragma GCC unroll 2
    for (int h = 0; h < H; h++) {
      const int64_t at = group * TILE + (half + h) * 8;
      __m256 scale = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(block.scales + at)));
      __m256 minimum = MINIMA ? _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(block.minima + at))) : scale;
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) {
        float* total = totals[t] + (half + h) * 8;
        __m256i sum = sums[t][h];
        if (!MINIMA) {
          int32_t start;
          std::memcpy(&start, starts + t * stride + group, 4);
          sum = _mm256_add_epi32(sum, _mm256_set1_epi32(start));
        }
        __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(scales[t * stride + group]));
        __m256 next = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), both, _mm256_load_ps(total));
        if (MINIMA) next = _mm256_fnmadd_ps(minimum, _mm256_set1_ps(starts[t * stride + group]), next);
        _mm256_store_ps(total, next);
      }
    }
  }
}

template <int FORMAT, bool MINIMA, int GROUP, int T, int R>
void multiply_codes(const Block& block) {
  static_assert(R == 1, "one tile at a time");
  alignas(32) float totals[T][TILE] = {};
  for (int half = 0; half < 2; half += HALVES<FORMAT>) multiply_halves<FORMAT, MINIMA, GROUP, T, HALVES<FORMAT>>(block, half, totals);
  for (int t = 0; t < T; t++) block.finish(Floats::load(totals[t]), t, 0);
}

}  // namespace penstock
