// Mixtures of experts: each token goes to its best few experts.
//
//   scores ─► route ─► sort ─► scatter ─► experts (gate-up) ─► expert gate ─► experts (down) ─► combine
//
// A pair is a token and one expert chosen for it. Pairs lie expert by expert, so that each expert multiplies all of its tokens
// at once, and only the experts that somebody chose are read.
#pragma once
#include "gemm.h"
#include "rows.h"

namespace penstock {

// The largest of scores[0, count) that are not yet taken; taken ones are minus infinity.
inline int take_best(float* scores, int count) {
  int best = 0;
  for (int i = 1; i < count; i++) best = scores[i] > scores[best] ? i : best;
  return best;
}

inline void route(const Route& op, const Step& step, const Worker& worker) {
  float* left = reinterpret_cast<float*>(worker.scratch);
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    const float* scores = op.scores + t * op.experts;
    std::memcpy(left, scores, sizeof(float) * op.experts);
    float largest = scores[take_best(left, op.experts)], total = 0.f, chosen = 0.f;
    for (int e = 0; e < op.experts; e++) total += std::exp(scores[e] - largest);
    for (int k = 0; k < op.top_k; k++) {
      int best = take_best(left, op.experts);
      left[best] = -INFINITY;
      op.chosen[t * op.top_k + k] = best;
      chosen += op.weights[t * op.top_k + k] = std::exp(scores[best] - largest) / total;
    }
    for (int k = 0; op.renormalize && k < op.top_k; k++) op.weights[t * op.top_k + k] /= chosen;
  }
}

// Counting sort of the pairs by expert; few enough for one thread.
inline void sort(const Sort& op, const Step& step, const Worker& worker) {
  if (worker.take() > 0) return;
  const int64_t pairs = int64_t{step.tokens} * op.top_k;
  std::fill(op.offsets, op.offsets + op.experts + 1, 0);
  for (int64_t i = 0; i < pairs; i++) op.offsets[op.chosen[i] + 1]++;
  for (int e = 0; e < op.experts; e++) op.offsets[e + 1] += op.offsets[e];
  int64_t* next = reinterpret_cast<int64_t*>(worker.scratch);
  std::memcpy(next, op.offsets, sizeof(int64_t) * op.experts);
  for (int64_t i = 0; i < pairs; i++) {
    int64_t place = next[op.chosen[i]]++;
    op.places[i] = static_cast<int32_t>(place);
    op.origins[place] = static_cast<int32_t>(i);
  }
}

inline void scatter(const Scatter& op, const Step& step, const Worker& worker) {
  const int size = op.matrices[0].cols;
  for (int64_t place; (place = worker.take()) < int64_t{step.tokens} * op.top_k;) {
    int32_t pair = op.origins[place];
    quantize_row(op.matrices[op.chosen[pair]], op.x + int64_t{pair / op.top_k} * size, op.activations, place);
  }
}

inline void expert_gate(const ExpertGate& op, const Step& step, const Worker& worker) {
  const int size = op.matrices[0].cols;
  float* out = reinterpret_cast<float*>(worker.scratch);
  for (int64_t place; (place = worker.take()) < int64_t{step.tokens} * op.top_k;) {
    gate_row(op.activation, op.gate_up + place * 2 * size, size, out);
    quantize_row(op.matrices[op.chosen[op.origins[place]]], out, op.activations, place);
  }
}

// Every expert's rows by all of its pairs. A piece is a run of one expert's tiles.
inline void experts(const Experts& op, const Step&, const Worker& worker) {
  const Matrix& first = op.matrices[0];
  const int64_t tiles = tile_count(first), run = std::max<int64_t>(1, std::min(tiles, LARGEST_PIECE / tile_bytes(first)));
  const int64_t runs = (tiles + run - 1) / run, row_bytes = activation_row_bytes(first);
  for (int64_t piece; (piece = worker.take()) < op.count * runs;) {
    const Matrix& matrix = op.matrices[piece / runs];
    const int64_t begin = op.offsets[piece / runs], tokens = op.offsets[piece / runs + 1] - begin;
    if (tokens == 0) continue;
    const Linear linear{LINEAR, 0, matrix, op.activations + begin * row_bytes, nullptr, op.out + begin * matrix.rows};
    const Kernels kernels = kernels_for(matrix);
    const Block block = block_of(linear);
    const int64_t tile = piece % runs * run;
    multiply(linear, block, kernels, tile, std::min(tile + run, tiles), 0, tokens);
  }
}

inline void combine(const Combine& op, const Step& step, const Worker& worker) {
  for (int64_t t; (t = worker.take()) < step.tokens;) {
    in_lanes(op.size, [&](int i, int n) {
      Floats sum = Floats::zero();
      for (int64_t pair = t * op.top_k; pair < (t + 1) * op.top_k; pair++) {
        sum = fma(some(op.y + int64_t{op.places[pair]} * op.size + i, n), Floats::all(op.weights[pair]), sum);
      }
      put(sum, op.out + t * op.size + i, n);
    });
  }
}

}  // namespace penstock
