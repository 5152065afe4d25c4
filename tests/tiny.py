"""The smallest config file, for tests of the command line."""

from samscale.config import Config


def get_config():
    return Config()
