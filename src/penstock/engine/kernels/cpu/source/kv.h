// How keys and values lie in a block of the cache, and how they get there.
//
// A block holds, for each KV head, its tokens in groups of 16; a group is made of lines of 64 bytes, 16 words of 32 bits:
//
//   keys:    line i has the tokens' entries PARTS * i, …; a word belongs to one token, so 16 scores grow without any sum across lanes
//   values:  a line has TOKENS tokens' entries of 16 (int4: 32) dimensions; a word belongs to one dimension
//
//   fp32  PARTS 1   the word                     head_dim * 4 bytes per token and head, for keys and again for values
//   bf16  PARTS 2   its halves                   head_dim * 2
//   int8  PARTS 4   its bytes                    head_dim + 4
//   int4  PARTS 8   nibbles 0 2 4 6, then 1 3 5 7  head_dim / 2 + 4
//
// head_dim counts rounded up to 16 (int4: 32). Codes: x = minimum + scale * code, with bfloat16 minimum and scale for each token and
// head, in a last line: 16 scales, 16 minima. The minimum is rounded down and the scale up, so that no entry is out of reach.
#pragma once
#include "simd.h"
#include "types.h"
#include "words.h"

namespace penstock {

constexpr int GROUP = 16;  // tokens
constexpr int LINE = 64;   // bytes
constexpr int LARGEST_HEAD = 256;

struct Float32 {
  static constexpr int PARTS = 1, TOKENS = 1, CHUNKS = 1, BITS = 32;
  static constexpr bool FAR = true;  // not in cache when it is read
  static Floats part(const Words& line, int) { return line.floats(); }
};

struct Unpacked : Float32 {  // keys and values that a thread has copied for its own use
  static constexpr bool FAR = false;
};

struct BFloat16 {
  static constexpr int PARTS = 2, TOKENS = 2, CHUNKS = 1, BITS = 16;
  static constexpr bool FAR = true;
  static Floats part(const Words& line, int i) { return i == 0 ? line.low_bfloat16() : line.high_bfloat16(); }
};

struct Int8 {
  static constexpr int PARTS = 4, TOKENS = 4, CHUNKS = 1, BITS = 8;
  static constexpr bool FAR = true;
  static Floats part(const Words& line, int i) { return line.field(8 * i, 8); }
};

struct Int4 {
  static constexpr int PARTS = 8, TOKENS = 4, CHUNKS = 2, BITS = 4;
  static constexpr bool FAR = true;
  static Floats part(const Words& line, int i) { return line.field(8 * (i % 4) + 4 * (i / 4), 4); }
};

template <class F>
constexpr bool coded() {
  return F::BITS < 16;
}

// Sizes that follow from a format and a head's dimension.
template <class F>
struct Shape {
  int head_dim, padded;  // padded: dimensions for which there is room
  explicit Shape(int dim) : head_dim(dim), padded((dim + LANES * F::CHUNKS - 1) / (LANES * F::CHUNKS) * (LANES * F::CHUNKS)) {}
  int key_lines() const { return (head_dim + F::PARTS - 1) / F::PARTS; }
  int chunk_lines() const { return padded / (LANES * F::CHUNKS); }  // lines of values that TOKENS tokens take
  size_t scales_at() const { return size_t{GROUP} * padded * F::BITS / 8; }
  size_t group_bytes() const { return scales_at() + (coded<F>() ? LINE : 0); }
  Floats scales(const uint8_t* group) const { return Floats::bfloat16(reinterpret_cast<const uint16_t*>(group + scales_at())); }
  Floats minima(const uint8_t* group) const { return Floats::bfloat16(reinterpret_cast<const uint16_t*>(group + scales_at()) + GROUP); }
};

// f(Format()) with the type for `format`.
template <class Function>
auto with_format(int32_t format, Function f) {
  switch (format) {
    case KV_BFLOAT16: return f(BFloat16());
    case KV_INT8: return f(Int8());
    case KV_INT4: return f(Int4());
    default: return f(Float32());
  }
}

inline size_t group_bytes(const KV& kv) {
  return with_format(kv.format, [&](auto format) { return Shape<decltype(format)>(kv.head_dim).group_bytes(); });
}

// Bytes of the keys of one block; the values take as many.
inline size_t kv_block_bytes(const KV& kv) { return group_bytes(kv) * kv.kv_heads * (kv.block_size / GROUP); }

// Of the group that holds the tokens from `offset` of a block on.
inline size_t group_at(const KV& kv, size_t bytes, int64_t block, int head, int offset) {
  return ((block * kv.kv_heads + head) * (kv.block_size / GROUP) + offset / GROUP) * bytes;
}

// Blocks that come after the tile at work, line by line in the order of their addresses: processors read ahead, several times as
// fast, where they see such a stream, and a tile's own order is none.
struct Stream {
  const uint8_t* memory;  // of the first KV head at work, in block 0
  const int64_t* table;
  size_t block_bytes, bytes;  // of these, `bytes` are the piece's
  int64_t block = 0, stop = 0;
  const uint8_t *line = nullptr, *end = nullptr;

  void next() {
    if (line == end) {
      if (block >= stop) return;
      line = memory + table[block++] * block_bytes;
      end = line + bytes;
    }
    fetch(line);
    line += LINE;
  }

