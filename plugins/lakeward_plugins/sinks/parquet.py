"""Parquet files in a local folder: each parcel is one file that appears at once, whole, under the name of its token.

The spooled file is shipped as it is: a hard link where the folder is on the same file system, else a copy. Its name is the
same on every retry, so a parcel that is delivered again finds itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import define

from lakeward import ROW, Encoding, Parcel, Receipt, Refused, Rejected, option
from lakeward.durable import make_folder, sync
from lakeward.folders import NO_LINKS, require_writable, writing
from lakeward.partitions import Partition, require_columns, split
from lakeward.trail import Placed

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

log = logging.getLogger("lakeward.parquet")
LONGEST, MOST = 255, 4_080  # letters of a name, and of a path without two of `/` and `.parquet`, in most file systems
MADE_OF = "lakeward_parcel"  # the sha256 of the parcel, in the file of a partition


@define
class ParquetSink(Placed):
    """One Parquet file for each parcel, `<path>/<token>.parquet`. Readers never see a part of a file.

    A folder belongs to one sink. Do not change files in it while parcels wait in the spool: a file and its spooled parcel
    may be one and the same on disk. With `partition_by` there is one file for each partition, `<path>/city=London/<token>.parquet`;
    each appears whole, one after the other.
    """

    kind: ClassVar = "parquet"
    placed_by: ClassVar = ("path", "partition_by")
    path: Path = option(help="Folder for the files; made when it is not there.")
    compression: Literal["snappy", "zstd", "gzip", "none"] = option("snappy", help="How pages of the files are compressed.")
    partition_by: list[str] = option(factory=list, help="Columns whose values split each parcel into folders, as in `city=London/`.")
    row_key: bool = option(False, help="Keep the row key, the column `_row`.")
    inserted_at: str = option("", help="Add a column of this name, such as databricks_inserted_at, with the time of spooling.")

    @property
    def encoding(self) -> Encoding:
        """Files as the options say."""
        return Encoding(self.compression, self.row_key, self.inserted_at)

    def probe(self, schema: pa.Schema) -> str:
        """Where files would go; `OptionError` or `Refused` when they could not."""
        require_writable(self.path, "path")
        key = schema.get_field_index(ROW)
        require_columns(schema if self.row_key or key < 0 else schema.remove(key), self.partition_by)
        return f"would write Parquet files ({self.compression}, {len(schema)} columns) to {self.path}"

    def endpoints(self) -> list[str]:
        """The folder."""
        return [self.path.absolute().as_uri()]

    def stored(self) -> tuple[pyarrow.fs.FileSystem, list[str]]:
        """The files that are there now."""
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem(), sorted(str(file) for file in self.path.glob("**/[!._]*.parquet"))

    def facts(self) -> dict[str, str | int]:
        """Where the files are, and how many."""
        return {"place": str(self.path), "files": len(self.stored()[1])}

    def holds(self, parcel: Parcel) -> bool:
        """Whether something of the parcel is there."""
        if not self.path.is_dir():
            log.warning("%s: is not there any more, so nobody can see whether rows of %s are in it", self.path, parcel.token.name)
        try:
            if not self.partition_by:
                return _there(self.path / f"{parcel.token.name}.parquet", parcel)
            return any(_made_of(self._target(part, parcel), parcel) for part in self._split(parcel))
        except (Refused, Rejected):  # what is there is of another parcel, or such rows could not be written
            return False

    def write(self, parcel: Parcel) -> Receipt:
        """All of the parcel, but for what is there."""
        if self.partition_by:
            return self._deliver_partitions(parcel)
        target = self.path / f"{parcel.token.name}.parquet"
        with writing("Parquet files", self.path):
            make_folder(self.path.absolute())
            if not _there(target, parcel):
                _ship(parcel.path, target)
            sync(self.path)  # on a retry too: the first attempt may have ended before this line
            return Receipt(str(target), {"bytes": target.stat().st_size})

    def _deliver_partitions(self, parcel: Parcel) -> Receipt:
        """A retry passes over what is there already, if it was made from this parcel."""
        import pyarrow as pa  # they are for those who partition
        import pyarrow.parquet as pq

        size, folders = 0, dict[str, Path]()
        with writing("Parquet files", self.path):
            make_folder(self.path.absolute())
            partitions = list(self._split(parcel))
            for partition in partitions:  # all folders before the first file: what is refused must leave no rows behind
                folder = self._target(partition, parcel).parent
                make_folder(folder)
                other = folders.setdefault(partition.folder.lower(), folder)
                if other != folder and other.samefile(folder):
                    raise Refused(f"{folder} and {other} are one for this file system, and there would be no room for both; choose another")
            for partition in partitions:
                target = self._target(partition, parcel)
                part = target.with_name(f".{parcel.token.name}.part")
                if not _made_of(target, parcel):
                    texts = [one.name for one in partition.rows.schema if pa.types.is_string(one.type)]
                    table = pa.Table.from_batches([partition.rows])
                    with pq.ParquetWriter(part, table.schema, compression=self.compression, use_dictionary=texts or False) as writer:  # type: ignore[arg-type]  # a list of names is allowed as well
                        writer.write_table(table)
                        writer.add_key_value_metadata({MADE_OF: parcel.sha256})
                    sync(part)
                    part.rename(target)
                size += target.stat().st_size
                sync(target.parent)
        return Receipt(str(self.path), {"bytes": size})

    def _split(self, parcel: Parcel) -> Iterator[Partition]:
        room = MOST - len(os.fsencode(self.path.absolute())) - len(parcel.token.name)
        return split(parcel.table(), self.partition_by, LONGEST, room)

    def _target(self, partition: Partition, parcel: Parcel) -> Path:
        return self.path.absolute() / partition.folder / f"{parcel.token.name}.parquet"


def _there(target: Path, parcel: Parcel) -> bool:
    if not os.path.lexists(target):
        return False
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != parcel.sha256:
        raise Refused(
            f"{target} is there already with other content (sha256 {found[:12]}, not {parcel.sha256[:12]}); "
            "give this sink a folder of its own, or move that file away if it was damaged"
        )
    return True


def _made_of(target: Path, parcel: Parcel) -> bool:
    """Whether a partition of this parcel is there. Refused when it is one of another parcel."""
    import pyarrow.parquet as pq

    if not os.path.lexists(target):
        return False
    if (pq.read_metadata(target).metadata or {}).get(MADE_OF.encode()) != parcel.sha256.encode():
        raise Refused(f"{target} is there already with other content; give this sink a folder of its own, or move that file away")
    return True


def _ship(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # the content is synced already, and a link appears whole and never replaces anything
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """Through a name that readers do not look at; what a killed attempt left under it is replaced."""
    part = target.with_name(f".{target.stem}.part")
    try:
        part.unlink(missing_ok=True)
        shutil.copyfile(source, part)
        sync(part)
        part.rename(target)
    except OSError:
        part.unlink(missing_ok=True)  # on a full disk every byte counts
        raise
