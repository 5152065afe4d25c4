import jax

from samscale import keys


def test_addresses_do_not_meet():
    numbers = [
        tuple(jax.random.key_data(keys.address(seed, purpose, index)).tolist())
        for seed in range(3)
        for purpose in (keys.INIT, keys.ORDER, keys.MEASURE)
        for index in range(3)
    ]
    assert len(set(numbers)) == 27
