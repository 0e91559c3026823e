"""The transform `window`: rows in, one row for each window and group key out, revised when late rows come.

Each file is one subject, and imports only from those below it. Read from the top.

    transform     the options, and what the kernel calls
    saved         all that is remembered, as bytes
    report        from windows to the rows that come out
    sessions      windows that end with a pause             kept        windows on a grid, while they are open
      onebyone      the same, row by row, for late rows       shape     tumbling, hopping and calendar grids
    keys          group keys and their numbers              clocks      watermarks: what is late, what is over
    table         what is known of each window: a row count, and a ledger for each kind of function
      sums          counts, means, deviations, extremes       picks     first, last, and extremes of text
      tally         how often each value came                 readings  values with their times
        ddsketch      values in bins of one percent
    functions     the names in `aggregations`, and which of these they need
"""

from lakeward_plugins.transforms.window.shape import Shape
from lakeward_plugins.transforms.window.transform import Window

__all__ = ["Shape", "Window"]
