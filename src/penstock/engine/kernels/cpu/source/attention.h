// Attention of one step over the paged cache.
//
// Rows are queries times the heads that share a KV head; a *piece* of work is up to PIECE_ROWS of them against all the keys that they
// see. Keys come in tiles that stay in cache, rows in blocks that stay in registers: scores of a block and a tile, a softmax
// with a running maximum (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135), then the weighted values.
// Few rows read the cache as it is stored; many rows share a tile that is made float32 once.
#pragma once
#include "kv.h"
#include <type_traits>

#include "worker.h"

namespace penstock {

constexpr int PIECE_ROWS = 256;
constexpr int TILE_GROUPS = 16;  // of keys, at most
constexpr int AHEAD = 4;         // groups that are fetched before their turn, at most
constexpr int TILE_KEYS = TILE_GROUPS * GROUP;
constexpr float LOWEST = -1e30f;  // below any score

#if defined(__AVX512F__)
constexpr int BLOCK_ROWS = 8, REGISTERS = 24;  // Floats that add up at a time
#elif defined(__AVX2__)
constexpr int BLOCK_ROWS = 6, REGISTERS = 6;
#else
constexpr int BLOCK_ROWS = 2, REGISTERS = 2;
#endif

template <class F>
constexpr int block_rows() {  // so that the chunks of a line of values fit the registers
  return BLOCK_ROWS * F::CHUNKS > REGISTERS ? REGISTERS / F::CHUNKS : BLOCK_ROWS;
}

// Vectors at a time, for a number of rows: several where few rows would leave the units idle.
constexpr int at_once(int rows) { return rows * 4 <= REGISTERS ? 4 : rows * 2 <= REGISTERS ? 2 : 1; }

// Rows that go through a tile together, and what they have gathered so far.
struct RowBlock {
  float* q;    // [head_dim][rows]: scaled
  float* out;  // [rows][padded]: sums of weighted values
  int rows;
  float largest[BLOCK_ROWS], total[BLOCK_ROWS], shift[BLOCK_ROWS];  // of scores; of weights; of weighted minima of values
  float sum[BLOCK_ROWS];                                            // of q
  int64_t begin[BLOCK_ROWS], end[BLOCK_ROWS];                       // keys that a row sees
  int64_t first, last;                                              // of all rows: from first up to last - 1
};

struct Tile {
  const uint8_t* keys[TILE_GROUPS + AHEAD];  // and of the groups after it
  const uint8_t* values[TILE_GROUPS + AHEAD];
  int64_t begin;  // position of its first key
  int groups;
};

// ---- one block and one tile

// scores[row][key] of N groups, without the codes' scales and minima.
template <class F, int ROWS, int N>
inline void multiply_keys(const float* q, const uint8_t* const* groups, int lines, float* scores) {
  Floats acc[ROWS][N];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) acc[r][n] = Floats::zero();
  }
  for (int line = 0; line < lines; line++) {
    Words words[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) {
      words[n] = Words::load(groups[n] + line * LINE);
      if (F::FAR) fetch(groups[n + N] + line * LINE);
    }
#pragma GCC unroll 8
    for (int i = 0; i < F::PARTS; i++, q += ROWS) {
      Floats keys[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) keys[n] = F::part(words[n], i);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        Floats x = Floats::all(q[r]);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) acc[r][n] = fma(x, keys[n], acc[r][n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) acc[r][n].store(scores + r * TILE_KEYS + n * GROUP);
  }
}

// Adds to N chunks of `out` the values of keys `begin` (a multiple of 16) to `end` - 1 of the tile, `out` first times `factors`.
template <class F, int ROWS, int N>
inline void add_values(const float* weights, const Tile& tile, int begin, int end, const Shape<F>& shape, int chunk, const float* factors,
                       float* out) {
  constexpr int LINES = N / F::CHUNKS;
  Floats acc[ROWS][N];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) acc[r][n] = Floats::load(out + r * shape.padded + n * LANES) * Floats::all(factors[r]);
  }
  const int stride = shape.chunk_lines() * LINE;
  auto add = [&](const uint8_t* line, int64_t ahead, int key, int count) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int n = 0; F::FAR && n < LINES; n++) fetch(line + ahead + n * LINE);
