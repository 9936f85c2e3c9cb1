// y = W x for a step's tokens, shared among the threads.
//
// The work is cut into pieces: a block of tokens whose activations stay in a core's second cache, times a run of tiles.
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

#ifndef R1
#define R1 1
#endif
namespace penstock {

constexpr int64_t ACTIVATIONS_IN_CACHE = 384 << 10;  // bytes of one block of tokens
constexpr int64_t LARGEST_PIECE = 64 << 10;          // bytes of weights of one piece
constexpr int PIECES_PER_THREAD = 8;                 // at least, where there are tiles enough

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

// Tiles from `tile` on by tokens [token, end), in calls of nearly equal size.
inline void multiply(const Linear& op, Block block, int64_t tile, int tiles, int64_t token, int64_t end, const Kernels& kernels) {
  const Matrix& matrix = op.matrix;
  block.codes = matrix.codes + tile * block.tile_bytes;
  block.scales = matrix.scales + tile * block.tile_scales;
  block.minima = matrix.minima + tile * block.tile_scales;
  block.bias = op.bias ? op.bias + tile * TILE : nullptr;
  block.rows = static_cast<int>(std::min<int64_t>(matrix.rows - tile * TILE, int64_t{tiles} * TILE));
  const Kernel* for_tokens = tiles == 1 ? kernels.one_tile : kernels.tiles;
  for (int64_t calls = (end - token + kernels.most_tokens - 1) / kernels.most_tokens; calls > 0; calls--) {
    int64_t count = (end - token + calls - 1) / calls;
    block.inputs = static_cast<const uint8_t*>(op.activations) + token * block.input_bytes;
    block.out = op.out + token * matrix.rows + tile * TILE;
    for_tokens[count - 1](block);
    token += count;
  }
}

inline void linear(const Linear& op, const Step& step, const Worker& worker) {
  const Kernels kernels = kernels_for(op.matrix);
  const Block block = block_of(op);
  const int64_t tiles = tile_count(op.matrix), most = step.tokens == 1 ? R1 : kernels.most_tiles;
  int64_t room = std::max<int64_t>(ACTIVATIONS_IN_CACHE / block.input_bytes, kernels.most_tokens);
  int64_t blocks = (step.tokens + room - 1) / room;
  int64_t tokens = (step.tokens + blocks - 1) / std::max<int64_t>(blocks, 1);
  int64_t run = std::min(tiles * blocks / (int64_t{PIECES_PER_THREAD} * worker.count), LARGEST_PIECE / block.tile_bytes);
  run = (std::max<int64_t>(run, 1) + most - 1) / most * most;
  int64_t runs = (tiles + run - 1) / run;
  for (int64_t piece = worker.take(); piece < runs * blocks; piece = worker.take()) {
    int64_t token = piece / runs * tokens, end = std::min<int64_t>(token + tokens, step.tokens);
    int64_t tile = piece % runs * run, last = std::min(tile + run, tiles);
    for (; tile + most <= last; tile += most) multiply(op, block, tile, static_cast<int>(most), token, end, kernels);
    for (; tile < last; tile++) multiply(op, block, tile, 1, token, end, kernels);
  }
}

}  // namespace penstock
