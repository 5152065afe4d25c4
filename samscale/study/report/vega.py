"""Vega, Vega-Lite and Vega-Embed as one script, 0.9 MB: what makes the charts of a page alive."""

import contextlib

from samscale import places
from samscale.training.files import write_atomically


def script() -> str:
    """To stand in a page. vl-convert takes 2 s to bundle it: it is kept in the cache folder."""
    import vl_convert

    if (cache := places.cache()) is None:
        return _escaped(vl_convert.javascript_bundle())
    path = cache / "report" / f"vega-{vl_convert.__version__}.js"
    try:
        text = path.read_bytes().decode()
    except OSError:  # not there yet
        text = vl_convert.javascript_bundle()
        with contextlib.suppress(OSError):  # a page can do without the cache
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
    return _escaped(text)


def _escaped(text):
    return text.replace("</script", "<\\/script")
