import pathlib

import jax
import pytest

from samscale.training import memory


def test_more_than_the_machine_has_is_refused_and_all_of_it_is_not():
    memory.check(2**20)
    with pytest.raises(MemoryError, match=r"^1,024.0 GiB needed, of [\d.,]+ GiB$"):
        memory.check(2**40)


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("most, left", [("10", 0), ("1000000000", 1)])
def test_programs_go_before_a_process_has_all_the_mappings_it_may(
    tmp_path, monkeypatch, most, left
):
    function = jax.jit(lambda x: 3 * x)
    function(1.0)
    limit = tmp_path / "limit"
    limit.write_text(most)
    monkeypatch.setattr(memory, "MOST_MAPPINGS", limit)
    memory.tidy()
    assert function._cache_size() == left


def test_where_the_system_does_not_tell_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MOST_MAPPINGS", tmp_path / "absent")
    memory.tidy()
