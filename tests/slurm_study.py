"""A study of two runs of some seconds, and its command line, for tests of jobs."""

import sys

FILE = """
from samscale.config import Config
from samscale.study import Study, methods, repeated, scientific

BASE = Config(num_neurons=(8,), num_epochs=300, batch_size=20)

def get_study():
    size, method = scientific("num_neurons", [(8,)]), methods(BASE, "sgd")
    return Study(question="?", base=BASE, axes=(size, method, repeated("seed", range(2))))
"""
COMMAND = [sys.executable, "-c", "import sys; from samscale import cli; sys.exit(cli.main())"]


def words(file, workdir, *options):
    return ["study", str(file), f"--workdir={workdir}", "--executor=slurm", *options]
