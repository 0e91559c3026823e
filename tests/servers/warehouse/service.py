"""The Thrift service that the connector calls: sessions, operations and their results."""

# ruff: noqa: N802  # Thrift calls methods by these names
from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import duckdb
import pyarrow as pa
from attrs import define, field
from databricks.sql.thrift_api.TCLIService import ttypes as T  # noqa: N812  # as the client itself calls it

from warehouse.engine import Answer, Engine
from warehouse.rules import SETTINGS, SqlError, require_few

BASE: ContextVar[str] = ContextVar("BASE")
"""How the client of the request in hand reaches this server: addresses that it is given must lead through the same proxy."""
PROTOCOL = T.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7
VALUES: dict[str, Callable[[str], Any]] = {
    "BOOLEAN": lambda text: text.lower() == "true",
    **dict.fromkeys(("TINYINT", "SMALLINT", "INT", "INTEGER", "BIGINT"), int),
    **dict.fromkeys(("FLOAT", "DOUBLE"), float),
    "DATE": datetime.date.fromisoformat,
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_NTZ"), datetime.datetime.fromisoformat),
    "STRING": str,
}
TYPES: list[tuple[Callable[[Any], bool], int]] = [
    (pa.types.is_boolean, T.TTypeId.BOOLEAN_TYPE), (pa.types.is_int8, T.TTypeId.TINYINT_TYPE),
    (pa.types.is_int16, T.TTypeId.SMALLINT_TYPE), (pa.types.is_int32, T.TTypeId.INT_TYPE), (pa.types.is_integer, T.TTypeId.BIGINT_TYPE),
    (pa.types.is_float32, T.TTypeId.FLOAT_TYPE), (pa.types.is_floating, T.TTypeId.DOUBLE_TYPE),
    (pa.types.is_timestamp, T.TTypeId.TIMESTAMP_TYPE), (pa.types.is_date, T.TTypeId.DATE_TYPE), (pa.types.is_binary, T.TTypeId.BINARY_TYPE),
    (pa.types.is_decimal, T.TTypeId.DECIMAL_TYPE), (pa.types.is_list, T.TTypeId.ARRAY_TYPE), (pa.types.is_map, T.TTypeId.MAP_TYPE),
    (pa.types.is_struct, T.TTypeId.STRUCT_TYPE), (pa.types.is_null, T.TTypeId.NULL_TYPE),
]  # fmt: skip


@define
class Operation:
    """A statement that was run, or that waits for the client to ask for it."""

    answer: Answer | None = None
    error: SqlError | None = None
    work: Callable[[], Answer] | None = None
    asked: int = 0
    given: int = field(default=0)
    """Rows that the client has had."""

    def settle(self) -> None:
        """Do the work now."""
        try:
            self.answer = self.work() if self.work else self.answer
        except SqlError as error:
            self.error = error
        self.work = None


@define(eq=False)
class Service:
    """Methods by the names that Thrift calls."""

    engine: Engine
    slow: int = 0
    """So many statements from now on are not done when the first answer comes: the client must ask for their state."""
    _sessions: dict[bytes, duckdb.DuckDBPyConnection] = field(init=False, factory=dict)
    _operations: dict[bytes, Operation] = field(init=False, factory=dict)

    def forget_sessions(self) -> None:
        """As after an hour without a word."""
        self._sessions.clear()

    def OpenSession(self, request: Any) -> Any:
        unknown = {name for name in request.configuration or {} if not name.startswith("spark.") and name.lower() not in SETTINGS}
        if unknown:
            refusal = _failed(f"[CONFIG_NOT_AVAILABLE] Configuration {unknown.pop()} is not available.")
            return T.TOpenSessionResp(status=refusal, serverProtocolVersion=PROTOCOL)
        place, handle = request.initialNamespace, _handle()
        self._sessions[handle.guid] = self.engine.session((place and place.catalogName) or "", (place and place.schemaName) or "")
        return T.TOpenSessionResp(
            status=_fine(), serverProtocolVersion=PROTOCOL, sessionHandle=T.TSessionHandle(handle, PROTOCOL), canUseMultipleCatalogs=True,
            initialNamespace=place, configuration={},
        )  # fmt: skip

    def CloseSession(self, request: Any) -> Any:
        if session := self._sessions.pop(request.sessionHandle.sessionId.guid, None):
            session.close()
        return T.TCloseSessionResp(status=_fine())

    def ExecuteStatement(self, request: Any) -> Any:
        session = self._sessions.get(request.sessionHandle.sessionId.guid)
        if session is None:
            return T.TExecuteStatementResp(status=T.TStatus(T.TStatusCode.INVALID_HANDLE_STATUS, errorMessage="Invalid SessionHandle"))
        handle = T.TOperationHandle(_handle(), T.TOperationType.EXECUTE_STATEMENT, True)
        base = BASE.get()

        def work() -> Answer:
            return self.engine.run(session, request.statement, _bound(request.parameters or ()), base)

        operation = self._operations[handle.operationId.guid] = Operation(work=work)
        if self.slow:
            self.slow -= 1
            return T.TExecuteStatementResp(_fine(), handle, directResults=T.TSparkDirectResults(operationStatus=_running()))
        operation.settle()
        return T.TExecuteStatementResp(_fine(), handle, directResults=self._direct(operation, request.getDirectResults, handle))

    def _direct(self, operation: Operation, wanted: Any, handle: Any) -> Any:
        """All in one answer, and closed, when it is not much: so does a warehouse."""
        if operation.error or wanted is None:
            return T.TSparkDirectResults(operationStatus=_state(operation))
        found = T.TSparkDirectResults(_state(operation), _described(operation), _fetched(operation, wanted.maxRows))
        if not found.resultSet.hasMoreRows:
            found.closeOperation = T.TCloseOperationResp(_fine())
            self._operations.pop(handle.operationId.guid, None)
        return found

    def GetOperationStatus(self, request: Any) -> Any:
        operation = self._operations[request.operationHandle.operationId.guid]
        operation.asked += 1
        if operation.work and operation.asked < 2:
            return _running()
        operation.settle()
        return _state(operation)

    def GetResultSetMetadata(self, request: Any) -> Any:
        return _described(self._operations[request.operationHandle.operationId.guid])

    def FetchResults(self, request: Any) -> Any:
        return _fetched(self._operations[request.operationHandle.operationId.guid], request.maxRows)

    def CloseOperation(self, request: Any) -> Any:
        self._operations.pop(request.operationHandle.operationId.guid, None)
        return T.TCloseOperationResp(_fine())

    def CancelOperation(self, request: Any) -> Any:
        return T.TCancelOperationResp(_fine())


