"""TensorFlow Datasets: texts and rows out of a prepared data set, found by name or by directory.

The prepared files are looked for first and read without any question to the network: `tfds.load` would ask for minutes
before it gave up. tf.data reads them, for `tfds.data_source` needs files of array_record, and TFDS prepares TFRecord. Read
next: `known.py`, `prepare.py`.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlm.data import known
from jaxlm.data.files import Choose
from jaxlm.data.tf_loader import quiet_tensorflow
from jaxlm.errors import ConfigError, DataError

HOST, TIMEOUT = ("storage.googleapis.com", 443), 1.5  # where TFDS keeps its data; seconds
INFO = "dataset_info.json"  # every prepared version has one


def name_and_split(source: str, split: str) -> tuple[str, str]:
    """NAME and SPLIT of "tfds:NAME@SPLIT"; the split is `split` where the source names none.

    >>> name_and_split("tfds:glue/sst2@validation[:10%]", "train"), name_and_split("tfds:lm1b", "train")
    (('glue/sst2', 'validation[:10%]'), ('lm1b', 'train'))
    """
    whole = source.removeprefix("tfds:")
    name, _, own = whole.rpartition("@")
    return (name, own) if name and "/" not in own else (whole, split)


def tfds_directory(name: str, data_dir: str | None = None) -> Path:
    """The folder of a prepared data set `NAME[/CONFIG][:VERSION]`, or of a path; downloaded where the network allows it.

    Raises DataError, within 2 s where there is no network, saying what to copy where.
    """
    path = Path(name).expanduser()
    if (path / INFO).is_file():
        return path
    if name.startswith(("/", "~", ".")):
        raise DataError(f"{path} is no prepared TFDS data set: give the folder of a version, the one with {INFO}")
    name = known.published(name)
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    found = _prepared(root, name)
    if found is None:
        _require_network(root, name)
        return _download(root, name)
    return found


def _prepared(root: Path, name: str) -> Path | None:
    base, _, version = name.partition(":")
    folders = [info.parent for depth in ("*", "*/*") for info in (root / base).glob(f"{depth}/{INFO}")]
    folders = [folder for folder in folders if not version or folder.match(version)]
    configs = sorted({folder.parent for folder in folders})
    if len(configs) > 1:
        names = ", ".join(f"tfds:{config.relative_to(root).as_posix()}" for config in configs)
        raise DataError(f"data.source=tfds:{name} has several configurations in {root}: choose one of {names}")
    return max(folders, key=_version, default=None)


def _version(folder: Path) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in folder.name.split(".")]


def _require_network(root: Path, name: str) -> None:
    try:
        socket.create_connection(HOST, timeout=TIMEOUT).close()
    except OSError as error:
        folder = root / name.partition(":")[0]
        raise DataError(
            f"data.source=tfds:{name} is not in {root} and there is no network: copy the prepared data set "
            f"to {folder}/VERSION (the folder with {INFO}), or set data.data_dir=DIR"
        ) from error


def _import_tfds():
    quiet_tensorflow()
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ConfigError(f'data.source=tfds:... needs TensorFlow Datasets ({error}): pip install "jaxlm[train]"') from error
    return tensorflow_datasets


def _download(root: Path, name: str) -> Path:
    tfds = _import_tfds()
    try:
        builder = tfds.builder(name, data_dir=str(root))
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises what its data sets raise: dozens of types
        raise DataError(f"data.source=tfds:{name} cannot be downloaded ({error}): copy it prepared to {root}") from error
    return Path(builder.data_dir)


def open_prepared(directory: Path) -> Any:
    """The TFDS builder of a prepared data set."""
    return _import_tfds().builder_from_directory(str(directory))


def class_names(builder: Any) -> dict[str, list[str]]:
    """Column -> names of its classes, of the columns that hold a class or a sequence of classes."""
    lib = _import_tfds()
    features = {name: getattr(feature, "feature", feature) for name, feature in builder.info.features.items()}
    return {name: list(feature.names) for name, feature in features.items() if isinstance(feature, lib.features.ClassLabel)}


def tfds_rows(builder: Any, choose: Choose, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 0, NumPy cells by column) of one split, in the order of its files; `choose` picks the columns, as in `files.file_rows`.

    Raises DataError for a missing split or a damaged file, and what `choose` raises.
    """
    tfds, directory = _import_tfds(), builder.data_dir
    columns = choose(list(builder.info.features), str(directory))
    order = tfds.ReadConfig(interleave_cycle_length=1, shuffle_seed=0, try_autocache=False)
    plain = type(builder.info.features) is tfds.features.FeaturesDict  # of a set of translations no part can be read alone
    partial = tfds.decode.PartialDecoding(dict.fromkeys(columns, True)) if plain else None
    split = known.split_of(builder.info.full_name, split)
    try:
        yield from enumerate(builder.as_dataset(split=split, read_config=order, decoders=partial).as_numpy_iterator())
    except quiet_tensorflow().errors.OpError as error:
        raise DataError(f"{directory} is cut or corrupt ({str(error)[:200]}): copy it again") from error
    except ValueError as error:
        names = ", ".join(builder.info.splits)
        raise DataError(f"{directory} cannot be read as data.split={split} ({error}): its splits are {names}") from error


def tfds_documents(directory: Path, column: str, split: str) -> Iterator[str]:
    """The texts of one split of a prepared data set; of a known one without a column "text", the one that holds its texts.

    Raises DataError for a missing split or column, or a damaged file.
    """
    builder = open_prepared(directory)
    names = list(builder.info.features)
    if column == "text" and column not in names:
        column = known.text_column(builder.info.full_name) or column
    if column not in names:
        raise DataError(f"{directory} has no column {column}: its columns are {', '.join(names)}; set data.column=NAME")
    for number, row in tfds_rows(builder, lambda there, where: [column], split):
        yield _text(row[column], f"{directory}, row {number}", column)


def _text(value: object, where: str, column: str) -> str:
    if not isinstance(value, bytes):
        raise DataError(f"{where}: the column {column} holds no text; set data.column=NAME to the one that does")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: the column {column} is not UTF-8 ({error}); set data.column=NAME or mend the data") from error
