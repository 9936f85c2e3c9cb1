// y = W x for a step's tokens, shared among the threads.
//
// The work is cut into pieces: a run of tiles, times a block of tokens whose activations stay in a core's second cache.
// Inside a piece the kernel takes a few tiles and goes through all the tokens with them, some at a time, so that weights
// come from memory once a block of tokens, and from the first caches after that.
#pragma once
#include <algorithm>
#include <utility>

#include "block.h"
#include "dot_float.h"
#include "worker.h"
#if defined(__AVX512VNNI__)
#include "dot_avx512.h"
#elif defined(__AVX2__)
#include "dot_avx2.h"
#else
#include "dot_portable.h"
#endif

namespace penstock {

constexpr int64_t ACTIVATIONS_IN_CACHE = 384 << 10;  // bytes of one block of tokens
constexpr int64_t LARGEST_PIECE = 64 << 10;          // bytes of weights of one expert's piece (moe.h)
constexpr int64_t FETCH_AHEAD = 2048;                // bytes
constexpr int64_t LONG_TILE = 32 << 10;              // bytes; two such tiles are read side by side even for one token

// The kernels of one format for 1, 2, ... tokens, with one tile and with as many as one call takes.
struct Kernels {
  const Kernel *one_tile, *tiles;
  int most_tokens, most_tiles;
};

template <int FORMAT, bool MINIMA, int GROUP, int R, int... T>
const Kernel* kernels_of(std::integer_sequence<int, T...>) {
  if constexpr (FORMAT == INT8 || FORMAT == INT4) {
    static constexpr Kernel all[] = {multiply_codes<FORMAT, MINIMA, GROUP, T + 1, R>...};
    return all;
  } else {
    static constexpr Kernel all[] = {multiply_floats<FORMAT, T + 1, R>...};
    return all;
  }
}

template <int FORMAT, bool MINIMA, int GROUP>
Kernels kernels_of() {
  constexpr bool CODES = FORMAT == INT8 || FORMAT == INT4;
  constexpr int TOKENS = CODES ? CODE_TOKENS<FORMAT> : FLOAT_TOKENS, TILES = CODES ? CODE_TILES : FLOAT_TILES;
  constexpr auto tokens = std::make_integer_sequence<int, TOKENS>();
  return {kernels_of<FORMAT, MINIMA, GROUP, 1>(tokens), kernels_of<FORMAT, MINIMA, GROUP, TILES>(tokens), TOKENS, TILES};
}

template <int FORMAT>
Kernels kernels_of_codes(const Matrix& matrix) {
  if (matrix.group == 32) return matrix.minima ? kernels_of<FORMAT, true, 32>() : kernels_of<FORMAT, false, 32>();
  return matrix.minima ? kernels_of<FORMAT, true, 0>() : kernels_of<FORMAT, false, 0>();
}

inline Kernels kernels_for(const Matrix& matrix) {
  switch (matrix.format) {
    case INT8: return kernels_of_codes<INT8>(matrix);
    case INT4: return kernels_of_codes<INT4>(matrix);
    case FLOAT16: return kernels_of<FLOAT16, false, 0>();
    case BFLOAT16: return kernels_of<BFLOAT16, false, 0>();
    default: return kernels_of<FLOAT32, false, 0>();
  }
}

// What the operation's kernel calls have in common.
inline Block block_of(const Linear& op) {
  const Matrix& matrix = op.matrix;
  Block block{};
  block.tile_bytes = tile_bytes(matrix);
  block.tile_scales = has_codes(matrix) ? group_count(matrix) * TILE : 0;
  block.group = has_codes(matrix) ? matrix.group : 1;
  block.groups = matrix.cols / block.group;
  block.input_bytes = activation_row_bytes(matrix);
  block.out_stride = matrix.rows;
  return block;
}

// A few tiles from `tile` on by tokens [token, end), in calls of nearly equal size.
//
// A single call fetches its own weights, a little ahead. Several calls read the same weights, so that only the first would
// wait for memory and the rest would leave it idle: instead each fetches its share of the tiles that come next.
inline void multiply_tiles(const Linear& op, Block block, const Kernels& kernels, int64_t tile, int tiles, int64_t token, int64_t end) {
  const Matrix& matrix = op.matrix;
  const int64_t calls = (end - token + kernels.most_tokens - 1) / kernels.most_tokens, stretches = std::max(1, matrix.cols / STRETCH);
  block.codes = matrix.codes + tile * block.tile_bytes;
  block.scales = matrix.scales + tile * block.tile_scales;
  block.minima = matrix.minima ? matrix.minima + tile * block.tile_scales : nullptr;
  block.bias = op.bias ? op.bias + tile * TILE : nullptr;
  block.rows = static_cast<int>(std::min<int64_t>(matrix.rows - tile * TILE, int64_t{tiles} * TILE));
  block.ahead = block.codes + (calls > 1 ? tiles * block.tile_bytes : FETCH_AHEAD);
  block.ahead_lines = static_cast<int>((block.tile_bytes / 64 + calls * stretches - 1) / (calls * stretches));
  const uint8_t* next_tiles = block.ahead;
  const Kernel* for_tokens = tiles == 1 ? kernels.one_tile : kernels.tiles;
  for (int64_t call = 0; call < calls; call++) {
    int64_t count = (end - token + calls - call - 1) / (calls - call);
    block.inputs = static_cast<const uint8_t*>(op.activations) + token * block.input_bytes;
    block.out = op.out + token * matrix.rows + tile * TILE;
    for_tokens[count - 1](block);
    token += count;
    block.ahead += block.ahead_lines * stretches * 64;
    if (block.ahead >= next_tiles + block.tile_bytes) block.ahead_lines = 0;
  }
}

// Tiles [tile, last) by tokens [token, end).
inline void multiply(const Linear& op, const Block& block, const Kernels& kernels, int64_t tile, int64_t last, int64_t token, int64_t end) {
  // Short tiles that are read once come from memory faster one by one: a single stream, without gaps.
  const bool singly = end - token <= kernels.most_tokens && block.tile_bytes < LONG_TILE;
  const int most = singly ? 1 : kernels.most_tiles;
  for (; tile + most <= last; tile += most) multiply_tiles(op, block, kernels, tile, most, token, end);
  for (; tile < last; tile++) multiply_tiles(op, block, kernels, tile, 1, token, end);
}

// Runs of units of work, each a fraction of what is left: large ones first, which read memory in sequence, and small ones
// last, so that all threads end together.
class Pieces {
 public:
  Pieces(int64_t units, const Worker& worker) : units_(units), worker_(worker) {}