#pragma GCC unroll 4
    for (int i = 0; i < F::TOKENS; i++) {
      if (i >= count) break;
      Floats values[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) values[n] = F::part(Words::load(line + n / F::CHUNKS * LINE), n % F::CHUNKS * F::TOKENS + i);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        Floats x = Floats::all(weights[r * TILE_KEYS + key + i]);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) acc[r][n] = fma(x, values[n], acc[r][n]);
      }
    }
  };
  static_assert(LINES > 0, "a line's chunks go together");
  for (int key = begin; key < end;) {
    const uint8_t* line = tile.values[key / GROUP] + chunk / F::CHUNKS * LINE;
    int64_t ahead = F::FAR ? tile.values[key / GROUP + 2] - tile.values[key / GROUP] : 0;
    int stop = end < key + GROUP ? end : key + GROUP;
    for (; key + F::TOKENS <= stop; key += F::TOKENS, line += stride) add(line, ahead, key, F::TOKENS);
    if (key < stop) add(line, ahead, key, stop - key);  // what lies beyond the context is not even multiplied by zero
    key = stop;
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) acc[r][n].store(out + r * shape.padded + n * LANES);
  }
}

// Scores of one row become weights; returns what its earlier sums are to be multiplied with.
template <class F>
inline float soften(RowBlock& block, int r, const Tile& tile, int from, int to, const Shape<F>& shape, float cap, float* scores) {
  int begin = static_cast<int>(block.begin[r] > tile.begin ? block.begin[r] - tile.begin : 0);
  int end = static_cast<int>(block.end[r] < tile.begin + to * GROUP ? block.end[r] - tile.begin : to * GROUP);
  const Floats lowest = Floats::all(2 * LOWEST);
  Floats most = Floats::all(block.largest[r]);
  for (int g = from; g < to; g++) {
    Floats s = Floats::load(scores + g * GROUP);
    if (coded<F>()) s = fma(s, shape.scales(tile.keys[g]), shape.minima(tile.keys[g]) * Floats::all(block.sum[r]));
    if (cap != 0.f) s = tanh(s) * Floats::all(cap);
    if (begin > g * GROUP || end < g * GROUP + GROUP) s = between(s, begin - g * GROUP, end - g * GROUP, lowest);
    most = max(most, s);
    s.store(scores + g * GROUP);
  }
  float largest = most.largest();
  Floats total = Floats::zero(), shift = total;
  for (int g = from; g < to; g++) {
    Floats weight = power_of_two(Floats::load(scores + g * GROUP) - Floats::all(largest));
    total = total + weight;
    if (coded<F>()) {
      Floats part = weight * shape.minima(tile.values[g]);
      weight = weight * shape.scales(tile.values[g]);
      if (end < g * GROUP + GROUP) {  // scales beyond the context may be anything
        part = between(part, 0, end - g * GROUP, Floats::zero());
        weight = between(weight, 0, end - g * GROUP, Floats::zero());
      }
      shift = shift + part;
    }
    weight.store(scores + g * GROUP);
  }
  float old[LANES] = {block.largest[r] - largest}, factor[LANES];
  power_of_two(Floats::load(old)).store(factor);
  block.largest[r] = largest;
  block.total[r] = block.total[r] * factor[0] + total.sum();
  if (coded<F>()) block.shift[r] = block.shift[r] * factor[0] + shift.sum();
  return factor[0];
}

template <class F, int ROWS>
void attend_rows(RowBlock& block, const Tile& tile, const Shape<F>& shape, float cap, float* scores) {
  int64_t last = block.last - tile.begin, first = block.first - tile.begin;
  int keys = static_cast<int>(last < tile.groups * GROUP ? last : tile.groups * GROUP);
  int from = first > 0 ? static_cast<int>(first / GROUP) : 0, to = (keys + GROUP - 1) / GROUP;
  if (from >= to) return;
  constexpr int N = at_once(ROWS);
  int g = from;
  for (; g + N <= to; g += N) multiply_keys<F, ROWS, N>(block.q, tile.keys + g, shape.key_lines(), scores + g * GROUP);
  for (; g < to; g++) multiply_keys<F, ROWS, 1>(block.q, tile.keys + g, shape.key_lines(), scores + g * GROUP);
  float factors[ROWS];
  for (int r = 0; r < ROWS; r++) factors[r] = soften(block, r, tile, from, to, shape, cap, scores + r * TILE_KEYS);
  constexpr int M = N > F::CHUNKS ? N : F::CHUNKS;
  int chunk = 0, chunks = shape.padded / LANES;
  for (; chunk + M <= chunks; chunk += M) add_values<F, ROWS, M>(scores, tile, from * GROUP, keys, shape, chunk, factors, block.out + chunk * LANES);
  for (; chunk < chunks; chunk += F::CHUNKS) {
    add_values<F, ROWS, F::CHUNKS>(scores, tile, from * GROUP, keys, shape, chunk, factors, block.out + chunk * LANES);
  }
}

template <class F, int ROWS = block_rows<F>()>
void attend(RowBlock& block, const Tile& tile, const Shape<F>& shape, float cap, float* scores) {
  if (block.rows == ROWS) return attend_rows<F, ROWS>(block, tile, shape, cap, scores);
  if constexpr (ROWS > 1) attend<F, ROWS - 1>(block, tile, shape, cap, scores);
}

