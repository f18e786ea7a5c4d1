"""Where a network runs and how: device, precision and compilation are arguments, the code is the same everywhere.

On a GPU: bfloat16 where the chip has it, and compiled. On a CPU: float32 and as written, so that runs are the same to
the last bit for one seed, and the small networks of tests need no compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.sequence.windows import Batch

THREADS = 2
PEAKS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
"""Dense bfloat16 operations per second by the beginning of the device's name, from NVIDIA's data sheets (A100: "312
TFLOPS"; H100 SXM and H200: "1,979 teraFLOPS with sparsity", half of it dense)."""
SEEN = (
    "fields", "waves", "seconds", "asked_gap", "asked_waves", "asked_seconds", "facts", "knows",
)  # fmt: skip
"""Arrays of a batch that the network reads."""


@dataclass(frozen=True)
class Machine:
    """device: as torch names it. bf16: products in bfloat16. compiled: by torch.compile. multiple: see `batch`."""

    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False
    multiple: int = 1

    @classmethod
    def here(cls) -> Machine:
        """A GPU where there is one, else the CPU."""
        if torch.cuda.is_available():
            return cls("cuda", bf16=torch.cuda.is_bf16_supported(), compiled=True, multiple=32)
        return cls()

    @property
    def is_cpu(self) -> bool:
        return torch.device(self.device).type == "cpu"

    @property
    def peak(self) -> float | None:
        """Operations per second that the chip promises; None where that is not known."""
        if self.is_cpu:
            return None
        name = torch.cuda.get_device_name(torch.device(self.device))
        return next((peak for begin, peak in PEAKS.items() if name.startswith(begin)), None)

    def precise(self) -> AbstractContextManager[Any]:
        """The precision of products while training: bfloat16 by autocast, weights stay float32."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16)

    def run(self, network: nn.Module) -> Callable[..., Any]:
        """The network as it is called while training."""
        compiled: Callable[..., Any] = torch.compile(network, dynamic=True) if self.compiled else network
        return compiled

    def seen(self, found: Batch) -> dict[str, Tensor]:
        """What the network reads of a batch, on the device."""
        return {name: torch.from_numpy(getattr(found, name)).to(self.device) for name in SEEN}

    def wait(self) -> None:
        """Until everything asked for is done: clocks are read after it."""
        if not self.is_cpu:
            torch.cuda.synchronize(torch.device(self.device))

    @contextmanager
    def reproducible(self, seed: int) -> Iterator[None]:
        """Seeded; on a CPU deterministic too, on THREADS threads. Torch's own state is as before afterwards."""
        threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        devices = [] if self.is_cpu else [torch.cuda.current_device()]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            if self.is_cpu:
                torch.set_num_threads(THREADS)
                torch.use_deterministic_algorithms(True)
            try:
                yield
            finally:
                if self.is_cpu:
                    torch.use_deterministic_algorithms(strict)
                    torch.set_num_threads(threads)


def operations_per_token(parameters: int, layers: int, width: int, length: int) -> float:
    """Operations of one token forward and back: 6 N + 12 layers x width x length.

    N: parameters without embeddings. length: tokens that each looks at, at most. Chowdhery et al. 2022, "PaLM: Scaling
    language modeling with pathways", appendix B.
    """
    return 6.0 * parameters + 12.0 * layers * width * length
