// Attention of one step over the paged cache.
//
// Rows are queries times the heads that share a KV head; a *piece* of work is up to PIECE_ROWS of them against all the keys that they
// see. Keys come in tiles that stay in cache, rows in blocks that stay in registers: scores of a block and a tile, a softmax
// with a running maximum (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135), then the weighted values.
// Few rows read the cache as it is stored; many rows share a tile that is made float32 once.
#pragma once
#include "attention_codes.h"
#include "kv.h"
#include <type_traits>

#include "worker.h"

namespace penstock {

constexpr int PIECE_ROWS = 256;
constexpr float LOG2_E = 1.44269504f;
constexpr float LOWEST = -1e30f;  // below any score

#if defined(__AVX512F__)
constexpr int BLOCK_ROWS = 8, REGISTERS = 24;  // Floats that add up at a time
#elif defined(__AVX2__)
constexpr int BLOCK_ROWS = 6, REGISTERS = 6;
#else
constexpr int BLOCK_ROWS = 3, REGISTERS = 3;
#endif

// Sums of one row and one chunk of values take a register; two by digits.
template <class F>
constexpr int registers() {
  return by_digits<F>() ? REGISTERS / 2 : REGISTERS;
}

template <class F>
constexpr int block_rows() {  // so that the chunks of a line of values fit the registers
  return BLOCK_ROWS * F::CHUNKS > registers<F>() ? registers<F>() / F::CHUNKS : BLOCK_ROWS;
}

// Vectors at a time, for a number of rows: several where few rows would leave the units idle.
template <class F>
constexpr int at_once(int rows) {
  return rows * 4 <= registers<F>() ? 4 : rows * 2 <= registers<F>() ? 2 : 1;
}

// Rows that go through a tile together, and what they have gathered so far.
struct RowBlock {
  float* q;    // [head_dim][rows]: scaled; by digits: [head_dim / 4][low, high][rows][4] bytes, in units of `unit`
  float* out;  // [rows][padded]: sums of weighted values
  int rows;
  float largest[BLOCK_ROWS], total[BLOCK_ROWS], shift[BLOCK_ROWS];  // of scores; of weights; of weighted minima of values
  float sum[BLOCK_ROWS], unit[BLOCK_ROWS];                          // of q; 1 but for digits
  int64_t begin[BLOCK_ROWS], end[BLOCK_ROWS];                       // keys that a row sees
  int64_t first, last;                                              // of all rows: from first up to last - 1
};

struct Tile {
  const uint8_t* keys[TILE_GROUPS];
  const uint8_t* values[TILE_GROUPS];
  int64_t begin;  // position of its first key
  int groups;
  float key_scales[TILE_KEYS], key_minima[TILE_KEYS], value_scales[TILE_KEYS], value_minima[TILE_KEYS];  // of codes; 0 beyond the context
  float largest_scale;                                                                                    // of values
};

// ---- one block and one tile

// scores[row][key] of N groups, without the codes' scales and minima.
template <class F, int ROWS, int N>
inline void multiply_keys(const float* q, const uint8_t* const* groups, int lines, float* scores, Stream& ahead) {
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
      if (F::FAR) ahead.next();
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
                       float* out, Stream& ahead) {
  constexpr int LINES = N / F::CHUNKS;
  Floats acc[ROWS][N];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) acc[r][n] = Floats::load(out + r * shape.padded + n * LANES) * Floats::all(factors[r]);
  }
  const int stride = shape.chunk_lines() * LINE;
  auto add = [&](const uint8_t* line, int key, int count) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int n = 0; F::FAR && n < LINES; n++) ahead.next();
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
    int stop = end < key + GROUP ? end : key + GROUP;
    for (; key + F::TOKENS <= stop; key += F::TOKENS, line += stride) add(line, key, F::TOKENS);
    if (key < stop) add(line, key, stop - key);  // what lies beyond the context is not even multiplied by zero
    key = stop;
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) acc[r][n].store(out + r * shape.padded + n * LANES);
  }
}

