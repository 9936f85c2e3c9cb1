// How weight matrices lie in memory: the same for every instruction set.
//
// Rows come in tiles of 16. Inside a tile the codes of four consecutive columns lie together, row by row:
//   INT8       64 bytes: 16 rows x 4 columns
//   INT4       64 bytes: 16 rows x 8 columns, the first four in the low halves of the bytes, the next four in the high ones
//   floats     column by column: 16 rows x 1 column
// so that one 512-bit register of codes times four inputs (repeated) adds to 16 rows' sums. Scales and minima lie apart,
// [tiles, groups, 16], which keeps the codes aligned. Rows of the last tile that do not exist are zeros.
#pragma once
#include <cstdlib>
#include <cstring>

#include "simd.h"
#include "types.h"

namespace penstock {

inline bool has_codes(const Matrix& matrix) { return matrix.format == INT8 || matrix.format == INT4; }

inline int64_t tile_count(const Matrix& matrix) { return (int64_t{matrix.rows} + TILE - 1) / TILE; }

inline int64_t group_count(const Matrix& matrix) { return matrix.cols / matrix.group; }

// Bytes of one tile's codes or floats.
inline int64_t tile_bytes(const Matrix& matrix) {
  int64_t numbers = int64_t{matrix.cols} * TILE;
  switch (matrix.format) {
    case FLOAT32: return numbers * 4;
    case INT8: return numbers;
    case INT4: return numbers / 2;
    default: return numbers * 2;
  }
}

inline size_t packed_codes_bytes(const Matrix& matrix) { return static_cast<size_t>(tile_count(matrix) * tile_bytes(matrix)); }

// Of the scales, and of the minima where there are any.
inline size_t packed_scales_bytes(const Matrix& matrix) {
  return has_codes(matrix) ? static_cast<size_t>(tile_count(matrix) * group_count(matrix) * TILE) * 2 : 0;
}

// The code of a symmetrical matrix that stands for zero.
inline int zero_code(const Matrix& matrix) { return matrix.format == INT8 ? 128 : 8; }

template <class Number>
void pack_floats(const Matrix& matrix, const Number* from) {
  Number* to = reinterpret_cast<Number*>(const_cast<uint8_t*>(matrix.codes));
  for (int64_t row = 0; row < matrix.rows; row++) {
    Number* lane = to + (row / TILE) * matrix.cols * TILE + row % TILE;
    for (int64_t col = 0; col < matrix.cols; col++) lane[col * TILE] = from[row * matrix.cols + col];
  }
}

inline void pack_row_of_codes(const Matrix& matrix, int64_t row, const uint8_t* from) {
  uint8_t* lane = const_cast<uint8_t*>(matrix.codes) + (row / TILE) * tile_bytes(matrix) + (row % TILE) * 4;
  if (matrix.format == INT8) {
    for (int64_t col = 0; col < matrix.cols; col += 4) std::memcpy(lane + col * TILE, from + col, 4);
    return;
  }
  for (int64_t col = 0; col < matrix.cols; col += 8) {
    for (int i = 0; i < 4; i++) lane[col / 2 * TILE + i] = static_cast<uint8_t>(from[col + i] | from[col + 4 + i] << 4);
  }
}

// [rows, groups] -> [tiles, groups, 16]
inline void pack_scales(const Matrix& matrix, const uint16_t* from, const uint16_t* packed) {
  uint16_t* to = const_cast<uint16_t*>(packed);
  int64_t groups = group_count(matrix);
  for (int64_t row = 0; row < matrix.rows; row++) {
    uint16_t* lane = to + (row / TILE) * groups * TILE + row % TILE;
    for (int64_t group = 0; group < groups; group++) lane[group * TILE] = from[row * groups + group];
  }
}

// Fill the buffers of `matrix` from row-major numbers: floats of its format, or codes, one a byte, with their scales and minima
// [rows, groups].
inline void pack(const Matrix& matrix, const void* numbers, const uint16_t* scales, const uint16_t* minima) {
  if (matrix.rows % TILE != 0) {
    int64_t last = tile_count(matrix) - 1, scales_of_tile = has_codes(matrix) ? group_count(matrix) * TILE : 0;
    std::memset(const_cast<uint8_t*>(matrix.codes) + last * tile_bytes(matrix), 0, static_cast<size_t>(tile_bytes(matrix)));
    for (const uint16_t* packed : {matrix.scales, matrix.minima}) {
      if (packed) std::memset(const_cast<uint16_t*>(packed) + last * scales_of_tile, 0, static_cast<size_t>(scales_of_tile) * 2);
    }
  }
  if (matrix.format == FLOAT32) return pack_floats(matrix, static_cast<const uint32_t*>(numbers));
  if (!has_codes(matrix)) return pack_floats(matrix, static_cast<const uint16_t*>(numbers));
  for (int64_t row = 0; row < matrix.rows; row++) {
    pack_row_of_codes(matrix, row, static_cast<const uint8_t*>(numbers) + row * matrix.cols);
  }
  pack_scales(matrix, scales, matrix.scales);
  if (minima) pack_scales(matrix, minima, matrix.minima);
}

inline float float_at(const Matrix& matrix, const uint8_t* tile, int64_t at) {
  if (matrix.format == FLOAT32) return reinterpret_cast<const float*>(tile)[at];
  uint16_t half = reinterpret_cast<const uint16_t*>(tile)[at];
  return matrix.format == FLOAT16 ? from_float16(half) : from_bfloat16(half);
}

inline int code_at(const Matrix& matrix, const uint8_t* tile, int64_t lane, int64_t col) {
  if (matrix.format == INT8) return tile[col / 4 * 64 + lane * 4 + col % 4];
  return tile[col / 8 * 64 + lane * 4 + col % 4] >> (col & 4) & 15;
}

// One row as floats, in the order of the inputs.
inline void unpack_row(const Matrix& matrix, int64_t row, float* out) {
  const uint8_t* tile = matrix.codes + (row / TILE) * tile_bytes(matrix);
  const int64_t lane = row % TILE, groups = has_codes(matrix) ? group_count(matrix) : 0;
  auto place = [&](int64_t col) { return matrix.order ? matrix.order[col] : col; };
  if (groups == 0) {
    for (int64_t col = 0; col < matrix.cols; col++) out[place(col)] = float_at(matrix, tile, col * TILE + lane);
  }
  for (int64_t group = 0, col = 0; group < groups; group++) {
    int64_t at = ((row / TILE) * groups + group) * TILE + lane;
    float scale = from_float16(matrix.scales[at]);
    float minimum = matrix.minima ? from_float16(matrix.minima[at]) : static_cast<float>(zero_code(matrix)) * scale;
    for (int64_t end = col + matrix.group; col < end; col++) {
      out[place(col)] = scale * static_cast<float>(code_at(matrix, tile, lane, col)) - minimum;
    }
  }
}

}  // namespace penstock
