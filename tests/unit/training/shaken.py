"""A network whose initial zeros are shaken, for tests of what its inputs do."""

from typing import Any

import torch


def shaken(model: Any) -> Any:
    """The model with noise on every parameter, so that every path carries signal; in evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return model.eval()
