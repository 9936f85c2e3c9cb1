// Programs and the C interface that Python calls. Nothing here throws, but for want of memory or threads in `pool_new`.
#include <exception>

#include "attention.h"
#include "draw.h"
#include "gemm.h"
#include "matrix.h"
#include "moe.h"
#include "pool.h"
#include "quantize.h"
#include "rope.h"
#include "rows.h"
#include "types.h"

namespace penstock {

static void execute(const void* op, const Step& step, const Worker& worker) {
  switch (*static_cast<const int32_t*>(op)) {
    case EMBED: return embed(*static_cast<const Embed*>(op), step, worker);
    case ANGLES: return angles(*static_cast<const Angles*>(op), step, worker);
    case NORM: return norm(*static_cast<const Norm*>(op), step, worker);
    case LINEAR: return linear(*static_cast<const Linear*>(op), step, worker);
    case ROPE: return rope(*static_cast<const Rope*>(op), step, worker);
    case ATTENTION: return attention(*static_cast<const Attention*>(op), step, worker);
    case QUANTIZE: return quantize(*static_cast<const Quantize*>(op), step, worker);
    case GATE: return gate(*static_cast<const Gate*>(op), step, worker);
    case FINISH: return finish(*static_cast<const Finish*>(op), step, worker);
    case ROUTE: return route(*static_cast<const Route*>(op), step, worker);
    case SORT: return sort(*static_cast<const Sort*>(op), step, worker);
    case SCATTER: return scatter(*static_cast<const Scatter*>(op), step, worker);
    case EXPERTS: return experts(*static_cast<const Experts*>(op), step, worker);
    case EXPERT_GATE: return expert_gate(*static_cast<const ExpertGate*>(op), step, worker);
    case COMBINE: return combine(*static_cast<const Combine*>(op), step, worker);
    case DRAW: return draw(*static_cast<const Draw*>(op), step, worker);
  }
}

}  // namespace penstock

using namespace penstock;

#pragma GCC visibility push(default)
extern "C" {

// The best library for this processor: 0 portable, 1 avx2, 2 avx512vnni.
int penstock_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  return avx2 ? (avx512 ? 2 : 1) : 0;
#else
  return 0;
#endif
}

// Sizes of the structs of types.h in their order there, so that Python notices a library of another build.
int penstock_sizes(int32_t* sizes, int room) {
  const int32_t all[] = {sizeof(Matrix), sizeof(KV),        sizeof(Step),     sizeof(Embed), sizeof(Angles), sizeof(Norm),  sizeof(Linear),
                         sizeof(Rope),   sizeof(Attention), sizeof(Quantize), sizeof(Gate),  sizeof(Finish), sizeof(Route), sizeof(Sort),
                         sizeof(Scatter), sizeof(Experts),  sizeof(ExpertGate), sizeof(Combine), sizeof(DrawnRow), sizeof(Draw)};
  const int count = sizeof all / sizeof *all;
  for (int i = 0; i < count && i < room; i++) sizes[i] = all[i];
  return count;
}

void* penstock_pool_new(int threads) {
  if (threads < 1) return nullptr;
  try {
    return new Pool(threads, execute);
  } catch (const std::exception&) {
    return nullptr;
  }
}

void penstock_pool_free(void* pool) { delete static_cast<Pool*>(pool); }

void penstock_run(void* pool, const void* const* ops, int count, const Step* step) {
  static_cast<Pool*>(pool)->run(ops, count, *step);
}

size_t penstock_codes_bytes(const Matrix* matrix) { return packed_codes_bytes(*matrix); }
size_t penstock_scales_bytes(const Matrix* matrix) { return packed_scales_bytes(*matrix); }
size_t penstock_activation_bytes(const Matrix* matrix, int tokens) { return activation_bytes(*matrix, tokens); }
size_t penstock_kv_block_bytes(const KV* kv) { return kv_block_bytes(*kv); }

void penstock_pack(const Matrix* matrix, const void* source, const uint16_t* scales, const uint16_t* minima) {
  pack(*matrix, source, scales, minima);
}
void penstock_unpack_row(const Matrix* matrix, int64_t row, float* out) { unpack_row(*matrix, row, out); }

}  // extern "C"
#pragma GCC visibility pop
