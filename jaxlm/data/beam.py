"""The preparation on Apache Beam, for a corpus that one machine is too small for: the same functions, so the same shards.

Every worker must see the sources and `data.cache` under the same paths (a shared file system), and have jaxlm installed. What
runs where: a unit is read by one worker, its portions are cleaned, signed and tokenized by any; the one list of duplicates is
reduced where the command runs. Read next: `prepare.py`.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxlm import config
from jaxlm.data import drops, sources
from jaxlm.data.portions import unit_portions
from jaxlm.data.prepare import build, store_directory
from jaxlm.data.shards import Cleaning, Recipe, begin_cleaning, cleaner_of, make_shards
from jaxlm.data.sources import Report
from jaxlm.errors import DataError, UserError, extra
from jaxlm.text.tokenizer import Tokenizer


def prepare_on_beam(data: config.Data, source: str, tokenizer: Tokenizer, flags: Sequence[str], report: Report) -> Path:
    """Make the store of a source by a Beam pipeline, or find it; returns its folder.

    `flags` are Beam's own, as in `--runner=FlinkRunner --flink_master=...`. Raises DataError where the pipeline fails.
    """
    cleaning = _cleaning(data, source, flags, report)
    directory = store_directory(data, source, tokenizer, cleaning)
    if not directory.is_dir():
        build(data, source, tokenizer, cleaning, lambda recipe: _make(data, source, flags, recipe))
    return directory


def _cleaning(data: config.Data, source: str, flags: Sequence[str], report: Report) -> Cleaning:
    path = drops.drops_path(data, source)
    if cleaner_of(data.clean).duplicates is not None and not path.is_file():
        folder = path.with_suffix(".partial")
        _run(data, source, flags, functools.partial(drops.sign_portion, begin_cleaning(data.clean), str(folder)))
        with drops.first_wins(path):
            drops.reduce_signatures(data, path, map(str, folder.glob(f"*{drops.SIGNED}")), report)
    return drops.find_cleaning(data, source)


def _make(data: config.Data, source: str, flags: Sequence[str], recipe: Recipe) -> list[dict[str, Any]]:
    _run(data, source, flags, functools.partial(make_shards, recipe))
    return [json.loads(path.read_text(encoding="utf-8")) for path in Path(recipe.directory, "notes").glob("*.json")]


def _run(data: config.Data, source: str, flags: Sequence[str], function: Callable[[Any], Any]) -> None:
    """Apply a function to every portion of a source; what it makes lies in files."""
    with extra("beam", "Apache Beam"):
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    try:
        with beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
            units = pipeline | beam.Create(sources.units(source, data.data_dir))
            portions = units | beam.FlatMap(unit_portions, data) | beam.Reshuffle()
            _ = portions | beam.Map(function)
    except UserError:
        raise
    except Exception as error:  # a runner raises what its cluster says, of any type, around our own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise DataError(f"the Beam pipeline failed: {lines[-1][:500]}") from error
