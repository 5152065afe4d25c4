"""Signs, a random bit each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samscale.sharpness import draws

KEY = jax.random.key(3)


def test_signs_are_independent():
    z = np.asarray(draws.signs(KEY, (10_007,), jnp.float32))
    assert set(np.unique(z)) == {-1.0, 1.0}
    assert abs(z.mean()) < 0.04
    assert abs((z[1:] * z[:-1]).mean()) < 0.04
    assert abs((z[32:] * z[:-32]).mean()) < 0.04


@pytest.mark.parametrize("shape", [(), (0,), (1,), (31,), (33,), (3, 5, 7)])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_signs_of_any_shape_and_dtype(shape, dtype):
    z = draws.signs(KEY, shape, dtype)
    assert z.shape == shape
    assert z.dtype == dtype
    np.testing.assert_array_equal(jnp.abs(z.astype(jnp.float32)), 1)


def test_complex_signs_have_length_one_and_four_directions():
    z = np.asarray(draws.signs(KEY, (4000,), jnp.complex64))
    np.testing.assert_allclose(np.abs(z), 1, rtol=1e-6)
    directions, counts = np.unique(np.round(np.angle(z, deg=True)), return_counts=True)
    assert set(directions) == {-135, -45, 45, 135}
    assert counts.min() > 850
