"""Downloads arrive complete and checked or not at all; the only network here is this machine."""

import concurrent.futures
import contextlib
import gzip
import hashlib
import http.server
import io
import os
import re
import sys
import threading
import urllib.request

import pytest

import official_files as official
from samscale import data
from samscale.data import cifar, fetch, readers

GOOD = bytes(range(256)) * 769  # three blocks and a little, which a buffer could hold back
FILES = ("a.bin", "b.bin")


class Mirror(http.server.BaseHTTPRequestHandler):
    """Sends ``server.files[path]``: the body, or a function that answers."""

    def do_GET(self):
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
        elif callable(body):
            body(self)
        else:
            send(self, body, len(body))

    def log_message(self, *args):
        pass


def send(handler, body, length=None):
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def redirect(handler, url):
    handler.send_response(302)
    handler.send_header("Location", url)
    handler.end_headers()


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.files, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a data set ``toy`` of two files that no mirror has."""
    monkeypatch.delenv("SAMSCALE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    closed = "http://127.0.0.1:1"
    monkeypatch.setattr(fetch, "MIRRORS", {"toy": (f"{closed}/first/", f"{closed}/second/")})
    monkeypatch.setattr(fetch, "MD5", {"toy": dict.fromkeys(FILES, md5(GOOD))})
    monkeypatch.setattr(fetch, "SIZES", {"toy": dict.fromkeys(FILES, len(GOOD))})
    return tmp_path / "cache" / "samscale" / "data" / "toy"


@pytest.fixture
def mirrors(server, monkeypatch):
    """``mirrors(first, second)``: what each has, by file name."""
    urls = (f"{server.url}/first/", f"{server.url}/second/")
    monkeypatch.setitem(fetch.MIRRORS, "toy", urls)

    def put(first, second):
        server.files = {f"/first/{name}": body for name, body in first.items()}
        server.files |= {f"/second/{name}": body for name, body in second.items()}
        return server

    return put


def md5(blob):
    return hashlib.md5(blob, usedforsecurity=False).hexdigest()


def complete(folder):
    return all((folder / name).is_file() for name in FILES)


def has_good_files_only(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()} == dict.fromkeys(FILES, GOOD)


def refusal():
    with pytest.raises(OSError, match="dataset='toy'") as caught:
        fetch.folder("toy", complete)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ALL = dict.fromkeys(FILES, GOOD)


def test_the_first_mirror_is_enough(mirrors, cache):
    server = mirrors(ALL, ALL)
    assert fetch.folder("toy", complete) == cache
    assert has_good_files_only(cache)
    assert server.asked == ["/first/a.bin", "/first/b.bin"]


BAD = {
    "missing": None,
    "another content": GOOD[::-1],
    "empty": b"",
    "cut short": lambda handler: send(handler, GOOD[:-1], len(GOOD)),
    "cut short, of unknown length": lambda handler: send(handler, GOOD[:-1]),
    "larger": lambda handler: send(handler, GOOD + b"?", len(GOOD) + 1),
    "larger, of unknown length": lambda handler: send(handler, GOOD + b"?"),
    "on another way": lambda handler: redirect(handler, "http://example.invalid/a.bin"),
    "a file of this machine": lambda handler: redirect(handler, "ftp://127.0.0.1/a.bin"),
    "hung up": lambda handler: handler.connection.close(),
    "no HTTP": lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "an error of the server": lambda handler: handler.send_error(503, "out of order"),
}
bad = pytest.mark.parametrize("case", BAD)


@bad
def test_the_second_mirror_is_asked_where_the_first_one_fails(mirrors, cache, case):
    server = mirrors(dict.fromkeys(FILES, BAD[case]), ALL)
    assert fetch.folder("toy", complete) == cache
    assert has_good_files_only(cache)
    assert server.asked == [f"/{mirror}/{f}" for f in FILES for mirror in ("first", "second")]


@bad
def test_where_both_mirrors_fail_no_file_appears_and_one_sentence_says_why(mirrors, cache, case):
    server = mirrors(*[dict.fromkeys(FILES, BAD[case])] * 2)
    sentence = refusal()
    assert f"{server.url}/first/a.bin: " in sentence
    assert f"{server.url}/second/a.bin: " in sentence
    assert list(cache.iterdir()) == []
    assert server.asked == ["/first/a.bin", "/second/a.bin"]  # and not for b.bin any more


def test_a_mirror_that_falls_silent_is_given_up(mirrors, cache, monkeypatch):
    silence = threading.Event()

    def stall(handler):
        send(handler, GOOD[:-1], len(GOOD))
        silence.wait(timeout=10)

    server = mirrors({"a.bin": stall}, {})
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    try:
        assert f"{server.url}/first/a.bin: timed out" in refusal()
    finally:
        silence.set()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "case, words",
    [
        ("missing", "HTTP 404 Not Found"),
        ("another content", f"its MD5 is {md5(GOOD[::-1])} instead of {md5(GOOD)}"),
        ("cut short", "the connection ended after 196863 of 196864 bytes"),
        ("cut short, of unknown length", "the connection ended after 196863 of 196864 bytes"),
        ("larger", "it is larger than the published 196864 bytes"),
        ("larger, of unknown length", "it is larger than the published 196864 bytes"),
        ("on another way", "refused to ask http://example.invalid/a.bin: only https"),
        ("an error of the server", "HTTP 503 out of order"),
    ],
)
def test_the_sentence_holds_the_reason(mirrors, case, words):
    mirrors(*[dict.fromkeys(FILES, BAD[case])] * 2)
    assert words in refusal()


def test_a_download_without_end_is_broken_off_at_its_known_size(mirrors):
    sent = []

    def endless(handler):
        send(handler, b"")
        with contextlib.suppress(OSError):
            for _ in range(4000):
                handler.wfile.write(bytes(1 << 16))
                sent.append(1 << 16)

    mirrors({"a.bin": endless}, {})
    assert "it is larger than the published 196864 bytes" in refusal()
    assert sum(sent) < 64 * 2**20  # what lies in buffers


def test_a_redirection_on_the_same_machine_is_followed(mirrors, cache):
    server = mirrors(ALL, ALL)
    for name in FILES:
        server.files[f"/first/{name}"] = lambda handler, name=name: redirect(
            handler, f"{server.url}/second/{name}"
        )
    fetch.folder("toy", complete)
    assert has_good_files_only(cache)


@pytest.mark.parametrize(
    "before, after",
    [
        ("https://a.org/x", "http://a.org/x"),
        ("https://a.org/x", "http://127.0.0.1/x"),
        ("http://127.0.0.1/x", "http://a.org/x"),
        ("https://a.org/x", "ftp://a.org/x"),
    ],
)
def test_no_redirection_leads_away_from_https(before, after):
    (follow,) = (h for h in fetch._opener().handlers if hasattr(h, "redirect_request"))
    with pytest.raises(OSError, match="refused to ask"):
        follow.redirect_request(urllib.request.Request(before), None, 302, "", {}, after)
    follow.redirect_request(urllib.request.Request(before), None, 302, "", {}, "https://b.org/x")


def test_a_mirror_without_encryption_is_not_asked(cache, monkeypatch):
    monkeypatch.setitem(fetch.MIRRORS, "toy", ("http://example.invalid/",))
    assert "only https is safe on its way" in refusal()


def test_what_others_may_have_put_into_the_cache_must_be_what_was_published(cache, tmp_path):
    put(cache)
    fetch.folder("toy", complete)  # this user's own, by hand
    (cache / "b.bin").chmod(0o666)
    with pytest.raises(PermissionError, match=r"may be written by others.* not the published"):
        fetch.folder("toy", complete)
    (cache / "b.bin").write_bytes(GOOD)
    assert fetch.folder("toy", complete) == cache


def test_offline_one_sentence_names_the_data_set_the_folders_the_files_and_the_reason(
    cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAMSCALE_DATA", str(tmp_path / "mine"))
    sentence = refusal()
    for words in (str(tmp_path / "mine" / "toy"), str(cache), *FILES, "refused", "$SAMSCALE_DATA"):
        assert words in sentence


def test_a_cache_that_cannot_be_made_is_an_os_error_with_its_path(mirrors, tmp_path, monkeypatch):
    mirrors(ALL, ALL)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert str(tmp_path / "file") in refusal()


def test_a_folder_that_lacks_a_file_is_shown_with_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMSCALE_DATA", str(tmp_path))
    put(tmp_path / "toy")
    (tmp_path / "toy" / "b.bin").unlink()
    assert f"{tmp_path / 'toy'} (which holds only a.bin)" in refusal()


def put(folder):
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"gzipped anew, say: by hand no checksum is asked for")
    return folder


def test_what_is_in_the_folder_of_the_user_is_taken_first_and_nothing_is_downloaded(
    mirrors, cache, tmp_path, monkeypatch
):
    server = mirrors(ALL, ALL)
    put(cache)
    assert fetch.folder("toy", complete) == cache
    monkeypatch.setenv("SAMSCALE_DATA", str(tmp_path / "mine"))
    assert fetch.folder("toy", complete) == cache  # the other one does not exist
    mine = put(tmp_path / "mine" / "toy")
    assert fetch.folder("toy", complete) == mine
    assert server.asked == []


def test_an_incomplete_folder_of_the_user_is_left_alone(mirrors, cache, tmp_path, monkeypatch):
    mirrors(ALL, ALL)
    monkeypatch.setenv("SAMSCALE_DATA", str(tmp_path / "mine"))
    mine = put(tmp_path / "mine" / "toy")
    (mine / "b.bin").unlink()
    assert fetch.folder("toy", complete) == cache
    assert [p.name for p in mine.iterdir()] == ["a.bin"]


def test_the_folders_are_those_of_the_environment_in_order(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SAMSCALE_DATA", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert [str(p) for p in fetch.folders("toy")] == [
        f"{tmp_path}/mine/toy",
        "/elsewhere/samscale/data/toy",
    ]
    monkeypatch.delenv("SAMSCALE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert fetch.folders("toy") == [tmp_path / ".cache" / "samscale" / "data" / "toy"]


def test_files_that_have_arrived_are_not_asked_for_again(mirrors, cache):
    server = mirrors({"a.bin": GOOD}, {})
    refusal()
    assert [p.name for p in cache.iterdir()] == ["a.bin"]
    server.files["/second/b.bin"] = GOOD
    server.asked.clear()
    fetch.folder("toy", complete)
    assert server.asked == ["/first/b.bin", "/second/b.bin"]


def test_bytes_are_on_the_disk_before_they_get_their_name(mirrors, monkeypatch):
    mirrors(ALL, ALL)
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.fstat(fd).st_size), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(b.name), replace(a, b)))
    fetch.folder("toy", complete)
    assert calls == [len(GOOD), "a.bin", len(GOOD), "b.bin"]


def test_an_interrupted_download_leaves_nothing_behind(mirrors, cache, monkeypatch):
    mirrors(ALL, ALL)

    def interrupted(part, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.folder("toy", complete)
    assert list(cache.iterdir()) == []


def test_several_may_download_the_same_files_at_once(mirrors, cache):
    server = mirrors(ALL, ALL)
    together = threading.Barrier(4)

    def late(handler):
        together.wait(timeout=10)
        send(handler, GOOD, len(GOOD))

    server.files["/first/a.bin"] = late
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = [pool.submit(fetch.folder, "toy", complete) for _ in range(4)]
    assert [future.result() for future in found] == [cache] * 4
    assert has_good_files_only(cache)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_a_bar_shows_the_file_and_its_size(mirrors, monkeypatch, capsys):
    mirrors(ALL, ALL)
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", screen)
        fetch.folder("toy", complete)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "a.bin" in shown
    assert "196.9/196.9 kB" in shown
    assert "downloading" not in shown
    assert capsys.readouterr().out == ""


def test_in_a_log_a_download_is_one_line_on_stderr(mirrors, capsys):
    server = mirrors(ALL, ALL)
    fetch.folder("toy", complete)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"downloading {server.url}/first/{f}" for f in FILES]
    assert captured.out == ""


def test_a_data_set_is_loaded_through_a_download(server, tmp_path, monkeypatch):
    x, y, *_ = official.write_idx(tmp_path / "there")
    blobs = {p.name: p.read_bytes() for p in (tmp_path / "there").iterdir()}
    server.files = {f"/{name}": blob for name, blob in blobs.items()}
    monkeypatch.setitem(fetch.MIRRORS, "mnist", (f"{server.url}/",))
    monkeypatch.setitem(fetch.MD5, "mnist", {name: md5(blob) for name, blob in blobs.items()})
    monkeypatch.setitem(fetch.SIZES, "mnist", {name: len(blob) for name, blob in blobs.items()})
    d = data.load("mnist", validation_fraction=0)
    assert (d.train["x"][..., 0] == x).all()
    assert (d.train["y"] == y).all()
    assert fetch.folders("mnist")[0].name == "mnist"
    assert gzip.decompress((fetch.folders("mnist")[0] / min(blobs)).read_bytes())


@pytest.fixture(scope="module")
def published():
    """What the program ships, read before the tests above replace it."""
    return fetch.MIRRORS, fetch.MD5, fetch.SIZES


@pytest.mark.parametrize(
    "name", sorted(set(data.DATASETS) - {"digits", "imagenet", "teacher_student"})
)
def test_every_downloaded_data_set_has_two_mirrors_and_the_files_its_reader_wants(published, name):
    mirrors, checksums, sizes = published
    wanted = (
        {f"{stem}.gz" for stems in readers.IDX_STEMS for stem in stems}
        if "mnist" in name
        else {cifar.CIFAR[int(name.removeprefix("cifar"))][0].archive}
    )
    assert checksums[name].keys() == wanted
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in checksums[name].values())
    assert sizes[name].keys() == wanted
    assert len(set(mirrors[name])) == 2
    assert all(re.fullmatch("https://.*/", url) for url in mirrors[name])
