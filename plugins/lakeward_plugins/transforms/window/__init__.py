"""The transform `window`: rows in, one row for each window and group key out, revised when late rows come.

Each file is one subject, and imports only from those below it. Read from the top; what is indented is for hard days only.

    transform     the options, and what the kernel calls
    report        from windows to the rows that come out     saved     all that is remembered, as bytes
    sessions      windows that end with a pause
    kept          windows on a grid while they can change, and what is due
      onebyone      sessions row by row, for old rows          book      sessions as columns
    shape         tumbling, hopping and calendar grids       clocks    watermarks: what is late, what is over
    keys          group keys and the ids of windows
    table         what is known of each window: its rows, and a ledger for each kind of function
    fields        what of a batch is a reading
    sums          counts, means, deviations, extremes        picks     first, last, and extremes of text
    tally         how often each value came                  readings  values with their times
      ddsketch      values in bins of one percent
    functions     the names in `aggregations`, and what must be known for them
"""

from lakeward_plugins.transforms.window.shape import Shape
from lakeward_plugins.transforms.window.transform import Window

__all__ = ["Shape", "Window"]
