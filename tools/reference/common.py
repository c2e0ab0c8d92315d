"""What the fixture makers share: the comparison of two references, and conversions."""

from __future__ import annotations

import numpy as np
import torch


def numpy(value) -> np.ndarray:
    """A C-contiguous NumPy array of a tensor of either framework."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, order="C")


def relative_norm(a, b) -> float:
    """|a - b| / |b|, in f64."""
    a, b = numpy(a).astype(np.float64), numpy(b).astype(np.float64)
    if a.shape != b.shape:
        raise AssertionError(f"shapes differ: {a.shape} and {b.shape}")
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def agree(name: str, a, b, tolerance: float) -> float:
    """Asserts that two references agree; a fixture is only written when they do."""
    error = relative_norm(a, b)
    if not error <= tolerance:
        raise AssertionError(f"{name}: the references differ by {error:.2e} of the norm, allowed {tolerance:.0e}")
    return error


def comparable(name: str, value) -> np.ndarray:
    """The entries of a parameter, or of its gradient, that two programs can agree on.

    Two biases have a gradient of exactly zero in theory and rounding noise in practice, which Adam
    turns into full-size steps; the loss sees neither of them:
    - the key third of an attention bias: softmax ignores what is added to a whole row;
    - the bias of an encoder's final norm: the projector's first Linear has no bias, and the BN
      behind it subtracts whatever is constant over the batch.
    """
    value = numpy(value)
    if name.endswith("encoder.norm.bias"):
        return value[:0]
    if name.endswith("attn.qkv.bias"):
        q, _, v = np.split(value, 3)
        return np.concatenate([q, v])
    return value


def unseen(name: str, value) -> np.ndarray:
    """What `comparable` leaves out."""
    value = numpy(value)
    if name.endswith("encoder.norm.bias"):
        return value
    if name.endswith("attn.qkv.bias"):
        return np.split(value, 3)[1]
    return value[:0]