// ---- tiles

// A group as `Unpacked` has it; values beyond the first `count` tokens are zero.
template <class F>
void unpack_group(const uint8_t* keys, const uint8_t* values, const Shape<F>& shape, int count, float* key_out, float* value_out, int stride) {
  Floats scales = Floats::all(1.f), minima = Floats::zero();
  if (coded<F>()) scales = shape.scales(keys), minima = shape.minima(keys);
  for (int line = 0; line < shape.key_lines(); line++) {
    Words words = Words::load(keys + line * LINE);
#pragma GCC unroll 8
    for (int i = 0; i < F::PARTS; i++) fma(F::part(words, i), scales, minima).store(key_out + (line * F::PARTS + i) * GROUP);
  }
  float scale[GROUP], minimum[GROUP];
  if (coded<F>()) shape.scales(values).store(scale), shape.minima(values).store(minimum);
  for (int token = 0; token < GROUP; token += F::TOKENS) {
    for (int i = 0; i < shape.chunk_lines(); i++, values += LINE) {
      Words words = Words::load(values);
#pragma GCC unroll 8
      for (int part = 0; part < F::PARTS; part++) {
        int at = token + part % F::TOKENS, dim = (i * F::CHUNKS + part / F::TOKENS) * LANES;
        if (dim >= stride) continue;  // room that only codes have
        Floats x = F::part(words, part);
        if (coded<F>()) x = fma(x, Floats::all(scale[at]), Floats::all(minimum[at]));
        (at < count ? x : Floats::zero()).store(value_out + at * stride + dim);
      }
    }
  }
}

// Where the groups of one sequence and KV head are.
struct Groups {
  const KV& kv;
  const int64_t* table;
  int head;
  size_t bytes;

  size_t at(int64_t group) const {
    int64_t token = group * GROUP;
    return group_at(kv, bytes, table[token / kv.block_size], head, static_cast<int>(token % kv.block_size));
  }

  // Groups `begin` to `begin + groups - 1`, of `end` that there are.
  void gather(int64_t begin, int groups, int64_t end, Tile& tile) const {
    tile.begin = begin * GROUP;
    tile.groups = groups;
    for (int g = 0; g < groups + AHEAD; g++) {
      size_t offset = at(begin + g < end ? begin + g : end - 1);
      tile.keys[g] = kv.keys + offset;
      tile.values[g] = kv.values + offset;
    }
  }

  // As floats in `room`, which holds two halves of `groups` groups.
  template <class F>
  void unpack(const Shape<F>& shape, const Shape<Unpacked>& floats, int64_t context, float* room, Tile& tile) const {
    size_t size = floats.group_bytes() / sizeof(float);
    for (int g = 0; g < tile.groups; g++) {
      float *keys = room + 2 * g * size, *values = keys + size;
      int64_t left = context - tile.begin - g * GROUP;
      unpack_group(tile.keys[g], tile.values[g], shape, static_cast<int>(left < GROUP ? left : GROUP), keys, values, floats.padded);
      tile.keys[g] = reinterpret_cast<const uint8_t*>(keys);
      tile.values[g] = reinterpret_cast<const uint8_t*>(values);
    }
  }
};

// ---- one piece

struct Piece {
  int64_t token, query_len, context;  // first token of its sequence in this step; that sequence's lengths
  const int64_t* table;
  int head;  // KV head
  int64_t row;
  int rows;  // row = query * heads that share the KV head + head among them
};

// Memory of one thread, cut into pieces.
struct Room {
  uint8_t* next;
  template <class T>
  T* take(size_t count) {
    T* memory = reinterpret_cast<T*>(next);
    next += (count * sizeof(T) + 63) / 64 * 64;
    return memory;
  }
};

struct Rows {
  const Attention& op;
  const Piece& piece;
  int shared;  // query heads of one KV head
  int64_t width;

  explicit Rows(const Attention& op, const Piece& piece)
      : op(op), piece(piece), shared(op.heads / op.kv.kv_heads), width(int64_t{op.heads + 2 * op.kv.kv_heads} * op.kv.head_dim) {}

  int64_t query(int row) const { return (piece.row + row) / shared; }
  int64_t head(int row) const { return piece.head * shared + (piece.row + row) % shared; }

