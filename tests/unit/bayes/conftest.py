"""Densities are checked without compiling them to machine code, which takes most of the time when cold."""

from collections.abc import Iterator

import pytensor
import pytest

DENSITIES = ("attach", "build", "families", "grid", "linear_targets", "pooling", "rowwise")


@pytest.fixture(autouse=True)
def uncompiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Evaluate densities operation by operation; what samples is compiled as for users."""
    quick = request.module.__name__.rpartition("test_")[2] in DENSITIES
    with pytensor.config.change_flags(mode="FAST_COMPILE" if quick else pytensor.config.mode):
        yield