// Scores of one row become weights, of which `digits` and `scale` are made where they are wanted. Returns what the row's earlier
// sums are to be multiplied with.
template <class F>
inline float soften(RowBlock& block, int r, const Tile& tile, int from, int to, float cap, float* scores, uint8_t* digits, float* scale) {
  const int begin = static_cast<int>(block.begin[r] > tile.begin ? block.begin[r] - tile.begin : 0);
  const int end = static_cast<int>(block.end[r] < tile.begin + to * GROUP ? block.end[r] - tile.begin : to * GROUP);
  const Floats hidden = Floats::all(-INFINITY), sum = Floats::all(block.sum[r]);
  const float unit = cap != 0.f ? 1.f : block.unit[r];  // of scores, from here on
  Floats most = hidden;
  for (int key = from * GROUP; key < to * GROUP; key += GROUP) {
    Floats s = Floats::load(scores + key);
    if (coded<F>()) s = fma(s, Floats::load(tile.key_scales + key), Floats::load(tile.key_minima + key) * sum);
    if (cap != 0.f) s = tanh(s * Floats::all(block.unit[r])) * Floats::all(cap);
    if (begin > key || end < key + GROUP) s = between(s, begin - key, end - key, hidden);
    most = max(most, s);
    s.store(scores + key);
  }
  const float here = most.largest() * unit, largest = here > block.largest[r] ? here : block.largest[r];
  float edges[LANES] = {block.largest[r] - largest, here - largest}, factors[LANES];
  power_of_two(Floats::load(edges)).store(factors);
  Floats total = Floats::zero(), shift = total, inverse = total;
  if constexpr (by_digits<F>()) inverse = Floats::all(digit_scale(factors[1] * tile.largest_scale, scale));
  for (int key = from * GROUP; key < to * GROUP; key += GROUP) {
    Floats weight = power_of_two(fma(Floats::load(scores + key), Floats::all(unit), Floats::all(-largest)));
    total = total + weight;
    if (coded<F>()) {
      shift = fma(weight, Floats::load(tile.value_minima + key), shift);
      weight = weight * Floats::load(tile.value_scales + key);
    }
    if constexpr (by_digits<F>()) {
      split(weight, inverse, digits + 2 * key);
    } else {
      weight.store(scores + key);
    }
  }
  block.largest[r] = largest;
  block.total[r] = block.total[r] * factors[0] + total.sum();
  if (coded<F>()) block.shift[r] = block.shift[r] * factors[0] + shift.sum();
  return factors[0];
}

// One block and one tile: scores, weights, weighted values. `scores` has room for 2 * [ROWS][TILE_KEYS] floats.
template <class F, int ROWS>
void attend_rows(RowBlock& block, const Tile& tile, const Shape<F>& shape, float cap, float* scores, Stream* streams) {
  int64_t last = block.last - tile.begin, first = block.first - tile.begin;
  int keys = static_cast<int>(last < tile.groups * GROUP ? last : tile.groups * GROUP);
  int from = first > 0 ? static_cast<int>(first / GROUP) : 0, to = (keys + GROUP - 1) / GROUP;
  if (from >= to) return;
  float factors[ROWS], scales[ROWS];
  constexpr int N = at_once<F>(ROWS), M = N > F::CHUNKS ? N : F::CHUNKS;
  const int chunks = shape.padded / LANES;
  int g = from, chunk = 0;
  if constexpr (by_digits<F>()) {
    const uint8_t* q = reinterpret_cast<const uint8_t*>(block.q);
    uint8_t* weights = reinterpret_cast<uint8_t*>(scores + ROWS * TILE_KEYS);
    for (; g + N <= to; g += N) multiply_keys_by_digits<F, ROWS, N>(q, tile.keys + g, shape.key_lines(), scores + g * GROUP, streams[0]);
    for (; g < to; g++) multiply_keys_by_digits<F, ROWS, 1>(q, tile.keys + g, shape.key_lines(), scores + g * GROUP, streams[0]);
    for (int r = 0; r < ROWS; r++) {
      factors[r] = soften<F>(block, r, tile, from, to, cap, scores + r * TILE_KEYS, weights + 2 * r * TILE_KEYS, scales + r);
    }
    auto add = [&](auto count) {
      add_values_by_digits<F, ROWS, count.value>(weights, scales, tile.values, from, to, shape, chunk, factors, block.out + chunk * LANES, streams[1]);
    };
    for (; chunk + M <= chunks; chunk += M) add(std::integral_constant<int, M>());
    for (; chunk < chunks; chunk += F::CHUNKS) add(std::integral_constant<int, F::CHUNKS>());
  } else {
    for (; g + N <= to; g += N) multiply_keys<F, ROWS, N>(block.q, tile.keys + g, shape.key_lines(), scores + g * GROUP, streams[0]);
    for (; g < to; g++) multiply_keys<F, ROWS, 1>(block.q, tile.keys + g, shape.key_lines(), scores + g * GROUP, streams[0]);
    for (int r = 0; r < ROWS; r++) factors[r] = soften<F>(block, r, tile, from, to, cap, scores + r * TILE_KEYS, nullptr, scales + r);
    auto add = [&](auto count) {
      add_values<F, ROWS, count.value>(scores, tile, from * GROUP, keys, shape, chunk, factors, block.out + chunk * LANES, streams[1]);
    };
    for (; chunk + M <= chunks; chunk += M) add(std::integral_constant<int, M>());
    for (; chunk < chunks; chunk += F::CHUNKS) add(std::integral_constant<int, F::CHUNKS>());
  }
}

