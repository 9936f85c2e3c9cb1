"""Times OpenVINO GenAI's `ContinuousBatchingPipeline`, step by step.

`model` is a folder that `optimum-cli` exported. After a colon `format` may say what it calculates in (int8:f32), which
OpenVINO otherwise chooses: bfloat16 where the processor has instructions for it. `BENCHMARK_CPU_LEVEL=avx2` makes it do as it does without
AVX-512: float32, and no 8-bit activations, because oneDNN alone obeys `ONEDNN_MAX_CPU_ISA` and the rest then fails.
"""

from __future__ import annotations

import os
import time

import numpy as np
import openvino as ov
import openvino_genai as genai
from protocol import Case, answer, case, repetitions


class Server:
    """The pipeline and the numbers of its requests."""

    def __init__(self, given: Case) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 2  # GB
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = 64
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = False
        properties = {"INFERENCE_NUM_THREADS": given.threads, "PERFORMANCE_HINT": "LATENCY"}
        if precision := given.format.partition(":")[2]:
            properties["INFERENCE_PRECISION_HINT"] = precision
        if os.environ.get("BENCHMARK_CPU_LEVEL") == "avx2":
            properties |= {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
        self.given = given
        self.pipeline = genai.ContinuousBatchingPipeline(given.model, scheduler, "CPU", properties)
        self.rng = np.random.default_rng(0)
        self.count = 0

    def add(self, length: int, tokens: int) -> genai.GenerationHandle:
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos, config.do_sample = True, False
        self.count += 1
        ids = self.rng.integers(10, self.given.vocab_size, (1, length)).astype(np.int64)
        return self.pipeline.add_request(self.count, ov.Tensor(ids), config)

    def prefill(self, length: int) -> float:
        handle = self.add(length, 1)
        started = time.perf_counter()
        while not handle.can_read():
            self.pipeline.step()
        return length / (time.perf_counter() - started)

    def decode(self, clients: int) -> list[float]:
        most = self.given.max_model_len - self.given.prompt_tokens
        handles = [self.add(self.given.prompt_tokens, most) for _ in range(clients)]
        started = [False] * clients
        while not all(started):
            self.pipeline.step()
            started = [begun or handle.can_read() for begun, handle in zip(started, handles, strict=True)]
        found = repetitions(self.given, clients, self.pipeline.step)
        for handle in handles:
            handle.stop()
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        return found


def main() -> None:
    given = case(__doc__)
    started = time.perf_counter()
    server = Server(given)
    load_s = time.perf_counter() - started
    server.prefill(64)
    answer(
        {length: [server.prefill(length) for _ in range(given.repeat)] for length in given.prompts},
        {clients: server.decode(clients) for clients in given.clients},
        load_s=load_s,
    )
    os._exit(0)  # its threads take their time to end


main()
