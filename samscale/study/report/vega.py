"""Vega, Vega-Lite and Vega-Embed as one script, 0.9 MB: what makes the charts of a page alive."""

from samscale import cached


def script() -> str:
    """To stand in a page. vl-convert takes 2 s to bundle it: it is kept in the cache folder."""
    import vl_convert

    path = cached.root() / "report" / f"vega-{vl_convert.__version__}"
    content = cached.read(path)
    if content is None:
        content = vl_convert.javascript_bundle().encode()
        cached.write(path, content)
    return content.decode().replace("</script", "<\\/script")
