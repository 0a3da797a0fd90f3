"""Ask torch for algorithms that give the same bits every time."""

import os

import torch


def ask_for_determinism(wanted: bool) -> None:
    """Set torch's flags for the whole process, either way; to be called before anything is computed on a GPU.

    `wanted`: cuDNN's deterministic algorithms and no trial runs of several, a fixed cuBLAS workspace (unless
    CUBLAS_WORKSPACE_CONFIG is set already, which has to happen before CUDA computes), and torch's own deterministic
    algorithms. An operation that has none on a GPU runs and warns: the gradient of the bicubic resize of a vision
    transformer's position embeddings is such a one. Memory that torch has just taken is not filled, which would cost
    time and changes no result.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = wanted
    torch.backends.cudnn.benchmark = not wanted
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(wanted, warn_only=True)
