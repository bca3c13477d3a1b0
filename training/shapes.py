"""Shapes of the Pocket world as signed distance fields, and the textures that fill them.

Coordinates are the object's own: the shape lies within about one unit of the origin, y points down. Fields are
negative inside and fall off with slope one near the edge, so coverage over one pixel follows from the pixel's size.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

STRIPE_PERIOD = 0.8
DOT_SPACING, DOT_RADIUS = 0.64, 0.21
RIM = 0.14  # width of the contrasting edge, inside the shape


def circle(x: Tensor, y: Tensor) -> Tensor:
    """Disc."""
    return torch.hypot(x, y) - 0.95


def square(x: Tensor, y: Tensor) -> Tensor:
    """Axis-parallel square."""
    return torch.maximum(x.abs(), y.abs()) - 0.82


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """Equilateral, tip up."""
    return torch.maximum(y - 0.15, x.abs() * 0.866 - (y - 0.15) * 0.5) - 0.6


def star(x: Tensor, y: Tensor) -> Tensor:
    """Five points, one up."""
    outer, inner, half = 1.15, 0.48, math.pi / 5
    radius = torch.hypot(x, y)
    angle = torch.atan2(x, -y)
    folded = torch.remainder(angle + half, 2 * half) - half
    along, across = radius * folded.cos(), radius * folded.sin().abs()
    # Edge from the tip (outer, 0) to the notch (inner cos, inner sin).
    edge_x, edge_y = inner * math.cos(half) - outer, inner * math.sin(half)
    length = math.hypot(edge_x, edge_y)
    return ((along - outer) * edge_y - across * edge_x) / length


def heart(x: Tensor, y: Tensor) -> Tensor:
    """Two lobes above a tip."""
    arm, centre = 0.86, 0.12
    tip = (x.abs() + (y - centre).abs() - arm) * 0.7071
    lobe = torch.hypot(x.abs() - arm / 2, y - centre + arm / 2) - arm * 0.7071
    return torch.minimum(tip, lobe)


def diamond(x: Tensor, y: Tensor) -> Tensor:
    """Rhombus, taller than wide."""
    return (x.abs() / 0.66 + y.abs() / 1.15 - 1.0) * 0.572


def cross(x: Tensor, y: Tensor) -> Tensor:
    """Plus sign."""
    a, b = x.abs(), y.abs()
    return torch.minimum(torch.maximum(a - 1.0, b - 0.34), torch.maximum(a - 0.34, b - 1.0))


def ring(x: Tensor, y: Tensor) -> Tensor:
    """Circle with a hole."""
    return (torch.hypot(x, y) - 0.72).abs() - 0.26


FIELDS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (circle, square, triangle, star, heart, diamond, cross, ring)


def stripes(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to slanted stripes, negative inside them."""
    along = (x + 0.5 * y) / 1.118
    return STRIPE_PERIOD / 4 - (torch.remainder(along, STRIPE_PERIOD) - STRIPE_PERIOD / 2).abs()


def dots(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a square grid of dots, negative inside them."""
    half = DOT_SPACING / 2
    return (
        torch.hypot(
            torch.remainder(x + half, DOT_SPACING) - half,
            torch.remainder(y + half, DOT_SPACING) - half,
        )
        - DOT_RADIUS
    )