template <class F, int ROWS = block_rows<F>()>
void attend(RowBlock& block, const Tile& tile, const Shape<F>& shape, float cap, float* scores, Stream* streams) {
  if (block.rows == ROWS) return attend_rows<F, ROWS>(block, tile, shape, cap, scores, streams);
  if constexpr (ROWS > 1) attend<F, ROWS - 1>(block, tile, shape, cap, scores, streams);
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

  void gather(int64_t begin, int groups, Tile& tile) const {
    tile.begin = begin * GROUP;
    tile.groups = groups;
    for (int g = 0; g < groups; g++) {
      size_t offset = at(begin + g);
      tile.keys[g] = kv.keys + offset;
      tile.values[g] = kv.values + offset;
    }
  }

  // Scales and minima of the tile's codes.
  template <class F>
  void read_scales(const Shape<F>& shape, int64_t context, Tile& tile) const {
    Floats largest = Floats::zero();
    for (int g = 0; g < tile.groups; g++) {
      const int key = g * GROUP;
      const int64_t left = context - tile.begin - key;
      Floats all[] = {shape.scales(tile.keys[g]), shape.minima(tile.keys[g]), shape.scales(tile.values[g]), shape.minima(tile.values[g])};
      if (left < GROUP) {
        for (Floats& x : all) x = between(x, 0, static_cast<int>(left), Floats::zero());  // what lies beyond may be anything
      }
      all[0].store(tile.key_scales + key), all[1].store(tile.key_minima + key);
      all[2].store(tile.value_scales + key), all[3].store(tile.value_minima + key);
      largest = max(largest, all[2]);
    }
    tile.largest_scale = largest.largest();
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
  int head, heads;  // KV heads: the first, and how many
  int64_t row;
  int rows;  // of each KV head; row = query * heads that share the KV head + head among them
};

// Memory of one thread, cut up.
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
  int64_t head(int kv_head, int row) const { return kv_head * shared + (piece.row + row) % shared; }

  // A block from row `first` on.
  template <class Kernel>
  void load(RowBlock& block, int kv_head, int first) const {
    float scale = op.softcap != 0.f ? op.scale / op.softcap : op.scale * LOG2_E;
    block.first = piece.context, block.last = 0;
    for (int r = 0; r < block.rows; r++) {
      const float* q = op.qkv + (piece.token + query(first + r)) * width + head(kv_head, first + r) * op.kv.head_dim;
      if constexpr (by_digits<Kernel>()) {
        block.unit[r] = scale * split_query(q, op.kv.head_dim, r, block.rows, reinterpret_cast<uint8_t*>(block.q), block.sum[r]);
      } else {
        block.sum[r] = 0.f, block.unit[r] = 1.f;
        for (int i = 0; i < op.kv.head_dim; i++) block.sum[r] += block.q[i * block.rows + r] = q[i] * scale;
      }
      block.largest[r] = LOWEST, block.total[r] = block.shift[r] = 0.f;
      block.end[r] = piece.context - piece.query_len + query(first + r) + 1;
      block.begin[r] = op.window > 0 && block.end[r] > op.window ? block.end[r] - op.window : 0;
      if (block.begin[r] < block.first) block.first = block.begin[r];
      if (block.end[r] > block.last) block.last = block.end[r];
    }
  }

  void store(const RowBlock& block, int kv_head, int first, int padded) const {
    const int dim = op.kv.head_dim;
    for (int r = 0; r < block.rows; r++) {
      float* out = op.out + ((piece.token + query(first + r)) * op.heads + head(kv_head, first + r)) * dim;
      float inverse = 1.f / block.total[r];
      for (int i = 0; i < dim; i++) out[i] = (block.out[r * padded + i] + block.shift[r]) * inverse;
    }
  }
};

