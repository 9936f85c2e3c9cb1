// The inputs of a matrix product, as its matrix wants them: for codes, int8 with a scale for each group of columns.
//
// One token's row lies together, `activation_row_bytes` from the next, 64-byte aligned:
//   int8    codes[cols]      x / scale, rounded to nearest even, from -127 to 127
//   float   scales[groups]   largest |x| of the group / 127
//   int32   starts[groups]   -zero_code * sum of the codes: where the integer sums of a symmetrical matrix begin
//   (float  sums[groups]     scale * sum of the codes, in their place, for a matrix with minima)
// For a matrix of floats the row is the floats themselves.
#pragma once
#include "matrix.h"

namespace penstock {

constexpr float LARGEST_CODE = 127.f;
constexpr float SMALLEST = 1e-35f;  // inputs below count as zero: their inverse would overflow

inline int64_t activation_row_bytes(const Matrix& matrix) {
  int64_t bytes = has_codes(matrix) ? matrix.cols + 8 * group_count(matrix) : int64_t{matrix.cols} * 4;
  return (bytes + 63) / 64 * 64;
}

inline size_t activation_bytes(const Matrix& matrix, int tokens) { return static_cast<size_t>(activation_row_bytes(matrix)) * tokens; }

// 16 whole numbers from -127 to 127.
inline void store_codes(Floats x, int8_t* to) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.v)));
#elif defined(__AVX2__)
  __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));  // 0-3, 8-11, 4-7, 12-15
  words = _mm256_permute4x64_epi64(words, 0xd8);
  __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
#else
  float whole[LANES];
  x.store(whole);
  for (int i = 0; i < LANES; i++) to[i] = static_cast<int8_t>(whole[i]);
#endif
}

// 16 inputs from column `col` on.
inline Floats gather(const float* x, const int32_t* order, int64_t col) {
  if (order == nullptr) return Floats::load(x + col);
  float inputs[LANES];
  for (int i = 0; i < LANES; i++) inputs[i] = x[order[col + i]];
  return Floats::load(inputs);
}

// The codes of one group of inputs; returns their scale and sum.
struct Rounded {
  float scale, sum;
};

template <bool ORDERED>
inline Rounded round_group(const float* x, const int32_t* order, int64_t begin, int64_t end, int8_t* codes) {
  auto inputs = [&](int64_t col) { return ORDERED ? gather(x, order, col) : Floats::load(x + col); };
  Floats most = Floats::zero(), sums = Floats::zero();
  for (int64_t col = begin; col < end; col += LANES) most = max(most, abs(inputs(col)));
  float largest = most.largest();
  Floats inverse = Floats::all(largest > SMALLEST ? LARGEST_CODE / largest : 0.f);
  for (int64_t col = begin; col < end; col += LANES) {
    Floats rounded = round(inputs(col) * inverse);
    sums = sums + rounded;
    store_codes(rounded, codes + col);
  }
  float sum = sums.sum();
  return {largest / LARGEST_CODE + (sum - sum), sum};  // what is not a number shows in the product
}

// What the matrix says is read once: the compiler must take every byte that is written for a part of it.
template <int GROUP, bool ORDERED>
inline void round_row(const Matrix& matrix, const float* x, uint8_t* row) {
  const int64_t cols = matrix.cols, group = GROUP ? GROUP : matrix.group, groups = cols / group;
  const int32_t* order = matrix.order;
  const float zero = static_cast<float>(zero_code(matrix));
  const bool minima = matrix.minima != nullptr;
  float* scales = reinterpret_cast<float*>(row + cols);
  for (int64_t g = 0; g < groups; g++) {
    Rounded rounded = round_group<ORDERED>(x, order, g * group, (g + 1) * group, reinterpret_cast<int8_t*>(row));
    scales[g] = rounded.scale;
    float sum = rounded.scale * rounded.sum;
    int32_t start = static_cast<int32_t>(-zero * rounded.sum);
    std::memcpy(scales + groups + g, minima ? static_cast<const void*>(&sum) : &start, 4);
  }
}

// x [cols] of token `token` -> its row of `activations`.
inline void quantize_row(const Matrix& matrix, const float* x, void* activations, int64_t token) {
  uint8_t* row = static_cast<uint8_t*>(activations) + activation_row_bytes(matrix) * token;
  if (has_codes(matrix)) {
    if (matrix.order != nullptr) return round_row<0, true>(matrix, x, row);
    if (matrix.group == 32) return round_row<32, false>(matrix, x, row);
    return round_row<0, false>(matrix, x, row);
  }
  if (matrix.order == nullptr) {
    std::memcpy(row, x, sizeof(float) * matrix.cols);
  } else {
    for (int64_t col = 0; col < matrix.cols; col++) reinterpret_cast<float*>(row)[col] = x[matrix.order[col]];
  }
}

}  // namespace penstock
