"""The studies that come with samscale, as modules: tasks and pictures of theirs have a name.

In a checkout their files lie in ``studies/`` beside the package, in a wheel in this folder.
"""

from samscale.shipped import folder

__path__ = [str(folder("study"))]