// The blocks of a piece, of keys or values.
inline Stream stream_of(const KV& kv, const uint8_t* memory, const Piece& piece) {
  const size_t block_bytes = kv_block_bytes(kv), head_bytes = block_bytes / kv.kv_heads;
  return {memory + head_bytes * piece.head, piece.table, block_bytes, head_bytes * piece.heads};
}

// Against the cache as `F` stores it, or, where `Kernel` is another, unpacked. `following`: this thread's next piece, where it is known.
template <class F, class Kernel>
void attend_piece(const Attention& op, const Piece& piece, const Piece* following, const Worker& worker) {
  constexpr bool unpacked = !std::is_same<F, Kernel>::value;
  const Shape<F> shape(op.kv.head_dim);
  const Shape<Kernel> inner(op.kv.head_dim);
  const Rows rows(op, piece);
  const int count = (piece.rows + block_rows<Kernel>() - 1) / block_rows<Kernel>();  // blocks of one KV head
  auto row_of = [&](int block) { return piece.rows * block / count; };
  Room room{worker.scratch};
  RowBlock* blocks = room.take<RowBlock>(count * piece.heads);
  int64_t first = piece.context, last = 0;
  for (int b = 0; b < count * piece.heads; b++) {
    RowBlock& block = blocks[b];
    block.rows = row_of(b % count + 1) - row_of(b % count);
    block.q = room.take<float>(block.rows * inner.key_lines() * Kernel::PARTS);
    block.out = room.take<float>(block.rows * inner.padded);
    std::memset(block.out, 0, sizeof(float) * block.rows * inner.padded);
    rows.template load<Kernel>(block, piece.head + b / count, row_of(b % count));
    if (block.first < first) first = block.first;
    if (block.last > last) last = block.last;
  }
  float* scores = room.take<float>(2 * BLOCK_ROWS * TILE_KEYS);
  float* floats = room.take<float>(unpacked ? 2 * TILE_GROUPS * GROUP * inner.padded : 0);
  Tile& tile = *room.take<Tile>(1);
  const int step = count == 1 || by_digits<Kernel>() ? TILE_GROUPS : op.kv.head_dim <= 64 ? 8 : 4;
  const int64_t stop = (last + GROUP - 1) / GROUP;
  const bool few = count <= 2;  // rows: the cache is read faster than they compute
  auto blocks_of = [&](int64_t groups) { return (groups * GROUP + op.kv.block_size - 1) / op.kv.block_size; };
  Stream streams[] = {stream_of(op.kv, op.kv.keys, piece), stream_of(op.kv, op.kv.values, piece)};
  for (int64_t group = first / GROUP; group < stop; group += step) {
    if (few && group + step < stop) {
      for (Stream& stream : streams) stream.move(blocks_of(group + step), blocks_of(group + 2 * step < stop ? group + 2 * step : stop));
    } else if (few && following != nullptr) {
      streams[0] = stream_of(op.kv, op.kv.keys, *following), streams[1] = stream_of(op.kv, op.kv.values, *following);
      const int64_t begin = op.window > 0 && following->context > op.window ? (following->context - op.window) / op.kv.block_size : 0;
      const int64_t end = blocks_of((following->context + GROUP - 1) / GROUP), most = begin + blocks_of(step);
      for (Stream& stream : streams) stream.move(begin, end < most ? end : most);
    }
    for (int head = 0; head < piece.heads; head++) {
      const Groups groups{op.kv, piece.table, piece.head + head, shape.group_bytes()};
      groups.gather(group, static_cast<int>(stop - group < step ? stop - group : step), tile);
      if constexpr (unpacked) groups.unpack(shape, inner, piece.context, floats, tile);
      if constexpr (coded<Kernel>()) groups.read_scales(shape, piece.context, tile);
      for (int b = head * count; b < (head + 1) * count; b++) {
        if (blocks[b].last > tile.begin) attend<Kernel>(blocks[b], tile, inner, op.softcap * LOG2_E, scores, streams);
      }
    }
  }
  for (int b = 0; b < count * piece.heads; b++) rows.store(blocks[b], piece.head + b / count, row_of(b % count), inner.padded);
}

