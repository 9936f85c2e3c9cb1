// Attention's products with keys and values in codes, as integers (AVX-512 VNNI).
//
// A line of 64 codes is an operand as it lies: words of 4 codes times words of 4 digits. What it is multiplied with, queries and
// weights, is rounded to multiples of its largest / 32639 and split in two signed digits, x = 256 * high + low: 16 bits, finer
// than the codes by far. Eight numbers' low digits lie before their high ones.
#pragma once
#include "kv.h"

namespace penstock {

constexpr int TILE_GROUPS = 16;  // of keys, at most
constexpr int TILE_KEYS = TILE_GROUPS * GROUP;

template <class F>
constexpr bool by_digits() {
#if defined(__AVX512VNNI__)
  return coded<F>();
#else
  return false;
#endif
}

inline float digit_scale(float largest, float* unit);

#if defined(__AVX512VNNI__)

constexpr float LARGEST_DIGITS = 127 * 256 + 127;

template <class F>
constexpr int units() {  // operands in a line
  return F::PARTS / 4;
}

template <class F>
inline __m512i codes(__m512i line, int unit) {
  if (F::BITS == 8) return line;
  return _mm512_and_si512(unit == 0 ? line : _mm512_srli_epi32(line, 4), _mm512_set1_epi8(15));
}

// 16 numbers, as multiples of 1 / inverse, into 32 bytes of digits; returns the multiples plus 128. What the rounding of large
// scores makes larger than the largest number ends up as that number: it must not turn over.
inline __m512i split(Floats x, Floats inverse, uint8_t* digits) {
  __m512i whole = _mm512_cvtps_epi32(fma(x, inverse, Floats::all(128.f)).v);
  __m256i low_high = _mm256_xor_si256(_mm512_cvtsepi32_epi16(whole), _mm256_set1_epi16(128));  // the low byte, less 128, as a signed one
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(digits), _mm256_shuffle_epi8(low_high, order));
  return whole;
}

// Of the low digits of numbers 4 * i on; the high ones are HIGH bytes further.
constexpr int digits_at(int i) { return i / 2 * 16 + i % 2 * 4; }
constexpr int HIGH = 8;

inline Floats digits_value(__m512i high, __m512i low) {  // 255 * 127 * 256 of up to 256 products fit a word
  return {_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low))};
}

// sums += codes * digits, four products to a word. Written out, since GCC copies the sums of its own `_mm512_dpbusd_epi32` around.
inline void add_products(__m512i& sums, __m512i codes, __m512i digits) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(digits));
}

inline __m512i four(const uint8_t* p) {
  int32_t word;
  std::memcpy(&word, p, 4);
  return _mm512_set1_epi32(word);
}

// scores[row][key] of N groups, in the queries' units, without the codes' scales and minima. q: [operands][low, high][ROWS][4]
template <class F, int ROWS, int N>
inline void multiply_keys_by_digits(const uint8_t* q, const uint8_t* const* groups, int lines, float* scores, Stream& ahead) {
  __m512i high[ROWS][N], low[ROWS][N];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) high[r][n] = low[r][n] = _mm512_setzero_si512();
  }
  for (int line = 0; line < lines; line++) {
    __m512i words[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      words[n] = _mm512_loadu_si512(groups[n] + line * LINE);
      ahead.next();
    }
#pragma GCC unroll 2
    for (int unit = 0; unit < units<F>(); unit++, q += 8 * ROWS) {
      __m512i keys[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) keys[n] = codes<F>(words[n], unit);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        __m512i lower = four(q + 4 * r), upper = four(q + 4 * (ROWS + r));
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
          add_products(high[r][n], keys[n], upper);
          add_products(low[r][n], keys[n], lower);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) digits_value(high[r][n], low[r][n]).store(scores + r * TILE_KEYS + n * GROUP);
  }
}