  // The next run that no thread has taken is [begin, end). False: there is none.
  bool next() {
    const int64_t ticket = worker_.take();
    for (; seen_ <= ticket; seen_++) {
      begin = end;
      end = std::min(units_, begin + std::max<int64_t>(1, (units_ - begin) / (SHARES * worker_.count)));
    }
    return begin < end;
  }

  int64_t begin = 0, end = 0;

 private:
  static constexpr int SHARES = 3;
  const int64_t units_;
  const Worker& worker_;
  int64_t seen_ = 0;
};

inline void linear(const Linear& op, const Step& step, const Worker& worker) {
  if (step.tokens == 0) return;
  const Kernels kernels = kernels_for(op.matrix);
  const Block block = block_of(op);
  const int64_t most = kernels.most_tiles, tiles = tile_count(op.matrix), units = (tiles + most - 1) / most;
  const int64_t room = std::max<int64_t>(ACTIVATIONS_IN_CACHE / block.input_bytes, kernels.most_tokens);
  const int64_t blocks = std::max<int64_t>(1, (step.tokens + room - 1) / room), tokens = (step.tokens + blocks - 1) / blocks;
  for (Pieces pieces(units * blocks, worker); pieces.next();) {
    for (int64_t unit = pieces.begin; unit < pieces.end;) {
      int64_t token = unit / units * tokens, end = std::min<int64_t>(token + tokens, step.tokens);
      int64_t tile = unit % units * most, count = std::min(pieces.end - unit, units - unit % units);
      multiply(op, block, kernels, tile, std::min(tile + count * most, tiles), token, end);
      unit += count;
    }
  }
}

}  // namespace penstock
