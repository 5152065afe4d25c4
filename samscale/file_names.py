"""Names of folders that any file system takes, from whatever a user called a thing."""

import hashlib
import re
import unicodedata

LONGEST = 200  # bytes: file systems take 255, and a hash follows
FORBIDDEN = re.compile(r'[<>:"/\\|?*]')  # by Windows; by others only the slash
RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{i}" for port in ("COM", "LPT") for i in range(10)),
}


def component(text: str, longest: int = LONGEST) -> str:
    """``text`` as one component of a path, of at most ``longest`` bytes.

    What is legal everywhere stays as it is. Else separators and what systems forbid become ``_``,
    as do control characters, whatever would hide the folder (a leading dot) or make an option or a
    home of it (``-``, ``~``), and an ending that Windows drops (a dot, a blank).
    """
    text = "".join("_" if _is_unprintable(letter) else letter for letter in text)
    text = FORBIDDEN.sub("_", text)
    text = re.sub(r"^[.~\- ]+|[. ]+$", "_", text) or "_"
    if text.split(".")[0].strip().upper() in RESERVED:
        text = f"_{text}"
    return text.encode()[:longest].decode(errors="ignore")


def distinct(text: str) -> str:
    """The same, so that other texts have other names: what was changed is followed by a hash."""
    if component(text) == text:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{component(text, LONGEST - 9)}-{digest}"


def _is_unprintable(letter):
    """Control characters, directions of writing, and halves of letters."""
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
