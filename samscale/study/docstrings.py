"""Lets altair be imported by ``python -OO``, which drops the docstrings that altair copies."""

import importlib.machinery
import sys


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module with its docstrings, and caches nothing under the name of one without."""

    def get_code(self, fullname):
        source = self.get_data(self.path)
        return compile(source, self.path, "exec", dont_inherit=True, optimize=1)


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] != "altair":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def keep() -> None:
    """From here on; does nothing without ``-OO``."""
    if sys.flags.optimize >= 2 and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
