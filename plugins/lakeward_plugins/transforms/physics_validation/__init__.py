"""The transform `physics_validation`.

Each file is one subject, and imports only from those below it. Read from the top.

    validator    the options, and what the kernel calls
    plan         which rules can be evaluated         past         what is remembered from batch to batch
    profiles     sets of rules to start from
    limits       judging each row alone               temporal     judging a row by its neighbours
                                                      flatness     judging windows of time
    sample       the rows of a batch as rules see them
    fields       from fields to columns and units     windows      ranges and deviations of many windows
    rule         what a rule may say                  flags        from what rules found to columns
    expression   relations between columns            tables       limits from CSV files
    reader       from text to functions               readings     columns as numbers, and where they are missing
    formulas     physics that such text may name
"""

from lakeward_plugins.transforms.physics_validation.rule import Rule
from lakeward_plugins.transforms.physics_validation.validator import PhysicsValidation, Route

__all__ = ["PhysicsValidation", "Route", "Rule"]