def _bound(parameters: Sequence[Any]) -> list[Any]:
    require_few(len(parameters), sum(len(one.value.stringValue.encode()) for one in parameters if one.value is not None))
    if any(one.name for one in parameters):
        raise SqlError("UNSUPPORTED", "This stand-in knows markers of the form ? only.", "0A000")
    return [None if one.value is None else _value((one.type or "STRING").upper(), one.value.stringValue) for one in parameters]


def _value(kind: str, text: str) -> Any:
    try:
        return decimal.Decimal(text) if kind.startswith("DECIMAL") else VALUES[kind](text)
    except (KeyError, ValueError, ArithmeticError) as error:
        raise SqlError("CAST_INVALID_INPUT", f"The value '{text[:40]}' cannot be cast to {kind}.", "22018") from error


def _handle() -> Any:
    return T.THandleIdentifier(uuid.uuid4().bytes, uuid.uuid4().bytes)


def _fine() -> Any:
    return T.TStatus(T.TStatusCode.SUCCESS_STATUS)


def _failed(text: str) -> Any:
    return T.TStatus(T.TStatusCode.ERROR_STATUS, errorMessage=text)


def _running() -> Any:
    return T.TGetOperationStatusResp(status=_fine(), operationState=T.TOperationState.RUNNING_STATE)


def _state(operation: Operation) -> Any:
    if operation.error:
        text, failed = str(operation.error), T.TOperationState.ERROR_STATE
        told = {"sqlState": operation.error.state, "errorMessage": text, "displayMessage": text}
        return T.TGetOperationStatusResp(status=_fine(), operationState=failed, **told)
    changed = operation.answer.changed if operation.answer else None
    return T.TGetOperationStatusResp(
        status=_fine(), operationState=T.TOperationState.FINISHED_STATE, hasResultSet=True, numModifiedRows=changed
    )


def _described(operation: Operation) -> Any:
    assert operation.answer
    schema = operation.answer.rows.schema
    return T.TGetResultSetMetadataResp(
        status=_fine(), schema=T.TTableSchema([_column(one, place) for place, one in enumerate(schema, 1)]),
        resultFormat=T.TSparkRowSetType.ARROW_BASED_SET, lz4Compressed=False, arrowSchema=schema.serialize().to_pybytes(),
        isStagingOperation=operation.answer.staging,
    )  # fmt: skip


def _column(one: pa.Field[Any], place: int) -> Any:
    known = next((number for fits, number in TYPES if fits(one.type)), T.TTypeId.STRING_TYPE)
    width = None
    if pa.types.is_decimal(one.type):
        parts = {"precision": one.type.precision, "scale": one.type.scale}
        width = T.TTypeQualifiers({name: T.TTypeQualifierValue(i32Value=value) for name, value in parts.items()})
    return T.TColumnDesc(one.name, T.TTypeDesc([T.TTypeEntry(primitiveEntry=T.TPrimitiveTypeEntry(known, width))]), place)


def _fetched(operation: Operation, most: int) -> Any:
    assert operation.answer
    start, every = operation.given, operation.answer.rows
    rows = every.slice(start, min(most or 100_000, every.num_rows - start))  # a table without columns would give as many as it is asked for
    operation.given += rows.num_rows
    batches = rows.combine_chunks().to_batches() if rows.num_rows else []
    encoded = [T.TSparkArrowBatch(one.serialize().to_pybytes(), one.num_rows) for one in batches]
    return T.TFetchResultsResp(
        status=_fine(), hasMoreRows=operation.given < every.num_rows,
        results=T.TRowSet(startRowOffset=start, rows=[], arrowBatches=encoded), resultSetMetadata=_described(operation),
    )  # fmt: skip
