"""The command line: right input runs, wrong input costs one sentence and exit code 2."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from samscale import cli
from samscale.training import record

TINY = ("--config=tests/tiny.py", "--config.num_neurons=(4,)", "--config.num_epochs=1")


def train(workdir, *words):
    return cli.train(["main.py", f"--workdir={workdir}", *words])


def only(workdir):
    (path,) = workdir.glob("*/config.json")
    return path.parent


def test_main_py_trains_from_the_shell(tmp_path):
    words = [sys.executable, "main.py", f"--workdir={tmp_path}", *TINY]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "final test accuracy" in done.stdout.splitlines()[-1]
    assert done.stderr == ""
    assert (only(tmp_path) / "done").exists()


@pytest.mark.parametrize("words", ["(5, 3)", "[5,3]", "5,3"])
def test_widths_reach_the_run_from_the_command_line(tmp_path, words):
    assert train(tmp_path, *TINY, f"--config.num_neurons={words}") == 0
    assert json.loads((only(tmp_path) / "config.json").read_text())["num_neurons"] == [5, 3]


WRONG = {
    "--config.rhoo=0.1": "config.rhoo: no such knob; did you mean rho?",
    "--config.rho=-0.5": "rho=-0.5: must be -1 (the method's own) or at least 0",
    "--config.rho=abc": "rho='abc': must be a finite number (single precision)",
    "--config.seed=1.5": "seed='1.5': must be a whole number",
    "--config.batch_size=12x": "batch_size='12x': must be a whole number",
    "--config.half_precision=maybe": "half_precision='maybe': must be True or False",
    "--config.dataset=mnits": "dataset='mnits': choose one of",
    "--config.model=VGG": "model='VGG': choose one of MLP, ResNet18, ResNet50",
    "--config.optimizer=adagrad": "optimizer='adagrad': choose one of adam, adamw, asam, ",
    "--config.lr_scheduler=steep": "lr_scheduler='steep': choose one of",
    "--config.pruner=snap": "pruner='snap': choose one of",
    "--config.loss=l3": "loss='l3': choose one of",
    "--config.augmentation=mixup": "augmentation='mixup': choose one of",
    "--config.noise_kind=loud": "noise_kind='loud': choose one of",
    "--config.track=paper": "track='paper': choose one of",
    "--config.batch_size=5000": "batch_size=5000: must be at most 1294",
    "--config.warmup_steps=999999": "warmup_steps=999999: must be less than",
    "--config.sam_groups=3": "sam_groups=3: must divide batch_size=128",
    "--config.sparsity=0.5": "sparsity=0.5: must be 0 where pruner='none'",
    "--config.sparsity=1.0": "sparsity=1.0: must be at least 0 and less than 1",
    "--config.label_noise=2.0": "label_noise=2.0: must be between 0 and 1",
    "--config.num_epochs=0": "num_epochs=0: must be greater than 0",
    "--config.dataset=imagenet": "dataset='imagenet': its data pipeline is not part",
    "--config.task=nowhere:task": "task='nowhere:task': must be module:function",
    "--config=configs/nothing.py": "config='configs/nothing.py': no such file",
    "--config=README.md": "config='README.md'",
    "--config.num_neurons=(4,": "num_neurons='(4,': must be whole numbers, as in (300, 100)",
    "--config.loss=binary_cross_entropy": "loss='binary_cross_entropy': must be 'cross_entropy' or",
    "--config.validation_fraction=0.9999": "validation_fraction=0.9999: must be 0, or hold out",
    "--config.validation_fraction=1e-5": "validation_fraction=1e-05: must be 0, or hold out some",
    "--confg.rho=1": "confg.rho: no such flag; knobs are written --config.rho=VALUE",
    "--unknown=1": "unknown",
    "surplus": "'surplus'",
}


@pytest.mark.parametrize("word", WRONG)
def test_wrong_input_costs_one_sentence_and_nothing_is_written(tmp_path, capsys, word):
    words = TINY[1:] if word.startswith("--config=") else TINY
    assert train(tmp_path / "runs", *words, word) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert WRONG[word] in err
    assert not (tmp_path / "runs").exists()


def test_a_missing_workdir_or_config_is_named(tmp_path, capsys):
    assert cli.train(["main.py", *TINY]) == 2
    assert "workdir='': must be a folder" in capsys.readouterr().err
    assert train(tmp_path) == 2
    assert "config: must be a config file" in capsys.readouterr().err


def test_a_workdir_that_cannot_be_written_costs_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert train(tmp_path / "file" / "runs", *TINY) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "Not a directory" in err


def old_config(tmp_path, body):
    path = tmp_path / "old.py"
    lines = "\n".join(f"    config.{line}" for line in body)
    path.write_text(
        "import ml_collections\n\n\ndef get_config():\n"
        f"    config = ml_collections.ConfigDict()\n{lines}\n    return config\n"
    )
    return path


def test_old_config_files_with_lists_are_accepted_and_overridden(tmp_path):
    body = ("model = 'MLP'", "dataset = 'digits'", "num_neurons = [6, 5]", "num_epochs = 1")
    body += ("pruner = 'random'", "sparsity = 0.0", "restore_checkpoint = False")
    path = old_config(tmp_path, (*body, "num_train_steps = -1", "steps_per_eval = -1"))
    assert train(tmp_path / "a", f"--config={path}") == 0
    assert json.loads((only(tmp_path / "a") / "config.json").read_text())["num_neurons"] == [6, 5]
    assert record.read(only(tmp_path / "a"))[-1]["sparsity"] == 0
    assert train(tmp_path / "b", f"--config={path}", "--config.num_neurons=(3,)") == 0
    assert json.loads((only(tmp_path / "b") / "config.json").read_text())["num_neurons"] == [3]


@pytest.mark.parametrize("text", ["layers,path", "('layers', 'path')", " layers , path,"])
def test_names_may_be_written_plainly(text, tmp_path):
    words = ["main.py", *TINY, f"--workdir={tmp_path}"]
    config, _ = cli.parse([*words, f"--config.flatness_measures={text}"])
    assert config.flatness_measures == ("layers", "path")


def test_a_config_file_may_take_an_argument(tmp_path):
    path = tmp_path / "with_argument.py"
    path.write_text(
        "from samscale.config import Config\n\n\n"
        "def get_config(width):\n    return Config(num_neurons=(int(width),), num_epochs=1)\n"
    )
    assert train(tmp_path, f"--config={path}:7") == 0
    assert json.loads((only(tmp_path) / "config.json").read_text())["num_neurons"] == [7]


def test_help_lists_every_knob(capsys):
    import dataclasses

    from samscale.config import Config

    assert cli.train(["main.py", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"--config.{field.name}=" in out for field in dataclasses.fields(Config))


def test_samscale_without_a_command_lists_commands(capsys):
    assert cli.main(["samscale"]) == 2
    assert "samscale train" in capsys.readouterr().err
    assert cli.main(["samscale", "--help"]) == 0
    assert cli.main(["samscale", "studdy"]) == 2
    assert "'studdy': no such command" in capsys.readouterr().err


def test_python_m_samscale_is_samscale():
    command = [sys.executable, "-m", "samscale", "--version"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told.startswith("samscale ")


@pytest.mark.parametrize(
    "knobs",
    [
        ("optimizer=sgd",),  # the baseline, which the released program could not launch
        ("optimizer=adamw", "lr_scheduler=linear", "learning_rate=0.001"),
        ("optimizer=usam", "rho=0.1", "sam_groups=4"),
        ("optimizer=sam", "base_optimizer=adam", "learning_rate=0.001", "clip_norm=1.0"),
        ("pruner=snip", "sparsity=0.9", "snip_batches=3"),
        ("half_precision=True",),
        ("label_noise=0.4", "noise_kind=pairwise"),
        ("loss=squared", "lr_scheduler=constant", "momentum=0.0"),
        ("dropout=0.2", "warmup_steps=3", "nesterov=True", "decay_on=kernels"),
    ],
    ids=lambda knobs: knobs[0],
)
def test_every_kind_of_run_ends_well(tmp_path, knobs):
    assert train(tmp_path, *TINY, *(f"--config.{knob}" for knob in knobs)) == 0
    final = record.read(only(tmp_path))[-1]
    assert 0 <= final["test_accuracy"] <= 1
    assert np.isfinite([value for value in final.values() if isinstance(value, float)]).all()


def test_every_config_file_says_how_it_is_run():
    for path in pathlib.Path("configs").glob("*.py"):
        assert f"--config=configs/{path.name}" in path.read_text()


def test_a_work_folder_that_is_a_file_is_named_before_anything_runs(tmp_path, capsys):
    path = tmp_path / "file"
    path.touch()
    assert train(path, *TINY) == 2
    sentence = f"error: workdir={str(path)!r}: must be a folder, as in --workdir=runs\n"
    assert capsys.readouterr().err == sentence


def test_the_help_lists_what_a_knob_may_be(capsys):
    assert cli.train(["main.py", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "a key of data.DATASETS; one of cifar10, cifar100, digits, fashion_mnist" in words
    assert "a key of optimizers.SCHEDULES; one of constant, cosine" in words


def test_more_memory_than_there_is_is_a_sentence_and_no_wait(tmp_path, capsys):
    assert train(tmp_path, *TINY, "--config.num_neurons=(10000000,10000000)") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: not enough memory: take a smaller network")
    assert error.count("\n") == 1


def test_what_diverges_at_once_has_no_checkpoint_and_says_so(tmp_path, capsys):
    assert train(tmp_path, *TINY, "--config.learning_rate=1e30") == 1
    error = capsys.readouterr().err
    assert "not finite at step" in error
    assert "no checkpoint was saved yet" in error


@pytest.mark.parametrize("words", [["main.py", "--help"], ["-m", "samscale", "doctor"]])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    command = [sys.executable, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert error == b""
    assert process.returncode == 0


def test_doctor_takes_no_words(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["samscale", "doctor", "bogus"])
    assert "bogus" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["-m", "samscale", "train"], [str(pathlib.Path("main.py").resolve())]]
)
def test_modules_beside_a_config_and_in_the_current_folder_are_found(command, tmp_path):
    beside, here = tmp_path / "beside", tmp_path / "here"
    beside.mkdir()
    here.mkdir()
    (beside / "widths.py").write_text("WIDTH = 8\n")
    (here / "lengths.py").write_text("EPOCHS = 1\n")
    (beside / "conf.py").write_text(
        "from lengths import EPOCHS\nfrom widths import WIDTH\nfrom samscale.config import Config\n"
        "def get_config():\n"
        "    return Config(num_neurons=(WIDTH,), num_epochs=EPOCHS, optimizer='none')\n"
    )
    words = [sys.executable, *command, f"--config={beside / 'conf.py'}", "--workdir=w"]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True)
    assert done.returncode == 2
    assert "optimizer='none': choose one of" in done.stderr  # so the file was read


@pytest.mark.parametrize("executor", ["here", "processes"])
def test_a_task_beside_a_study_file_is_found_by_whoever_runs_its_cells(
    executor, tmp_path, monkeypatch
):
    beside, here = tmp_path / "beside", tmp_path / "here"
    beside.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    name = f"lone_task_{executor}"
    (beside / f"{name}.py").write_text(
        "import numpy as np\nfrom samscale import data, models, tasks\n"
        "def get_task(config):\n"
        "    d = data.load('digits')\n"
        "    model = models.build('MLP', 10, num_neurons=(2,))\n"
        "    example = {'x': d.train['x'][:1]}\n"
        "    functions = tasks.supervised(model, tasks.cross_entropy, example, d.normalize)\n"
        "    return tasks.Task(d.train, d.validation, d.test, *functions)\n"
    )
    (beside / "lone.py").write_text(
        "from samscale.config import Config\n"
        "from samscale.study import Study, methods, repeated, scientific\n"
        f"BASE = Config(task='{name}:get_task', num_epochs=1, batch_size=1000)\n"
        "axes = scientific('num_filters', [1]), methods(BASE, 'sgd'), repeated('seed', [0])\n"
        "def get_study(): return Study('?', BASE, axes)\n"
    )
    words = ["study", str(beside / "lone.py"), "--workdir=w", f"--executor={executor}"]
    assert (
        cli.main(["samscale", *words, "--workers=1" if executor == "processes" else "--replicas=1"])
        == 0
    )


@pytest.mark.parametrize("dataset, found", [("cifar10", "crop_flip"), ("mnist", "none")])
def test_old_config_files_augment_where_the_released_program_did(dataset, found, tmp_path):
    body = (f"dataset = '{dataset}'", "model = 'MLP'")
    path = old_config(tmp_path, body)
    assert cli.load_config(str(path)).augmentation == found
    path = old_config(tmp_path, (*body, "augmentation = 'none'"))
    assert cli.load_config(str(path)).augmentation == "none"


@pytest.mark.parametrize(
    "word, words",
    [
        ("--config.learning_rate=", "learning_rate='': must be a finite number"),
        ("--config.num_epochs=", "num_epochs='': must be a whole number"),
        ("--config.num_neurons=", "num_neurons='': must be whole numbers"),
    ],
)
def test_a_knob_without_a_value_is_one_sentence(word, words, tmp_path, capsys):
    assert train(tmp_path, *TINY, word) == 2
    assert words in capsys.readouterr().err


def test_a_second_config_file_is_named_beside_the_first(tmp_path, capsys):
    for second in ("--config=b.py", "--config b.py"):
        assert train(tmp_path, "--config=tests/tiny.py", *second.split()) == 2
        sentence = "error: config='b.py': must be one file; 'tests/tiny.py' is named, too\n"
        assert capsys.readouterr().err == sentence


def test_of_a_knob_said_twice_the_last_word_counts_and_a_flag_needs_a_value(tmp_path, capsys):
    words = ["main.py", *TINY, f"--workdir={tmp_path}", "--config.seed=1", "--config.seed", "2"]
    config, _ = cli.parse([*words, "--config.nesterov"])
    assert (config.seed, config.nesterov) == (2, True)
    assert train(tmp_path, *TINY, "--config.seed") == 2
    assert "config.seed: must have a value, as in --config.seed=VALUE" in capsys.readouterr().err


def test_a_value_may_be_the_next_word(tmp_path):
    words = ["main.py", *TINY, f"--workdir={tmp_path}", "--config.num_neurons", "(7,)"]
    config, _ = cli.parse([*words, "--config.learning_rate", "0.25"])
    assert (config.num_neurons, config.learning_rate) == ((7,), 0.25)


PATHS = {
    "train workdir": ["train", "--config=configs/digits_mlp.py", "--workdir=~/file"],
    "train config": ["train", "--config=~/nothing.py", "--workdir=~/runs"],
    "study file": ["study", "~/nothing.py", "--workdir=~/runs"],
    "study workdir": ["study", "studies/digits_width.py", "--workdir=~/file"],
    "status": ["status", "~/nothing"],
    "results": ["results", "~/nothing"],
    "parquet": ["results", "~", "--parquet=~/nothing/x"],
    "report": ["report", "~/nothing"],
    "figure": ["figure", "~/nothing"],
    "figure out": ["figure", "~", "--out=~/nothing/x.svg"],
    "flatness": ["flatness", "~/nothing"],
    "landscape": ["landscape", "~/nothing"],
    "landscape out": ["landscape", "~/nothing", "--out=~/nothing/x.svg"],
}


@pytest.mark.parametrize("words", PATHS.values(), ids=PATHS)
def test_a_tilde_is_the_home_of_the_user_in_every_path(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    assert cli.main(["samscale", *words]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path) in err
    assert "~" not in err


@pytest.mark.parametrize("name", ["2026-11-28T14:00", "a b=c", "größe, #1", "a.py:b", "'\"%"])
def test_a_config_may_lie_in_any_folder(name, tmp_path, monkeypatch):
    path = tmp_path / name / "conf.py"
    path.parent.mkdir()
    path.write_text(
        "from samscale.config import Config\n"
        "def get_config(dataset='digits'): return Config(dataset=dataset)\n"
    )
    for text, dataset in ((path, "digits"), (f"{path}:mnist", "mnist"), (f"{path}:a:b", "a:b")):
        words = ["main.py", f"--config={text}", f"--workdir={tmp_path / name / 'runs'}"]
        config, workdir = cli.parse(words)
        assert config.dataset == dataset
        assert workdir == str(tmp_path / name / "runs")


def test_a_config_that_is_not_there_is_named_without_its_argument(capsys):
    assert cli.train(["main.py", "--config=no/conf.py:mnist", "--workdir=runs"]) == 2
    assert "config='no/conf.py': no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, meant",
    [
        (["stduy"], "study"),
        (["study", "digits_widht", "--workdir=x"], "digits_width"),
        (["figure", ".", "--kind=gian"], "gain"),
        (["report", ".", "--studdy=x"], "--study"),
        (["study", "digits_width", "--workdir=x", "--dryrun"], "--dry-run"),
        (["train", "--config=digits_mlp", "--workdir=x", "--config.optimizer=sma"], "sam"),
        (["train", "--config=digits_mlp", "--workdir=x", "--config.num_epoch=3"], "num_epochs"),
    ],
)
def test_what_was_meant_is_asked(words, meant, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study-a").mkdir()
    try:
        code = cli.main(["samscale", *words])
    except SystemExit as end:  # argparse's way
        code = end.code
    assert code == 2
    if words[0] != "figure":
        assert f"did you mean {meant}?" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["study-a"]


def test_a_field_of_a_config_that_does_not_exist_is_named_with_the_closest(tmp_path):
    file = tmp_path / "conf.py"
    file.write_text(
        "from samscale.config import Config\ndef get_config(): return Config(num_epoch=3)"
    )
    with pytest.raises(ValueError, match=r"num_epoch: no such knob; did you mean num_epochs\?"):
        cli.load_config(str(file))


def test_the_commands_are_listed_within_80_columns(capsys):
    assert cli.main(["samscale", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 80
