"""The sink `cosmos`: rows as items of an Azure Cosmos DB container, under ids that are the same on every retry.

Each file is one subject, and imports only from those below it. Read from the top.

    sink         the options, and what the kernel calls
    writing      transactional batches: what is there already, what may be replaced, what will never be taken
    items        rows as items, with their ids          answers   errors of the library, as what the kernel knows
    jsonable     Arrow columns as what JSON knows
"""

from lakeward_plugins.sinks.cosmos.sink import CosmosSink

__all__ = ["CosmosSink"]