inline void attend_piece(const Attention& op, const Piece& piece, const Piece* following, const Worker& worker) {
  with_format(op.kv.format, [&](auto format) {
    using F = decltype(format);
    if constexpr (!by_digits<F>()) {
      if (piece.rows > 2 * block_rows<F>()) return attend_piece<F, Unpacked>(op, piece, following, worker);
    }
    attend_piece<F, F>(op, piece, following, worker);
  });
}

// AttentionPieces are numbered sequence by sequence, the last queries, which see most keys, first. Where there are sequences enough for all
// threads, a piece has all KV heads of its queries, and so reads whole blocks, one after the other; where there are too few, several
// threads share the heads that read the same keys.
struct AttentionPieces {
  const Attention& op;
  const Step& step;
  const Worker& worker;
  bool many;
  int64_t limit;  // rows of a piece
  int seq = 0;
  int64_t token = 0, begin = 0;  // first token of `seq`, and number of its first piece

  AttentionPieces(const Attention& op, const Step& step, const Worker& worker)
      : op(op), step(step), worker(worker), many(step.seqs >= 4 * worker.count), limit(int64_t{step.tokens} * op.heads / worker.count) {
    limit = limit < 1 ? 1 : limit < PIECE_ROWS ? limit : PIECE_ROWS;
  }

  // This thread's next piece; false where there is none.
  bool next(Piece& piece) {
    const int64_t number = worker.take(), shared = op.heads / op.kv.kv_heads;
    for (; seq < step.seqs; token += step.query_lens[seq++]) {
      const int64_t rows = step.query_lens[seq] * shared, parts = (rows + limit - 1) / limit;
      const int heads = many && rows * op.kv.kv_heads <= PIECE_ROWS ? op.kv.kv_heads : 1, columns = op.kv.kv_heads / heads;
      if (number < begin + parts * columns) {
        const int64_t part = parts - 1 - (number - begin) / columns, first = part * rows / parts;
        const int head = static_cast<int>((number - begin) % columns), count = static_cast<int>((part + 1) * rows / parts - first);
        const int64_t* table = step.tables + int64_t{seq} * step.max_blocks;
        piece = {token, step.query_lens[seq], step.context_lens[seq], table, head, heads, first, count};
        return true;
      }
      begin += parts * columns;
    }
    return false;
  }
};

inline void attention(const Attention& op, const Step& step, const Worker& worker) {
  AttentionPieces pieces(op, step, worker);
  Piece piece, following;
  bool some = pieces.next(piece);
  while (some) {
    const bool more = pieces.many && pieces.next(following);  // else another thread may be idle
    attend_piece(op, piece, more ? &following : nullptr, worker);
    some = pieces.many ? more : pieces.next(following);
    piece = following;
  }
}

}  // namespace penstock