  void load(RowBlock& block, int first) const {
    constexpr float LOG2_E = 1.44269504f;
    const int dim = op.kv.head_dim;
    float scale = op.softcap != 0.f ? op.scale / op.softcap : op.scale * LOG2_E;
    block.first = piece.context, block.last = 0;
    for (int r = 0; r < block.rows; r++) {
      const float* q = op.qkv + (piece.token + query(first + r)) * width + head(first + r) * dim;
      float sum = 0.f;
      for (int i = 0; i < dim; i++) sum += block.q[i * block.rows + r] = q[i] * scale;
      block.sum[r] = sum;
      block.largest[r] = LOWEST, block.total[r] = block.shift[r] = 0.f;
      block.end[r] = piece.context - piece.query_len + query(first + r) + 1;
      block.begin[r] = op.window > 0 && block.end[r] > op.window ? block.end[r] - op.window : 0;
      if (block.begin[r] < block.first) block.first = block.begin[r];
      if (block.end[r] > block.last) block.last = block.end[r];
    }
  }

  void store(const RowBlock& block, int first, int padded) const {
    const int dim = op.kv.head_dim;
    for (int r = 0; r < block.rows; r++) {
      float* out = op.out + ((piece.token + query(first + r)) * op.heads + head(first + r)) * dim;
      float inverse = 1.f / block.total[r];
      for (int i = 0; i < dim; i++) out[i] = (block.out[r * padded + i] + block.shift[r]) * inverse;
    }
  }
};

// Blocks of `Kernel`'s width over the piece's rows, against the keys as `F` stores them.
template <class F, class Kernel>
void attend_piece(const Attention& op, const Piece& piece, const Worker& worker) {
  constexpr bool unpacked = !std::is_same<F, Kernel>::value;
  const Shape<F> shape(op.kv.head_dim);
  const Shape<Kernel> inner(op.kv.head_dim);
  const Rows rows(op, piece);
  const int count = (piece.rows + block_rows<Kernel>() - 1) / block_rows<Kernel>();
  Room room{worker.scratch};
  RowBlock* blocks = room.take<RowBlock>(count);
  int64_t first = piece.context, last = 0;
  for (int b = 0, row = 0; b < count; b++) {
    RowBlock& block = blocks[b];
    block.rows = (piece.rows - row + count - b - 1) / (count - b);
    block.q = room.take<float>(block.rows * inner.key_lines() * Kernel::PARTS);
    block.out = room.take<float>(block.rows * inner.padded);
    std::memset(block.out, 0, sizeof(float) * block.rows * inner.padded);
    rows.load(block, row);
    if (block.first < first) first = block.first;
    if (block.last > last) last = block.last;
    row += block.rows;
  }
  float* scores = room.take<float>(BLOCK_ROWS * TILE_KEYS);
  float* floats = room.take<float>(unpacked ? 2 * TILE_GROUPS * GROUP * inner.padded : 0);
  const int step = count > 1 ? (op.kv.head_dim <= 64 ? 4 : 2) : TILE_GROUPS;
  const Groups groups{op.kv, piece.table, piece.head, shape.group_bytes()};
  const int64_t stop = (last + GROUP - 1) / GROUP;
  for (int64_t group = first / GROUP; group < stop; group += step) {
    Tile tile;
    groups.gather(group, static_cast<int>(stop - group < step ? stop - group : step), stop, tile);
    if constexpr (unpacked) groups.unpack(shape, inner, piece.context, floats, tile);
    for (int b = 0; b < count; b++) {
      if (blocks[b].last > tile.begin) attend<Kernel>(blocks[b], tile, inner, op.softcap * 1.44269504f, scores);
    }
  }
  for (int b = 0, row = 0; b < count; row += blocks[b++].rows) rows.store(blocks[b], row, inner.padded);
}

inline void attend_piece(const Attention& op, const Piece& piece, const Worker& worker) {
  with_format(op.kv.format, [&](auto format) {
    using F = decltype(format);
    if (piece.rows > 2 * block_rows<F>()) return attend_piece<F, Unpacked>(op, piece, worker);
    attend_piece<F, F>(op, piece, worker);
  });
}

// Pieces are numbered sequence by sequence, the last queries, which see most keys, first.
inline void attention(const Attention& op, const Step& step, const Worker& worker) {
  int64_t shared = op.heads / op.kv.kv_heads, token = 0, begin = 0, number = worker.take();
  for (int seq = 0; seq < step.seqs; token += step.query_lens[seq++]) {
    int64_t rows = step.query_lens[seq] * shared, parts = (rows + PIECE_ROWS - 1) / PIECE_ROWS;
    int64_t end = begin + parts * op.kv.kv_heads;
    for (; number < end; number = worker.take()) {
      Piece piece{token, step.query_lens[seq], step.context_lens[seq], step.tables + int64_t{seq} * step.max_blocks, 0, 0, 0};
      int64_t part = parts - 1 - (number - begin) / op.kv.kv_heads;
      piece.head = static_cast<int>((number - begin) % op.kv.kv_heads);
      piece.row = part * rows / parts;
      piece.rows = static_cast<int>((part + 1) * rows / parts - piece.row);
      attend_piece(op, piece, worker);
    }
    begin = end;
  }
}

}  // namespace penstock
