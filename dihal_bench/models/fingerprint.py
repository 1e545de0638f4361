"""What tells one model's weights from another's."""

import hashlib
from typing import Any

import torch

_CHUNK = 1 << 24  # elements hashed at a time, which bounds what is copied off an accelerator


def fingerprint(model: Any) -> str:
    """SHA-256 of the configuration class and of all parameters, in order of their names."""
    digest = hashlib.sha256(type(model.config).__name__.encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        for chunk in parameter.detach().reshape(-1).split(_CHUNK):
            digest.update(chunk.cpu().view(torch.uint8).numpy())
    return digest.hexdigest()
