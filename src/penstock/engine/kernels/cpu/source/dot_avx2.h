// Products of codes with AVX2: `vpmaddubsw` multiplies 8 rows' four codes of 4 bits by four inputs, into 16-bit sums of pairs.
//
// A pair is at most 2 * 15 * 127, so 16-bit sums hold 32 columns (8 * 3810 = 30480 < 32767) before they must widen. Codes of
// 8 bits are taken as two of 4 bits, whose sums meet when they widen: low + 16 * high. Nothing can saturate.
#pragma once
#include "block.h"

namespace penstock {

// Tokens of one call: their 16-bit sums fill most of the 16 registers.
template <int FORMAT>
constexpr int CODE_TOKENS = FORMAT == INT4 ? 4 : 6;
constexpr int CODE_TILES = 1;
constexpr int FLOAT_TOKENS = 6, FLOAT_TILES = 1;
static_assert(STRETCH <= 32, "16-bit sums hold no more columns");

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

// The two codes of each byte.
struct Nibbles {
  __m256i low, high;
  explicit Nibbles(const uint8_t* codes) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
    low = _mm256_and_si256(both, mask);
    high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
  }
};

// INT4: out[t][h] = 32-bit sums of COLUMNS products for token t, rows 8 h to 8 h + 7
template <int COLUMNS, int T>
inline __attribute__((always_inline)) void products_of_int4(__m256i (&out)[T][2], const uint8_t* codes, const int8_t* x, int64_t input_bytes) {
  __m256i sums[T][2];
#pragma GCC unroll 8
  for (int col = 0; col < COLUMNS; col += 8) {
    const Nibbles upper(codes + col * 8), lower(codes + col * 8 + 32);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      __m256i inputs = four_inputs(x + t * input_bytes + col);
      sums[t][0] = add_product(sums[t][0], upper.low, inputs, col == 0);
      sums[t][1] = add_product(sums[t][1], lower.low, inputs, col == 0);
      inputs = four_inputs(x + t * input_bytes + col + 4);
      sums[t][0] = add_product(sums[t][0], upper.high, inputs, false);
      sums[t][1] = add_product(sums[t][1], lower.high, inputs, false);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
    for (int h = 0; h < 2; h++) out[t][h] = _mm256_madd_epi16(sums[t][h], _mm256_set1_epi16(1));
  }
}

// INT8: likewise, eight rows after the other
template <int COLUMNS, int T>
inline __attribute__((always_inline)) void products_of_int8(__m256i (&out)[T][2], const uint8_t* codes, const int8_t* x, int64_t input_bytes) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; h++) {
    __asm__("" : "+r"(x));  // g++ would rather keep all inputs for the second half, and has no registers for them
    __m256i low[T], high[T];
#pragma GCC unroll 8
    for (int col = 0; col < COLUMNS; col += 4) {
      const Nibbles nibbles(codes + col * 16 + h * 32);
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) {
        __m256i inputs = four_inputs(x + t * input_bytes + col);
        low[t] = add_product(low[t], nibbles.low, inputs, col == 0);
        high[t] = add_product(high[t], nibbles.high, inputs, col == 0);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      __m256i sixteens = _mm256_madd_epi16(high[t], _mm256_set1_epi16(16));
      out[t][h] = _mm256_add_epi32(_mm256_madd_epi16(low[t], _mm256_set1_epi16(1)), sixteens);
    }
  }
}

template <int FORMAT, int COLUMNS, int T>
inline __attribute__((always_inline)) void products_of(__m256i (&out)[T][2], const uint8_t* codes, const int8_t* x, int64_t input_bytes) {
  if constexpr (FORMAT == INT4) {
    products_of_int4<COLUMNS, T>(out, codes, x, input_bytes);
  } else {
    products_of_int8<COLUMNS, T>(out, codes, x, input_bytes);
  }
}

template <int FORMAT, int COLUMNS, int T>
inline __attribute__((always_inline)) void add_products(__m256i (&sums)[T][2], const uint8_t* codes, const int8_t* x, int64_t input_bytes) {
  __m256i more[T][2];
  products_of<FORMAT, COLUMNS, T>(more, codes, x, input_bytes);
  for (int t = 0; t < T; t++) {
    for (int h = 0; h < 2; h++) sums[t][h] = _mm256_add_epi32(sums[t][h], more[t][h]);
  }
}

// totals += scales * sums of one group
template <bool MINIMA, int T>
inline __attribute__((always_inline)) void add_group(float (&totals)[T][TILE], const __m256i (&sums)[T][2], const Block& block, int64_t group) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; h++) {
    const int64_t at = group * TILE + h * 8;
    __m256 scale = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(block.scales + at))), minimum = scale;
    if (MINIMA) minimum = _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(block.minima + at)));
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      __m256i sum = sums[t][h];
      if (!MINIMA) sum = _mm256_add_epi32(sum, _mm256_set1_epi32(block.starts_of(t)[group]));
      __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(block.scales_of(t)[group]));
      __m256 total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), both, _mm256_load_ps(totals[t] + h * 8));
      if (MINIMA) total = _mm256_fnmadd_ps(minimum, _mm256_set1_ps(block.sums_of(t)[group]), total);
      _mm256_store_ps(totals[t] + h * 8, total);
    }
  }
}

template <int FORMAT, bool MINIMA, int GROUP, int T, int R>
void multiply_codes(const Block& block) {
  static_assert(R == 1, "one tile at a time");
  constexpr int BYTES = FORMAT == INT8 ? 16 : 8;  // of a column
  alignas(32) float totals[T][TILE] = {};
  const int64_t columns = GROUP ? GROUP : block.group;
  const uint8_t *codes = block.codes, *ahead = block.ahead;
  const int8_t* x = block.codes_of(0);
  for (int64_t group = 0; group < block.groups; group++) {
    __m256i sums[T][2];
    if constexpr (GROUP == STRETCH) {
      fetch<1>(block, ahead);
      products_of<FORMAT, STRETCH, T>(sums, codes, x, block.input_bytes);
    } else {
      for (auto& token : sums) token[0] = token[1] = _mm256_setzero_si256();
      int64_t col = 0;
      for (; col + STRETCH <= columns; col += STRETCH) {
        fetch<1>(block, ahead);
        add_products<FORMAT, STRETCH, T>(sums, codes + col * BYTES, x + col, block.input_bytes);
      }
      if (col < columns) add_products<FORMAT, STRETCH / 2, T>(sums, codes + col * BYTES, x + col, block.input_bytes);
    }
    codes += columns * BYTES;
    x += columns;
    add_group<MINIMA, T>(totals, sums, block, group);
  }
  for (int t = 0; t < T; t++) block.finish(Floats::load(totals[t]), t, 0);
}

}  // namespace penstock
