"""What is run from the cache folder was written by this user alone, and by nobody else."""

import os
import pathlib
import stat

import pytest

from samscale import cached

OTHERS_MAY_WRITE = [0o1777, 0o777, 0o770, 0o720, 0o702]
FOREIGN = 12345
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path):
    """A file that was kept."""
    path = tmp_path / "cache" / "samscale" / "report" / "a"
    cached.write(path, b"script")
    return path


@pytest.fixture(autouse=True)
def _nothing_was_said_before():
    cached._REFUSED.clear()
    cached.harmless.cache_clear()


def refused(path, capsys, *words):
    """Nothing is read, and one sentence says why."""
    assert cached.read(path) is None
    assert cached.read(path) is None
    (sentence,) = capsys.readouterr().err.splitlines()
    for word in (str(path.parent), *words):
        assert word in sentence
    return True


def test_what_was_written_is_read_and_only_its_writer_sees_it(path, tmp_path, capsys):
    old = os.umask(0)
    try:
        cached.write(tmp_path / "open" / "deep" / "b", b"more")
    finally:
        os.umask(old)
    assert cached.read(tmp_path / "open" / "deep" / "b") == b"more"
    assert mode(tmp_path / "open") == mode(tmp_path / "open" / "deep") == 0o700
    assert mode(tmp_path / "open" / "deep" / "b") == 0o600
    assert capsys.readouterr().err == ""


def test_a_folder_that_others_could_only_read_is_closed(path):
    path.parent.chmod(0o755)
    assert cached.read(path) == b"script"
    assert mode(path.parent) == 0o700


@pytest.mark.parametrize("bits", OTHERS_MAY_WRITE)
def test_a_folder_that_others_may_write_is_neither_read_nor_written(path, bits, capsys):
    path.parent.chmod(bits)
    assert refused(path, capsys, f"mode {bits:o}")
    cached.write(path.with_name("b"), b"new")
    assert not path.with_name("b").exists()
    assert mode(path.parent) == bits  # whoever wrote there may have done so: it is not made ours
    assert not cached.harmless(str(path.parent))


@pytest.mark.parametrize("bits", [0o666, 0o660, 0o602])
def test_a_file_that_others_may_write_is_not_read_and_written_anew(path, bits, capsys):
    path.chmod(bits)
    assert refused(path, capsys, f"a may be written by others (mode {bits:o})")
    cached.write(path, b"script")
    assert cached.read(path) == b"script"


@as_root
@pytest.mark.parametrize("whose", ["file", "folder"])
def test_what_belongs_to_another_user_is_not_read(path, whose, capsys):
    os.chown(path if whose == "file" else path.parent, FOREIGN, FOREIGN)
    assert refused(path, capsys, f"belongs to another user (number {FOREIGN})")
    assert not cached.harmless(str(path.parent))


def test_a_folder_above_that_lets_anybody_replace_it_is_refused(path, capsys):
    path.parent.parent.chmod(0o777)
    assert refused(path, capsys, str(path.parent.parent))
    path.parent.parent.chmod(0o1777)  # there only owners may rename
    assert cached.read(path) == b"script"


def test_no_link_leads_to_another_file(path, tmp_path):
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cached.read(path) is None
    assert not cached.harmless(str(path.parent))


def test_a_cache_may_be_a_link_to_a_folder_of_ones_own(path, tmp_path, capsys):
    (tmp_path / "link").symlink_to(path.parent)
    assert cached.read(tmp_path / "link" / "a") == b"script"
    path.parent.chmod(0o777)
    assert refused(tmp_path / "link" / "a", capsys, "mode 777")


@as_root
def test_a_link_of_another_user_is_not_followed(path, tmp_path, capsys):
    (tmp_path / "link").symlink_to(path.parent)
    os.lchown(tmp_path / "link", FOREIGN, FOREIGN)
    assert refused(tmp_path / "link" / "a", capsys, "another user")


@pytest.mark.parametrize("damage", [b"", b"short", bytes(32) + b"script"])
def test_a_damaged_file_is_not_read(path, damage):
    path.write_bytes(damage)
    assert cached.read(path) is None


def test_files_that_a_library_wrote_by_the_umask_are_harmless_in_a_closed_folder(path):
    other = path.with_name("of-xla")
    other.write_bytes(b"machine code")
    other.chmod(0o664)
    assert cached.harmless(str(path.parent))
    cached.harmless.cache_clear()
    path.parent.chmod(0o755)
    assert not cached.harmless(str(path.parent))


def test_without_a_home_the_cache_lies_among_temporary_files(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cached.root() == tmp_path / f"cache-{os.getuid()}" / "samscale"


@pytest.mark.parametrize("where", ["default", "JAX_COMPILATION_CACHE_DIR"])
def test_programs_of_xla_are_not_read_where_others_may_write(where, tmp_path, monkeypatch, capsys):
    import jax

    from samscale.training import compiled

    folder = tmp_path / "samscale" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None if where == "default" else str(folder))
        compiled.keep_programs()
        assert not jax.config.jax_enable_compilation_cache
        assert capsys.readouterr().err.count(str(folder)) == 1
        assert list(pathlib.Path(folder).iterdir()) == []
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_enable_compilation_cache", True)
