"""Deterministic algorithms of torch: results that are bit-identical from run to run."""

import os

import torch


def set_determinism(deterministic: bool) -> None:
    """Set torch's flags of determinism for the whole process, on or off; call it before the first GPU computation.

    On: cuDNN's deterministic algorithms without benchmarking, a fixed cuBLAS workspace (unless CUBLAS_WORKSPACE_CONFIG
    is set), and torch's own deterministic algorithms. An operation without one on a GPU runs and warns, such as the
    gradient of the bicubic resize of a vision transformer's position embeddings. Uninitialized memory is not filled,
    which would cost time and changes no result.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
