// What one call of a product kernel works on: some tiles of a matrix by some tokens.
#pragma once
#include "quantize.h"

namespace penstock {

constexpr int STRETCH = 32;  // columns between two fetches of what comes next

struct Block {
  const uint8_t* codes;     // of the first tile
  const uint16_t* scales;   // likewise
  const uint16_t* minima;
  int64_t tile_bytes;       // from one tile's codes to the next's
  int64_t tile_scales;      // from one tile's scales to the next's, in numbers
  int64_t groups, group;    // group: columns that share a scale
  const uint8_t* inputs;    // the first token's row of activations
  int64_t input_bytes;      // from one token's row to the next's
  const float* bias;        // of the first row, or null
  float* out;               // of the first token and row
  int64_t out_stride;       // from one token's outputs to the next's
  int rows;                 // of these tiles that exist
  const uint8_t* ahead;     // what to fetch meanwhile, in the first of as many tiles as these
  int ahead_lines;          // of 64 bytes, from each tile, once every STRETCH columns

  int64_t cols() const { return groups * group; }
  const int8_t* codes_of(int token) const { return reinterpret_cast<const int8_t*>(inputs + token * input_bytes); }
  const float* scales_of(int token) const { return reinterpret_cast<const float*>(inputs + token * input_bytes + cols()); }
  const int32_t* starts_of(int token) const { return reinterpret_cast<const int32_t*>(scales_of(token) + groups); }
  const float* sums_of(int token) const { return scales_of(token) + groups; }
  const float* floats_of(int token) const { return reinterpret_cast<const float*>(inputs + token * input_bytes); }

  // 16 finished sums of tile `tile` for token `token`.
  void finish(Floats sums, int token, int tile) const {
    float* to = out + token * out_stride + tile * TILE;
    int count = rows - tile * TILE;
    if (count >= TILE) {
      if (bias) sums = sums + Floats::load(bias + tile * TILE);
      sums.store(to);
    } else {
      if (bias) sums = sums + Floats::first(bias + tile * TILE, count);
      sums.store_first(to, count);
    }
  }
};

// Ask for a part of the next weights, into the second cache.
template <int R>
inline void fetch(const Block& block, const uint8_t*& ahead) {
  for (int r = 0; r < R; r++) {
    for (int line = 0; line < block.ahead_lines; line++) __builtin_prefetch(ahead + r * block.tile_bytes + line * 64, 0, 2);
  }
  ahead += block.ahead_lines * 64;
}

using Kernel = void (*)(const Block&);

}  // namespace penstock
