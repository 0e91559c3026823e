"""Ask the sinks beforehand, for `lakeward check` and dry runs. A run does not ask: what is down now may be up when rows come."""

from __future__ import annotations

from lakeward.components import Probing
from lakeward.errors import ConfigError, OptionError, Refused, Retry
from lakeward.pipeline import Pipeline
from lakeward.yamlfile.build import steps


def probe(pipeline: Pipeline) -> dict[str, str]:
    """What each sink that can tell would do with its rows. Raises ConfigError with what they find wrong."""
    problems, found = [], {}
    for name, sink in pipeline.sinks.items():
        link, path = pipeline.links[name][0], pipeline.config.graphs[pipeline.graph].sinks[name].path
        if isinstance(sink, Probing) and link in pipeline.schemas:
            try:
                found[name] = sink.probe(pipeline.schemas[link])
            except OptionError as error:
                problems.append(pipeline.config.problem((*path, *steps(error.option)), error.message))
            except Refused as error:
                problems.append(pipeline.config.problem(path, str(error)))
            except Retry as error:
                found[name] = f"not now: {error}"
    if problems:
        raise ConfigError(problems)
    return found