  void move(int64_t to, int64_t new_stop) {
    if (block < to) block = to, line = end;
    stop = new_stop;
  }
};

// ---- stores: `x` are the entries of one head of token `token` (0 to 15) of a group

inline uint16_t bfloat16_below(float value) {
  uint16_t half = static_cast<uint16_t>(to_bits(value) >> 16);
  return from_bfloat16(half) > value ? half + 1 : half;  // a negative number was cut towards zero
}

inline uint16_t bfloat16_above(float value) {  // of a positive number
  uint16_t half = static_cast<uint16_t>(to_bits(value) >> 16);
  return from_bfloat16(half) < value ? half + 1 : half;
}

// Codes 0 to `levels` of x, zeros up to `padded`; writes the token's scale and minimum.
inline void encode(const float* x, int head_dim, int padded, float levels, uint8_t* codes, uint16_t* scale, uint16_t* minimum) {
  Floats low = Floats::all(x[0]), high = low;
  for (int i = 0; i < head_dim; i += LANES) {
    Floats v = head_dim - i < LANES ? between(Floats::first(x + i, head_dim - i), 0, head_dim - i, low) : Floats::load(x + i);
    low = min(low, v);
    high = max(high, v);
  }
  *minimum = bfloat16_below(-(Floats::zero() - low).largest());
  float bottom = from_bfloat16(*minimum);
  *scale = bfloat16_above((high.largest() - bottom) / levels);
  float step = from_bfloat16(*scale);
  Floats inverse = Floats::all(step > 1e-37f ? 1.f / step : 0.f);
  for (int i = 0; i < padded; i += LANES) {
    Floats v = i + LANES <= head_dim ? Floats::load(x + i) : Floats::first(x + i, head_dim > i ? head_dim - i : 0);
    float rounded[LANES];
    round(min(max((v - Floats::all(bottom)) * inverse, Floats::zero()), Floats::all(levels))).store(rounded);
    for (int lane = 0; lane < LANES; lane++) codes[i + lane] = static_cast<uint8_t>(static_cast<int>(rounded[lane]));
  }
}

inline void store_key(Float32, const Shape<Float32>& shape, uint8_t* group, int token, const float* x) {
  float* out = reinterpret_cast<float*>(group) + token;
  for (int i = 0; i < shape.head_dim; i++) out[i * GROUP] = x[i];
}

inline void store_value(Float32, const Shape<Float32>& shape, uint8_t* group, int token, const float* x) {
  std::memcpy(reinterpret_cast<float*>(group) + token * shape.padded, x, sizeof(float) * shape.head_dim);
}

inline void store_key(BFloat16, const Shape<BFloat16>& shape, uint8_t* group, int token, const float* x) {
  uint16_t* out = reinterpret_cast<uint16_t*>(group) + 2 * token;
  for (int i = 0; i < shape.head_dim; i++) out[i / 2 * 2 * GROUP + i % 2] = to_bfloat16(x[i]);
}

inline void store_value(BFloat16, const Shape<BFloat16>& shape, uint8_t* group, int token, const float* x) {
  uint16_t* out = reinterpret_cast<uint16_t*>(group) + token / 2 * 2 * shape.padded + token % 2;
  for (int i = 0; i < shape.head_dim; i++) out[2 * i] = to_bfloat16(x[i]);
}

// The token's codes, its scale and minimum already in the group's last line.
template <class F>
void encode(const Shape<F>& shape, uint8_t* group, int token, const float* x, uint8_t* codes) {
  uint16_t* scales = reinterpret_cast<uint16_t*>(group + shape.scales_at());
  encode(x, shape.head_dim, shape.padded, (1 << F::BITS) - 1, codes, scales + token, scales + GROUP + token);
}

inline void store_key(Int8, const Shape<Int8>& shape, uint8_t* group, int token, const float* x) {
  uint8_t codes[LARGEST_HEAD + LANES];
  encode(shape, group, token, x, codes);
  for (int i = 0; i < shape.key_lines(); i++) std::memcpy(group + i * LINE + 4 * token, codes + 4 * i, 4);
}

inline void store_value(Int8, const Shape<Int8>& shape, uint8_t* group, int token, const float* x) {
  uint8_t codes[LARGEST_HEAD + LANES];
  encode(shape, group, token, x, codes);
  uint8_t* out = group + token / 4 * 4 * shape.padded + token % 4;
  for (int i = 0; i < shape.padded; i++) out[4 * i] = codes[i];
}

inline void store_key(Int4, const Shape<Int4>& shape, uint8_t* group, int token, const float* x) {
  uint8_t codes[LARGEST_HEAD + 2 * LANES];
  encode(shape, group, token, x, codes);
  for (int i = 0; i < shape.key_lines(); i++) {
    for (int j = 0; j < 4; j++) group[i * LINE + 4 * token + j] = codes[8 * i + j] | codes[8 * i + 4 + j] << 4;
  }
}

inline void store_value(Int4, const Shape<Int4>& shape, uint8_t* group, int token, const float* x) {
  uint8_t codes[LARGEST_HEAD + 2 * LANES];
  encode(shape, group, token, x, codes);
  uint8_t* out = group + token / 4 * 2 * shape.padded + token % 4;
  for (int i = 0; i < shape.padded; i += 2 * LANES) {
    for (int j = 0; j < LANES; j++) out[2 * i + 4 * j] = codes[i + j] | codes[i + LANES + j] << 4;
  }
}

}  // namespace penstock
