// What Python and the kernels agree on. Plain structs, mirrored in `structs.py`; `sizes()` in program.cpp lets Python check that.
//
// A program is a list of operations that runs once per step, over all of the step's tokens. Every pointer in it is fixed when
// the program is made; what changes from step to step is in `Step`. Floats are float32 unless a name says otherwise.
#pragma once
#include <cstddef>
#include <cstdint>

namespace penstock {

// ---- weights

enum Format : int32_t { FLOAT32, FLOAT16, BFLOAT16, INT8, INT4 };

constexpr int TILE = 16;  // rows of a weight matrix that lie interleaved

// y = W x, [rows, cols], packed in tiles of 16 rows (`matrix.h`); rows beyond the last one are zero.
//   INT8, INT4:  W[r, c] = scale * code - minimum, with one scale (and minimum) for each `group` inputs of a row; codes are
//                unsigned. Without minima, minimum = 128 * scale for INT8 and 8 * scale for INT4.
struct Matrix {
  int32_t format, rows, cols, group;  // group: divides cols; 16, 32, 64, 128 or cols itself
  const uint8_t* codes;               // or the floats themselves; 64-byte aligned
  const uint16_t* scales;             // float16; null for floats
  const uint16_t* minima;             // float16, or null: symmetrical
  const int32_t* order;               // [cols], or null: column j multiplies x[order[j]]
};

// ---- keys and values

enum KVFormat : int32_t { KV_FLOAT32, KV_BFLOAT16, KV_INT8, KV_INT4 };

// One layer's cache. The layout inside a block is the attention kernel's own (`attention.h`).
struct KV {
  int32_t format, kv_heads, head_dim, block_size;
  uint8_t* keys;    // [blocks][bytes of a block]
  uint8_t* values;  // likewise
};

// ---- one step

struct Step {
  int32_t tokens;             // rows of every operation
  int32_t seqs;
  const int64_t* token_ids;   // [tokens]
  const int64_t* positions;   // [tokens] in their sequences
  const int64_t* slots;       // [tokens] block id * block_size + offset
  const int64_t* query_lens;  // [seqs] tokens of this step, consecutive
  const int64_t* context_lens;  // [seqs] tokens in the cache once this step's are stored
  const int64_t* tables;      // [seqs, max_blocks] block ids
  int32_t max_blocks;
  int32_t unused;
};

// ---- operations; `kind` comes first in each

enum Kind : int32_t { EMBED, ANGLES, NORM, LINEAR, ROPE, ATTENTION, QUANTIZE, GATE, FINISH, ROUTE, SORT, SCATTER, EXPERTS, EXPERT_GATE, COMBINE, DRAW };

// x = multiplier * rows of the embedding
struct Embed {
  int32_t kind;
  float multiplier;
  Matrix matrix;
  float* x;  // [tokens, cols]
};

// cos and sin of position * frequency, times factor
struct Angles {
  int32_t kind, count;
  float factor;
  const float* frequencies;  // [count]
  float* cos;                // [tokens, count]
  float* sin;
};

// x += alpha * (update, or its norm); out = norm(x), as activations of `target` and, where `hidden` is given, as floats too
struct Norm {
  int32_t kind, size;
  float eps, alpha;
  float* x;                    // [tokens, size]
  const float* update;         // [tokens, size] or null
  const float* update_weight;  // [size] or null: the update's own norm
  const float* weight;         // [size]
  float* hidden;               // [tokens, size] or null
  Matrix target;               // the matrix that is multiplied next
  void* activations;           // or null
};

// out = W activations + bias
struct Linear {
  int32_t kind, unused;
  Matrix matrix;
  const void* activations;  // as `quantize.h` lays them out for `matrix`
  const float* bias;        // [rows] or null
  float* out;               // [tokens, rows]
};

// Norm (where given) and turn queries and keys in place; store keys and values.
struct Rope {
  int32_t kind, heads;
  int32_t dim;  // entries of a head that turn: i with i + dim / 2
  float eps;
  float* qkv;         // [tokens, (heads + 2 * kv_heads) * head_dim]
  const float* norm;  // [heads + kv_heads, head_dim] or null
  const float* cos;   // [tokens, dim / 2]
  const float* sin;
  KV kv;
};

struct Attention {
  int32_t kind, heads;
  float scale;
  int32_t window;  // 0: none; else each token sees itself and the window - 1 before it
  float softcap;   // 0: none; else scores become cap * tanh(score / cap)
  int32_t unused;
  const float* qkv;  // queries first, as `Rope` left them
  KV kv;
  float* out;  // [tokens, heads * head_dim]
};

// activations of `target` from floats
struct Quantize {
  int32_t kind, unused;
  const float* x;  // [tokens, target.cols]
  Matrix target;
  void* activations;
};

enum Activation : int32_t { SILU, GELU, GELU_TANH };

// activations of `target` from activation(gate) * up
struct Gate {
  int32_t kind, activation;
  const float* gate_up;  // [tokens, 2 * target.cols]: gates first
  Matrix target;
  void* activations;
};

// logits: x = cap * tanh(x / divisor / cap), or x / divisor
struct Finish {
  int32_t kind, size;
  float divisor, softcap;  // softcap 0: none
  float* x;                // [tokens, size]
};

// ---- mixtures of experts (`moe.h`); a pair is a token and one expert chosen for it

// The top_k experts of each token and their weights: the softmax of its scores.
struct Route {
  int32_t kind, experts, top_k, renormalize;  // renormalize: the chosen weights sum to one
  const float* scores;                        // [tokens, experts]
  int32_t* chosen;                            // [tokens, top_k]
  float* weights;                             // [tokens, top_k]
};

// Pairs in the order of their experts.
struct Sort {
  int32_t kind, experts, top_k, unused;
  const int32_t* chosen;
  int64_t* offsets;  // [experts + 1] place of each expert's first pair
  int32_t* places;   // [tokens, top_k] place of each pair
  int32_t* origins;  // [tokens * top_k] pair at each place
};

// activations of the expert's matrix from its token's floats, pair by pair
struct Scatter {
  int32_t kind, top_k;
  const float* x;          // [tokens, cols]
  const int32_t* chosen;
  const int32_t* origins;
  const Matrix* matrices;  // one of each expert, all of one shape
  void* activations;       // [places]
};

// out = W activations of each pair's expert
struct Experts {
  int32_t kind, count;
  const Matrix* matrices;
  const int64_t* offsets;
  const uint8_t* activations;  // [places]
  float* out;                  // [places, rows]
};

struct ExpertGate {
  int32_t kind, activation, top_k, unused;
  const float* gate_up;  // [places, 2 * cols]
  const int32_t* chosen;
  const int32_t* origins;
  const Matrix* matrices;  // that are multiplied next
  void* activations;
};

// out = sum of weight * y over a token's pairs
struct Combine {
  int32_t kind, size, top_k, unused;
  const float* y;  // [places, size]
  const int32_t* places;
  const float* weights;
  float* out;  // [tokens, size]
};

// How one row is drawn.
struct DrawnRow {
  float temperature;  // 0: greedy
  float top_p;        // > 0; infinite: no limit
  float min_p;        // share of the best token's probability
  int32_t top_k;      // 0: no limit
  int64_t seed;
};

// One token for each row of logits, which are overwritten. Of `Step` it takes `tokens`, the rows, and their positions: how many
// tokens each sequence has generated.
struct Draw {
  int32_t kind, size;
  float* logits;         // [rows, size]
  const DrawnRow* rows;  // [rows]
  int64_t* tokens;       // [rows]
};

}  // namespace penstock
