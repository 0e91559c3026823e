"""The options of `window`, and what the kernel calls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from attrs import define, field, frozen

from lakeward import END_OF_INPUT, OptionError, Refused, filtered, option
from lakeward.grouping import KEY_TYPES, MICROSECOND, Array, Plausible, event_times, plain_types
from lakeward.timestamps import Fold, Unit, check_timezone
from lakeward_plugins.transforms.window import saved
from lakeward_plugins.transforms.window.book import Book
from lakeward_plugins.transforms.window.clocks import Clocks
from lakeward_plugins.transforms.window.fields import Fields
from lakeward_plugins.transforms.window.functions import NUMBERS, Column, Plan, columns_of
from lakeward_plugins.transforms.window.kept import GridWindows, Rules
from lakeward_plugins.transforms.window.keys import Keys
from lakeward_plugins.transforms.window.report import TIME, Report
from lakeward_plugins.transforms.window.sessions import SessionWindows
from lakeward_plugins.transforms.window.shape import CENTURY, DERIVED, Grid, Shape, grid_of
from lakeward_plugins.transforms.window.table import Table


@frozen(eq=False)
class Going:
    """What there is once the columns are known."""

    derived: list[str]
    """Group keys that come from the time."""
    plan: Plan
    keys: Keys
    clocks: Clocks
    windows: GridWindows | SessionWindows
    report: Report


@define
class Window:
    """One row for each window and group key once the window is over, and again when late rows change it."""

    ports: ClassVar[tuple[str, ...]] = ("main", "late")
    row_wise: ClassVar[bool] = False
    block: ClassVar[str] = "aggregate_config"

    aggregations: dict[str, list[str] | str] = option(
        help="For each field: count, sum, mean (avg), min, max, std, median, p95, circ_mean, ... (see docs/window.md)."
    )
    window: Shape | None = option(None, help="What a window is; 5 minutes, unless keys `hour` or `day` say more.")
    window_minutes: float | None = option(None, help="Length of tumbling windows.", unit="min", minimum=0.0001, maximum=CENTURY / 60)
    group_by: list[str] = option(
        factory=lambda: ["sensor_id"],
        help="Columns whose values together are the group key; `hour` and `day` come from the time if there are no such columns.",
    )
    time_field: str = option("timestamp", help="Column with the time of the event.")
    naive_timezone: str = option("UTC", help="Timezone of times without one, or `reject`.")
    fold: Fold = option("reject", help="A local time that the clocks show twice or never: refused, or with the offset before or after.")
    time_unit: Unit = option("auto", help="Unit of times that are numbers; `auto` tells it by their size.")
    max_out_of_orderness_s: timedelta = option(
        timedelta(minutes=10),
        help="How much older than the newest row a row on time may be.",
        unit="s",
        minimum=0,
        maximum=CENTURY,
    )
    allowed_lateness_s: timedelta = option(
        timedelta(hours=1),
        help="How long after its end, by the watermark, a window takes rows.",
        unit="s",
        minimum=0,
        maximum=CENTURY,
    )
    watermark_scope: Literal["key", "global"] = option("key", help="Whether each group key has its own watermark.")
    idle_timeout_s: timedelta | None = option(
        None,
        help="A silent key is taken to be at most so much behind the newest row of all keys.",
        unit="s",
        minimum=0,
        maximum=CENTURY,
    )
    late_policy: Literal["update", "side_output", "drop"] = option(
        "update", help="What happens to rows of a window that is over: it is given out again, they go to the port `late`, or are filtered."
    )
    emit: Literal["on_close", "on_batch", "on_final"] = option(
        "on_close", help="When windows come out: when they are over, after each batch too, or once, when nothing can change them any more."
    )
    exclude_flags: list[int] = option(factory=lambda: [4, 9], help="Values whose column `qc_<field>` says so are not aggregated.")
    calm_field: str | None = option(None, help="Column with the wind speed: where it is 0, a direction of 0 is none.")
    exact_max: int = option(10_000, help="Up to so many rows a window's quantiles are exact.", unit="rows", minimum=1)
    max_open_windows: int = option(100_000, help="No more windows or keys are held.", minimum=1, maximum=500_000)
    on_state_overflow: Literal["error", "spill"] = option(
        "error", help="With more windows open: stop the run, or close the oldest windows early; their rows that come later are late."
    )
    min_time: str = option("2000-01-01", help="Rows before this time are rejected.")
    max_time: str = option("2100-01-01", help="Rows at or after this time are rejected.")
    max_future_s: timedelta = option(
        timedelta(days=1), help="Rows more than this after the time of reading are rejected.", unit="s", minimum=0, maximum=CENTURY
    )

    _columns: tuple[Column, ...] = field(init=False, eq=False, repr=False)
    _span: Plausible = field(init=False, eq=False, repr=False)
    _shape: Shape = field(init=False, eq=False, repr=False)
    _grid: Grid | None = field(init=False, eq=False, repr=False)
    _pipeline: str = field(init=False, default="", eq=False, repr=False)
    _going: Going | None = field(init=False, default=None, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._columns = columns_of(self.aggregations)
        self._span = Plausible.between(self.min_time, self.max_time, self.max_future_s)
        check_timezone(self.naive_timezone)
        if self.window is not None and self.window_minutes is not None:
            raise OptionError("window_minutes", "stands beside `window`; write one of them")
        self._shape = self.window or Shape(size=timedelta(minutes=5 if self.window_minutes is None else self.window_minutes))
        self._grid = grid_of(self._shape, self._span.low, self._span.high)

    def named(self, pipeline: str) -> None:
        """The name is a part of the identity of each window."""
        self._pipeline = pipeline

    def clock(self, now: datetime) -> None:
        """Rows from the future of this moment are rejected."""
        self._span = self._span.at(now)

    def apply(self, batch: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """The windows that these rows close or change, and the rows that came too late."""
        going = self._prepared(batch.schema)
        micros = event_times(batch, self.time_field, self.naive_timezone, self.time_unit, self.fold)
        usable, rejections = self._span.part(batch, micros, self.time_field)
        if rejections:
            batch, micros = batch.filter(pa.array(usable)), micros[usable]
        keys = self._known(going, going.keys.codes(batch))
        late = going.windows.add(Fields.of(batch, micros, going.plan, self.exclude_flags, self.calm_field), keys)
        rows = batch.filter(pa.array(late)) if late.any() else batch.slice(0, 0)
        ports = {**rejections, "main": going.report.rows(going.windows.due(), going.keys)}
        if self.late_policy == "drop":
            return ports | {"late": batch.slice(0, 0), "filtered": filtered(rows, "late")}
        return ports | {"late": rows}

    def finish(self, watermark: datetime) -> Mapping[str, pa.RecordBatch]:
        """The windows that are over at `watermark`. At the end of input all are, and rows that come for them later are late."""
        if self._going is None:  # no batch yet, so no window
            return {}
        windows = self._going.windows
        windows.finish(None if watermark == END_OF_INPUT else pa.scalar(watermark, TIME).cast(pa.int64()).as_py())
        return {"main": self._going.report.rows(windows.due(), self._going.keys)}

    def state(self) -> bytes:
        """Arrow streams: the keys, and what is known of the open windows."""
        if self._going is None:
            return b""
        going, windows, plan = self._going, self._going.windows, self._going.plan
        note = {"options": self._fingerprint(), "derived": going.derived, "text": sorted(plan.text), "absent": sorted(plan.absent)}
        if isinstance(windows, GridWindows):
            return saved.write(note, going.keys, going.clocks, windows.table, None)
        return saved.write(note | {"next": windows.next_slot}, going.keys, going.clocks, windows.table, windows.book)

    def restore(self, state: bytes) -> None:
        """Refuses sums whose meaning has changed with the options."""
        if not state:
            return
        note, batches = saved.read(state)
        if changed := [name for name, value in self._fingerprint().items() if note["options"][name] != value]:
            raise Refused(f"the state holds windows made with another {', '.join(changed)}; put it back, or use a new state directory")
        keys, plan = next(batches), Plan(self._columns, frozenset(note["text"]), frozenset(note["absent"]))
        going = self._going = self._started(keys.schema, note["derived"], plan)
        saved.restore_keys(note, keys, next(batches), going.keys, going.clocks)
        going.windows.table = saved.restored_table(batches, plan)
        if isinstance(going.windows, SessionWindows):
            going.windows.book, going.windows.next_slot = Book.restored(next(batches)), note["next"]

    def _prepared(self, schema: pa.Schema) -> Going:
        """Raises `OptionError` when the rows lack what is needed, and `Refused` when their types have changed."""
        kinds = plain_types(schema)
        for option_name, name in (("time_field", self.time_field), ("calm_field", self.calm_field)):
            if name is not None and name not in kinds:
                raise OptionError(option_name, f"no column {name!r}; columns are {', '.join(schema.names)}")
        if self.calm_field is not None and not any(suits(kinds[self.calm_field]) for suits in NUMBERS):
            raise OptionError("calm_field", f"column {self.calm_field!r} is {kinds[self.calm_field]}; expected the wind speed, a number")
        derived = [name for name in self.group_by if name in DERIVED and name not in kinds]
        for place, name in enumerate(self.group_by):
            if name not in kinds and name not in derived:
                raise OptionError(f"group_by[{place}]", f"no column {name!r}; columns are {', '.join(schema.names)}")
            if name in kinds and not any(suits(kinds[name]) for suits in KEY_TYPES):
                message = f"column {name!r} is {kinds[name]}; group by text, whole numbers or booleans"
                raise OptionError(f"group_by[{place}]", message)
        plan = Plan.of(self._columns, schema)
        keys = pa.schema([(name, kinds[name]) for name in self.group_by if name not in derived])
        if self._going is None:
            self._going = self._started(keys, derived, plan)
        elif (self._going.keys.schema, self._going.derived, self._going.plan) != (keys, derived, plan):
            raise Refused("the types of the columns have changed since the windows were opened; use a new state directory")
        return self._going

    def _known(self, going: Going, keys: Array) -> Array:
        """The numbers of these keys. When there are too many keys those are forgotten that would be the same if they were new."""
        going.clocks.grow(len(going.keys))
        if len(going.keys) <= self.max_open_windows:
            return keys
        needed = going.clocks.ahead(len(going.keys))
        needed[keys] = needed[going.windows.keys()] = True
        if (count := int(needed.sum())) > self.max_open_windows:
            raise Refused(
                f"{count} keys are known, max_open_windows allows {self.max_open_windows}; raise it, group by fewer, or let keys "
                "that are silent be forgotten by idle_timeout_s or watermark_scope: global"
            )
        numbers = np.cumsum(needed) - 1
        going.keys.keep(np.flatnonzero(needed))
        going.clocks.keep(needed)
        going.windows.renumber(numbers)
        return np.asarray(numbers[keys])

    def _started(self, key_schema: pa.Schema, derived: list[str], plan: Plan) -> Going:
        """With no window yet."""
        finest = next((name for name in DERIVED if name in derived), None)
        shape, grid = self._shape, self._grid
        if finest and self.window is None and self.window_minutes is None:
            shape = Shape(kind="calendar", size=timedelta(hours=1) if finest == "hour" else timedelta(days=1))
            grid = grid_of(shape, self._span.low, self._span.high)
        if shape.tz != "UTC" and shape.kind != "calendar" and not finest:
            raise OptionError("window.tz", f"{shape.kind} windows are aligned to UTC; use `kind: calendar`, or leave it out")
        lateness = self.allowed_lateness_s if self.late_policy == "update" else timedelta(0)
        rules = Rules(self.emit, lateness // MICROSECOND, self.exact_max, self.max_open_windows, self.on_state_overflow == "spill")
        idle = None if self.idle_timeout_s is None else self.idle_timeout_s // MICROSECOND
        keys = Keys(f"{self._pipeline}\0{shape.name}", key_schema)
        clocks = Clocks(self.max_out_of_orderness_s // MICROSECOND, self.watermark_scope == "global", idle)
        report = Report(plan, self.group_by, derived, shape.tz, self.emit == "on_batch", self.exact_max)
        names = report.names(key_schema)
        if twice := [name for name in names if names.count(name) > 1]:
            raise OptionError("group_by", f"the output would have two columns {twice[0]!r}; rename that of the input")
        hours, table = DERIVED[finest](self._span.low, self._span.high, shape.tz) if finest else None, Table.nothing(plan)
        if grid is not None:
            return Going(derived, plan, keys, clocks, GridWindows(grid, hours, rules, clocks, table), report)
        gap = (shape.gap or MICROSECOND) // MICROSECOND
        return Going(derived, plan, keys, clocks, SessionWindows(gap, hours, rules, clocks, table), report)

    def _fingerprint(self) -> dict[str, Any]:
        """The options without which the numbers in the state mean nothing."""
        columns = [column.name for column in self._columns]
        given = {"aggregations": columns, "group_by": self.group_by, "window": self._shape.name, "tz": self._shape.tz}
        names = ("watermark_scope", "min_time", "max_time", "exact_max", "late_policy", "emit")
        return given | {name: getattr(self, name) for name in names}