// The inverse of the unit in which numbers up to `largest` are split; writes that unit.
inline float digit_scale(float largest, float* unit) {
  *unit = largest > 1e-30f ? largest / LARGEST_DIGITS : 1.f;
  return largest > 1e-30f ? LARGEST_DIGITS / largest : 0.f;
}

// One query into row `row` of q; returns its unit, and in `sum` the sum of its multiples.
inline float split_query(const float* x, int size, int row, int rows, uint8_t* q, float& sum) {
  Floats largest = Floats::zero();
  for (int i = 0; i < size; i += LANES) largest = max(largest, abs(Floats::first(x + i, size - i < LANES ? size - i : LANES)));
  float unit;
  const Floats inverse = Floats::all(digit_scale(largest.largest(), &unit));
  __m512i total = _mm512_setzero_si512();
  for (int i = 0; i < size; i += LANES) {
    uint8_t digits[2 * LANES];
    total = _mm512_add_epi32(total, split(Floats::first(x + i, size - i < LANES ? size - i : LANES), inverse, digits));
    for (int j = 0; j < LANES / 4 && i + 4 * j < size; j++) {
      uint8_t* out = q + (i / 4 + j) * 8 * rows + 4 * row;
      std::memcpy(out, digits + digits_at(j), 4);
      std::memcpy(out + 4 * rows, digits + digits_at(j) + HIGH, 4);
    }
  }
  sum = static_cast<float>(_mm512_reduce_add_epi32(total) - 128 * ((size + LANES - 1) / LANES * LANES));
  return unit;
}

// Adds to N chunks of `out` the values of groups `from` to `to` - 1, `out` first times `factors`. weights: [ROWS][2 * TILE_KEYS] digits, in units of `scales`
template <class F, int ROWS, int N>
inline void add_values_by_digits(const uint8_t* weights, const float* scales, const uint8_t* const* groups, int from, int to, const Shape<F>& shape,
                      int chunk, const float* factors, float* out, Stream& ahead) {
  constexpr int LINES = N / F::CHUNKS;
  __m512i high[ROWS][N], low[ROWS][N];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) high[r][n] = low[r][n] = _mm512_setzero_si512();
  }
  const int step = shape.chunk_lines() * LINE;
  for (int g = from; g < to; g++) {
    const uint8_t* lines = groups[g] + chunk / F::CHUNKS * LINE;
    const uint8_t* digits = weights + 2 * g * GROUP;
#pragma GCC unroll 4
    for (int quad = 0; quad < GROUP / 4; quad++, lines += step) {
      __m512i values[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) values[n] = codes<F>(_mm512_loadu_si512(lines + n / F::CHUNKS * LINE), n % F::CHUNKS);
#pragma GCC unroll 4
      for (int i = 0; i < LINES; i++) ahead.next();
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        const uint8_t* row = digits + 2 * r * TILE_KEYS + digits_at(quad);
        __m512i lower = four(row), upper = four(row + HIGH);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
          add_products(high[r][n], values[n], upper);
          add_products(low[r][n], values[n], lower);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      float* sums = out + r * shape.padded + n * LANES;
      fma(Floats::load(sums), Floats::all(factors[r]), digits_value(high[r][n], low[r][n]) * Floats::all(scales[r])).store(sums);
    }
  }
}

#else  // declared, since templates that do not call them name them

float digit_scale(float largest, float* unit);
void split(Floats x, Floats inverse, uint8_t* digits);
float split_query(const float* x, int size, int row, int rows, uint8_t* q, float& sum);
template <class F, int ROWS, int N>
void multiply_keys_by_digits(const uint8_t* q, const uint8_t* const* groups, int lines, float* scores, Stream& ahead);
template <class F, int ROWS, int N>
void add_values_by_digits(const uint8_t* weights, const float* scales, const uint8_t* const* groups, int from, int to, const Shape<F>& shape,
                          int chunk, const float* factors, float* out, Stream& ahead);

#endif

}  // namespace penstock
